"""Open VisualDL over all runs below a folder; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
from pathlib import Path

from liteseg.cli.arguments import complete, positive
from liteseg.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg dash`."""
    parser.add_argument("folder", metavar="DIR", help="a run, or a folder with runs in it")
    parser.add_argument("--port", type=positive, default=8040, help="of the server (8040)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: reached from outside"
    )
    complete(parser, "liteseg dash output", "liteseg dash output/my --port 8050")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; does not come back."""
    folder = Path(args.folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a run, or a folder with runs in it")
    runs = sorted({path.parent.parent for path in folder.rglob("vdlrecords.*.log")})
    if not runs:
        raise UserError(f"{folder} holds no run (no vdl/ in it); give the --output of a training")
    if importlib.util.find_spec("visualdl") is None:
        raise UserError("VisualDL is not installed: pip install visualdl (`liteseg doctor` checks)")
    _require_free(args.host, args.port)
    print(f"{len(runs)} runs at http://{args.host}:{args.port}/app; Ctrl-C ends", flush=True)
    # VisualDL names runs by their path as it gets it, so it gets the shortest one that tells.
    folder = folder.resolve()
    os.chdir(folder.parent)
    command = [sys.executable, "-m", "visualdl.server.app", "--logdir", folder.name]
    command += ["--host", args.host, "--port", str(args.port), "--disable-telemetry"]
    os.execv(sys.executable, command)  # in place of this process: what ends it ends the server


def _require_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: can't listen there: {error.strerror or error}; another "
            "dashboard may be running: end it, or give another --port"
        ) from None
