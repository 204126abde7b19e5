"""From the inputs on a command line to image and video files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from liteseg.errors import UserError

IMAGES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pnm", ".jp2", ".gif", ".avif"),
)
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Job(NamedTuple):
    """A file to predict, and the path, without ending, that its results begin with."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it has frames: a video file, or a numbered sequence (`frames/%06d.png`)."""
        return "%" in self.source.name or self.source.suffix.lower() in VIDEOS

    def named(self, ending: str) -> Path:
        """A result of the job."""
        return self.target.with_name(self.target.name + ending)


def find_jobs(inputs: Sequence[Path], output: Path) -> list[Job]:
    """The files that the inputs stand for, each with a target of its own under `output`.

    Folders are searched in depth, for known suffixes; their sub-folders are kept in the output.
    Earlier results (`output` inside an input) are left out.

    Raises:
        UserError: an input does not exist, or a folder holds nothing to predict.
    """
    jobs, taken = [], set()
    for source, place in find_files(inputs, (*IMAGES, *VIDEOS), output):
        name, number = place.stem, 2
        while (target := output / place.with_name(name)) in taken:  # a.jpg beside a.png
            name, number = f"{place.stem}_{number}", number + 1
        taken.add(target)
        jobs.append(Job(source, target))
    return jobs


def find_files(
    inputs: Sequence[Path], suffixes: Sequence[str], output: Optional[Path] = None
) -> list[tuple[Path, Path]]:
    """The files that the inputs stand for, and the place of each among the results.

    Raises:
        UserError: an input does not exist, or a folder holds no file with one of `suffixes`.
    """
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        if os.path.isdir(given):
            inside = _files_below(given, suffixes, output)
            if not inside:
                raise UserError(f"{given}: holds no images or videos ({' '.join(suffixes)})")
            root = Path() if len(inputs) == 1 else Path(given.resolve().name)
            found += [(path, root / path.relative_to(given)) for path in inside]
        elif os.path.exists(given):
            found.append((given, Path(given.name)))
        elif "%" in given.name and os.path.isdir(given.parent):
            found.append((given, Path(given.resolve().parent.name)))
        else:
            raise UserError(
                f"{given}: does not exist; expected an image, a video, a folder, or a numbered "
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
