"""Image and video files of a list of inputs, and the paths of their results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from liteseg.errors import UserError
from liteseg.utils.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


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

    Folders are searched recursively by suffix; their subfolders are kept in the output. Earlier
    results (`output` inside an input) are left out.

    Raises:
        UserError: an input does not exist, or a folder contains no image and no video.
    """
    jobs, targets = [], set()
    for source, place in find_files(inputs, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES), output):
        name, number = place.stem, 2
        while (target := output / place.with_name(name)) in targets:  # a.jpg next to a.png
            name, number = f"{place.stem}_{number}", number + 1
        targets.add(target)
        jobs.append(Job(source, target))
    return jobs


def find_files(
    inputs: Sequence[Path], suffixes: Sequence[str], output: Optional[Path] = None
) -> list[tuple[Path, Path]]:
    """The files among the inputs, each with its path relative to the results.

    Raises:
        UserError: an input does not exist, or a folder contains no file with one of `suffixes`.
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
            found.append((path, Path(path.name)))
        elif "%" in path.name and os.path.isdir(path.parent):
            found.append((path, Path(path.resolve().parent.name)))
        else:
            raise UserError(
                f"{path}: does not exist; expected an image, a video, a folder, or a numbered "
                "sequence such as frames/%06d.png"
            )
    return found


def _files_below(folder: Path, suffixes: Sequence[str], output: Optional[Path]) -> list[Path]:
    earlier = output.resolve() if output else None
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and os.path.isfile(path)
        and not (earlier and earlier != folder.resolve() and path.resolve().is_relative_to(earlier))
        and not path.name.startswith(".")
    ]
