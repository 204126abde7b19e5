"""Process settings that must precede the import of Paddle; `import liteseg` applies them."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings


def prepare() -> None:
    """Set environment variables and warning filters; values set by the user are kept."""
    # Paddle 2.6 exports zlib symbols of its own, which crash these modules if it is loaded first.
    import zlib  # noqa: F401

    # `utils.images` reports unreadable files itself, with their names.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    with contextlib.suppress(ImportError):  # `liteseg doctor` reports a missing OpenCV
        import cv2  # noqa: F401

    # Paddle's C++ code logs its start, and warnings of its own tracing; its errors stay.
    os.environ.setdefault("GLOG_minloglevel", "2")
    _enable_mkl_on_amd()
    # Warnings of Paddle about C++ extensions, and about batch norm in training.
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track")
    # `select_device` warns, unless the CPU was requested.
    warnings.filterwarnings("ignore", message="You are using GPU version Paddle")
    # Pillow warns about unusual files, of which only the size is read.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _enable_mkl_on_amd() -> None:
    """Let Paddle's MKL use AVX2 or AVX-512 on AMD processors.

    MKL checks the vendor and takes its slowest path on AMD: a training iteration of PP-LiteSeg-T
    took 3.5 s instead of 2.1 s.
    """
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux
        flags = []
    is_amd = "sse4a" in flags  # an instruction set of AMD (and Hygon) processors only
    if is_amd and platform.machine() == "x86_64" and "avx2" in flags:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7" if "avx512f" in flags else "5")
