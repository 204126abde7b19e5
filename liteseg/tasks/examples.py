"""Images to try a model on: of a dataset, of files, or drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import cv2
import numpy as np

from liteseg.deploy.verify import Example
from liteseg.errors import UserError

_STRETCHES = 100
_DRAWN_SIZE = (1024, 512)  # (w, h) where nothing tells a size


def from_dataset(cfg: Mapping[str, Any], split: str) -> Iterator[Example]:
    """The images of a split with their labels; the first ones are spread over all of it.

    Raises:
        UserError: (at once) the config has no such split, or its files are not there.
    """
    from liteseg.config.build import build_dataset

    dataset = build_dataset(cfg, split)
    # Neighbours in the list are neighbours in a video.
    step = max(1, len(dataset) // _STRETCHES)
    order = (i for start in range(step) for i in range(start, len(dataset), step))
    samples = map(dataset.load, order)
    return (Example(sample["img"], sample.get("label")) for sample in samples)


def from_files(paths: Sequence[str]) -> Iterator[Example]:
    """Image files, and those in folders.

    Raises:
        UserError: (at once) one does not exist; (later) one can't be read.
    """
    from liteseg.tasks.inputs import IMAGES, find_files
    from liteseg.utils.images import read_image

    files = [path for path, _ in find_files(list(map(Path, paths)), IMAGES)]
    return (Example(read_image(path, exif=True)) for path in files)


def drawn(size: Optional[tuple[int, int]]) -> Iterator[Example]:
    """Street scenes of `size` (w, h) without end, always the same; their classes are others."""
    from liteseg.datasets.streets.scene import render

    for number in itertools.count():
        yield Example(render(*(size or _DRAWN_SIZE), np.random.default_rng(number))[0])


def resized(
    example: Example, transforms: Callable[[dict], dict], size: Optional[tuple[int, int]]
) -> Example:
    """The example as it is if `transforms` make an image of `size` (w, h) of it, else at `size`.

    Raises:
        UserError: even then they make another size of it.
    """

    def result_of(image: np.ndarray) -> tuple[int, int]:
        return transforms({"img": image})["img"].shape[1::-1]

    image, label = example
    if size is None or result_of(image) == size:
        return example
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if (made := result_of(image)) != size:
        raise UserError(
            f"--input-size {size[0]} {size[1]}: the validation transforms make {made[0]}x{made[1]} "
            "of every image; export for that size, or change val_dataset.transforms"
        )
    if label is not None:
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    return Example(image, label)


def ignore_index(cfg: Mapping[str, Any]) -> int:
    """The label that does not count in the validation set."""
    return cfg.val_dataset.get("ignore_index", 255)
