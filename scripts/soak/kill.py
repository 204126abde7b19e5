"""Kill a training with SIGKILL at random moments, resume it, and see that nothing is lost.

After each kill: a whole checkpoint is there and no older than the interval, `best` is whole and the
best. After each start: no reader process, no file in the shared memory and no half-written file of
the killed one is left. At the end: checkpoint, figures and curves are bit for bit those of a
training that nobody killed.
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

import liteseg as _first  # noqa: F401  before Paddle
from liteseg.utils.weights.load import read_state

SAVE, EVALUATE = 5, 10
TIMES = {"images_per_second", "seconds_per_step", "reader_share", "seconds", "timings"}
SHARED_MEMORY = Path("/dev/shm")


class Training:
    """A training process in the run directory `run`, begun or resumed, and its readers."""

    def __init__(self, config: Path, run: Path, workers: int):
        self.run = run
        resumed = any((run / "checkpoints").glob("[!.]*"))
        self.log = run.parent / f"{run.name}.out"
        self.began = self.log.stat().st_size if self.log.exists() else 0
        command = liteseg("train", "--config", config, "--output", run)
        command += ["--set", f"num_workers={workers}", *(["--resume"] if resumed else [])]
        with open(self.log, "a") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def output(self) -> str:
        with open(self.log) as file:
            file.seek(self.began)
            return file.read()

    def wait_until_it_trains(self) -> None:
        """Until the first step of this process is logged."""
        self.wait_for(lambda: "\niteration " in self.output())

    def wait_for(self, condition, pause: float = 0.05, at_most: float = math.inf) -> None:
        deadline = time.monotonic() + at_most
        while not condition() and time.monotonic() < deadline:
            require(self.process.poll() is None, f"training ended by itself: {self.output()}")
            time.sleep(pause)

    def readers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill(self, readers_too: bool) -> list[int]:
        """Ends the process at once; the readers it had."""
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no more of them
        readers = self.readers()
        for reader in readers if readers_too else ():
            os.kill(reader, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        return readers


def wait_for_moment(training: Training, kind: str, draw: random.Random) -> None:
    """Wait for a moment to kill at: any, or one inside what `kind` names."""
    checkpoints, vdl = training.run / "checkpoints", training.run / "vdl"
    if kind == "any":
        time.sleep(draw.uniform(0, 1.5))
        return
    for _ in range(draw.randrange(3)):  # not always the first
        time.sleep(draw.uniform(0, 0.3))
    if kind == "checkpoint":
        training.wait_for(lambda: any(checkpoints.glob(".*.tmp")), 0)
    elif kind == "renaming":
        # So short that it may be missed again and again: then the kill comes at any moment.
        training.wait_for(lambda: not (checkpoints / "last").exists(), 0, at_most=3)
    elif kind == "evaluation":
        due = training.output().count("iteration ")
        training.wait_for(
            lambda: training.output().count("iteration ") > due and last_step(training.run) % 10 == 0, 0
        )
    else:
        size = log_size(vdl)
        training.wait_for(lambda: log_size(vdl) > size, 0)
    time.sleep(draw.uniform(0, 0.01))


def is_alive(pid: int) -> bool:
    """Not even a zombie, whom its new parent has still to bury, is alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def log_size(vdl: Path) -> int:
    return sum(path.stat().st_size for path in vdl.glob("vdlrecords.*.log"))


def require(condition: object, told: str) -> None:
    if not condition:
        sys.exit(f"FAILED: {told}")


def lines(run: Path, phase: str) -> list[dict]:
    """Lines of `metrics.jsonl`, without the last if that is half-written."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            found.append(json.loads(line))
    return [line for line in found if line["phase"] == phase]


def last_step(run: Path) -> int:
    return max((line["step"] for line in lines(run, "train")), default=0)


def whole(folder: Path) -> int:
    """The step of the checkpoint in `folder`; -1 if it isn't whole."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, digest in manifest["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return -1
    except (OSError, ValueError):
        return -1
    return manifest["iteration"]


def check_after_kill(run: Path) -> int:
    """The step that a resume goes on from."""
    checkpoints = run / "checkpoints"
    saved = max(whole(checkpoints / name) for name in ("last", "last.previous"))
    logged = last_step(run)
    require(saved >= 0 or logged <= SAVE, f"no whole checkpoint after step {logged}")
    # A kill before the last rename leaves the checkpoint before.
    require(logged - saved <= 2 * SAVE, f"step {logged} was logged, but {saved} is the last saved")
    evals = lines(run, "eval")
    if evals:
        best = max(whole(checkpoints / name) for name in ("best", "best.previous"))
        expected = max(evals, key=lambda line: line["miou"])["step"]
        require(best >= expected, f"best is of step {best}; the best mIoU is that of {expected}")
    return saved


