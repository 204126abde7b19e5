"""The image and video files of `predict`, listed one folder at a time, and the names of results.

The order of a folder: its files by name, then its subfolders by name, each in the same way. Only
the names of one folder are in memory at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import re
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, NamedTuple, Optional, Union

from liteseg.errors import UserError
from liteseg.tasks.storage import Location, child, is_url, kind_of, location, scan
from liteseg.utils.images import IMAGE_SUFFIXES
from liteseg.utils.logging import get_logger
from liteseg.utils.results import is_marked

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)

# What `predict` appends to the name of an input; without a suffix: a folder of frames.
RESULTS = (
    *("_label.png", "_color.png", "_overlay.png", "_overlay.mp4", "_confidence.png"),
    "_polygons.json",
    *("_label", "_color", "_confidence"),
)
_STREAMS = ("rtsp", "rtsps", "rtmp", "rtp", "srt", "tcp", "udp")
_MAGIC = re.compile(r"[*?[]")
_EVERYTHING = ("**", "*")  # as a pattern
_OTHERS_NAMED = 5

Shard = tuple[int, int]


class Job(NamedTuple):
    """A file to predict.

    Attributes:
        source: path or URL.
        place: where its results start in the output: names separated by "/", without a suffix.
        problem: why it cannot be predicted, if that is known from listing it.
    """

    source: Location
    place: str
    problem: str = ""

    @property
    def is_video(self) -> bool:
        """Whether it has frames: a video file, or a numbered sequence (`frames/%06d.png`)."""
        stem, suffix = posixpath.splitext(posixpath.basename(str(self.source)))
        is_sequence = "%" in stem and isinstance(self.source, Path)
        return is_sequence or suffix.lower() in VIDEO_SUFFIXES


class _Input(NamedTuple):
    """A file (without a pattern), or the files of a folder that match a pattern."""

    source: Location
    place: str
    pattern: tuple[str, ...] = ()


def find_jobs(
    inputs: Sequence[Union[str, Path]],
    output: Optional[Path] = None,
    suffixes: Sequence[str] = SUFFIXES,
    shard: Optional[Shard] = None,
) -> Iterator[Job]:
    """The images and videos among the inputs, each with its own place in the output.

    Folders and patterns (`photos/**/*.jpg`) are searched by suffix, also through links; their
    subfolders are kept in the output. Results of an earlier call in `output` are left out.

    Raises:
        UserError: (at once) an input does not exist or is not a regular file, or a folder contains
            no file with one of `suffixes`.
    """
    found = [_input_of(text, len(inputs) == 1) for text in inputs]
    jobs = [_jobs_of(one, output, suffixes) for one in _with_places_of_their_own(found)]
    return _of_shard(itertools.chain.from_iterable(jobs), shard)


def jobs_of_list(file: Union[str, Path], shard: Optional[Shard] = None) -> Iterator[Job]:
    """The files that a text file names, one per line; their results keep the path as it is written.

    Of entries with one place, such as a/x.jpg and a/x.png, all but the first have a problem; 100
    bytes of memory per entry detect this.

    Args:
        file: UTF-8 text; "-" is the standard input. Paths are relative to the current folder.
        shard: as of `predict`.

    Raises:
        UserError: (at once) the list cannot be read.
    """
    if str(file) == "-":
        return _with_problems(_of_shard(_listed(sys.stdin), shard))
    try:
        lines = open(file, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"--inputs-from {file}: cannot be read: {error.strerror}; give a text file with one "
            "path or URL per line"
        ) from None
    return _with_problems(_of_shard(_listed(lines), shard))


def in_shard(place: str, shard: Optional[Shard]) -> bool:
    """Whether the shard (index, count) has this place: by a hash, so independent of all others."""
    return shard is None or _hash_of(place) % shard[1] == shard[0]


def _hash_of(place: str) -> int:
    name = place.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def _of_shard(jobs: Iterable[Job], shard: Optional[Shard]) -> Iterator[Job]:
    return (job for job in jobs if in_shard(job.place, shard))


def _listed(lines: IO[str]) -> Iterator[Job]:
    with lines:
        for name in filter(None, (line.strip("\r\n") for line in lines)):
            path = posixpath.normpath(name.partition("://")[2] if is_url(name) else name)
            parts = [part for part in path.split("/") if part not in ("", "..")]
            yield Job(location(name), posixpath.splitext("/".join(parts))[0])


def _with_problems(jobs: Iterable[Job]) -> Iterator[Job]:
    seen = set()
    for job in jobs:
        key = _hash_of(job.place)
        if key in seen:
            job = job._replace(problem="another entry of the list has results of the same name")
        seen.add(key)
        yield job


def _input_of(text: Union[str, Path], alone: bool) -> _Input:
    """The kind of an input; `alone`: without others next to it, so that it needs no folder."""
    protocol = str(text).partition("://")[0] if is_url(text) else ""
    if protocol in _STREAMS:
        raise UserError(
            f"{text}: streams are read in Python: `for frame, labels in segmenter.stream("
            f"{str(text)!r})`; or record or download it, and give the file"
        )
    source = location(text)
    kind = kind_of(source)
    stem = posixpath.splitext(_name_of(source))[0]
    if kind == "folder":
        return _Input(source, "" if alone else _name_of(source), _EVERYTHING)
    if kind == "file":
        return _Input(source, stem)
    if kind == "other":
        raise _not_regular(source)
    if isinstance(source, Path) and "%" in source.name and os.path.isdir(source.parent):
        for frame in source.parent.iterdir():
            if frame.suffix == source.suffix and kind_of(frame) == "other":
                raise _not_regular(frame)
        return _Input(source, _name_of(source.parent))
    if _MAGIC.search(str(source)):
        folder, pattern = _split_pattern(source)
        if kind_of(folder) == "folder":
            return _Input(folder, "" if alone else _name_of(folder), pattern)
    raise UserError(
        f"{source}: does not exist; expected an image, a video, a folder, a pattern such as "
        "'photos/**/*.jpg', or a numbered sequence such as frames/%06d.png"
    )


def _not_regular(path: Location) -> UserError:
    """The error for a FIFO or a device: OpenCV would wait for it, perhaps forever."""
    return UserError(f"{path}: is not a regular file; give an image, a video or a folder")


def _name_of(source: Location) -> str:
    return source.resolve().name if isinstance(source, Path) else source.rstrip("/").split("/")[-1]


def _split_pattern(source: Location) -> tuple[Location, tuple[str, ...]]:
    """The folder in front of the first part with a wildcard, and the parts from there on."""
    parts = str(source).split("/")
    start = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    pattern = tuple(filter(None, parts[start:])) + (("*",) if parts[-1] == "**" else ())
    folder = "/".join(parts[:start]) or ("/" if str(source).startswith("/") else ".")
    return (Path(folder) if isinstance(source, Path) else folder), pattern


def _with_places_of_their_own(inputs: Sequence[_Input]) -> Iterator[_Input]:
    files: dict[str, Location] = {}
    folders: dict[str, Location] = {}
    for one in inputs:
        taken = folders if one.pattern else files
        place = _free(one.place, taken)
        if place != one.place:
            _report_renamed(one.source, place, one.place, taken[one.place])
        taken[place] = one.source
        yield one._replace(place=place)


def _free(name: str, taken: Container[str]) -> str:
    """The name, or if it is taken, the first of name_2, name_3, … that is not."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def _report_renamed(source: Location, name: str, wanted: str, first: Location) -> None:
    get_logger().warning(f"{source}: its results are named {name}; {wanted}: {first}")


