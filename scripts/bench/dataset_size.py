"""Start-up time and memory of datasets with up to ten million images.

Each row is a new process that builds a `Dataset`: from a list file whose lines name 1,000 pairs of
files again and again, or from folders of that many (empty) images and labels. The time has the
check that every file exists.

    python scripts/bench/dataset_size.py --lines 100000 1000000 10000000 --files 1000000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 1000


def build(root: Path, kind: str) -> None:
    """Build the dataset of `root`, and print CPU seconds, MiB and the number of images."""
    from liteseg.datasets import Dataset

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    source = {"train_path": "list.txt"}
    if kind == "files":
        source = {"image_dir": "images", "label_dir": "masks"}
    before, begin = peak(), time.process_time()
    dataset = Dataset("train", str(root), [], 3, **source)
    print(time.process_time() - begin, peak() - before, len(dataset))


def generate(root: Path, kind: str, count: int) -> None:
    """Write the files of a dataset."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
        for number in range(count if kind == "files" else PAIRS):
            (root / folder / f"{number:08d}.png").touch()
    if kind == "lines":
        with open(root / "list.txt", "w", encoding="utf-8") as file:
            for number in range(count):
                name = f"{number % PAIRS:08d}.png"
                file.write(f"images/{name} masks/{name}\n")


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--files", type=int, nargs="*", default=[100_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        build(Path(args.child[0]), args.child[1])
        return
    print("| images | source | CPU time | memory | per image |\n|---|---|---|---|---|")
    for kind in ("lines", "files"):
        for count in getattr(args, kind):
            with tempfile.TemporaryDirectory() as folder:
                generate(Path(folder), kind, count)
                command = [sys.executable, __file__, "--child", folder, kind]
                found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, memory, images = map(float, found.stdout.split()[-3:])
            assert images == count
            name = "list file" if kind == "lines" else "folders"
            print(
                f"| {count:,} | {name} | {seconds:.1f} s | {memory:,.0f} MiB "
                f"| {1e6 * seconds / count:.1f} µs, {memory * 2**20 / count:.0f} bytes |",
                flush=True,
            )


if __name__ == "__main__":
    main()