def check_after_start(run: Path, readers: list[int]) -> None:
    for pid in readers:
        require(not is_alive(pid), f"reader process {pid} lives on")
        left = [*SHARED_MEMORY.glob(f"paddle_{pid}_*"), *SHARED_MEMORY.glob(f"liteseg_*_{pid}")]
        require(not left, f"left in the shared memory: {left}")
    # This process may be writing a checkpoint itself; metrics and config are written at the start.
    left = [*run.glob(".*.tmp"), *(run / "vdl").glob(".*.tmp")]
    require(not left, f"half-written files are left: {left}")


def check_against(run: Path, reference: Path, step: int) -> None:
    """Everything up to `step` is bit for bit that of `reference`."""
    for kept in range(SAVE, step + 1, SAVE):
        require(whole(run / "checkpoints" / f"step_{kept}") == kept, f"step_{kept} is not whole")
    for name in ("model.pdparams", "training.pdstate"):
        found, expected = (
            flat(read_state(r / "checkpoints" / f"step_{step}" / name)) for r in (run, reference)
        )
        differ = [key for key in found | expected if found.get(key) != expected.get(key)]
        require(not differ, f"step {step}: {name} differs from the unkilled run's in {differ}")
    for phase in ("train", "eval"):
        found, expected = (figures(r, phase, step) for r in (run, reference))
        require(found == expected, f"the {phase} lines of metrics.jsonl differ")
    found, expected = (curves(r, step) for r in (run, reference))
    require(found == expected, "the curves in VisualDL differ")


def figures(run: Path, phase: str, step: int) -> list[dict]:
    return [
        {key: line[key] for key in line.keys() - TIMES}
        for line in lines(run, phase)
        if line["step"] <= step
    ]


def curves(run: Path, step: int) -> dict[str, list]:
    from visualdl import LogReader

    (log,) = (run / "vdl").glob("vdlrecords.*.log")
    reader = LogReader(file_path=str(log))
    return {
        tag: [(p.id, p.value) for p in reader.get_data("scalar", tag) if p.id <= step]
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
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="for data and runs (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        soak((args.folder or Path(temporary)).resolve(), args.rounds, random.Random(args.seed))


def soak(folder: Path, rounds: int, draw: random.Random) -> None:
    config = prepare(folder, log=1, evaluate=EVALUATE, save=SAVE, keep=100_000)
    run, reference = folder / "run", folder / "reference"
    kinds = ["any", "checkpoint", "renaming", "evaluation", "dashboard"]
    readers: list[int] = []
    count: collections.Counter = collections.Counter()
    taken_again, begin = 0, time.monotonic()
    for number in range(rounds):
        training = Training(config, run, workers=draw.randrange(3))
        training.wait_until_it_trains()
        check_after_start(run, readers)
        kind = kinds[number % len(kinds)]
        wait_for_moment(training, kind, draw)
        readers = training.kill(readers_too=draw.random() < 0.3)
        saved, logged = check_after_kill(run), last_step(run)
        taken_again += max(0, logged - max(saved, 0))
        count[kind] += 1
        print(f"round {number + 1}: killed at step {logged} ({kind}), {saved} is saved", flush=True)
    seconds = time.monotonic() - begin

    training = Training(config, run, workers=1)
    training.wait_until_it_trains()
    check_after_start(run, readers)
    training.process.terminate()
    require(training.process.wait() == 0, f"SIGTERM: {training.output()}")
    step = whole(run / "checkpoints" / "last")
    require(step == last_step(run), f"SIGTERM saved step {step} of {last_step(run)}")
    step -= step % SAVE

    print(f"training {step} steps without a kill, to compare", flush=True)
    training = Training(config, reference, workers=1)
    training.wait_for(lambda: (reference / "checkpoints" / f"step_{step + SAVE}").exists())
    training.process.terminate()
    training.process.wait()
    check_against(run, reference, step)
    print(
        f"{rounds} kills ({', '.join(f'{n} {kind}' for kind, n in count.items())}) in "
        f"{seconds:.0f} s: {step} steps, {taken_again} of them taken again; no checkpoint lost, no "
        "process, shared memory or half-written file left; weights, state, figures and curves are "
        "those of the run without kills, bit for bit"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
