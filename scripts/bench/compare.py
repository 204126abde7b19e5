"""Time liteseg against PaddleSeg: the same work in turns, results compared, a table of ratios.

`run.sh` makes the environments and starts this. Each peer is a process; the peers of a case run
together and take turns, so that any other load on the machine affects all of them. A peer is
compared with PaddleSeg on the same Paddle, or with the first peer, by the ratio of the medians: in
wall time, and in CPU time of all threads, which does not depend on the number of cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

BENCH = Path(__file__).resolve().parent


class Case(NamedTuple):
    """A piece of work.

    Attributes:
        name: one of `CASES` in the peers.
        samples: samples per run; the case then runs on one core and reports samples per second.
        share: share of the rounds.
        warm_up: whether an untimed run comes first.
        needs: name in the work folder without which the case is left out.
    """

    name: str
    samples: int = 0
    share: float = 1.0
    warm_up: bool = True
    needs: str = ""


CASES = (
    Case("training iteration"),
    Case("OHEM head"),
    Case("samples from PNG", samples=10, needs="cityscapes"),
    Case("samples from a pack", samples=10, needs="cityscapes.pack"),
    Case("confusion counts"),
    Case("evaluate Cityscapes", share=0.5, warm_up=False, needs="cityscapes"),
    Case("evaluate CamVid", share=0.3, warm_up=False, needs="camvid"),
)

# First word of a result: measure of its difference, and the largest one accepted.
TOLERANCES = {
    "image": ("mean difference in gray levels", 0.5),
    "label": ("share of other labels", 1e-3),
    "hits": ("largest difference", 0),
    "area": ("largest difference", 0),
    "loss": ("relative difference", 1e-4),
    "losses": ("relative difference", 1e-4),
    "gradient": ("relative difference", 1e-3),
    # Random weights amplify rounding: PaddleSeg's gradient in float32 differs from the one in
    # float64 by 0.4 %, liteseg's by 0.5 %.
    "weights": ("relative difference", 0.02),
    "statistics": ("relative difference", 1e-4),
    "accuracy": ("largest difference", 1e-4),
    "kappa": ("largest difference", 1e-4),
    "IoU": ("largest difference", 1e-3),
}
MEASURES = {
    "mean difference in gray levels": lambda a, b: np.abs(a - b).mean(),
    "share of other labels": lambda a, b: (a != b).mean(),
    "largest difference": lambda a, b: np.abs(a - b).max(),
    "relative difference": lambda a, b: np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12),
}


class Command(NamedTuple):
    """The command line of a peer."""

    python: str
    script: str
    env: dict[str, str]


class Peer:
    """A process that runs one case with `protocol.serve`."""

    def __init__(self, command: Command, case: Case, work: Path):
        arguments = [command.python, str(BENCH / command.script), case.name, str(work)]
        core = min(os.sched_getaffinity(0))
        pin = (lambda: os.sched_setaffinity(0, {core})) if case.samples else None
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **command.env},
            preexec_fn=pin,
        )
        self.about = self._answer()["about"]
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.peak_mib = 0.0

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._process.args)} ended early; its error is above")
        return json.loads(line)

    def _request(self, command: str) -> dict[str, Any]:
        print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def run(self, timed: bool = True) -> None:
        """Run the case once."""
        answer = self._request("run")
        if timed:
            self.seconds.append(answer["seconds"])
            self.cpu_seconds.append(answer["cpu_seconds"])
            self.peak_mib = answer["peak_mib"]

    def result(self, folder: Path) -> dict[str, np.ndarray]:
        """The results of the case."""
        with np.load(self._request(f"result {folder / 'result.npz'}")["result"]) as arrays:
            return dict(arrays)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def _peers(commands: Sequence[Command], case: Case, work: Path) -> Iterator[list[Peer]]:
    with contextlib.ExitStack() as stack:
        peers = []
        for command in commands:
            peers.append(Peer(command, case, work))
            stack.callback(peers[-1].close)
        yield peers


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    """A sentence for each result that is in both and differs."""
    sentences = []
    for name in found.keys() & expected.keys():
        measure_name, limit = TOLERANCES[name.split()[0]]
        a, b = (np.asarray(side[name], np.float64) for side in (found, expected))
        if a.shape != b.shape:
            sentences.append(f"{name} is {a.shape}, not {b.shape}")
        elif not (measured := MEASURES[measure_name](a, b)) <= limit:
            sentences.append(f"{name}: {measure_name} {measured:.3g}, at most {limit:g}")
    return sorted(sentences) if found.keys() & expected.keys() else ["no result in common"]


def measure(commands: Sequence[Command], case: Case, work: Path, rounds: int) -> list[dict]:
    """The measurements of one case: a row for each peer."""
    with _peers(commands, case, work) as peers:
        for number in range(-1 if case.warm_up else 0, max(1, round(rounds * case.share))):
            for peer in peers if number % 2 else peers[::-1]:
                peer.run(timed=number >= 0)
        with tempfile.TemporaryDirectory() as folder:
            results = [peer.result(Path(folder)) for peer in peers]
        bases = [_base(peer.about, [other.about for other in peers]) for peer in peers]
        return [
            _row(case, peer, peers[base], differences(result, results[base]))
            for peer, result, base in zip(peers, results, bases)
        ]


def _base(about: str, all_abouts: Sequence[str]) -> int:
    """Index of the peer to compare with: PaddleSeg on the same Paddle, else the first peer."""
    base = ("PaddleSeg", about.partition(", ")[2])
    peers = [(other.split()[0], other.partition(", ")[2]) for other in all_abouts]
    return peers.index(base) if base in peers else 0


def _row(case: Case, peer: Peer, base: Peer, found_differences: list[str]) -> dict[str, Any]:
    median = statistics.median
    return {
        "work": case.name,
        "peer": peer.about,
        "samples": case.samples,
        "seconds": peer.seconds,
        "cpu_seconds": peer.cpu_seconds,
        "ratio": median(base.seconds) / median(peer.seconds),
        "cpu_ratio": median(base.cpu_seconds) / median(peer.cpu_seconds),
        "peak_mib": peer.peak_mib,
        "is_base": peer is base,
        "differences": found_differences,
    }


def table(rows: list[dict]) -> str:
    """The rows as Markdown: a line for each case, a column for each peer."""
    abouts = list(dict.fromkeys(row["peer"] for row in rows))
    lines = [f"| work | {' | '.join(abouts)} |", "|---" * (len(abouts) + 1) + "|"]
    for work in dict.fromkeys(row["work"] for row in rows):
        cells = {row["peer"]: _cell(row) for row in rows if row["work"] == work}
        lines.append(f"| {work} | " + " | ".join(cells.get(about, "") for about in abouts) + " |")
    return "\n".join(lines)


def _cell(row: dict) -> str:
    """Median and range, ratio to the base, memory. Samples are counted per second of CPU time."""
    if row["samples"]:
        speeds = [row["samples"] / seconds for seconds in row["cpu_seconds"]]
        ratio = f", **{row['cpu_ratio']:.1f}x**"
        text = f"{_range(speeds)} per second and core"
    else:
        milli = statistics.median(row["seconds"]) < 1
        text = f"{_range([s * (1000 if milli else 1) for s in row['seconds']])} {'m' * milli}s"
        ratio = f", **{row['ratio']:.1f}x** ({row['cpu_ratio']:.1f}x in CPU time)"
    tail = f", {row['peak_mib']:.0f} MiB{', DIFFERS' if row['differences'] else ''}"
    return text + ("" if row["is_base"] else ratio) + tail


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def machine() -> str:
    """Cores, processor and system."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1] for line in info.splitlines() if "model name" in line), "")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model.strip() or platform.machine()}, {platform.system()}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure; 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--paddleseg",
        action="append",
        required=True,
        metavar="PYTHON",
        help="Python with PaddleSeg; may be repeated, for several versions of Paddle",
    )
    parser.add_argument(
        "--liteseg",
        action="append",
        metavar="PYTHON",
        help="Python with liteseg's dependencies; may be repeated (default: this one)",
    )
    parser.add_argument(
        "--torch",
        metavar="PYTHON",
        help="Python with PyTorch, which runs the training iteration too (default: left out)",
    )
    parser.add_argument(
        "--cityscapes", type=Path, metavar="DIR", help="Cityscapes (default: synthetic streets)"
    )
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid (default: left out)")
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="timed runs per case (default: 7)"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[case.name for case in CASES],
        help="run this case; may be repeated (default: all cases)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}; give 1 or more")
    path = os.pathsep.join([str(BENCH.parents[1]), os.environ.get("PYTHONPATH", "")])
    ours = [
        Command(python, "peer_liteseg.py", {"PYTHONPATH": path})
        for python in args.liteseg or [sys.executable]
    ]
    commands = [*(Command(python, "peer_paddleseg.py", {}) for python in args.paddleseg), *ours]
    with tempfile.TemporaryDirectory(prefix="liteseg-bench-") as folder:
        from prepare import prepare

        prepare(Path(folder), args.cityscapes, args.camvid)
        rows = list(_measure_all(commands, args, Path(folder)))
    about = {"machine": machine(), "date": datetime.now(timezone.utc).strftime("%Y-%m-%d")}
    print(f"\n{about['machine']}, {about['date']}\n\n{table(rows)}")
    if args.json:
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    return 1 if any(row["differences"] for row in rows) else 0


def _measure_all(commands: list[Command], args: argparse.Namespace, work: Path) -> Iterator[dict]:
    for case in CASES:
        if args.only and case.name not in args.only:
            continue
        if case.needs and not (work / case.needs).exists():
            print(f"{case.name}: left out, no --{case.needs}", file=sys.stderr)
            continue
        extra = []
        if args.torch and case.name == "training iteration":
            extra = [Command(args.torch, "peer_torch.py", {})]
        for row in measure([*commands, *extra], case, work, args.rounds):
            print(f"{case.name}: {row['peer']}: {_cell(row)}", file=sys.stderr)
            for sentence in row["differences"]:
                print(f"  {sentence}", file=sys.stderr)
            yield row


if __name__ == "__main__":
    sys.exit(main())
