"""Train a tiny network for many steps with readers, evaluations, logging and checkpoints.

Prints what the process holds as it goes on (over each tenth of the run: resident memory,
open files, threads, readers, files and bytes in the shared memory) and fails if any of it grows
between the second tenth and the last.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny import liteseg, prepare

COLUMNS = ("rss_mb", "files", "threads", "readers", "shm_files", "shm_kb")
# How much more of each the last tenth may show than the second.
ALLOWED = {"rss_mb": 8, "files": 2, "threads": 1, "readers": 1, "shm_files": 8, "shm_kb": 512}
SHARED_MEMORY = Path("/dev/shm")


def held_by(pid: int) -> dict[str, float]:
    """What the training process `pid` holds now."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    readers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    shared = [
        path.stat().st_size
        for owner in (str(pid), *readers)
        for path in SHARED_MEMORY.glob(f"paddle_{owner}_*")
    ]
    return {
        "rss_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(fields["Threads"]),
        "readers": len(readers),
        "shm_files": len(shared),
        "shm_kb": sum(shared) / 1024,
    }


def watch(process: subprocess.Popen, log: Path, steps: int) -> list[list[dict[str, float]]]:
    """Samples of `held_by` until the end, in ten equal parts of the steps."""
    parts: list[list[dict[str, float]]] = [[] for _ in range(10)]
    shown = 0
    while process.poll() is None:
        time.sleep(0.2)
        step = logged_step(log)
        if step == 0:
            continue
        part = min(step * 10 // steps, 9)
        try:
            parts[part].append(held_by(process.pid))
        except (OSError, KeyError):
            continue  # it, or a file it held, is just gone
        if part > shown:
            show(shown, parts[shown], steps)
            shown = part
    show(shown, parts[shown], steps)
    return parts


def logged_step(log: Path) -> int:
    """The latest step in `train.log`, from its end."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            told = file.read().decode().split(" INFO iteration ")
    except OSError:
        return 0
    return int(told[-1].split("/")[0]) if len(told) > 1 else 0


def typical(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of the memory; of what an evaluation has besides, the most."""
    summary = {**dict.fromkeys(COLUMNS, max), "rss_mb": statistics.median}
    return {key: summary[key]([sample[key] for sample in samples]) for key in COLUMNS}


def show(part: int, samples: list[dict[str, float]], steps: int) -> None:
    if samples:
        row = "  ".join(f"{key} {value:.0f}" for key, value in typical(samples).items())
        print(f"steps {part * steps // 10} to {(part + 1) * steps // 10}: {row}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = prepare(folder, log=10, evaluate=250, save=250, keep=3)
        run = folder / "run"
        settings = ["--set", f"iters={args.steps}", "--set", f"num_workers={args.workers}"]
        command = liteseg("train", "--config", config, "--output", run, *settings)
        begin = time.monotonic()
        with open(folder / "out", "w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        parts = watch(process, run / "train.log", args.steps)
        seconds = time.monotonic() - begin
        if process.returncode:
            print((folder / "out").read_text()[-3000:])
            return 1
    first, last = typical(parts[1]), typical(parts[9])
    grown = [key for key in COLUMNS if last[key] - first[key] > ALLOWED[key]]
    print(f"{args.steps} steps in {seconds:.0f} s; {f'GROWN: {grown}' if grown else 'all flat'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
