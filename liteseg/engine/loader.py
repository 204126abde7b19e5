"""Loading in worker processes: user errors that survive the trip, and the batches themselves."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from liteseg.engine.workers import batches_of, reader_setup, shared_memory_fits
from liteseg.errors import UserError
from liteseg.utils.images import stack_planes
from liteseg.utils.runtime import rank, world_size

_ERROR, _MISTAKE = "user_error", "mistake"
_BYTES_PER_SAMPLE = 2048 * 1024 * 4  # a Cityscapes image with its label, as uint8


@dataclass(frozen=True)
class WorkerError:
    """An exception on its way from a worker process to the one that can report it.

    Attributes:
        message: of a `UserError`; otherwise the traceback.
        mistake: not a `UserError`: the code of a plugin, or ours, is wrong.
    """

    message: str
    mistake: bool = False


class GuardedDataset(paddle.io.Dataset):
    """`dataset`, with an exception returned as a value where it would have been raised.

    Paddle's loader would print it in a thread and leave the training with another one.
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
            return WorkerError(str(error))
        except Exception:
            return WorkerError(traceback.format_exc(), mistake=True)


def guarded(collate: Callable[[list], Any]) -> Callable[[list], Any]:
    """`collate`, reporting the first `WorkerError` among the samples instead of making a batch."""
    return functools.partial(_collate_or_report, collate)


def _collate_or_report(collate: Callable[[list], Any], samples: list) -> Any:
    for sample in samples:
        if isinstance(sample, WorkerError):
            # As an array, because Paddle takes a batch without one for the end of the data.
            key = _MISTAKE if sample.mistake else _ERROR
            return {key: np.frombuffer(sample.message.encode(), np.uint8)}
    return collate(samples)


def raise_if_error(batch: Any) -> Any:
    """The batch as it is; raises the exception that took its place, if one did.

    Raises:
        UserError: as the dataset raised it.
        RuntimeError: another one, with the traceback of the worker as its text.
    """
    for key, kind in ((_ERROR, UserError), (_MISTAKE, RuntimeError)):
        if isinstance(batch, dict) and key in batch:
            raise kind(np.asarray(batch[key]).tobytes().decode())
    return batch


class ValidationSamples(paddle.io.Dataset):
    """Some samples of a dataset, transformed for evaluation: the label keeps its original size.

    PaddleSeg does so too: what is compared is the prediction brought back to that size.
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
) -> Iterator[dict[str, Any]]:
    """Batches of samples that agree in every size, at most `batch_size` each, in order.

    Yields:
        `img` (n, 3, H, W) and `label` (n, h, w; not there where samples have none and none is
        needed) uint8 Paddle tensors on CPU, `trans_info` of the transforms, `index` list of n
        numbers in the dataset.

    Raises:
        UserError: a sample can't be read; the same error with and without workers.
    """
    loader = paddle.io.DataLoader(
        GuardedDataset(ValidationSamples(dataset, indices, require_labels)),
        places=paddle.CPUPlace(),
        batch_size=batch_size,
        collate_fn=guarded(_groups_of_one_size),
        num_workers=num_workers,
        use_shared_memory=shared_memory_fits(num_workers, batch_size, _BYTES_PER_SAMPLE),
        worker_init_fn=reader_setup(),
    )
    for groups in batches_of(loader):
        yield from raise_if_error(groups)


def _groups_of_one_size(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for sample in samples:
        way = tuple((step, tuple(size)) for step, size in sample["trans_info"])
        arrays = tuple(key for key in ("img", "label") if key in sample)
        shapes = tuple(sample[key].shape for key in arrays)
        groups.setdefault((arrays, shapes, way), []).append(sample)
    return [
        {
            **_stack(members, arrays),
            "trans_info": way,
            "index": [sample["index"] for sample in members],
        }
        for (arrays, _, way), members in groups.items()
    ]


class TrainingOrder(paddle.io.BatchSampler):
    """Which samples each forward pass of training reads: one endless stream of shuffled epochs.

    Position p of the stream is sample `shuffle(seed, epoch)[p mod length]` of epoch p div length,
    and p also seeds its augmentation. So order and augmentation depend on the seed alone: not on
    the number of workers, devices or resumes, and nothing is skipped or read twice on resuming. No
    sample is dropped at the end of an epoch, so a dataset may be smaller than a batch.

    Args:
        length: samples of the dataset.
        batch_size: samples of one forward pass on one device.
        accumulate: forward passes of one optimizer step.
        seed: of the shuffling.
        start: first iteration (optimizer step), from 0.
        stop: iteration to stop before.
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

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Lists of (index, position) for this process."""
        parts = self.accumulate * world_size()
        for iteration in range(self.start, self.stop):
            for part in range(rank(), parts, world_size()):
                first = (iteration * parts + part) * self.batch_size
                yield [(self.sample_at(p), p) for p in range(first, first + self.batch_size)]

    def sample_at(self, position: int) -> int:
        """The sample at a position of the stream."""
        epoch, place = divmod(position, self.length)
        return int(self._shuffle(epoch)[place])

    def _shuffle_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.length)


def training_batches(dataset: Any, order: TrainingOrder, num_workers: int) -> Iterator[dict]:
    """Batches of the samples of `order`, read ahead by `num_workers` processes (0: a thread).

    Yields:
        `img` (n, 3, h, w) uint8, `label` (n, h, w) uint8 and `index` (n,) int64 tensors.

    Raises:
        UserError: a sample can't be read, has no label, or the crops of a batch differ in size.
    """
    in_memory = shared_memory_fits(num_workers, order.batch_size, _BYTES_PER_SAMPLE)
    loader = paddle.io.DataLoader(
        GuardedDataset(dataset),
        batch_sampler=order,
        collate_fn=guarded(training_batch),
        num_workers=num_workers,
        use_shared_memory=in_memory,
        worker_init_fn=reader_setup(),
    )
    for batch in batches_of(loader):
        yield raise_if_error(batch)


def training_batch(samples: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Samples as one batch: `img` (n, 3, h, w), `label` (n, h, w) and `index` (n,) arrays."""
    shapes = {(sample["img"].shape, sample.get("label", np.empty(0)).shape) for sample in samples}
    if len(shapes) > 1 or "label" not in samples[0]:
        found = ", ".join(str(image[:2]) for image, _ in sorted(shapes))
        message = (
            f"train_dataset: a batch needs labelled images of one size, found (h, w) {found}; end "
            "the transforms with a crop (RandomPaddingCrop) or a Resize before Normalize"
        )
        return {_ERROR: np.frombuffer(message.encode(), np.uint8)}
    return _stack(samples, ("img", "label", "index"))


def _stack(samples: list[dict[str, Any]], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """One array of each key's: images as planes (n, 3, h, w), all else as it is."""
    columns = {key: [sample[key] for sample in samples] for key in keys}
    return {key: (stack_planes if key == "img" else np.stack)(v) for key, v in columns.items()}
