"""Base class of the datasets: loads and checks samples, and applies the transforms."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import numpy as np

from liteseg.datasets.label_values import describe_invalid_values
from liteseg.datasets.pack import Pack
from liteseg.errors import UserError
from liteseg.transforms import Compose
from liteseg.utils.bands import read_bands
from liteseg.utils.images import image_facts, label_histogram, read_image, read_label

if TYPE_CHECKING:
    import paddle

EXIF = ("apply", "ignore")

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The files of one image; `label` is None where there is none (test sets)."""

    image: Path
    label: Optional[Path]
    name: str


class SegmentationDataset:
    """RGB images with label maps of train ids. A subclass lists the samples and has the classes.

    Attributes:
        classes: class names in train id order.
        palette: (num_classes, 3) uint8 RGB.
        num_classes: valid label values are 0..num_classes-1 and `ignore_index`.
        ignore_index: label of pixels that count neither in the loss nor in the metrics.
        transforms: the `Compose` that `__getitem__` applies.
        samples: sequence of `Sample`.
        pack: source of the pixels if the files were packed (see `liteseg.datasets.pack`), or None.
        notes: oddities of the files that do not prevent training, one sentence each.
        decoding: what determines the train ids in addition to the class, as JSON has it; a pack
            made with another value is refused.
        exif: `apply` turns images upright by their EXIF orientation, `ignore` reads them as stored.
        bands: numbers of the bands to read as they are stored, from 1; None: 8-bit RGB.
        seed: set by the trainer; together with the draw number it determines the augmentation.
    """

    decoding: Any = None

    def __init__(
        self,
        transforms: Union[Compose, Sequence, None],
        samples: Sequence[Sample],
        classes: Sequence[str],
        palette: np.ndarray,
        ignore_index: int = 255,
        notes: Sequence[str] = (),
        pack: Optional[str] = None,
        exif: str = "apply",
        bands: Optional[Sequence[int]] = None,
    ):
        if exif not in EXIF:
            raise UserError(f"exif: {exif!r} is not one of {', '.join(EXIF)}")
        if len(classes) < 2:
            raise UserError(
                f"num_classes: {len(classes)}: with one class every pixel is right; give 2, "
                "background 0 and foreground 1"
            )
        self.exif = exif
        self.bands = None if bands is None else tuple(bands)
        if not isinstance(transforms, Compose):
            transforms = Compose(transforms or ())
        self.transforms = transforms
        try:
            transforms.follow_labels(len(classes), ignore_index)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.samples = samples
        self.classes = tuple(classes)
        for name in self.classes:
            if not str(name).isprintable():
                raise UserError(f"class_names: {name!r} has characters that can't be printed")
        self.num_classes = len(self.classes)
        self.palette = np.asarray(palette, np.uint8)
        self.ignore_index = ignore_index
        self.notes = list(notes)
        self.seed = 0
        self.pack = None if pack is None else Pack(pack)
        self._packed = {} if self.pack is None else self.pack.entries_of(self)
        for note in self.notes:
            logger.warning(note)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Union[int, tuple[int, int]]) -> dict:
        """The transformed sample of `index` or `(index, draw)`.

        The same (seed, draw) always gives the same augmentation, in any worker; for a bare index
        the draw number is the index.

        Returns:
            dict of `img` (h, w, C), `label` (h, w) uint8 (if there is one), `trans_info`
            and `index`.
        """
        index, draw = key if isinstance(key, (tuple, list)) else (key, key)
        rng = np.random.default_rng((self.seed, int(draw)))
        sample = self.transforms(self.load(index), rng)
        sample["index"] = int(index)
        return sample

    def batches(
        self, batch_size: int, *, epochs: int = 1, shuffle: bool = True
    ) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
        """Augmented and normalized batches, for a training loop of one's own.

        Args:
            batch_size: images per batch; the last one of an epoch may have fewer.
            epochs: passes over the dataset.
            shuffle: in random order, which depends on `seed` alone.

        Yields:
            (N, C, h, w) float32 images and (N, h, w) int64 labels.

        Raises:
            UserError: a sample cannot be read or has no label, the transforms do not end in
                Normalize, or leave images of different sizes.
        """
        if self.transforms.normalize is None:
            raise UserError("transforms: must end in Normalize; add it as the last one")
        import paddle  # here: labels are read without Paddle

        rng = np.random.default_rng(self.seed)
        draws = itertools.count()
        for _ in range(epochs):
            order = rng.permutation(len(self)) if shuffle else np.arange(len(self))
            for start in range(0, len(order), batch_size):
                samples = [self[int(i), next(draws)] for i in order[start : start + batch_size]]
                if any("label" not in sample for sample in samples):
                    raise UserError(
                        "batches: a sample has no label; a test set cannot be trained on"
                    )
                if len({sample["img"].shape for sample in samples}) > 1:
                    raise UserError(
                        "transforms: they leave images of different sizes, which cannot form a "
                        "batch; add a crop, or use batch_size 1"
                    )
                images = paddle.to_tensor(np.stack([sample["img"] for sample in samples]))
                labels = np.stack([sample["label"] for sample in samples]).astype(np.int64)
                yield self.transforms.normalize.batch(images), paddle.to_tensor(labels)

    def load(self, index: int) -> dict:
        """Image and label (train ids) before any transform, from the pack if there is one.

        Returns:
            dict of `img` (h, w, C), `label` (h, w) uint8 (if there is one) and an empty
            `trans_info`. From a pack the arrays are read-only.

        Raises:
            UserError: as `load_files`.
        """
        if self.pack is None:
            return self.load_files(index)
        image, label = self.pack.load(self._packed[self.samples[index]])
        sample = {"img": image, "trans_info": []}
        return sample if label is None else {**sample, "label": label}

    def load_files(self, index: int) -> dict:
        """As `load`, but always from the image and label files.

        Raises:
            UserError: a file can't be read, the sizes differ, or the label contains a value that
                is neither a class nor `ignore_index`.
        """
        files = self.samples[index]
        sample: dict = {"img": self.read_image(files.image), "trans_info": []}
        if files.label is not None:
            label = sample["label"] = self.checked_label(files.label)
            if label.shape != sample["img"].shape[:2]:
                orientation = image_facts(files.image).orientation
                turned = f" (EXIF orientation {orientation}, exif: {self.exif})"
                other = EXIF[self.exif == "apply"]
                fix = f", which `exif: {other}` in the dataset may fix"
                raise UserError(
                    f"{files.label}: the label is {format_size(label)}, its image {files.image} is "
                    f"{format_size(sample['img'])}{turned if orientation > 1 else ''}; they must "
                    f"have the same size{fix if orientation > 1 else ''}"
                )
        return sample

    def read_image(self, path: Path) -> np.ndarray:
        """An image file as the dataset reads it: (h, w, C).

        Raises:
            UserError: the file can't be read, or has other bands.
        """
        upright = self.exif == "apply"
        return (
            read_image(path, upright)
            if self.bands is None
            else read_bands(path, self.bands, upright)
        )

    def load_label(self, index: int) -> Optional[np.ndarray]:
        """Only the label of a sample: (h, w) uint8 train ids, checked as in `load`, or None."""
        files = self.samples[index]
        if self.pack is not None:
            return self.pack.load(self._packed[files])[1]
        return None if files.label is None else self.checked_label(files.label)

    def checked_label(self, path: Path) -> np.ndarray:
        """As `decode_label`; a value that is neither a class nor `ignore_index` is an error."""
        label = self.decode_label(path)
        histogram = label_histogram(label)
        problem = describe_invalid_values(histogram, self.num_classes, self.ignore_index)
        if problem:
            raise UserError(f"{path}: {problem}")
        return label

    def decode_label(self, path: Path) -> np.ndarray:
        """Read a label file as (h, w) uint8 train ids, values not yet checked."""
        return read_label(path)


def format_size(image: np.ndarray) -> str:
    """ "WxH" of an image or label."""
    return f"{image.shape[1]}x{image.shape[0]}"
