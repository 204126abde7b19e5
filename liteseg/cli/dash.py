"""Open VisualDL over all runs in a folder; Ctrl-C stops it."""

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
    parser.add_argument("folder", metavar="DIR", help="a run, or a folder that contains runs")
    parser.add_argument(
        "--port", type=positive, default=8040, metavar="N", help="port to listen on (default: 8040)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 is reachable from other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--public-path",
        default="/app",
        metavar="PATH",
        help="path of the pages, for a proxy that passes on one path (default: /app)",
    )
    complete(parser, "liteseg dash output", "liteseg dash output/my --port 8050")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; does not return."""
    folder = Path(args.folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a run, or a folder that contains runs")
    runs = sorted({path.parent.parent for path in folder.rglob("vdlrecords.*.log")})
    if not runs:
        raise UserError(
            f"{folder} contains no run (no vdl/ in it); give the --output of a training"
        )
    if importlib.util.find_spec("visualdl") is None:
        raise UserError("VisualDL is not installed: pip install visualdl (`liteseg doctor` checks)")
    _require_free(args.host, args.port)
    path = "/" + args.public_path.strip("/")
    if path == "/":
        raise UserError("--public-path /: VisualDL needs a path such as /app")
    print(f"{len(runs)} runs at http://{args.host}:{args.port}{path}; Ctrl-C stops", flush=True)
    # VisualDL names runs by their path as given: pass the shortest unambiguous one.
    folder = folder.resolve()
    os.chdir(folder.parent)
    server = str(Path(__file__).with_name("dash_server.py"))
    command = [sys.executable, server, "--logdir", folder.name]
    command += ["--host", args.host, "--port", str(args.port), "--disable-telemetry"]
    command += ["--public-path", path]
    os.execv(sys.executable, command)  # replaces this process: ending it ends the server


def _require_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: can't listen there: {error.strerror or error}; another "
            "dashboard may be running: stop it, or give another --port"
        ) from None
