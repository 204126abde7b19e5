"""liteseg: PP-LiteSeg (arXiv 2204.02681) for PaddlePaddle, trained and shipped from YAML."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import warnings
import zlib  # noqa: F401  Paddle 2.6 exports its own zlib symbols and crashes these if it is first

# OpenCV tells the console what `utils.images` tells the user with the file's name.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
with contextlib.suppress(ImportError):  # `liteseg doctor` says what is wrong with it
    import cv2  # noqa: F401  (same reason)

__version__ = "0.1.0"

# Resolved on first use: `import liteseg` and `liteseg --help` must not wait for Paddle.
_PUBLIC = {
    "UserError": "liteseg.errors",
    "load_config": "liteseg.config.load",
    "check": "liteseg.config.check",
    "build_dataset": "liteseg.config.build",
    "build_model": "liteseg.config.build",
    "train": "liteseg.tasks.train",
    "evaluate": "liteseg.tasks.evaluate",
    "predict": "liteseg.tasks.predict",
    "export": "liteseg.tasks.export",
    "build_trainer": "liteseg.tasks.train",
    "Segmenter": "liteseg.tasks.segmenter",
    "Trainer": "liteseg.engine.trainer",
    "Hook": "liteseg.engine.trainer",
    "TestConfig": "liteseg.config.test_config",
    "ConfusionMatrix": "liteseg.metrics",
}
__all__ = ["__version__", *_PUBLIC]

# What Paddle says to every user of extensions, and of batch norm in training.
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track")
# Where there is no GPU; `select_device` says it, to who did not ask for the CPU.
warnings.filterwarnings("ignore", message="You are using GPU version Paddle")
# What Pillow says of odd files, of which only their size is asked.
warnings.filterwarnings("ignore", module=r"PIL\.")


# Nor its executor's start-up lines; its warnings and errors stay. Read when Paddle is imported.
os.environ.setdefault("GLOG_minloglevel", "1")


def _let_mkl_use_amd_vectors() -> None:
    """Give AMD processors the vector code that Paddle's MKL keeps for Intel's.

    Without it MKL takes its slowest path there: a training step of PP-LiteSeg-T took 3.5 s instead
    of 2.1 s. Has to happen before Paddle loads MKL; a value set by the user stays.
    """
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux
        flags = []
    is_amd = "sse4a" in flags  # an instruction set that only AMD (and Hygon) processors have
    if is_amd and platform.machine() == "x86_64" and "avx2" in flags:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7" if "avx512f" in flags else "5")


_let_mkl_use_amd_vectors()


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'liteseg' has no attribute {name!r}")
