"""Encoders of result videos: H.264 by PyAV, which every browser plays, or MPEG-4 by OpenCV."""

from __future__ import annotations

import contextlib
import functools
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional, Protocol

import cv2
import numpy as np

from liteseg.utils.logging import get_logger

_BROWSER_CODECS = ("libx264", "libopenh264", "libvpx-vp9")  # the first one that PyAV contains
_MPEG4_TICKS = 65535  # MPEG-4 rates are fractions of numbers up to this one


class Encoder(Protocol):
    """A video file that is being written."""

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB."""

    def release(self) -> None:
        """Finish the file."""


def open_encoder(path: Path, rate: float, size: tuple[int, int]) -> Optional[Encoder]:
    """An encoder of an mp4 file with frames of `size` (h, w); None if none can write there."""
    if codec := _browser_codec():
        return _PyAv(path, rate, size, codec)
    encoder = _OpenCv(path, rate, size)
    return encoder if encoder.writer.isOpened() else None


@functools.cache
def _browser_codec() -> Optional[str]:
    try:
        import av
    except ImportError:
        available: Any = ()
    else:
        available = av.codecs_available
    codec = next((name for name in _BROWSER_CODECS if name in available), None)
    if codec is None:
        get_logger().warning(
            "videos are written as MPEG-4 (mp4v), which browsers don't play; for H.264 install "
            "PyAV: pip install av  (or: pip install 'liteseg[video]')"
        )
    return codec


class _PyAv:
    """Frames with an odd side get one more row or column: H.264 stores colors per 2x2 pixels."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int], codec: str):
        import av

        self._container = av.open(str(path), "w")
        exact = Fraction(rate).limit_denominator(1001)  # 30000/1001 and the like
        options = {"preset": "veryfast"} if codec == "libx264" else {}
        stream: Any = self._container.add_stream(codec, rate=exact, options=options)
        self._padding = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        stream.height, stream.width = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        self._stream = stream

    def write(self, frame: np.ndarray) -> None:
        from av import VideoFrame

        padded = np.pad(frame, self._padding, mode="edge")
        self._container.mux(self._stream.encode(VideoFrame.from_ndarray(padded, format="rgb24")))

    def release(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the caller counts the frames
            self._container.mux(self._stream.encode())
        with contextlib.suppress(OSError):
            self._container.close()


class _OpenCv:
    def __init__(self, path: Path, rate: float, size: tuple[int, int]):
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self.writer = cv2.VideoWriter(str(path), code, _mpeg4_rate(rate), size[::-1])

    def write(self, frame: np.ndarray) -> None:
        self.writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def release(self) -> None:
        self.writer.release()


def _mpeg4_rate(rate: float) -> float:
    """The nearest rate that MPEG-4 can store."""
    digits = next(n for n in (3, 2, 1, 0) if n == 0 or rate * 10**n <= _MPEG4_TICKS)
    return round(rate, digits)
