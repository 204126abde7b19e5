"""Video files as frames, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from liteseg.errors import UserError

_USUAL_RATE = 25.0  # for containers that don't know theirs


class Video:
    """The frames of a video, (H, W, 3) uint8 RGB, turned as its metadata says.

    Attributes:
        rate: frames a second.
        count: number of frames, None where the container does not know.

    Raises:
        UserError: it can't be opened; while iterating: it has no frame that can be read.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path}: not a video that OpenCV can read, or a damaged one")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or _USUAL_RATE
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
