"""All checks of `liteseg doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from liteseg.doctor import machine, packages
from liteseg.doctor.findings import Finding


def run_checks(output: Path) -> Iterator[Finding]:
    """Run all checks, in parallel, and yield their findings in a fixed order.

    Args:
        output: folder in which runs would be written.
    """
    checks: list[Callable[[], list[Finding]]] = [
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
        for findings in pool.map(lambda check: check(), checks):
            yield from findings
