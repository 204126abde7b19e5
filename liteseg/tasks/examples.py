"""Images to run a model on: from a dataset, from files, or synthetic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, Optional, Union

import cv2
import numpy as np

from liteseg.config.build import build_dataset
from liteseg.config.schema import CheckedConfig
from liteseg.deploy.verify import Example
from liteseg.errors import UserError
from liteseg.tasks.inputs import find_jobs
from liteseg.tasks.storage import read
from liteseg.utils.images import IMAGE_SUFFIXES

_STRIDES = 100
_SYNTHETIC_SIZE = (1024, 512)  # (w, h) where no size is given


def from_dataset(cfg: CheckedConfig, split: str) -> Iterator[Example]:
    """The images of a split with their labels; the first ones are spread over all of it.

    Raises:
        UserError: (at once) the config has no such split, or its files do not exist.
    """
    dataset = build_dataset(cfg, split)
    # Neighbors in the list are often neighbors in a video.
    stride = max(1, len(dataset) // _STRIDES)
    order = (i for start in range(stride) for i in range(start, len(dataset), stride))
    samples = map(dataset.load, order)
    return (Example(sample["img"], sample.get("label")) for sample in samples)


def from_files(
    paths: Sequence[Union[str, Path]], decode: Callable[[bytes, str], np.ndarray]
) -> Iterator[Example]:
    """Image files, and those in folders; `decode` is that of a `Segmenter`.

    Raises:
        UserError: (at once) a path does not exist; (later) an image cannot be read.
    """
    jobs = find_jobs(paths, suffixes=IMAGE_SUFFIXES)
    return (Example(decode(read(job.source), str(job.source))) for job in jobs)


def synthetic(size: Optional[tuple[int, int]]) -> Iterator[Example]:
    """Endless street scenes of `size` (w, h), the same every time, without labels."""
    from liteseg.datasets.streets.scene import render

    for number in itertools.count():
        yield Example(render(*(size or _SYNTHETIC_SIZE), np.random.default_rng(number))[0])


def fitted(
    example: Example, transforms: Callable[[dict], dict], size: Optional[tuple[int, int]]
) -> Example:
    """The example, resized to `size` (w, h) unless `transforms` turn it into that size already.

    Raises:
        UserError: the transforms turn an image of `size` into another size.
    """

    def transformed_size(image: np.ndarray) -> tuple[int, int]:
        return transforms({"img": image})["img"].shape[1::-1]

    image, label = example
    if size is None or transformed_size(image) == size:
        return example
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if (result := transformed_size(image)) != size:
        raise UserError(
            f"--input-size {size[0]} {size[1]}: the validation transforms turn every image into "
            f"{result[0]}x{result[1]}; export for that size, or change val_dataset.transforms"
        )
    if label is not None:
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    return Example(image, label)


def ignore_index(cfg: CheckedConfig) -> int:
    """The label value of the validation set that is not counted."""
    return (cfg.val_dataset or cfg.train_dataset).get("ignore_index", 255)
