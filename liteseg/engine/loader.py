"""Batches for training and evaluation, loaded in worker processes that pass on their errors."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from liteseg.engine.workers import batches_of, shared_memory_fits, worker_setup
from liteseg.errors import UserError
from liteseg.utils.images import stack_planes
from liteseg.utils.runtime import rank, world_size

_BYTES_PER_SAMPLE = 2048 * 1024 * 4  # a Cityscapes image with its label, as uint8
# Keys of a sample or batch that carries an exception instead of data.
_ERRORS = {"user_error": UserError, "traceback": RuntimeError}


class GuardedDataset(paddle.io.Dataset):
    """`dataset`, but an exception is returned as a sample that carries it instead of being raised.

    Paddle's loader would print it in a thread and raise a different one in the training process.
    Needs a `guarded` collate function, and `raise_if_error` on every batch.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return _carry("user_error", str(error))
        except Exception:  # a bug, perhaps in a plugin
            return _carry("traceback", traceback.format_exc())


def guarded(collate: Callable[[list], Any]) -> Callable[[list], Any]:
    """`collate`, but the first sample that carries an exception becomes the batch."""
    return functools.partial(_collate_guarded, collate)


def _collate_guarded(collate: Callable[[list], Any], samples: list) -> Any:
    return next(filter(_carried, samples), None) or collate(samples)


def _carry(key: str, message: str) -> dict[str, np.ndarray]:
    # An array, because Paddle treats a batch without one as the end of the data.
    return {key: np.frombuffer(message.encode(), np.uint8)}


def _carried(data: Any) -> list[str]:
    return [key for key in _ERRORS if isinstance(data, dict) and key in data]


def raise_if_error(batch: Any) -> Any:
    """The batch unchanged, unless it carries an exception.

    Raises:
        UserError: raised by the dataset.
        RuntimeError: any other exception; the message is the traceback in the worker.
    """
    for key in _carried(batch):
        raise _ERRORS[key](np.asarray(batch[key]).tobytes().decode())
    return batch


class ValidationSamples(paddle.io.Dataset):
    """Samples of a dataset, transformed for evaluation: the label keeps its original size.

    As in PaddleSeg, the prediction is resized to that size before it is compared.
    """

    def __init__(self, dataset: Any, indices: Sequence[int], require_labels: bool = True):
        self.dataset = dataset
        self.indices = list(indices)
        self.require_labels = require_labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self.indices[position]
        sample = self.dataset.load(index)
        label = sample.pop("label", None)
        if label is None and self.require_labels:
            raise UserError(
                f"{self.dataset.samples[index].image}: has no label, and evaluation needs one; "
                "use a split with labels, or save predictions only"
            )
        sample = self.dataset.transforms(sample, np.random.default_rng(index))
        sample["index"] = index
        return sample if label is None else {**sample, "label": label}


def validation_batches(
    dataset: Any,
    indices: Sequence[int],
    batch_size: int,
    num_workers: int,
    require_labels: bool = True,
) -> Generator[dict[str, Any], None, None]:
    """Batches of at most `batch_size` samples with equal sizes, in the order of `indices`.

    Yields:
        `img` (n, 3, H, W) and `label` (n, h, w; absent if the samples have none) uint8 Paddle
        tensors on CPU, `trans_info` of the transforms, `index` list of n numbers in the dataset.

    Raises:
        UserError: a sample can't be read, or has no label and `require_labels` is set.
    """
    samples = ValidationSamples(dataset, indices, require_labels)
    options = {"batch_size": batch_size, "places": paddle.CPUPlace()}
    for groups in _load(samples, _group_by_size, num_workers, batch_size, **options):
        yield from groups


def _load(
    dataset: Any, collate: Callable, num_workers: int, samples_per_batch: int, **options: Any
) -> Generator[Any, None, None]:
    """What Paddle's loader yields; exceptions of the dataset are raised in this process."""
    options.update(
        collate_fn=guarded(collate),
        num_workers=num_workers,
        use_shared_memory=shared_memory_fits(num_workers, samples_per_batch, _BYTES_PER_SAMPLE),
        worker_init_fn=worker_setup(),
    )
    loader = paddle.io.DataLoader(GuardedDataset(dataset), **options)
    for batch in batches_of(loader):
        yield raise_if_error(batch)


