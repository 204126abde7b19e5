"""`liteseg doctor`: what on this machine would break training, and how to mend it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from liteseg import __version__
from liteseg.cli.arguments import complete
from liteseg.doctor import machine as machine
from liteseg.doctor import packages as packages
from liteseg.doctor.findings import BAD, NOTE, Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg doctor`."""
    parser.add_argument(
        "--output", metavar="DIR", default="output", help="where runs would be written (output)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON")
    complete(parser, "liteseg doctor")


def run(args: argparse.Namespace) -> int:
    """Print each finding; 2 when one of them would break training."""
    print(f"liteseg {__version__} in {Path(__file__).resolve().parents[1]}")
    findings = []
    for finding in examine(Path(args.output)):
        findings.append(finding)
        print(format_finding(finding), flush=True)
    bad = sum(finding.state == BAD for finding in findings)
    notes = sum(finding.state == NOTE for finding in findings)
    print(f"{bad} would break training, {notes} to note" if bad or notes else "all is well")
    if args.json:
        from liteseg.utils.files import write_json

        report = {"liteseg": __version__, "findings": [f._asdict() for f in findings]}
        write_json(args.json, report)
    return 2 if bad else 0


def examine(output: Path) -> Iterator[Finding]:
    """All findings, in a fixed order; the slow checks run side by side."""
    checks: list[Callable[[], Finding | list[Finding]]] = [
        packages.check_python,
        packages.check_paddle,
        packages.check_packages,
        packages.check_imports,
        packages.check_device,
        packages.check_import_order,
        machine.check_cpu,
        machine.check_memory,
        machine.check_shared_memory,
        lambda: machine.check_disk(output),
        machine.check_dashboard,
    ]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda check: check(), checks):
            yield from [found] if isinstance(found, Finding) else found


def format_finding(finding: Finding) -> str:
    """A line for the terminal, and one for the mend."""
    line = f"{finding.state:4}  {finding.check:13}  {finding.found}"
    return f"{line}\n{'':21}-> {finding.mend}" if finding.mend else line
