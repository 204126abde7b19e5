"""Search for images with the same content, such as those in both train and val."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from liteseg.datasets.base import SegmentationDataset
from liteseg.datasets.parallel import map_in_threads
from liteseg.utils import logging
from liteseg.utils.files import sha256_of


def find_duplicates(
    datasets: Mapping[str, SegmentationDataset],
    workers: Optional[int] = None,
    progress: bool = False,
) -> list[list[str]]:
    """Groups of images with the same bytes, within or across splits, each as `split: file`.

    Args:
        datasets: by the name of their split; a split may list an image several times.
        workers: number of threads (default: one per core).
        progress: show a progress bar on stderr.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, dataset in datasets.items():
        for image in {sample.image: None for sample in dataset.samples}:
            by_size[_file_size(image)].append((split, image))
    # Files of unique size are not read.
    candidates = [
        file for size, files in by_size.items() if size >= 0 and len(files) > 1 for file in files
    ]
    digests = map_in_threads(lambda file: _digest(file[1]), candidates, workers)
    groups = defaultdict(list)
    bar = logging.progress(digests, "comparing", len(candidates), shown=progress)
    for (split, path), digest in zip(candidates, bar):
        if digest is not None:
            groups[digest].append(f"{split}: {path}")
    return [group for group in groups.values() if len(group) > 1]


def _file_size(path: Path) -> int:
    """Bytes of a file, or -1 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> Optional[str]:
    """SHA-256 of a file; None if it is unreadable, which `check_dataset` reports."""
    try:
        return sha256_of(path)
    except OSError:
        return None