def _group_by_size(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples as batches: those with equal shapes and `trans_info` together."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for sample in samples:
        trans_info = tuple((kind, tuple(size)) for kind, size in sample["trans_info"])
        arrays = tuple(key for key in ("img", "label") if key in sample)
        shapes = tuple(sample[key].shape for key in arrays)
        groups.setdefault((arrays, shapes, trans_info), []).append(sample)
    return [
        {
            **_stack(members, arrays),
            "trans_info": trans_info,
            "index": [sample["index"] for sample in members],
        }
        for (arrays, _, trans_info), members in groups.items()
    ]


class TrainingOrder(paddle.io.BatchSampler):
    """The samples of each forward pass of training: one endless stream of shuffled epochs.

    Position p of the stream is sample `shuffle(seed, epoch)[p mod length]` of epoch p div length,
    and p also seeds its augmentation. So order and augmentation depend on the seed alone, not on
    the number of workers, devices or resumes, and a resume neither skips nor repeats a sample. No
    sample is dropped at the end of an epoch, so a dataset may be smaller than a batch.

    Args:
        length: number of samples in the dataset.
        batch_size: samples per forward pass on one device.
        accumulate: forward passes per iteration on one device.
        seed: of the shuffling.
        start: first iteration, from 0.
        stop: end of the iterations (exclusive).
    """

    def __init__(
        self, length: int, batch_size: int, accumulate: int, seed: int, start: int, stop: int
    ):
        super().__init__(sampler=paddle.io.SequenceSampler(range(length)), batch_size=batch_size)
        self.length = length
        self.accumulate = accumulate
        self.seed = seed
        self.start, self.stop = start, stop
        self._shuffle = functools.lru_cache(maxsize=2)(self._shuffle_epoch)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[Any]:
        """Lists of (index, position) for this process."""
        parts = self.accumulate * world_size()
        for iteration in range(self.start, self.stop):
            for part in range(rank(), parts, world_size()):
                first = (iteration * parts + part) * self.batch_size
                yield [(self.sample_at(p), p) for p in range(first, first + self.batch_size)]

    def sample_at(self, position: int) -> int:
        """The index of the sample at a position of the stream."""
        epoch, place = divmod(position, self.length)
        return int(self._shuffle(epoch)[place])

    def _shuffle_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.length)


def training_batches(
    dataset: Any, order: TrainingOrder, num_workers: int
) -> Generator[dict[str, Any], None, None]:
    """Batches of the samples of `order`, prefetched by `num_workers` processes (0: a thread).

    Yields:
        `img` (n, 3, h, w) uint8, `label` (n, h, w) uint8 and `index` (n,) int64 tensors.

    Raises:
        UserError: a sample can't be read, has no label, or the crops of a batch differ in size.
    """
    return _load(dataset, training_batch, num_workers, order.batch_size, batch_sampler=order)


def training_batch(samples: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Samples as one batch: `img` (n, 3, h, w), `label` (n, h, w) and `index` (n,) arrays."""
    shapes = {(sample["img"].shape, sample.get("label", np.empty(0)).shape) for sample in samples}
    if len(shapes) > 1 or "label" not in samples[0]:
        found = ", ".join(str(image[:2]) for image, _ in sorted(shapes))
        message = (
            f"train_dataset: a batch needs labeled images of one size, found (h, w) {found}; end "
            "the transforms with a crop (RandomPaddingCrop) or a Resize before Normalize"
        )
        return _carry("user_error", message)
    return _stack(samples, ("img", "label", "index"))


def _stack(samples: list[dict[str, Any]], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """One array per key: images (h, w, 3) as planes (n, 3, h, w), all else unchanged."""
    columns = {key: [sample[key] for sample in samples] for key in keys}
    return {key: (stack_planes if key == "img" else np.stack)(v) for key, v in columns.items()}
