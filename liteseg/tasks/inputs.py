"""Image and video files of a list of inputs, and the paths of their results."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from liteseg.errors import UserError
from liteseg.utils.images import IMAGE_SUFFIXES
from liteseg.utils.logging import get_logger

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

# What `predict` appends to the name of an input; without a suffix: a folder of frames.
RESULTS = (
    "_label.png",
    "_color.png",
    "_overlay.png",
    "_overlay.mp4",
    "_confidence.png",
    "_label",
    "_color",
    "_confidence",
)


class Job(NamedTuple):
    """A file to predict, and the path, without suffix, at which its results start."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it has frames: a video file, or a numbered sequence (`frames/%06d.png`)."""
        return "%" in self.source.name or self.source.suffix.lower() in VIDEO_SUFFIXES

    def result(self, ending: str) -> Path:
        """The path of the result with this ending, for example `_label.png`."""
        return self.target.with_name(self.target.name + ending)


def find_jobs(inputs: Sequence[Path], output: Path) -> list[Job]:
    """The images and videos among the inputs, each with its own target below `output`.

    Folders are searched recursively by suffix, also through links; their subfolders are kept in
    the output. Files that are results of other inputs, from an earlier call, are left out.

    Raises:
        UserError: an input does not exist, or a folder contains no image and no video.
    """
    jobs: list[Job] = []
    targets: dict[Path, Path] = {}
    for source, place in find_files(inputs, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), output):
        name, number = place.stem, 2
        while (target := output / place.with_name(name)) in targets:  # a.jpg next to a.png
            name, number = f"{place.stem}_{number}", number + 1
        if number > 2:
            first = targets[output / place.with_name(place.stem)]
            get_logger().warning(f"{source}: its results are named {name}; {place.stem}: {first}")
        targets[target] = source
        jobs.append(Job(source, target))
    results = {os.path.realpath(job.result(ending)) for job in jobs for ending in RESULTS}
    kept = [job for job in jobs if results.isdisjoint(_with_folder(job.source))]
    if len(kept) < len(jobs):
        get_logger().info(f"{len(jobs) - len(kept)} results of an earlier call are left out")
    return kept


def _with_folder(path: Path) -> tuple[str, str]:
    real = os.path.realpath(path)
    return real, os.path.dirname(real)


def find_files(
    inputs: Sequence[Path], suffixes: Sequence[str], output: Optional[Path] = None
) -> list[tuple[Path, Path]]:
    """The files among the inputs, each with its path relative to the results.

    Raises:
        UserError: an input does not exist or is not a regular file, or a folder contains no file
            with one of `suffixes`.
    """
    found: list[tuple[Path, Path]] = []
    for path in inputs:
        if os.path.isdir(path):
            inside = _files_below(path, suffixes, output)
            if not inside:
                raise UserError(f"{path}: contains no images or videos ({' '.join(suffixes)})")
            root = Path() if len(inputs) == 1 else Path(path.resolve().name)
            found += [(file, root / file.relative_to(path)) for file in inside]
        elif os.path.exists(path):
            _require_regular(path)
            found.append((path, Path(path.name)))
        elif "%" in path.name and os.path.isdir(path.parent):
            for frame in path.parent.iterdir():
                if frame.suffix == path.suffix and frame.exists():
                    _require_regular(frame)
            found.append((path, Path(path.resolve().parent.name)))
        elif re.match("[a-z]+:/", str(path)):  # Path has made one slash of two
            url = str(path).replace(":/", "://", 1)
            raise UserError(
                f"{url}: streams are read in Python: `for frame, labels in segmenter.stream("
                f"{url!r})`; or record or download it, and give the file"
            )
        else:
            raise UserError(
                f"{path}: does not exist; expected an image, a video, a folder, or a numbered "
                "sequence such as frames/%06d.png"
            )
    return found


def _require_regular(path: Path) -> None:
    """Raise UserError for a FIFO or a device: OpenCV would wait for it, perhaps forever."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: is not a regular file; give an image, a video or a folder")


def _files_below(folder: Path, suffixes: Sequence[str], output: Optional[Path]) -> list[Path]:
    """The files with one of `suffixes`, without hidden ones and those in `output`."""
    seen = {os.path.realpath(output)} if output and output.resolve() != folder.resolve() else set()
    found: list[Path] = []
    others: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:  # a link may lead to a folder above it
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            is_input = os.path.isfile(path) and path.suffix.lower() in suffixes
            (found if is_input else others).append(path)
    if others:
        kinds = ", ".join(sorted({path.suffix or path.name for path in others})[:5])
        get_logger().info(f"{folder}: {len(others)} files of other types are left out ({kinds})")
    return sorted(found)
