"""Speed and memory of training by batch size, crop, workers and processes, in one table.

    python scripts/bench/scale.py --config my.yml --set train_dataset.dataset_root=/data

Each row is a separate `liteseg bench train`, so that its peak memory is its own. It differs in one
value from the base: batch 4, the config's crop, 1 worker, 1 process.
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
WORKERS = (0, 1, 2)
PROCESSES = (1, 2)


class Point(NamedTuple):
    """A row of the table; `batch` is the total of all processes."""

    batch: int
    crop: tuple[int, int]  # w, h
    workers: int
    processes: int


def all_points(crop: tuple[int, int]) -> list[Point]:
    """The base and its variations, each once."""
    base = Point(4, crop, 1, 1)
    # Networks expect multiples of 32.
    crops = [tuple(max(32, round(side * f / 32) * 32) for side in crop) for f in CROP_FACTORS]
    varied = [
        *(base._replace(batch=batch) for batch in BATCHES),
        *(base._replace(crop=size) for size in crops),
        *(base._replace(workers=workers) for workers in WORKERS),
        *(base._replace(processes=processes) for processes in PROCESSES),
    ]
    return list(dict.fromkeys(varied))


def crop_of(config: str, overrides: Sequence[str]) -> tuple[str, tuple[int, int]]:
    """The key of the training crop in a config, and its (w, h)."""
    transforms = load_config(config, overrides)["train_dataset"].get("transforms") or ()
    for index, transform in enumerate(transforms):
        if transform["type"] == "RandomPaddingCrop" and "crop_size" in transform:
            return f"train_dataset.transforms.{index}.crop_size", tuple(transform["crop_size"])
    raise UserError(f"{config}: train_dataset.transforms has no RandomPaddingCrop with a crop_size")


def measure(point: Point, key: str, args: argparse.Namespace) -> dict[str, Any]:
    """The measurements of `liteseg bench train` for a row."""
    overrides = {
        "batch_size": point.batch // point.processes,
        "total_batch_size": "null",
        key: list(point.crop),
        "num_workers": point.workers,
    }
    sets = [*args.set, *(f"{name}={value}" for name, value in overrides.items())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "liteseg", "bench", "train", "--config", args.config]
        command += ["--steps", str(args.steps), "--devices", str(point.processes)]
        command += ["--json", str(file), *(part for one in sets for part in ("--set", one))]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            raise SystemExit(code)
        return json.loads(file.read_text())


def table(rows: Sequence[tuple[Point, dict[str, Any]]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| images per iteration | crop | workers | processes | s per iteration "
        "| ms per image and megapixel | images/s | waiting for data | exchange | MiB per process |",
        "|---" * 10 + "|",
    ]
    for point, measured in rows:
        width, height = point.crop
        megapixels = point.batch * width * height / 1e6
        exchange = measured["communication_share"]
        cells = [
            point.batch,
            f"{width}x{height}",
            point.workers,
            point.processes,
            f"{measured['seconds_per_step']:.2f}",
            f"{1000 * measured['seconds_per_step'] / megapixels:.0f}",
            f"{measured['images_per_second']:.2f}",
            f"{measured['reader_share']:.0%}",
            "–" if exchange is None else f"{exchange:.0%}",
            f"{measured['peak_mib']:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure and print the table; 2 for a user error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file, or name of a shipped config")
    parser.add_argument(
        "--steps", type=int, default=5, metavar="N", help="timed iterations per row (default: 5)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config value"
    )
    args = parser.parse_args(argv)
    try:
        key, crop = crop_of(args.config, args.set)
    except UserError as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    print(table(list(_measured(all_points(crop), key, args))))
    return 0


def _measured(points: list[Point], key: str, args: argparse.Namespace) -> Iterator:
    for point in points:
        measured = measure(point, key, args)
        seconds = measured["seconds_per_step"]
        print(f"{point}: {seconds:.2f} s per iteration", file=sys.stderr)
        yield point, measured


if __name__ == "__main__":
    sys.exit(main())
