"""Video files, read and written frame by frame."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np

from liteseg.errors import UserError
from liteseg.tasks.encoder import Encoder, open_encoder
from liteseg.utils.results import MP4_BOX

_DEFAULT_RATE = 25.0  # for containers without a frame rate


class Video:
    """The frames of a video file or stream, rotated as its metadata specifies.

    Iterating yields (H, W, 3) uint8 RGB arrays.

    Attributes:
        rate: frames per second.
        count: number of frames; None if the container does not contain it.

    Raises:
        UserError: it cannot be opened; while iterating: no frame can be read.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path}: not a video that OpenCV can read, or a damaged one")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_RATE
        self.count: Optional[int] = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None

    def __iter__(self) -> Iterator[np.ndarray]:
        found = False
        try:
            while True:
                read, frame = self._capture.read()
                if not read:
                    break
                found = True
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()
        if not found:
            raise UserError(f"{self.path}: no frame can be read; is it a complete video?")


class VideoWriter:
    """An mp4 file that appears under its name once all frames are written.

    As a context manager: an exception in the block leaves no file.

    Args:
        path: the file; its folder is created.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, rate
        # A random name: nobody can put a link there.
        self._partial = path.with_name(f".{path.stem[:200]}.{secrets.token_hex(4)}.tmp.mp4")
        self._writer: Optional[Encoder] = None  # opened with the first frame, which has the size
        self._count = 0

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
                if kind is None:
                    self._finish()
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        # OpenCV reports no full disk: the file then lacks its index, or frames.
        written = cv2.VideoCapture(str(self._partial))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if count != self._count:
            raise UserError(
                f"{self.path}: only {count} of {self._count} frames were written, so the video was "
                "removed; is the disk full?"
            )
        try:
            with open(self._partial, "ab") as file:
                file.write(MP4_BOX)
            self._partial.replace(self.path)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB; all frames have the same size.

        Raises:
            UserError: the file cannot be written.
        """
        if self._writer is None:
            self._writer = open_encoder(self._partial, self.rate, frame.shape[:2])
            if self._writer is None:
                raise UserError(f"{self.path}: this OpenCV cannot write mp4 videos there")
        self._count += 1
        try:
            self._writer.write(frame)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
