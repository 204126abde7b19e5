"""Whether the images and labels of a list belong together, judged by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from liteseg.datasets.base import Sample, name_some


def pairing_notes(samples: Sequence[Sample]) -> list[str]:
    """What looks wrong about which label stands beside which image, a sentence each."""
    notes = []
    crossed = mispaired(samples)
    if crossed:
        shown = name_some([f"{sample.image} with {sample.label}" for sample in crossed])
        notes.append(
            f"{len(crossed)} labels bear the name of another image of the list (is it shifted by a "
            f"line?): {shown}"
        )
    images = Counter(sample.image for sample in samples)
    repeated = [image for image, count in images.items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} images are listed more than once: {name_some(repeated)}")
    uses = {(sample.image, sample.label) for sample in samples if sample.label is not None}
    shared = [label for label, count in Counter(label for _, label in uses).items() if count > 1]
    if shared:
        notes.append(f"{len(shared)} labels stand beside several images: {name_some(shared)}")
    return notes


def mispaired(samples: Sequence[Sample]) -> list[Sample]:
    """The samples whose label is named like the image of another sample.

    What all images have in common in their names is taken off (`frame_`, `_leftImg8bit`), and what
    all labels have; what is left of each should be the same for a pair. Names that have nothing
    to do with each other are no finding: only the key of another image is.
    """
    labelled = [sample for sample in samples if sample.label is not None]
    for parts in (_path, _stem):  # folders tell a/1.png from b/1.png, where both sides have them
        images = _keys([parts(sample.image) for sample in labelled])
        labels = _keys([parts(sample.label) for sample in labelled])
        known = set(images)
        if known.intersection(labels):
            return [
                sample
                for sample, image, label in zip(labelled, images, labels)
                if label != image and label in known
            ]
    return []


def _path(path: os.PathLike) -> str:
    return os.path.splitext(path)[0]


def _stem(path: os.PathLike) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _keys(names: Sequence[str]) -> list[str]:
    """The names without the beginning and the end that all share, but for digits: they count."""
    begin = _shared(names)
    end = _shared([name[begin:][::-1] for name in names])
    return [name[begin : len(name) - end] for name in names]


def _shared(names: Sequence[str]) -> int:
    """How many characters all names begin with, without digits at the end of these."""
    # The first and the last in order differ soonest: what they share, all share.
    first, last = min(names, default=""), max(names, default="")
    differs = (i for i, (a, b) in enumerate(zip(first, last)) if a != b)
    common = first[: next(differs, min(len(first), len(last)))]
    return len(common.rstrip("0123456789"))
