"""A pack: the decoded images and labels of a dataset in one file, read through a memory map.

Decoding a 2048x1024 PNG takes ten times as long as the augmentation of the crop that is kept of it.
From a pack nothing is decoded, and a crop reads only the rows it covers.

A pack is a folder with `pixels.bin`, the (h, w, 3) uint8 image and the (h, w) uint8 label (train
ids) of one sample after the other, and `index.json`, which says where each sample lies, what its
files were and what the checksum of its bytes is. The same files give the same bytes. While it is
built, the pixels are in `pixels.partial`, and `progress.txt` lists the samples in it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional

import numpy as np

from liteseg.errors import UserError
from liteseg.utils.files import check_writable, locked, sweep, write_json
from liteseg.utils.logging import progress as show_progress

logger = logging.getLogger(__name__)

FORMAT = "liteseg pack 1"
INDEX, PIXELS = "index.json", "pixels.bin"
PARTIAL, PROGRESS = "pixels.partial", "progress.txt"
_ALIGNMENT = 64  # bytes between which samples begin: a cache line
_RESERVE = 1 << 20  # bytes of a disk that are left for the index


class Entry(NamedTuple):
    """A sample of a pack.

    Attributes:
        name: that of the dataset's sample.
        image: [size in bytes, time of change in ns] of the image file.
        label: that of the label file; None if there is none.
        height, width: pixels.
        offset: of the image in `pixels.bin`; the label follows it.
        crc32: of the bytes of image and label; -1 as long as they are not packed.
    """

    name: str
    image: list[int]
    label: Optional[list[int]]
    height: int
    width: int
    offset: int
    crc32: int = -1

    @property
    def key(self) -> tuple:
        """What tells samples apart: names may repeat, as those of Streets do in train and val."""
        return self.name, tuple(self.image), None if self.label is None else tuple(self.label)

    @property
    def bytes(self) -> int:
        """Length in `pixels.bin`."""
        return self.height * self.width * (3 if self.label is None else 4)

    def arrays(self, pixels: np.ndarray) -> tuple[np.ndarray, Optional[np.ndarray]]:
        """Image and label as views of the bytes of `pixels.bin`."""
        size = self.height, self.width
        data = pixels[self.offset : self.offset + self.bytes]
        area = self.height * self.width
        label = None if self.label is None else data[3 * area :].reshape(size)
        return data[: 3 * area].reshape(*size, 3), label

    def checksum(self, pixels: np.ndarray) -> int:
        """CRC-32 of its bytes as they are now."""
        return zlib.crc32(pixels[self.offset : self.offset + self.bytes])


class Pack:
    """A pack opened for reading.

    Args:
        folder: where `build_pack` wrote it.

    Raises:
        UserError: no pack, one that is not finished, or cut off.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).expanduser()
        index = _read_index(self.folder)
        self.about = {key: index[key] for key in ("dataset", "classes", "ignore_index")}
        self.bytes = index["bytes"]
        self.entries = [Entry(*entry) for entry in index["samples"]]
        self._pixels: Optional[np.ndarray] = None
        path = self.folder / PIXELS
        found = path.stat().st_size if path.is_file() else 0
        if found != self.bytes:
            raise UserError(
                f"pack: {path} has {found} bytes, {INDEX} says {self.bytes}: it was cut off or "
                "replaced; build the pack again (the command `data pack`)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without the map: in a worker process it would arrive as a copy of the whole file."""
        return {**self.__dict__, "_pixels": None}

    @property
    def pixels(self) -> np.ndarray:
        """All bytes of the pack, (bytes,) uint8, read-only; read from disk where they are used."""
        if self._pixels is None:
            self._pixels = np.memmap(self.folder / PIXELS, np.uint8, "r").view(np.ndarray)
        return self._pixels

    def load(self, entry: Entry) -> tuple[np.ndarray, Optional[np.ndarray]]:
        """Image (h, w, 3) and label (h, w) of a sample, read-only views of the map."""
        return entry.arrays(self.pixels)

    def entries_of(self, dataset: Any) -> dict[Any, Entry]:
        """{sample: entry} of all samples of the dataset, as its files are now.

        Raises:
            UserError: other classes, samples that are not in the pack, or files that changed.
        """
        for key, wanted in _about(dataset).items():
            if self.about[key] != wanted:
                raise UserError(
                    f"pack: {self.folder} was made with {key} {self.about[key]}, the config has "
                    f"{wanted}; build it again with this config (the command `data pack`)"
                )
        by_key = {entry.key: entry for entry in self.entries}
        found = {sample: by_key.get(_key(sample)) for sample in dataset.samples}
        names = {entry.name for entry in self.entries}
        absent = [sample for sample, entry in found.items() if entry is None]
        if absent:
            changed = [sample for sample in absent if sample.name in names]
            first = (changed or absent)[0]
            raise UserError(
                f"pack: {self.folder} is stale: {len(absent)} samples are not in it or changed "
                f"since; the first, {first.image}, {'changed' if changed else 'is not in it'}; "
                "build it again (the command `data pack`)"
            )
        return found

    def verify(self, progress: bool = True) -> None:
        """Read everything and compare the checksums.

        Raises:
            UserError: names the samples whose bytes are not what was written.
        """
        bar = show_progress(self.entries, "checksums", shown=progress)
        broken = [entry.name for entry in bar if entry.checksum(self.pixels) != entry.crc32]
        if broken:
            raise UserError(
                f"pack: {len(broken)} of {len(self.entries)} samples in {self.folder / PIXELS} are "
                f"damaged, the first {broken[0]}; delete {self.folder} and build it again"
            )


def build_pack(
    dataset: Any, folder: Path, workers: Optional[int] = None, progress: bool = True
) -> Pack:
    """Pack every sample of a dataset; goes on where an earlier call was interrupted.

    Args:
        dataset: with `samples`, `load_files`, `classes`, `ignore_index`.
        folder: of the pack. A pack that is there and up to date is kept; an older one is replaced
            when the new one is complete.
        workers: threads that decode; one per core without.
        progress: show a bar.

    Raises:
        UserError: a file can't be read, the disk is short, or `folder` holds something else.
    """
    folder = Path(folder).expanduser()
    _require_ours(folder)
    with contextlib.suppress(UserError):
        pack = Pack(folder)
        pack.entries_of(dataset)
        return pack
    check_writable(folder)
    with locked(folder):
        sweep(folder, INDEX)
        try:
            _build(dataset, folder, workers, progress)
        except OSError as error:
            message = f"can't write the pack {folder}: {error.strerror or error}"
            raise UserError(message) from error
    return Pack(folder)


def _build(dataset: Any, folder: Path, workers: Optional[int], progress: bool) -> None:
    entries, total = _plan(dataset)
    logger.info(f"packing {len(entries)} images: {_in_units(total)} in {folder}")
    with open(folder / PARTIAL, "ab") as file:
        _allocate(file, total, folder)
    pixels = np.memmap(folder / PARTIAL, np.uint8, "r+")
    with open(folder / PROGRESS, "a+", encoding="utf-8") as log:
        done = _resume(log, entries, pixels)
        _fill(dataset, entries, done, pixels, log, workers, progress)
    pixels.flush()
    (folder / INDEX).unlink(missing_ok=True)  # an old one must not speak of the new pixels
    os.replace(folder / PARTIAL, folder / PIXELS)
    samples = [done[entry.key] for entry in entries]
    index = {"format": FORMAT, **_about(dataset), "bytes": total, "samples": samples}
    write_json(folder / INDEX, index)
    (folder / PROGRESS).unlink()


def _plan(dataset: Any) -> tuple[list[Entry], int]:
    """Where each sample will lie, from the files' headers alone; and the bytes of them all."""
    with ThreadPoolExecutor() as pool:  # opening files is waiting, on a network above all
        sizes = list(pool.map(_size_of, [sample.image for sample in dataset.samples]))
    entries, offset = {}, 0
    for sample, (width, height) in zip(dataset.samples, sizes):
        entry = Entry(sample.name, *_stamps(sample), height, width, offset)
        if entry.key not in entries:  # a list may name an image twice
            entries[entry.key] = entry
            offset += -(-entry.bytes // _ALIGNMENT) * _ALIGNMENT
    return list(entries.values()), offset


def _size_of(path: Path) -> tuple[int, int]:
    from PIL import Image  # reads the header alone, which OpenCV can't

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't read the image's size: {error}") from None


def _stamps(sample: Any) -> tuple[list[int], Optional[list[int]]]:
    """Size and time of change of a sample's files, by which a later change is noticed."""
    stats = [path and path.stat() for path in (sample.image, sample.label)]
    image, label = (stat and [stat.st_size, stat.st_mtime_ns] for stat in stats)
    return image, label


def _key(sample: Any) -> tuple:
    """As `Entry.key`."""
    return Entry(sample.name, *_stamps(sample), 0, 0, 0).key


def _about(dataset: Any) -> dict[str, Any]:
    """What gives the numbers in the labels their meaning."""
    return {
        "dataset": type(dataset).__name__,
        "classes": list(dataset.classes),
        "ignore_index": dataset.ignore_index,
    }


def _require_ours(folder: Path) -> None:
    ours = {INDEX, PIXELS, PARTIAL, PROGRESS}
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = {name for name in found - ours if not name.startswith(".")}  # hidden: lock, index
    if foreign or folder.is_file():
        raise UserError(f"{folder} exists and is no pack; give a new or empty folder for the pack")


def _allocate(file: IO[bytes], total: int, folder: Path) -> None:
    """Make the file that long, its blocks taken: a full disk shows now and not hours later.

    Raises:
        UserError: says what is needed and what is free.
    """
    held = os.fstat(file.fileno()).st_blocks * 512
    free = shutil.disk_usage(folder).free
    short = UserError(
        f"the pack needs {_in_units(total - held)} in {folder}, where {_in_units(free)} are "
        "free; free some space, or give --output on another disk"
    )
    if free < total - held + _RESERVE:
        raise short
    try:
        os.truncate(file.fileno(), total)
        if total:
            os.posix_fallocate(file.fileno(), 0, total)
    except OSError:
        raise short from None


def _resume(log: IO[str], entries: list[Entry], pixels: np.ndarray) -> dict[tuple, Entry]:
    """What an earlier call noted in `log`, planned as now, and whose bytes are still there."""
    planned = {entry.key: entry for entry in entries}
    done = {}
    log.seek(0)
    for line in log:
        with contextlib.suppress(ValueError):  # the last line may have been cut off
            entry = Entry(*json.loads(line))
            if entry._replace(crc32=-1) == planned.get(entry.key):
                done[entry.key] = entry
    print(file=log)
    return {key: entry for key, entry in done.items() if entry.checksum(pixels) == entry.crc32}


def _fill(
    dataset: Any,
    entries: list[Entry],
    done: dict[tuple, Entry],
    pixels: np.ndarray,
    log: IO[str],
    workers: Optional[int],
    progress: bool,
) -> None:
    """Decode what is not `done` into its place in `pixels`, adding it to `log` and `done`."""
    index_of = {_key(sample): index for index, sample in enumerate(dataset.samples)}
    bar = show_progress(
        total=len(entries), initial=len(done), desc="packing", unit="image", shown=progress
    )

    def pack(entry: Entry) -> Entry:
        _copy(dataset.load_files(index_of[entry.key]), entry, pixels)
        return entry._replace(crc32=entry.checksum(pixels))

    # Threads: decoding lets go of the lock, and the map is shared.
    with bar, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        tasks = [pool.submit(pack, entry) for entry in entries if entry.key not in done]
        try:
            for task in as_completed(tasks):
                entry = task.result()
                done[entry.key] = entry
                print(json.dumps(entry), file=log, flush=True)
                bar.update()
        finally:
            for task in tasks:
                task.cancel()


def _copy(sample: dict[str, Any], entry: Entry, pixels: np.ndarray) -> None:
    image, label = entry.arrays(pixels)
    if sample["img"].shape != image.shape:
        raise UserError(
            f"{entry.name}: the image is {sample['img'].shape[1]}x{sample['img'].shape[0]}, its "
            f"header said {entry.width}x{entry.height}: did it change just now? Start again"
        )
    image[...] = sample["img"]
    if label is not None:
        label[...] = sample["label"]


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        building = (folder / PARTIAL).exists()
        what = "is not finished" if building else "is no pack"
        raise UserError(
            f"pack: {folder} {what} (it has no {INDEX}); build it with the command `data pack`"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"pack: {path}: can't be read: {error}; build the pack again") from None
    found = index.get("format") if isinstance(index, dict) else None
    if found != FORMAT:
        raise UserError(
            f"pack: {path} has format {found!r}, expected {FORMAT!r}; build the pack again"
        )
    return index


def _in_units(count: int) -> str:
    """A number of bytes for people, in units of 1000: 25.1 GB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
