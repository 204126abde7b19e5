"""Open VisualDL over all runs in a folder; Ctrl-C stops it."""

from __future__ import annotations

import argparse

from liteseg.cli.arguments import complete, positive


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
    from liteseg.tasks.dash import serve_dashboard

    serve_dashboard(args.folder, args.host, args.port, args.public_path)
