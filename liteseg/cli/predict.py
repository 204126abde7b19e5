"""`liteseg predict`: label maps, colour masks and overlays of images, folders and videos.

Reading, inference and writing overlap. Memory is that of a few images, whatever there is to do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from liteseg.cli.arguments import changes_of_config, complete, positive
from liteseg.errors import UserError
from liteseg.tasks.inputs import Job, find_jobs

if TYPE_CHECKING:
    import numpy as np

    from liteseg.tasks.overlap import WriteBehind
    from liteseg.tasks.segmenter import Segmenter

KINDS = ("mask", "palette", "overlay")
_ENDINGS = {"mask": "_label", "palette": "_color", "overlay": "_overlay"}
_READ_AHEAD = 4
_WRITERS, _UNWRITTEN = 2, 8
# Containers estimate their number of frames; beyond this share, frames are missing.
_FRAMES_EXPECTED = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg predict`."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, videos, folders, numbered sequences (frames/%%06d.png)",
    )
    parser.add_argument("--model", metavar="EXPORTED", help="folder of `liteseg export`")
    parser.add_argument("--config", help="YAML file (default: config.yml of the run of --weights)")
    parser.add_argument(
        "--weights", help="weights file, archive or URL, or a run directory (best checkpoint)"
    )
    changes_of_config(parser)
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--what",
        choices=("all", *KINDS),
        default="all",
        help="NAME_label.png: train ids (mask); NAME_color.png: the same with colours (palette); "
        "NAME_overlay.png: over the image, with a legend; of a video NAME_overlay.mp4, and masks "
        "or palettes only when asked for, a PNG a frame in NAME_label/ or NAME_color/",
    )
    parser.add_argument("--device", help="auto, cpu or gpu (default: the config's)")
    add_runtime_arguments(parser)
    complete(
        parser,
        "liteseg predict data/streets/leftImg8bit/val --weights output/quickstart --output masks",
        "liteseg predict data/streets/leftImg8bit/val --model exported --output masks",
    )


def add_runtime_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how an exported model runs."""
    parser.add_argument("--runtime", help="of --model: paddle, onnxruntime or openvino")
    parser.add_argument("--threads", type=positive, metavar="N", help="of --model (default: all)")
    parser.add_argument("--precision", help="of --model: fp32 (default) or bf16")


def run(args: argparse.Namespace) -> int:
    """Predict every input; 2 when some could not be read (the others are done)."""
    from tqdm import tqdm

    from liteseg.tasks.overlap import WriteBehind, read_ahead
    from liteseg.utils.files import check_writable
    from liteseg.utils.logging import progress

    output = check_writable(args.output)
    jobs = find_jobs([Path(os.path.expanduser(given)) for given in args.inputs], output)
    segmenter = open_segmenter(args)
    failed: set[Path] = set()

    def skip(error: BaseException, job: Job) -> None:
        if not isinstance(error, UserError):
            raise error
        failed.add(job.source)
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    bar = progress(total=len(jobs), unit="image", desc="predict")
    ready = contextlib.closing(read_ahead(_read(jobs), _READ_AHEAD))
    with bar, WriteBehind(_WRITERS, _UNWRITTEN, skip) as writer, ready as images:
        for job, image in images:
            try:
                _predict(segmenter, job, image, args.what, writer)
            except UserError as error:
                skip(error, job)
            bar.update()
    print(f"{len(jobs) - len(failed)} of {len(jobs)} inputs predicted, results are in {output}")
    return 2 if failed else 0


def open_segmenter(args: argparse.Namespace) -> Segmenter:
    """The trained or exported model that the arguments name.

    Raises:
        UserError: neither or both are given, or it can't be had.
    """
    from liteseg.deploy import manifest
    from liteseg.tasks.segmenter import Segmenter, trained_config

    if args.model:
        if args.weights or args.config or args.set:
            raise UserError(
                "--model is an exported model, which carries its weights and settings: leave out "
                "--weights, --config and --set"
            )
        if manifest.find(args.model) is None:
            raise UserError(
                f"--model {args.model}: no {manifest.NAME} there; give the folder that `liteseg "
                "export` wrote, or trained weights as --weights"
            )
        how = {name: getattr(args, name) for name in ("runtime", "threads", "precision")}
        return Segmenter.from_pretrained(args.model, device=args.device, **how)
    if not args.weights:
        raise UserError(
            "--weights is missing: a network without trained weights predicts noise; give a "
            "weights file, URL or run directory, or an exported model as --model"
        )
    if args.runtime or args.threads or args.precision:
        raise UserError("--runtime, --threads and --precision go with --model, an exported model")
    config = trained_config(args.weights, args.config, args.set)
    return Segmenter.from_pretrained(args.weights, config, device=args.device)


