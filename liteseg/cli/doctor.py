"""Report what on this machine would break training, and the fix."""

from __future__ import annotations

import argparse
from pathlib import Path

from liteseg import __version__
from liteseg.cli.arguments import add_json, complete, save_json
from liteseg.doctor.checks import run_checks
from liteseg.doctor.findings import BAD, NOTE
from liteseg.utils.text import safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `liteseg doctor`."""
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="output",
        help="directory in which runs would be written (default: output)",
    )
    add_json(parser, "the findings")
    complete(parser, "liteseg doctor")


def run(args: argparse.Namespace) -> int:
    """Print each finding; exit code 2 if one of them would break training."""
    print(f"liteseg {__version__} in {Path(__file__).resolve().parents[1]}")
    findings = []
    for finding in run_checks(Path(args.output)):
        findings.append(finding)
        print(safe(str(finding)), flush=True)
    bad = sum(finding.state == BAD for finding in findings)
    notes = sum(finding.state == NOTE for finding in findings)
    print(f"{bad} would break training, {notes} to note" if bad or notes else "no problems found")
    save_json(args, {"liteseg": __version__, "findings": [f._asdict() for f in findings]})
    return 2 if bad else 0
