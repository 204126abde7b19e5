"""Fuzz every file format that liteseg reads, guided by coverage, for a bounded time.

Requires `pip install atheris` (libFuzzer for Python). An input that raises other than a UserError,
takes longer than --limit seconds or more than --memory MB in total ends its target, is written to
--output, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

_TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(_TESTS / "fuzz"), str(_TESTS)]

with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["liteseg"]):
    from targets import TARGETS, run


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one target until libFuzzer ends this process."""

    def test(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(TARGETS[name], content, Path(folder))

    with tempfile.TemporaryDirectory() as corpus:
        Path(corpus, "sound").write_bytes(TARGETS[name].sound)
        atheris.Setup([name, *options, corpus], test)
        atheris.Fuzz()


def main() -> int:
    """Fuzz the chosen targets, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="(default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="per target (default: 60)")
    parser.add_argument("--limit", type=int, default=20, help="seconds per input (default: 20)")
    parser.add_argument("--memory", type=int, default=4096, help="MB in total (default: 4096)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="(default: fuzz)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={args.seconds}",
        f"-timeout={args.limit}",
        f"-rss_limit_mb={args.memory}",
        f"-seed={args.seed}",
        f"-artifact_prefix={args.output}/",
        "-max_len=100000",
        "-print_final_stats=1",
    ]
    failed = []
    for name in args.targets or TARGETS:
        print(f"--- {name}", flush=True)
        process = subprocess.run([sys.executable, __file__, "--here", name, *options], check=False)
        failed += [name] if process.returncode else []
    print(f"failed: {', '.join(failed)}" if failed else "no failures")
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main())
