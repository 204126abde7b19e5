"""`liteseg predict`: label maps, colour masks and overlays of images, folders and videos."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from liteseg.errors import UserError

if TYPE_CHECKING:
    import cv2
    import numpy as np

    from liteseg.api import Segmenter

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv")
KINDS = ("mask", "palette", "overlay")


class Job(NamedTuple):
    """A file to predict, and the path, without ending, that its results begin with."""

    source: Path
    target: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg predict`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, videos, folders")
    parser.add_argument("--config", help="YAML file (default: config.yml of the run of --weights)")
    parser.add_argument(
        "--weights", help="weights file, archive or URL, or a run directory (best checkpoint)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a config value"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--what",
        choices=("all", *KINDS),
        default="all",
        help="NAME_label.png: train ids (mask); NAME_color.png: the same with colours (palette); "
        "NAME_overlay.png: over the image, with a legend; a video gives an overlay video",
    )
    parser.add_argument("--device", help="auto, cpu or gpu (default: the config's)")


def run(args: argparse.Namespace) -> int:
    """Predict every input; 2 when some could not be read (the others are done)."""
    if not args.weights:
        raise UserError(
            "--weights is missing: a network without trained weights predicts noise; give a "
            "weights file, URL or run directory"
        )
    from tqdm import tqdm

    from liteseg.api import Segmenter
    from liteseg.config import load_config
    from liteseg.utils.files import check_writable

    output = check_writable(args.output)
    jobs = find_jobs([Path(os.path.expanduser(given)) for given in args.inputs], output)
    config = load_config(args.config, args.set) if args.config else None
    segmenter = Segmenter.from_pretrained(args.weights, config, device=args.device)
    kinds = KINDS if args.what == "all" else (args.what,)
    failed = 0
    for job in (bar := tqdm(jobs, unit="file", desc="predict", disable=None)):
        bar.set_postfix_str(job.source.name)
        try:
            if job.source.suffix.lower() in VIDEOS:
                predict_video(segmenter, job)
            else:
                predict_image(segmenter, job, kinds)
        except UserError as error:
            failed += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    print(f"{len(jobs) - failed} of {len(jobs)} inputs predicted, results are in {output}")
    return 2 if failed else 0


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
        else:
            raise UserError(f"{given}: does not exist; expected an image, a video or a folder")
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


def predict_image(segmenter: Segmenter, job: Job, kinds: Sequence[str]) -> None:
    """Write the results of one image.

    Raises:
        UserError: the image can't be read, or a result not written.
    """
    import numpy as np

    from liteseg.utils.images import read_image
    from liteseg.utils.visualize import overlay, save_palette_png, with_legend, write_png

    image = read_image(job.source, exif=True)
    label = segmenter.predict(image)
    if "mask" in kinds:
        write_png(_named(job, "_label.png"), label)
    if "palette" in kinds:
        save_palette_png(_named(job, "_color.png"), label, segmenter.palette)
    if "overlay" in kinds:
        picture = overlay(image, label, segmenter.palette)
        names, palette = segmenter.class_names, segmenter.palette
        picture = with_legend(picture, names, palette, np.unique(label))
        write_png(_named(job, "_overlay.png"), picture)


def predict_video(segmenter: Segmenter, job: Job) -> None:
    """Write the overlay of a video, at its rate; the file appears when the last frame is in.

    Raises:
        UserError: no frame can be read, or the result not written.
    """
    from tqdm import tqdm

    target = _named(job, "_overlay.mp4")
    beside = target.with_name(f".{target.stem}.tmp.mp4")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(beside.unlink, missing_ok=True)
        capture = stack.enter_context(_opened(job.source))
        rate, count = _rate_and_count(capture)
        frames = tqdm(_frames(capture), total=count, unit="frame", leave=False, disable=None)
        if not _write_overlays(segmenter, frames, rate, beside):
            raise UserError(f"{job.source}: no frame can be read; is it a complete video?")
        beside.replace(target)


def _write_overlays(
    segmenter: Segmenter, frames: Iterator[np.ndarray], rate: float, target: Path
) -> bool:
    """Encode the overlay of every frame; False if there was none."""
    import cv2

    from liteseg.utils.visualize import overlay, with_legend

    writer = None
    try:
        for frame in frames:
            picture = overlay(frame, segmenter.predict(frame), segmenter.palette)
            picture = with_legend(picture, segmenter.class_names, segmenter.palette)
            if writer is None:
                size = picture.shape[1::-1]
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{target}: this OpenCV can't write mp4 videos there")
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()
    return writer is not None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _rate_and_count(capture: cv2.VideoCapture) -> tuple[float, Optional[int]]:
    import cv2

    # Some containers know neither: 25 frames a second, and a bar without an end.
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    return rate, max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    import cv2

    while True:
        read, frame = capture.read()
        if not read:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _named(job: Job, ending: str) -> Path:
    return job.target.with_name(job.target.name + ending)
