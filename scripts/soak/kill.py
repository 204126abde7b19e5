"""Kill a training with SIGKILL at random times, resume it, and check that nothing is lost.

After each kill: an intact checkpoint of the last interval exists, and an intact `best` that is the
best. After each start: no worker, no file in the shared memory and no partial file of the killed
process is left. At the end: checkpoint, metrics and curves are bitwise equal to those of a training
that was not killed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny import liteseg, prepare

import liteseg as _liteseg  # noqa: F401  before Paddle
from liteseg.utils.weights.load import read_state

SAVE, EVALUATE = 5, 10
TIMES = {"images_per_second", "seconds_per_step", "reader_share", "seconds", "timings"}
SHARED_MEMORY = Path("/dev/shm")


class Training:
    """A training process in the run directory `run`, started or resumed, and its workers."""

    def __init__(self, config: Path, run: Path, workers: int):
        self.run = run
        resumed = any((run / "checkpoints").glob("[!.]*"))
        self.log = run.parent / f"{run.name}.out"
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        command = liteseg("train", "--config", config, "--output", run)
        command += ["--set", f"num_workers={workers}", *(["--resume"] if resumed else [])]
        with open(self.log, "a") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def output(self) -> str:
        with open(self.log) as file:
            file.seek(self.log_start)
            return file.read()

    def wait_for_first_iteration(self) -> None:
        """Until this process has logged an iteration."""
        self.wait_for(lambda: "\niteration " in self.output())

    def wait_for(self, condition, pause: float = 0.05, timeout: float = math.inf) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            require(self.process.poll() is None, f"training ended by itself: {self.output()}")
            time.sleep(pause)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill(self, with_workers: bool) -> list[int]:
        """Kill the process; returns the ids of its workers."""
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no more of them
        workers = self.workers()
        for worker in workers if with_workers else ():
            os.kill(worker, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        return workers


def wait_to_kill(training: Training, kind: str, draw: random.Random) -> None:
    """Wait for a random time, or for one during the operation `kind`."""
    checkpoints, vdl = training.run / "checkpoints", training.run / "vdl"
    if kind == "any":
        time.sleep(draw.uniform(0, 1.5))
        return
    for _ in range(draw.randrange(3)):  # not always the first
        time.sleep(draw.uniform(0, 0.3))
    if kind == "checkpoint":
        training.wait_for(lambda: any(checkpoints.glob(".*.tmp")), 0)
    elif kind == "renaming":
        # So short that it may be missed many times; then the kill comes at a random time.
        training.wait_for(lambda: not (checkpoints / "last").exists(), 0, timeout=3)
    elif kind == "evaluation":
        logged = last_iteration(training.run)
        training.wait_for(
            lambda: logged < last_iteration(training.run) and is_evaluated(training.run), 0
        )
    else:
        size = log_size(vdl)
        training.wait_for(lambda: log_size(vdl) > size, 0)
    time.sleep(draw.uniform(0, 0.01))


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_evaluated(run: Path) -> bool:
    """Whether the last logged iteration is one with an evaluation."""
    return last_iteration(run) % EVALUATE == 0


def log_size(vdl: Path) -> int:
    return sum(path.stat().st_size for path in vdl.glob("vdlrecords.*.log"))


def require(condition: object, message: str) -> None:
    if not condition:
        sys.exit(f"FAILED: {message}")


def lines(run: Path, phase: str) -> list[dict]:
    """The lines of `metrics.jsonl`, except a partial last one."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            found.append(json.loads(line))
    return [line for line in found if line["phase"] == phase]


def last_iteration(run: Path) -> int:
    return max((line["step"] for line in lines(run, "train")), default=0)


