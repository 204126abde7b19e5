"""Check of file names: whether the image and label of each pair belong together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from liteseg.datasets.arguments import first_few
from liteseg.datasets.base import Sample


def check_pairs(samples: Sequence[Sample]) -> list[str]:
    """Warnings about the pairs of images and labels, one sentence each."""
    warnings = []
    crossed = crossed_pairs(samples)
    if crossed:
        pairs = first_few([f"{sample.image} with {sample.label}" for sample in crossed])
        warnings.append(
            f"{len(crossed)} labels have the name of another image in the list (is it shifted by "
            f"a line?): {pairs}"
        )
    images = Counter(sample.image for sample in samples)
    repeated = [image for image, count in images.items() if count > 1]
    if repeated:
        warnings.append(f"{len(repeated)} images are listed more than once: {first_few(repeated)}")
    uses = {(sample.image, sample.label) for sample in samples if sample.label is not None}
    shared = [label for label, count in Counter(label for _, label in uses).items() if count > 1]
    if shared:
        warnings.append(f"{len(shared)} labels belong to several images: {first_few(shared)}")
    return warnings


def crossed_pairs(samples: Sequence[Sample]) -> list[Sample]:
    """The samples whose label has the name of another sample's image.

    Prefixes and suffixes shared by all image names (`frame_`, `_leftImg8bit`) or by all label names
    are removed; the rest should be the same for a pair. Names without any relation are accepted:
    only the rest of another image's name counts.
    """
    labeled = [(sample, sample.label) for sample in samples if sample.label is not None]
    for parts in (_path, _stem):  # full paths tell a/1.png from b/1.png, if both sides have folders
        images = _distinct_parts([parts(sample.image) for sample, _ in labeled])
        labels = _distinct_parts([parts(label) for _, label in labeled])
        known = set(images)
        if known.intersection(labels):
            return [
                sample
                for (sample, _), image, label in zip(labeled, images, labels)
                if label != image and label in known
            ]
    return []


def _path(path: os.PathLike) -> str:
    return os.path.splitext(path)[0]


def _stem(path: os.PathLike) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _distinct_parts(names: Sequence[str]) -> list[str]:
    """The names without their common prefix and suffix."""
    begin = _common_prefix(names)
    end = _common_prefix([name[begin:][::-1] for name in names])
    return [name[begin : len(name) - end] for name in names]


def _common_prefix(names: Sequence[str]) -> int:
    """Length of the common prefix of all names, without digits at its end: they are numbers."""
    prefix = os.path.commonprefix(names)  # noqa: RUF071  by character, as intended
    return len(prefix.rstrip("0123456789"))
