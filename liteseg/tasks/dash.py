"""`serve_dashboard`: VisualDL over all runs below a folder."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn, Union

from liteseg.errors import UserError


def serve_dashboard(
    folder: Union[str, Path], host: str = "127.0.0.1", port: int = 8040, public_path: str = "/app"
) -> NoReturn:
    """Serve until interrupted, in place of this process.

    Args:
        folder: a run, or a folder that contains runs.
        host: address to listen on; `0.0.0.0` is reachable from other machines.
        port: port to listen on.
        public_path: path of the pages, for a proxy that passes on one path.

    Raises:
        UserError: no run is found, VisualDL is missing, or the port is in use.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a run, or a folder that contains runs")
    runs = sorted({path.parent.parent for path in folder.rglob("vdlrecords.*.log")})
    if not runs:
        raise UserError(
            f"{folder} contains no run (no vdl/ in it); give the --output of a training"
        )
    if importlib.util.find_spec("visualdl") is None:
        raise UserError("VisualDL is not installed: pip install visualdl (`liteseg doctor` checks)")
    _require_free(host, port)
    path = "/" + public_path.strip("/")
    if path == "/":
        raise UserError("--public-path /: VisualDL needs a path such as /app")
    print(f"{len(runs)} runs at http://{host}:{port}{path}; Ctrl-C stops", flush=True)
    # VisualDL names runs by their path as given: pass the shortest unambiguous one.
    folder = folder.resolve()
    os.chdir(folder.parent)
    server = str(Path(__file__).with_name("dashboard_server.py"))
    command = [sys.executable, server, "--logdir", folder.name]
    command += ["--host", host, "--port", str(port), "--disable-telemetry"]
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
