"""Discovery of image and label files that belong together by name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from liteseg.datasets.arguments import first_few, require_folder
from liteseg.errors import UserError
from liteseg.utils.images import IMAGE_SUFFIXES


def pair_folders(
    images: Path, labels: Optional[Path], arrays: bool = False
) -> Iterator[tuple[str, Optional[str]]]:
    """Each image of a folder with the label of its name, sorted by name.

    The label of `street.jpg` is `street.png`, or else `street_<anything>.png`, such as
    `street_mask.png`. Subfolders are not searched.

    Args:
        images: folder of the images.
        labels: folder of the labels; None for images without labels.
        arrays: `.npy` files are images, too.

    Raises:
        UserError: no image, or an image with no label or with several.
    """
    found = _image_names(require_folder(images, "image_dir", "the images"), arrays)
    if not found:
        raise UserError(f"image_dir: {images} contains no image ({', '.join(IMAGE_SUFFIXES)})")
    if labels is None:
        return ((str(images / name), None) for name in found)
    exact: dict[str, list[str]] = defaultdict(list)
    extended: dict[str, list[str]] = defaultdict(list)
    for label in _image_names(require_folder(labels, "label_dir", "the labels")):
        stem = os.path.splitext(label)[0]
        exact[stem].append(label)
        extended[stem.rpartition("_")[0]].append(label)

    def labels_of(image: str) -> list[str]:
        stem = os.path.splitext(image)[0]
        return exact.get(stem) or extended.get(stem, [])

    counts = ((image, len(labels_of(image))) for image in found)
    wrong = [f"{images / image}: {count} labels" for image, count in counts if count != 1]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(found)} images do not have exactly one label in {labels}, with "
            f"the name of the image or that name and _<anything>:\n  {first_few(wrong)}"
        )
    folders = str(images), str(labels)
    return (
        (os.path.join(folders[0], name), os.path.join(folders[1], labels_of(name)[0]))
        for name in found
    )


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, without hidden files (macOS adds `._name.png` next to name.png)."""
    return [folder / name for name in _image_names(folder)]


def _image_names(folder: Path, arrays: bool = False) -> list[str]:
    suffixes = (*IMAGE_SUFFIXES, *([".npy"] if arrays else ()))
    return sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(suffixes) and not name.startswith(".")
    )


def files_by_frame(folder: Path, below: str, suffixes: Sequence[str]) -> dict[str, Path]:
    """{place without suffix: file} of the files below a folder, sorted by place.

    Args:
        folder: the root of the files.
        below: folders between the root and the files, as a pattern that ends in `/`, or "".
        suffixes: ends of the file names; earlier ones take precedence.
    """
    found: dict[str, Path] = {}
    for suffix in suffixes:
        for path in folder.glob(f"{below}[!.]*{suffix}"):
            if os.path.isfile(path):
                place = path.relative_to(folder).as_posix()
                found.setdefault(place[: -len(suffix)], path)
    return dict(sorted(found.items()))