def _jobs_of(one: _Input, output: Optional[Path], suffixes: Sequence[str]) -> Iterator[Job]:
    """The jobs of an input.

    Raises:
        UserError: (at once) there is none.
    """
    if not one.pattern:
        results = [] if _is_result(one.source, output) else [Job(one.source, one.place)]
        return iter(results)
    for wanted in (suffixes, [".npy"]):  # arrays only where there are no images
        jobs = _Search(one, output, wanted).jobs()
        first = next(jobs, None)
        if first is not None:
            break
    else:
        pattern = "" if one.pattern == _EVERYTHING else f"{'/'.join(one.pattern)}: "
        raise UserError(
            f"{one.source}: {pattern}contains no images or videos ({' '.join(suffixes)})"
        )
    return itertools.chain([first], jobs)


class _Search:
    """The files below a folder that match a pattern, without hidden ones and those in `output`."""

    def __init__(self, one: _Input, output: Optional[Path], suffixes: Sequence[str]):
        self.input, self.output, self.suffixes = one, output, suffixes
        self.roots = [os.path.realpath(one.source)] if isinstance(one.source, Path) else []
        self.others, self.other_kinds = 0, set[str]()

    def jobs(self) -> Iterator[Job]:
        found = False
        for job in self._below(self.input.source, self.input.place, [self.input.pattern]):
            found = True
            yield job
        if self.others and found:
            kinds = ", ".join(sorted(self.other_kinds))
            get_logger().info(
                f"{self.input.source}: {self.others} files of other types are left out ({kinds})"
            )

    def _below(self, folder: Location, place: str, patterns: Sequence[tuple]) -> Iterator[Job]:
        """The jobs of a folder; `patterns` are those that remain for what is in it."""
        patterns = _expanded(patterns)
        try:
            folders, files = scan(folder)
        except UserError as error:
            if folder == self.input.source:
                raise
            yield Job(folder, place, str(error))
            return
        last = [pattern[0] for pattern in patterns if len(pattern) == 1]
        yield from self._jobs_in(folder, place, [n for n in files if _matches(n, last)])
        for name in folders:
            below = [
                pattern if pattern[0] == "**" else pattern[1:]
                for pattern in patterns
                if pattern[0] == "**" or (len(pattern) > 1 and fnmatchcase(name, pattern[0]))
            ]
            if below and self._enters(child(folder, name)):
                yield from self._below(child(folder, name), posixpath.join(place, name), below)

    def _enters(self, folder: Location) -> bool:
        """Whether a subfolder is searched: not the output; what links lead to, once."""
        if not isinstance(folder, Path):
            return True
        real = os.path.realpath(folder)
        if folder.is_symlink():
            if any(_is_inside(real, root) for root in self.roots):
                return False
            self.roots.append(real)
        return self.output is None or real != os.path.realpath(self.output)

    def _jobs_in(self, folder: Location, place: str, names: Sequence[str]) -> Iterator[Job]:
        taken: dict[str, str] = {}
        for name in names:
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() not in self.suffixes:
                self.others += 1
                if len(self.other_kinds) < _OTHERS_NAMED:
                    self.other_kinds.add(suffix or name)
                continue
            source = child(folder, name)
            if _is_result(source, self.output):
                continue
            free = _free(stem, taken)
            if free != stem:  # a.png next to a.jpg
                _report_renamed(source, free, stem, child(folder, taken[stem]))
            taken[free] = name
            yield Job(source, posixpath.join(place, free))


def _expanded(patterns: Sequence[tuple]) -> list[tuple]:
    """The patterns, and those that remain where a `**` stands for no folder."""
    found: dict[tuple, None] = {}
    for pattern in patterns:
        while pattern not in found:
            found[pattern] = None
            if pattern[0] == "**":
                pattern = pattern[1:]
    return list(found)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_result(source: Location, output: Optional[Path]) -> bool:
    """Whether an earlier call has written the file into `output`."""
    if output is None or not isinstance(source, Path):
        return False
    if not (source.name.endswith(RESULTS) or source.parent.name.endswith(RESULTS)):
        return False
    real = os.path.realpath(source)
    return _is_inside(real, os.path.realpath(output)) and is_marked(source)
