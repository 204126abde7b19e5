"""Packs: the decoded images and labels of a dataset in one memory-mapped file.

Decoding a 2048x1024 PNG takes ten times as long as augmenting the crop that is kept of it. Reading
from a pack decodes nothing, and a crop only reads the rows it covers.

A pack is a folder with `pixels.bin`, the (h, w, 3) uint8 image and the (h, w) uint8 label (train
ids) of one sample after the other, and `index.json` with the position and checksum of each sample
and the state of its files. The same files give the same bytes. During the build the pixels are in
`pixels.partial`, and `progress.txt` lists the samples written so far. One file maps once and stays
mapped: with an .npy file per array, workers read crops at about half the speed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Optional, Union

import numpy as np

from liteseg.datasets.parallel import map_in_threads
from liteseg.errors import UserError, quoted
from liteseg.utils.files import check_writable, locked, read_json, remove_leftovers, write_json
from liteseg.utils.logging import progress as progress_bar

if TYPE_CHECKING:
    from liteseg.datasets.base import Sample, SegmentationDataset

logger = logging.getLogger(__name__)

FORMAT = "liteseg pack 1"
INDEX, PIXELS = "index.json", "pixels.bin"
PARTIAL, PROGRESS = "pixels.partial", "progress.txt"
_ABOUT = ("dataset", "classes", "ignore_index", "exif", "bands", "decoding")
_ALIGNMENT = 64  # bytes; each sample begins at a multiple: a cache line
_HEADER_THREADS = 16
_MAX_INDEX = 1 << 30  # bytes
_RESERVE = 1 << 20  # bytes of disk left free for the index


class Entry(NamedTuple):
    """A sample of a pack.

    Attributes:
        name: name of the dataset's sample.
        image: [size in bytes, modification time in ns] of the image file.
        label: the same of the label file; None if there is none.
        height, width: pixels.
        offset: position of the image in `pixels.bin`; the label follows it.
        crc32: checksum of the bytes of image and label; -1 before they are written.
        pixel: bytes of a pixel of the image: 3 of 8-bit RGB, or 4 for each float32 channel.
    """

    name: str
    image: list[int]
    label: Optional[list[int]]
    height: int
    width: int
    offset: int
    crc32: int = -1
    pixel: int = 3

    def is_inside(self, size: int) -> bool:
        """Whether types and position are those of a sample in a pack of `size` bytes."""
        numbers = (*self.image, *(self.label or ()), self.height, self.width, self.offset)
        return (
            isinstance(self.name, str)
            and all(type(number) is int and number >= 0 for number in (*numbers, self.crc32 + 1))
            and self.offset + self.bytes <= size
        )

    @property
    def key(self) -> tuple:
        """Identity of the sample; names alone repeat, such as those of Streets in train and val."""
        return self.name, *self.image, *(self.label or ())

    @property
    def bytes(self) -> int:
        """Length in `pixels.bin`."""
        return self.height * self.width * (self.pixel + (self.label is not None))

    def arrays(self, pixels: np.ndarray) -> tuple[np.ndarray, Optional[np.ndarray]]:
        """Image and label as views of the bytes of `pixels.bin`."""
        size = self.height, self.width
        data = pixels[self.offset : self.offset + self.bytes]
        area = self.height * self.width
        image = data[: self.pixel * area]
        label = None if self.label is None else data[self.pixel * area :].reshape(size)
        return (image if self.pixel == 3 else image.view(np.float32)).reshape(*size, -1), label

    def checksum(self, pixels: np.ndarray) -> int:
        """CRC-32 of the sample's current bytes."""
        return zlib.crc32(pixels[self.offset : self.offset + self.bytes].data)


