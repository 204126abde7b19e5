"""Train a tiny network for many iterations with workers, evaluations, logging and checkpoints.

Prints the resources of the process for each tenth of the run (resident memory, open files, threads,
workers, files and bytes in the shared memory), and fails if one of them grows between the second
tenth and the last.
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

COLUMNS = ("rss_mb", "files", "threads", "workers", "shm_files", "shm_kb")
# Accepted growth between the second tenth and the last.
ALLOWED = {"rss_mb": 8, "files": 2, "threads": 1, "workers": 1, "shm_files": 8, "shm_kb": 512}
SHARED_MEMORY = Path("/dev/shm")


def resources(pid: int) -> dict[str, float]:
    """The resources of the training process `pid`."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    shared = [
        path.stat().st_size
        for owner in (str(pid), *workers)
        for path in SHARED_MEMORY.glob(f"paddle_{owner}_*")
    ]
    return {
        "rss_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(fields["Threads"]),
        "workers": len(workers),
        "shm_files": len(shared),
        "shm_kb": sum(shared) / 1024,
    }


def watch(process: subprocess.Popen, log: Path, iters: int) -> list[list[dict[str, float]]]:
    """Samples of `resources` until the end, in ten equal parts of the iterations."""
    parts: list[list[dict[str, float]]] = [[] for _ in range(10)]
    shown = 0
    while process.poll() is None:
        time.sleep(0.2)
        iteration = logged_iteration(log)
        if iteration == 0:
            continue
        part = min(iteration * 10 // iters, 9)
        try:
            parts[part].append(resources(process.pid))
        except (OSError, KeyError):
            continue  # the process has just ended, or closed a file
        if part > shown:
            show(shown, parts[shown], iters)
            shown = part
    show(shown, parts[shown], iters)
    return parts


def logged_iteration(log: Path) -> int:
    """The latest iteration in `train.log`."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            parts = file.read().decode().split(" INFO iteration ")
    except OSError:
        return 0
    return int(parts[-1].split("/")[0]) if len(parts) > 1 else 0


def typical(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of the memory; the maximum of the others, which an evaluation raises."""
    summary = {**dict.fromkeys(COLUMNS, max), "rss_mb": statistics.median}
    return {key: summary[key]([sample[key] for sample in samples]) for key in COLUMNS}


def show(part: int, samples: list[dict[str, float]], iters: int) -> None:
    if samples:
        row = "  ".join(f"{key} {value:.0f}" for key, value in typical(samples).items())
        begin, end = part * iters // 10, (part + 1) * iters // 10
        print(f"iterations {begin} to {end}: {row}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iters", type=int, default=10_000, help="iterations (default: 10000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = prepare(folder, log=10, evaluate=250, save=250, keep=3)
        run = folder / "run"
        settings = ["--set", f"iters={args.iters}", "--set", f"num_workers={args.workers}"]
        command = liteseg("train", "--config", config, "--output", run, *settings)
        begin = time.monotonic()
        with open(folder / "out", "w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        parts = watch(process, run / "train.log", args.iters)
        seconds = time.monotonic() - begin
        if process.returncode:
            print((folder / "out").read_text()[-3000:])
            return 1
    first, last = typical(parts[1]), typical(parts[9])
    grown = [key for key in COLUMNS if last[key] - first[key] > ALLOWED[key]]
    verdict = f"GROWN: {grown}" if grown else "all constant"
    print(f"{args.iters} iterations in {seconds:.0f} s; {verdict}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
