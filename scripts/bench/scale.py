"""How training scales: speed and memory against batch, crop, readers and processes, one table.

    python scripts/bench/scale.py --config my.yml --set train_dataset.dataset_root=/data

Each point is a `liteseg bench train` of its own, so that its peak of memory is its own too. One
thing at a time differs from the base: batch 4, the config's crop, 1 reader, 1 process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from liteseg.config.load import load_config
from liteseg.errors import UserError

BATCHES = (1, 2, 4, 8)
CROP_FACTORS = (0.5, 1.0, 1.5)  # of both sides
READERS = (0, 1, 2)
PROCESSES = (1, 2)


class Point(NamedTuple):
    """What is trained; `batch` is over all processes."""

    batch: int
    crop: tuple[int, int]  # w, h
    readers: int
    processes: int


def points(crop: tuple[int, int]) -> list[Point]:
    """The base and its variations, each once."""
    base = Point(4, crop, 1, 1)
    # Networks want multiples of 32.
    crops = [tuple(max(32, round(side * f / 32) * 32) for side in crop) for f in CROP_FACTORS]
    varied = [
        *(base._replace(batch=batch) for batch in BATCHES),
        *(base._replace(crop=size) for size in crops),
        *(base._replace(readers=readers) for readers in READERS),
        *(base._replace(processes=processes) for processes in PROCESSES),
    ]
    return list(dict.fromkeys(varied))


def crop_of(config: str, changes: Sequence[str]) -> tuple[str, tuple[int, int]]:
    """The key of the training crop in a config, and its (w, h)."""
    transforms = load_config(config, changes)["train_dataset"].get("transforms") or ()
    for place, transform in enumerate(transforms):
        if transform["type"] == "RandomPaddingCrop" and "crop_size" in transform:
            return f"train_dataset.transforms.{place}.crop_size", tuple(transform["crop_size"])
    raise UserError(f"{config}: train_dataset.transforms has no RandomPaddingCrop with a crop_size")


def measure(point: Point, key: str, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of `liteseg bench train` at a point."""
    changes = {
        "batch_size": point.batch // point.processes,
        "total_batch_size": "null",
        key: list(point.crop),
        "num_workers": point.readers,
    }
    sets = [*args.set, *(f"{name}={value}" for name, value in changes.items())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "liteseg", "bench", "train", "--config", args.config]
        command += ["--steps", str(args.steps), "--devices", str(point.processes)]
        command += ["--json", str(file), *(part for one in sets for part in ("--set", one))]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if ended:
            raise SystemExit(ended)
        return json.loads(file.read_text())


def table(rows: Sequence[tuple[Point, dict[str, Any]]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| images a step | crop | readers | processes | s a step | ms an image and megapixel "
        "| images/s | waiting for data | exchange | MiB a process |",
        "|---" * 10 + "|",
    ]
    for point, found in rows:
        width, height = point.crop
        work = point.batch * width * height / 1e6
        exchange = found["communication_share"]
        cells = [
            point.batch,
            f"{width}x{height}",
            point.readers,
            point.processes,
            f"{found['seconds_per_step']:.2f}",
            f"{1000 * found['seconds_per_step'] / work:.0f}",
            f"{found['images_per_second']:.2f}",
            f"{found['reader_share']:.0%}",
            "–" if exchange is None else f"{exchange:.0%}",
            f"{found['peak_mib']:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure every point and print the table; 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", required=True, help="YAML file, or the name of a shipped config"
    )
    parser.add_argument(
        "--steps", type=int, default=5, metavar="N", help="to measure at each point"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    try:
        key, crop = crop_of(args.config, args.set)
    except UserError as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    print(table(list(_measured(points(crop), key, args))))
    return 0


def _measured(all_points: list[Point], key: str, args: argparse.Namespace) -> Iterator:
    for point in all_points:
        found = measure(point, key, args)
        print(f"{point}: {found['seconds_per_step']:.2f} s a step", file=sys.stderr)
        yield point, found


if __name__ == "__main__":
    sys.exit(main())