class Pack:
    """A pack opened for reading.

    Args:
        folder: output folder of `build_pack`.

    Raises:
        UserError: the folder is no pack, or the pack is unfinished or cut off.
    """

    def __init__(self, folder: Union[str, Path]):
        self.folder = Path(folder).expanduser()
        index = _read_index(self.folder)
        self.about = {key: index.get(key) for key in _ABOUT}
        try:
            self.bytes = index["bytes"]
            self.entries = [Entry(*entry) for entry in index["samples"]]
            sound = all(entry.is_inside(self.bytes) for entry in self.entries)
        except (KeyError, TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise UserError(f"pack: {self.folder / INDEX} is damaged; build the pack again")
        self._pixels: Optional[np.ndarray] = None
        path = self.folder / PIXELS
        found = path.stat().st_size if path.is_file() else 0
        if found != self.bytes:
            raise UserError(
                f"pack: {path} has {found} bytes, expected {self.bytes} ({INDEX}): it was cut off "
                "or replaced; build the pack again (the command `data pack`)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """State without the map, which would be pickled as a copy of the whole file."""
        return {**self.__dict__, "_pixels": None}

    @property
    def pixels(self) -> np.ndarray:
        """All bytes of the pack, (bytes,) uint8, read-only; read from disk on access."""
        if self._pixels is None:
            self._pixels = np.memmap(self.folder / PIXELS, np.uint8, "r").view(np.ndarray)
        return self._pixels

    def load(self, entry: Entry) -> tuple[np.ndarray, Optional[np.ndarray]]:
        """Image (h, w, 3) and label (h, w) of a sample, read-only views of the map."""
        return entry.arrays(self.pixels)

    def entries_of(self, dataset: SegmentationDataset) -> dict[Sample, Entry]:
        """{sample: entry} of all samples of the dataset, for the current state of its files.

        Raises:
            UserError: other classes, samples that are not in the pack, or changed files.
        """
        for key, wanted in _about(dataset).items():
            if self.about[key] != wanted:
                raise UserError(
                    f"pack: {self.folder} was made with {key} {self.about[key]}, the config has "
                    f"{wanted}; build it again with this config (the command `data pack`)"
                )
        by_key = {entry.key: entry for entry in self.entries}
        keys = {sample: _entry(sample).key for sample in dataset.samples}
        absent = [sample for sample, key in keys.items() if key not in by_key]
        if absent:
            names = {entry.name for entry in self.entries}
            changed = [sample for sample in absent if sample.name in names]
            first = (changed or absent)[0]
            state = "has changed" if changed else "is not in it"
            raise UserError(
                f"pack: {self.folder} is stale: {len(absent)} samples are not in it or have "
                f"changed; the first, {first.image}, {state}; build it again (the command "
                "`data pack`)"
            )
        return {sample: by_key[key] for sample, key in keys.items()}

    def verify(self, progress: bool = True) -> None:
        """Read all bytes and compare the checksums.

        Raises:
            UserError: the bytes of some samples are not those that were written.
        """
        bar = progress_bar(self.entries, "checksums", shown=progress)
        damaged = [entry.name for entry in bar if entry.checksum(self.pixels) != entry.crc32]
        if damaged:
            raise UserError(
                f"pack: {len(damaged)} of {len(self.entries)} samples in {self.folder / PIXELS} "
                f"are damaged, the first {damaged[0]}; delete {self.folder} and build it again"
            )


def build_pack(
    dataset: SegmentationDataset, folder: Path, workers: Optional[int] = None, progress: bool = True
) -> Pack:
    """Pack all samples of a dataset; an interrupted build resumes.

    Args:
        dataset: its files are read, its transforms are not applied.
        folder: output folder. An up-to-date pack there is kept; a stale one is replaced when the
            new one is complete.
        workers: number of decoding threads (default: one per core).
        progress: show a progress bar on stderr.

    Raises:
        UserError: a file can't be read, the disk is too small, or `folder` contains other files.
    """
    folder = Path(folder).expanduser()
    _require_pack_folder(folder)
    with contextlib.suppress(UserError):
        pack = Pack(folder)
        pack.entries_of(dataset)
        return pack
    check_writable(folder)
    with locked(folder):
        remove_leftovers(folder, INDEX)
        try:
            _build(dataset, folder, workers, progress)
        except OSError as error:
            message = f"can't write the pack {folder}: {error.strerror or error}"
            raise UserError(message) from error
    return Pack(folder)


def _build(
    dataset: SegmentationDataset, folder: Path, workers: Optional[int], progress: bool
) -> None:
    entries, total = _plan(dataset)
    logger.info(f"packing {len(entries)} images: {_format_bytes(total)} in {folder}")
    with open(folder / PARTIAL, "ab") as file:
        _allocate(file, total, folder)
    pixels = np.memmap(folder / PARTIAL, np.uint8, "r+")
    with open(folder / PROGRESS, "a+", encoding="utf-8") as log:
        done = _read_progress(log, entries, pixels)
        missing = [entry for entry in entries if entry.key not in done]
        written = _write(dataset, missing, pixels, workers)
        count = {"total": len(entries), "initial": len(done)}
        for entry in progress_bar(written, "packing", **count, unit="image", shown=progress):
            done[entry.key] = entry
            print(json.dumps(entry), file=log, flush=True)
    pixels.flush()
    (folder / INDEX).unlink(missing_ok=True)  # an old index must not describe the new pixels
    os.replace(folder / PARTIAL, folder / PIXELS)
    samples = [done[entry.key] for entry in entries]
    index = {"format": FORMAT, **_about(dataset), "bytes": total, "samples": samples}
    write_json(folder / INDEX, index)
    (folder / PROGRESS).unlink()


def _plan(dataset: SegmentationDataset) -> tuple[list[Entry], int]:
    """The position of each sample, from the headers of the files; and the bytes of all samples."""
    images = [sample.image for sample in dataset.samples]
    # Opening files is waiting, especially on a network disk, so more threads than cores help.
    sizes = map_in_threads(lambda path: _size_of(dataset, path), images, _HEADER_THREADS)
    entries, offset = {}, 0
    for sample, (width, height) in zip(dataset.samples, sizes):
        entry = _entry(sample, height, width, offset)
        if dataset.bands is not None:
            entry = entry._replace(pixel=4 * len(dataset.bands))
        if entry.key not in entries:  # a list may name an image twice
            entries[entry.key] = entry
            offset += -(-entry.bytes // _ALIGNMENT) * _ALIGNMENT
    return list(entries.values()), offset


def _size_of(dataset: SegmentationDataset, path: Path) -> tuple[int, int]:
    from PIL import Image  # reads only the header, unlike OpenCV

    if dataset.bands is not None:  # Pillow can't open all of these files
        height, width = dataset.read_image(path).shape[:2]
        return width, height
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't read the image's size: {error}") from None


def _entry(sample: Sample, height: int = 0, width: int = 0, offset: int = 0) -> Entry:
    def state(path: Path) -> list[int]:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    label = None if sample.label is None else state(sample.label)
    return Entry(sample.name, state(sample.image), label, height, width, offset)


def _about(dataset: SegmentationDataset) -> dict[str, Any]:
    """The meaning of the pixels, as JSON has it."""
    values = (
        type(dataset).__name__,
        list(dataset.classes),
        dataset.ignore_index,
        dataset.exif,
        dataset.bands and list(dataset.bands),
        dataset.decoding,
    )
    return dict(zip(_ABOUT, values))


def _require_pack_folder(folder: Path) -> None:
    own = {INDEX, PIXELS, PARTIAL, PROGRESS}
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = {name for name in found - own if not name.startswith(".")}  # hidden: lock, index
    if foreign or folder.is_file():
        raise UserError(f"{folder} exists and is no pack; give a new or empty folder for the pack")


def _allocate(file: IO[bytes], total: int, folder: Path) -> None:
    """Allocate `total` bytes of disk for the file, so that a full disk shows before the work.

    Raises:
        UserError: with the space required and the space free.
    """
    held = os.fstat(file.fileno()).st_blocks * 512
    free = shutil.disk_usage(folder).free
    disk_full = UserError(
        f"the pack needs {_format_bytes(total - held)} in {folder}, where {_format_bytes(free)} "
        "are free; free some space, or give --output on another disk"
    )
    if free < total - held + _RESERVE:
        raise disk_full
    try:
        os.truncate(file.fileno(), total)
        if total:
            os.posix_fallocate(file.fileno(), 0, total)
    except OSError:
        raise disk_full from None


def _read_progress(log: IO[str], entries: list[Entry], pixels: np.ndarray) -> dict[tuple, Entry]:
    """The entries written by an earlier call, if they are planned and their bytes are intact."""
    planned = {entry.key: entry for entry in entries}
    done = {}
    log.seek(0)
    for line in log:
        with contextlib.suppress(ValueError):  # the last line may be cut off
            entry = Entry(*json.loads(line))
            if entry._replace(crc32=-1) == planned.get(entry.key):
                done[entry.key] = entry
    print(file=log)
    return {key: entry for key, entry in done.items() if entry.checksum(pixels) == entry.crc32}


def _write(
    dataset: SegmentationDataset,
    entries: list[Entry],
    pixels: np.ndarray,
    workers: Optional[int],
) -> Iterator[Entry]:
    """Decode the entries into their places in `pixels`; yields each with its checksum."""
    index_of = {_entry(sample).key: index for index, sample in enumerate(dataset.samples)}

    def write(entry: Entry) -> Entry:
        sample = dataset.load_files(index_of[entry.key])
        height, width = sample["img"].shape[:2]
        if (height, width) == (entry.width, entry.height):  # turned by its EXIF orientation
            entry = entry._replace(height=height, width=width)
        if (height, width) != (entry.height, entry.width):
            raise UserError(
                f"{entry.name}: the image is {width}x{height}, expected {entry.width}x"
                f"{entry.height} as in its header: did the file change? Start again"
            )
        image, label = entry.arrays(pixels)
        image[...] = sample["img"]
        if label is not None:
            label[...] = sample["label"]
        return entry._replace(crc32=entry.checksum(pixels))

    return map_in_threads(write, entries, workers)


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        state = "is not finished" if (folder / PARTIAL).exists() else "is no pack"
        raise UserError(
            f"pack: {folder} {state} (it has no {INDEX}); build it with the command `data pack`"
        )
    try:
        index = read_json(path, _MAX_INDEX)
    except (OSError, ValueError) as error:
        raise UserError(f"pack: {path}: can't be read: {error}; build the pack again") from None
    found = index.get("format") if isinstance(index, dict) else None
    if found != FORMAT:
        raise UserError(
            f"pack: {path} has format {quoted(found)}, expected {FORMAT!r}; build the pack again"
        )
    return index


def _format_bytes(count: float) -> str:
    """A number of bytes in units of 1000: 25.1 GB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
