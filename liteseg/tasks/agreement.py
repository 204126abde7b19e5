"""Training processes agree: an error of one ends all, and all have the same config and data."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import paddle

from liteseg import __version__
from liteseg.config.schema import CheckedConfig
from liteseg.datasets import SegmentationDataset
from liteseg.errors import UserError
from liteseg.tasks.launch import connect
from liteseg.utils.runtime import gathered_objects, host_and_rank, local_rank, world_size

# Values that may differ between machines.
_LOCAL = ("dataset_root", "num_workers", "plugins", "pack", "train_path", "val_path")
_STAT_THREADS = 16  # a network file system answers each request late, but many at once


@contextlib.contextmanager
def shared_errors() -> Iterator[None]:
    """A UserError of one process within the block is raised in all; connects them at its end.

    The block must not exchange anything between the processes.
    """
    problem = ""
    try:
        yield
    except UserError as error:
        if world_size() == 1:
            raise
        problem = str(error)
    if world_size() == 1:
        return
    connect()
    problems = gathered_objects((host_and_rank(), problem))
    name, first = next((one for one in problems if one[1]), ("", ""))
    if first:
        everywhere = all(text == first for _, text in problems)
        raise UserError(first if everywhere else f"{name}: {first}")


def require_same_setup(cfg: CheckedConfig, **datasets: Optional[SegmentationDataset]) -> None:
    """Compare versions, configs and datasets of all processes, once for each machine.

    Folders and workers may differ; names and sizes of the dataset's files may not.

    Args:
        cfg: the config of this process.
        datasets: by their config key; None is skipped.

    Raises:
        UserError: in all processes, with the machine that differs from the first.
    """
    if world_size() == 1:
        return
    connect()
    facts: Optional[dict[str, Any]] = None
    if local_rank() == 0:
        facts = {
            "liteseg": __version__,
            "Paddle": paddle.__version__,
            **dict(_leaves("", cfg.source.data)),
            **{key: fingerprint(one) for key, one in datasets.items() if one is not None},
        }
    everyone = gathered_objects((host_and_rank(), facts))
    (first, expected), *others = [(name, found) for name, found in everyone if found is not None]
    for name, found in others:
        for key in sorted({*expected, *found}):
            if found.get(key) != expected.get(key):
                value, other = found.get(key, "absent"), expected.get(key, "absent")
                raise UserError(
                    f"{name}: {key} is {value}, and {other} on {first}; give every machine the same"
                )


def fingerprint(dataset: SegmentationDataset) -> str:
    """Number of files of a dataset, their bytes, and a checksum of their names and sizes."""
    paths = [path for sample in dataset.samples for path in sample[:2] if path]
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        sizes = list(threads.map(_size, paths))
    lines = "\n".join(f"{path.parent.name}/{path.name} {n}" for path, n in zip(paths, sizes))
    digest = hashlib.sha256(lines.encode()).hexdigest()[:8]
    return f"{len(paths)} files of {sum(sizes)} bytes (checksum {digest})"


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # packed, or reported when it is read
        return 0


def _leaves(path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of all values of a config that must be the same on every machine."""
    if isinstance(tree, Mapping):
        items: Sequence[tuple[Any, Any]] = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        items = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, value in items:
        if key not in _LOCAL:
            yield from _leaves(f"{path}.{key}" if path else str(key), value)
