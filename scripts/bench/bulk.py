"""Bulk prediction: memory by the number of inputs, and images per second and core.

    python scripts/bench/bulk.py --model exported/my                             # generated images
    python scripts/bench/bulk.py --model exported/my --images photos --counts 50 250

Each row is a `liteseg predict --threads 1` of links to the images, in folders of 1000. The rate is
that of the CPU time of all threads between the first and the last row: without the start of the
process, and hardly affected by other programs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from liteseg.errors import UserError
from liteseg.report.visualize import write_png
from liteseg.tasks.inputs import find_jobs

PER_FOLDER = 1000
SIZE = 64  # of the generated image
PER_DAY = 10**8


class Usage(NamedTuple):
    """Seconds on the clock, seconds of CPU, peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def link(images: Sequence[Path], count: int, folder: Path) -> None:
    """Make `count` links to the images, each with a name of its own."""
    for number in range(count):
        image = images[number % len(images)]
        place = folder / f"{number // PER_FOLDER:05d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:08d}{image.suffix}").symlink_to(image)


def measure(arguments: Sequence[str]) -> Usage:
    """Run `liteseg predict` with the arguments.

    Raises:
        UserError: it failed.
    """
    start = time.perf_counter()
    command = [sys.executable, "-m", "liteseg", "predict", *arguments, "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        raise UserError(f"{' '.join(command)}: failed; its message is above")
    wall = time.perf_counter() - start
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print the table, and the number of cores for 10^8 images in a day."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="folder of `liteseg export`")
    parser.add_argument("--images", help="folder (default: a generated image of 64x64)")
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--what", default="mask", help="as of predict (default: mask)")
    parser.add_argument("--precision", default="fp32", help="as of predict (default: fp32)")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.images:
            images = [Path(job.source).resolve() for job in find_jobs([args.images])]
        else:
            noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            write_png(folder / "image.png", noise.repeat(SIZE // 8, 0).repeat(SIZE // 8, 1))
            images = [folder / "image.png"]
        print("| inputs | seconds | CPU seconds | peak memory, MiB |\n|---|---|---|---|")
        for count in args.counts:
            link(images, count, folder / f"in{count}")
            where = [f"{folder}/in{count}", "--output", f"{folder}/out{count}"]
            options = ["--model", args.model, "--what", args.what, "--threads", "1"]
            options += ["--precision", args.precision]
            rows.append(measure([*where, *options]))
            wall, cpu, peak = rows[-1]
            print(f"| {count:,} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |", flush=True)
    if len(rows) > 1:
        rate = (args.counts[-1] - args.counts[0]) / (rows[-1].cpu - rows[0].cpu)
        print(f"{rate:.1f} images per second and core")
        print(f"computed: {PER_DAY / 86400 / rate:,.0f} cores for {PER_DAY:,} images in a day")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bulk.py: {error}")
