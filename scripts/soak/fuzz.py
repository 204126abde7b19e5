"""Fuzz every file format that liteseg reads, guided by coverage, for a bounded time.

Inputs that reach new lines of liteseg are kept and changed further. An input that raises anything
but a UserError, takes longer than --limit seconds or more than --memory MB is written to --output,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fuzz"))

from targets import TARGETS, Target, run  # noqa: E402

PIECES = [
    b"\xff" * 4, bytes(8), b"\x7f\xff\xff\xff", b"[", b"{", b'"', b"-1", b"1e999", b"null", b"NaN",
    b"../", b"\n", b"\x80\x04", b"R", b"b", b"s", b"h\x00", b"q\x00", b"\x86",
]  # fmt: skip


def mutate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """`content` with one to four random changes; some insert a part of `other`."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        start = rng.randrange(len(other) + 1)
        new = rng.choice([b"", rng.randbytes(rng.randint(1, 4)), rng.choice(PIECES),
                          other[start : start + rng.randint(1, 40)]])  # fmt: skip
        end = rng.choice([at, min(end, at + 8), min(at + len(new), len(content))])
        content = content[:at] + new + content[end:]
    return content[:100_000]


def lines_of(target: Target, content: bytes) -> set[tuple[str, int]]:
    """The lines of liteseg that reading `content` reaches."""
    seen: set[tuple[str, int]] = set()
    package = str(ROOT / "liteseg")

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    with tempfile.TemporaryDirectory() as folder:
        sys.settrace(trace)
        try:
            run(target, content, Path(folder))
        finally:
            sys.settrace(None)
    return seen


def fuzz(name: str, seconds: float, limit: int, rng: random.Random, output: Path) -> int:
    """Fuzz one target; the number of failures."""
    target, corpus, failures = TARGETS[name], [TARGETS[name].sound], 0
    seen, count, end = lines_of(target, target.sound), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        content = mutate(rng.choice(corpus), rng.choice(corpus), rng)
        signal.alarm(limit)
        try:
            found = lines_of(target, content)
            if not found <= seen:
                seen |= found
                corpus.append(content)
        except Exception:  # TimeoutError and MemoryError too
            failures += 1
            (output / f"{name}_{failures}_{target.name}").write_bytes(content)
            traceback.print_exc()
        finally:
            signal.alarm(0)
        count += 1
    print(f"{name}: {count} inputs, {len(seen)} lines, {len(corpus)} kept, {failures} failures")
    return failures


def main() -> int:
    """Fuzz the chosen targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="(default: all)")
    parser.add_argument("--seconds", type=float, default=60, help="per target (default: 60)")
    parser.add_argument("--limit", type=int, default=20, help="seconds per input (default: 20)")
    parser.add_argument("--memory", type=int, default=4096, help="MB in total (default: 4096)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="(default: fuzz)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    usage = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (usage + (args.memory << 20),) * 2)

    def too_slow(number, frame):
        raise TimeoutError(f"more than {args.limit} s")

    signal.signal(signal.SIGALRM, too_slow)
    rng = random.Random(args.seed)
    names = args.targets or list(TARGETS)
    failures = sum(fuzz(name, args.seconds, args.limit, rng, args.output) for name in names)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
