"""The results of `predict`: their content, where they are written, and the list of failures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

import numpy as np

from liteseg.errors import UserError
from liteseg.report.polygons import encode_labelme
from liteseg.report.visualize import encode_palette_png, encode_png, overlay, with_legend
from liteseg.tasks.inputs import RESULTS, Job, Shard, in_shard
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.storage import Location, child, exists, is_url, write
from liteseg.utils.bands import for_display
from liteseg.utils.logging import get_logger
from liteseg.utils.results import require_replaceable
from liteseg.utils.text import redacted

KINDS = ("mask", "palette", "overlay")
ENDINGS = {
    "mask": "_label",
    "palette": "_color",
    "overlay": "_overlay",
    "confidence": "_confidence",
    "polygons": "_polygons",
}
FAILURES = "failures.jsonl"
# With these, nothing more can be written; with others, such as a name that is too long, one file.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp(?:\.mp4)?")


class OutputFailed(UserError):
    """The disk or the store of the results refuses: no further result can be written."""


def predicted(
    segmenter: Segmenter, image: np.ndarray, kinds: Sequence[str]
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """The labels and, if it is to be written, the confidence as uint8."""
    if "confidence" not in kinds:
        return segmenter.predict(image), None
    label, confidence = segmenter.predict_with_confidence(image)
    return label, (255 * confidence + 0.5).astype(np.uint8)


def encoded(
    segmenter: Segmenter,
    image: np.ndarray,
    kinds: Sequence[str],
    label: np.ndarray,
    confidence: Optional[np.ndarray] = None,
    name: str = "",
) -> Iterator[bytes]:
    """The content of each kind of result: a PNG, or the JSON of polygons.

    Args:
        segmenter: has the class names and colors.
        image: (H, W, C), as the segmenter reads it.
        kinds: keys of `ENDINGS`.
        label: (H, W) uint8, as `predicted` returns it.
        confidence: (H, W) uint8, if `kinds` has it.
        name: of the image file, relative to the results, for polygons.
    """
    for kind in kinds:
        if kind == "overlay":
            blended = overlay(for_display(image), label, segmenter.palette)
            present = np.unique(label)
            legend = with_legend(blended, segmenter.class_names, segmenter.palette, present)
            yield encode_png(legend)
        elif kind == "palette":
            yield encode_palette_png(label, segmenter.palette)
        elif kind == "polygons":
            yield encode_labelme(label, segmenter.class_names, name)
        else:
            yield encode_png(label if kind == "mask" or confidence is None else confidence)


@dataclass(frozen=True)
class Results:
    """The kinds of results and the folder or URL of a prediction. Processes may share it.

    Attributes:
        output: folder or URL.
        kinds: keys of `ENDINGS`.
        overwrite: replace files that liteseg has not written.
        skip_existing: leave inputs out of which all results exist.
    """

    output: Location
    kinds: Sequence[str]
    overwrite: bool = False
    skip_existing: bool = False

    def of(self, job: Job) -> list[Location]:
        """The files of an input; of a video without an overlay, the folder of its frames."""
        if not job.is_video:
            kinds = self.kinds
            names = [f"{ENDINGS[k]}.{'json' if k == 'polygons' else 'png'}" for k in kinds]
        else:
            names = ["_overlay.mp4" if "overlay" in self.kinds else ENDINGS[self.kinds[0]]]
        return [child(self.output, job.place + name) for name in names]

    def relative(self, job: Job) -> str:
        """The image of a job as its results name it: relative to them where both are local."""
        if not (isinstance(job.source, Path) and isinstance(self.output, Path)):
            return str(job.source)
        folder = Path(self.output, job.place).parent
        return Path(os.path.relpath(job.source, folder)).as_posix()

    def are_there(self, job: Job) -> bool:
        """Whether the input is left out. A folder of frames may be incomplete, so is made again."""
        is_folder = job.is_video and "overlay" not in self.kinds
        return self.skip_existing and not is_folder and all(map(exists, self.of(job)))

    def require_replaceable(self, jobs: Iterable[Job]) -> None:
        """Check that no file of the user would be replaced; not in object stores.

        Raises:
            UserError: one would.
        """
        if self.overwrite or not isinstance(self.output, Path):
            return
        paths = (Path(path) for job in jobs for path in self.of(job))
        files = (file for path in paths for file in (path.glob("*") if path.is_dir() else [path]))
        require_replaceable(files, "give another --output, or --overwrite")

    def write(self, job: Job, contents: Iterable[bytes]) -> None:
        """Write the files of an input, which must be an image.

        Raises:
            UserError: this one cannot be written.
            OutputFailed: no other can be written either.
        """
        for place, content in zip(self.of(job), contents):
            with self.stopping_at_full_disk():
                write(place, content)

    @contextlib.contextmanager
    def stopping_at_full_disk(self) -> Iterator[None]:
        """An error of the disk or of the object store becomes `OutputFailed`."""
        try:
            yield
        except UserError as error:
            number = getattr(error.__cause__, "errno", None)
            if isinstance(self.output, Path) and number not in _DISK_ERRORS:
                raise
            raise OutputFailed(f"{error} (on the host {socket.gethostname()})") from error

    def remove_leftovers(self, shard: Optional[Shard]) -> None:
        """Remove unfinished files of a shard whose process was killed; not in object stores."""
        root = re.sub("^file://", "", str(self.output))
        for folder, _, names in () if is_url(root) else os.walk(root):
            for name in names:
                found = _LEFTOVER.fullmatch(name)
                ending = found and next(
                    (e for e in (*RESULTS, "_overlay") if found[1].endswith(e)), None
                )
                if found and ending:
                    place = Path(folder, found[1][: -len(ending)]).relative_to(root)
                    if in_shard(place.as_posix(), shard):
                        Path(folder, name).unlink(missing_ok=True)


class Failures:
    """`failures.jsonl` of an output: {"name", "error", "place"} of each input that failed.

    Lines of an earlier call are removed, as its inputs are tried again. Shards share the file of a
    folder: each has its own lines. In an object store, which cannot append, each shard has its own
    file, written at the end.
    """

    def __init__(self, output: Location, shard: Optional[Shard]):
        name = FAILURES
        if shard and not isinstance(output, Path):
            name = f"failures_{shard[0]}_of_{shard[1]}.jsonl"
        self.location, self.count = child(output, name), 0
        self._lines: list[str] = []  # of an object store
        if isinstance(self.location, Path) and self.location.exists():
            with self._locked() as file:
                kept = [line for line in file if not _is_of_shard(line, shard)]
                file.seek(0)
                file.truncate()
                file.writelines(kept)
            if not kept and shard is None:
                self.location.unlink()

    def add(self, job: Job, error: str) -> None:
        """Record a failure."""
        self.count += 1
        entry = {"name": redacted(str(job.source)), "error": redacted(error), "place": job.place}
        line = json.dumps(entry) + "\n"
        if not isinstance(self.location, Path):
            self._lines.append(line)
            return
        try:
            with self._locked() as file:
                file.seek(0, os.SEEK_END)
                file.write(line)
        except OSError as problem:
            get_logger().warning(f"{self.location}: {problem.strerror}: {line.rstrip()}")

    def finish(self) -> None:
        """Write the file of an object store."""
        if not isinstance(self.location, Path) and (self._lines or exists(self.location)):
            write(self.location, "".join(self._lines).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        # Text of any name; "a+" creates it, reads and appends.
        with open(self.location, "a+", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.lockf(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file
            file.flush()


def _is_of_shard(line: str, shard: Optional[Shard]) -> bool:
    try:
        return in_shard(json.loads(line)["place"], shard)
    except (ValueError, TypeError, KeyError):  # cut by a kill
        return True