def checkpoint_iteration(folder: Path) -> int:
    """The iteration of the checkpoint in `folder`; -1 if it is missing or damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, digest in manifest["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return -1
    except (OSError, ValueError):
        return -1
    return manifest["iteration"]


def check_after_kill(run: Path) -> int:
    """The iteration from which a resume continues."""
    checkpoints = run / "checkpoints"
    saved = max(checkpoint_iteration(checkpoints / name) for name in ("last", "last.previous"))
    logged = last_iteration(run)
    require(saved >= 0 or logged <= SAVE, f"no intact checkpoint after iteration {logged}")
    # A kill before the last rename leaves the previous checkpoint.
    require(logged - saved <= 2 * SAVE, f"iteration {logged} is logged, but only {saved} is saved")
    evals = lines(run, "eval")
    if evals:
        best = max(checkpoint_iteration(checkpoints / name) for name in ("best", "best.previous"))
        expected = max(evals, key=lambda line: line["miou"])["step"]
        require(best >= expected, f"best is iteration {best}; the best mIoU is at {expected}")
    return saved


def check_after_start(run: Path, workers: list[int]) -> None:
    for pid in workers:
        require(not is_alive(pid), f"worker {pid} still runs")
        left = [*SHARED_MEMORY.glob(f"paddle_{pid}_*"), *SHARED_MEMORY.glob(f"liteseg_*_{pid}")]
        require(not left, f"left in the shared memory: {left}")
    # The new process may be writing a checkpoint; it wrote metrics and config at its start.
    left = [*run.glob(".*.tmp"), *(run / "vdl").glob(".*.tmp")]
    require(not left, f"partial files are left: {left}")


def check_against(run: Path, reference: Path, end: int) -> None:
    """Everything up to iteration `end` is bitwise equal to `reference`."""
    for kept in range(SAVE, end + 1, SAVE):
        found = checkpoint_iteration(run / "checkpoints" / f"step_{kept}")
        require(found == kept, f"step_{kept} is damaged")
    for name in ("model.pdparams", "training.pdstate"):
        found, expected = (
            flat(read_state(r / "checkpoints" / f"step_{end}" / name)) for r in (run, reference)
        )
        differ = [key for key in found | expected if found.get(key) != expected.get(key)]
        require(not differ, f"iteration {end}: {name} differs from the reference in {differ}")
    for phase in ("train", "eval"):
        found, expected = (metrics(r, phase, end) for r in (run, reference))
        require(found == expected, f"the {phase} lines of metrics.jsonl differ")
    found, expected = (curves(r, end) for r in (run, reference))
    require(found == expected, "the curves in VisualDL differ")


def metrics(run: Path, phase: str, end: int) -> list[dict]:
    return [
        {key: line[key] for key in line.keys() - TIMES}
        for line in lines(run, phase)
        if line["step"] <= end
    ]


def curves(run: Path, end: int) -> dict[str, list]:
    from visualdl import LogReader

    (log,) = (run / "vdl").glob("vdlrecords.*.log")
    reader = LogReader(file_path=str(log))
    return {
        tag: [(p.id, p.value) for p in reader.get_data("scalar", tag) if p.id <= end]
        for tag in reader.get_tags()["scalar"]
        if tag.rpartition("/")[2] not in TIMES
    }


def flat(value: object, path: str = "") -> dict[str, object]:
    """Nested state as {path: bytes or value}."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{path}/{key}").items()}
    return {path: value.tobytes() if hasattr(value, "tobytes") else value}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="number of kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kill times")
    parser.add_argument(
        "--folder", type=Path, help="folder of data and runs (default: a temporary one)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        soak((args.folder or Path(temporary)).resolve(), args.rounds, random.Random(args.seed))


def soak(folder: Path, rounds: int, draw: random.Random) -> None:
    config = prepare(folder, log=1, evaluate=EVALUATE, save=SAVE, keep=100_000)
    run, reference = folder / "run", folder / "reference"
    kinds = ["any", "checkpoint", "renaming", "evaluation", "dashboard"]
    workers: list[int] = []
    count: collections.Counter = collections.Counter()
    repeated, begin = 0, time.monotonic()
    for number in range(rounds):
        training = Training(config, run, workers=draw.randrange(3))
        training.wait_for_first_iteration()
        check_after_start(run, workers)
        kind = kinds[number % len(kinds)]
        wait_to_kill(training, kind, draw)
        workers = training.kill(with_workers=draw.random() < 0.3)
        saved, logged = check_after_kill(run), last_iteration(run)
        repeated += max(0, logged - max(saved, 0))
        count[kind] += 1
        print(
            f"round {number + 1}: killed at iteration {logged} ({kind}), {saved} is saved",
            flush=True,
        )
    seconds = time.monotonic() - begin

    training = Training(config, run, workers=1)
    training.wait_for_first_iteration()
    check_after_start(run, workers)
    training.process.terminate()
    require(training.process.wait() == 0, f"SIGTERM: {training.output()}")
    end = checkpoint_iteration(run / "checkpoints" / "last")
    require(end == last_iteration(run), f"SIGTERM saved {end} of {last_iteration(run)} iterations")
    end -= end % SAVE

    print(f"training {end} iterations without a kill, to compare", flush=True)
    training = Training(config, reference, workers=1)
    training.wait_for(lambda: (reference / "checkpoints" / f"step_{end + SAVE}").exists())
    training.process.terminate()
    training.process.wait()
    check_against(run, reference, end)
    print(
        f"{rounds} kills ({', '.join(f'{n} {kind}' for kind, n in count.items())}) in "
        f"{seconds:.0f} s: {end} iterations, {repeated} of them repeated; no checkpoint lost; no "
        "process, shared memory or partial file left; weights, state, metrics and curves are "
        "bitwise equal to those of the run without kills"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
