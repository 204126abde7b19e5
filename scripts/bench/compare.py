"""Time liteseg against PaddleSeg: the same work by turns, the same results, a table of ratios.

`run.sh` makes the environments and starts this. Each peer works in a process of its own; those of a
case are alive together and take turns, so that whatever else the machine does falls on all alike.
The others are compared with the PaddleSeg that has the same Paddle, or with the first one, by the
ratio of the medians, in wall time and in CPU time (of all threads: how much less work it is,
whatever the number of cores).
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
    """A piece of work, `samples` of them a run; `needs` is a name in the work folder."""

    name: str
    samples: int = 0  # above 0: on one core, and told as samples a second
    share: float = 1.0  # of the rounds
    warm_up: bool = True
    needs: str = ""


CASES = (
    Case("training step"),
    Case("OHEM head"),
    Case("samples from PNG", samples=10, needs="cityscapes"),
    Case("samples from a pack", samples=10, needs="cityscapes.pack"),
    Case("confusion counts"),
    Case("evaluate Cityscapes", share=0.5, warm_up=False, needs="cityscapes"),
    Case("evaluate CamVid", share=0.3, warm_up=False, needs="camvid"),
)

# First word of a result: how two of them are compared, and the largest value that is the same.
TOLERANCES = {
    "image": ("mean difference in grey levels", 0.5),
    "label": ("share of other labels", 1e-3),
    "hits": ("largest difference", 0),
    "area": ("largest difference", 0),
    "loss": ("relative difference", 1e-4),
    "losses": ("relative difference", 1e-4),
    "gradient": ("relative difference", 1e-3),
    # Random weights magnify rounding: PaddleSeg's own gradient in float32 is 0.4 % from that in
    # float64, ours 0.5 %.
    "weights": ("relative difference", 0.02),
    "statistics": ("relative difference", 1e-4),
    "accuracy": ("largest difference", 1e-4),
    "kappa": ("largest difference", 1e-4),
    "IoU": ("largest difference", 1e-3),
}
MEASURES = {
    "mean difference in grey levels": lambda a, b: np.abs(a - b).mean(),
    "share of other labels": lambda a, b: (a != b).mean(),
    "largest difference": lambda a, b: np.abs(a - b).max(),
    "relative difference": lambda a, b: np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12),
}


class Command(NamedTuple):
    """How a peer is started."""

    python: str
    script: str
    env: dict[str, str]


class Peer:
    """A process that works on one case; `protocol.serve` is its other end."""

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
            raise SystemExit(f"{' '.join(self._process.args)} ended early; see above")
        return json.loads(line)

    def _ask(self, order: str) -> dict[str, Any]:
        print(order, file=self._process.stdin, flush=True)
        return self._answer()

    def run(self, counts: bool = True) -> None:
        """Work once."""
        answer = self._ask("run")
        if counts:
            self.seconds.append(answer["seconds"])
            self.cpu_seconds.append(answer["cpu_seconds"])
            self.peak_mib = answer["peak_mib"]

    def result(self, folder: Path) -> dict[str, np.ndarray]:
        """What the case computes."""
        with np.load(self._ask(f"result {folder / 'result.npz'}")["result"]) as arrays:
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


def differences(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> list[str]:
    """What is not the same in two results, a sentence each; compares what both have."""
    told = []
    for name in found.keys() & wanted.keys():
        how, limit = TOLERANCES[name.split()[0]]
        a, b = (np.asarray(side[name], np.float64) for side in (found, wanted))
        if a.shape != b.shape:
            told.append(f"{name} is {a.shape}, not {b.shape}")
        elif not (measured := MEASURES[how](a, b)) <= limit:
            told.append(f"{name}: {how} {measured:.3g}, at most {limit:g}")
    return sorted(told) if found.keys() & wanted.keys() else ["no result in common"]


def measure(commands: Sequence[Command], case: Case, work: Path, rounds: int) -> list[dict]:
    """One case: a row of figures for each peer."""
    with _peers(commands, case, work) as peers:
        for number in range(-1 if case.warm_up else 0, max(1, round(rounds * case.share))):
            for peer in peers if number % 2 else peers[::-1]:
                peer.run(counts=number >= 0)
        with tempfile.TemporaryDirectory() as folder:
            results = [peer.result(Path(folder)) for peer in peers]
        bases = [_base(peer.about, [other.about for other in peers]) for peer in peers]
        return [
            _row(case, peer, peers[base], differences(result, results[base]))
            for peer, result, base in zip(peers, results, bases)
        ]


def _base(about: str, all_abouts: Sequence[str]) -> int:
    """The peer that `about` is compared with: PaddleSeg on the same Paddle, else the first."""
    same = ("PaddleSeg", about.partition(", ")[2])
    known = [(other.split()[0], other.partition(", ")[2]) for other in all_abouts]
    return known.index(same) if same in known else 0


def _row(case: Case, peer: Peer, base: Peer, wrong: list[str]) -> dict[str, Any]:
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
        "differences": wrong,
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
    """Median and range, ratio to the base, memory; for samples by CPU time, which is per core."""
    if row["samples"]:
        speeds = [row["samples"] / seconds for seconds in row["cpu_seconds"]]
        ratio = f", **{row['cpu_ratio']:.1f}x**"
        text = f"{_range(speeds)} a second and core"
    else:
        milli = statistics.median(row["seconds"]) < 1
        text = f"{_range([s * (1000 if milli else 1) for s in row['seconds']])} {'m' * milli}s"
        ratio = f", **{row['ratio']:.1f}x** ({row['cpu_ratio']:.1f}x in CPU time)"
    tail = f", {row['peak_mib']:.0f} MiB{', DIFFERS' if row['differences'] else ''}"
    return text + ("" if row["is_base"] else ratio) + tail


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def machine() -> str:
    """What this ran on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1] for line in info.splitlines() if "model name" in line), "")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model.strip() or platform.machine()}, {platform.system()}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure; 1 if two peers that should compute the same don't."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--paddleseg",
        action="append",
        required=True,
        metavar="PYTHON",
        help="that has PaddleSeg; may be repeated, for several versions of Paddle",
    )
    parser.add_argument(
        "--liteseg",
        action="append",
        metavar="PYTHON",
        help="that has liteseg's dependencies; may be repeated (default: this one)",
    )
    parser.add_argument(
        "--twin", nargs=2, metavar=("PYTHON", "DIR"), help="one with PyTorch, and torch_twin.py's"
    )
    parser.add_argument("--cityscapes", type=Path, metavar="DIR", help="default: synthetic streets")
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="default: not evaluated")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="runs of each case")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
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
        if args.twin and case.name == "training step":
            extra = [Command(args.twin[0], "peer_torch.py", {"TWIN": args.twin[1]})]
        for row in measure([*commands, *extra], case, work, args.rounds):
            print(f"{case.name}: {row['peer']}: {_cell(row)}", file=sys.stderr)
            for sentence in row["differences"]:
                print(f"  {sentence}", file=sys.stderr)
            yield row


if __name__ == "__main__":
    sys.exit(main())