def _read(jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
    """Each job with its image, the error in its place, or None for a video."""
    from liteseg.utils.images import read_image

    for job in jobs:
        try:
            yield job, None if job.is_video else read_image(job.source, exif=True)
        except UserError as error:
            yield job, error


def _predict(segmenter: Segmenter, job: Job, image: Any, what: str, writer: WriteBehind) -> None:
    """Predict what `_read` gave; the results of an image are written later."""
    if isinstance(image, UserError):
        raise image
    if image is None:
        predict_video(segmenter, job, what)
        return
    label = segmenter.predict(image)
    kinds = KINDS if what == "all" else (what,)
    writer.add(job, write_results, segmenter, job, kinds, image, label)


def write_results(
    segmenter: Segmenter, job: Job, kinds: Sequence[str], image: np.ndarray, label: np.ndarray
) -> None:
    """Write the results of one image.

    Raises:
        UserError: a result can't be written.
    """
    import numpy as np

    from liteseg.report.visualize import overlay, with_legend, write_png

    names, palette = segmenter.class_names, segmenter.palette
    for kind in kinds:
        path = job.named(f"{_ENDINGS[kind]}.png")
        if kind == "overlay":
            picture = overlay(image, label, palette)
            write_png(path, with_legend(picture, names, palette, np.unique(label)))
        else:
            _write_label(path, kind, label, palette)


def _write_label(path: Path, kind: str, label: np.ndarray, palette: np.ndarray) -> None:
    from liteseg.report.visualize import save_palette_png, write_png

    if kind == "mask":
        write_png(path, label)
    else:
        save_palette_png(path, label, palette)


def predict_video(segmenter: Segmenter, job: Job, what: str) -> None:
    """Write the overlay of a video at its rate, or a label picture of each frame.

    A video appears when its last frame is in. Of a damaged one, what can be read is written.

    Raises:
        UserError: no frame or not all can be read, or the result not written.
    """
    from liteseg.tasks.video import Video
    from liteseg.utils.logging import progress

    video = Video(job.source)
    bar = progress(total=video.count, unit="frame", desc=job.source.name, leave=False)
    with bar, contextlib.closing(segmenter.stream(video)) as frames:
        if what in ("all", "overlay"):
            count = _write_video(segmenter, _counting(frames, bar), video.rate, job)
        else:
            count = _write_frames(segmenter, _counting(frames, bar), what, job)
    if video.count and count < _FRAMES_EXPECTED * video.count:
        raise UserError(
            f"{job.source}: only {count} of {video.count} frames can be read (their results are "
            "written); is the file complete?"
        )


def _counting(frames: Iterator, bar: Any) -> Iterator:
    for frame in frames:
        yield frame
        bar.update()


def _write_frames(segmenter: Segmenter, frames: Iterator, kind: str, job: Job) -> int:
    folder, count = job.named(_ENDINGS[kind]), 0
    with _writer(_WRITERS) as writer:
        for _, label in frames:
            path = folder / f"{count:06d}.png"
            writer.add(path, _write_label, path, kind, label, segmenter.palette)
            count += 1
    return count


def _write_video(segmenter: Segmenter, frames: Iterator, rate: float, job: Job) -> int:
    """Encode the overlay of every frame beside the target, and put it there at the end."""
    target = job.named("_overlay.mp4")
    beside = target.with_name(f".{target.stem}.tmp.mp4")
    target.parent.mkdir(parents=True, exist_ok=True)
    encoder, count = _Encoder(beside, rate, segmenter), 0
    try:
        with _writer(1) as writer:  # one thread keeps the order
            for frame, label in frames:
                writer.add(count, encoder.add, frame, label)
                count += 1
        encoder.close()
        beside.replace(target)
    finally:
        encoder.close()
        beside.unlink(missing_ok=True)
    return count


class _Encoder:
    """An mp4 file of overlays, opened with the first one."""

    def __init__(self, path: Path, rate: float, segmenter: Segmenter):
        self.path = path
        self.rate = rate
        self.segmenter = segmenter
        self.writer: Any = None

    def add(self, frame: np.ndarray, label: np.ndarray) -> None:
        """Draw and encode a frame."""
        import cv2

        from liteseg.report.visualize import overlay, with_legend

        names, palette = self.segmenter.class_names, self.segmenter.palette
        picture = with_legend(overlay(frame, label, palette), names, palette)
        if self.writer is None:
            code, size = cv2.VideoWriter_fourcc(*"mp4v"), picture.shape[1::-1]
            self.writer = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self.writer.isOpened():
                raise UserError(f"{self.path}: this OpenCV can't write mp4 videos there")
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.release()


def _writer(threads: int) -> WriteBehind:
    from liteseg.tasks.overlap import WriteBehind

    def fail(error: BaseException, which: Optional[Any]) -> None:
        raise error

    return WriteBehind(threads, _UNWRITTEN, fail)
