"""Packaging of liteseg: `pip install -e '.[cpu]'` is enough to train."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The version in `liteseg/__init__.py`, read as text: importing it would need OpenCV."""
    text = (ROOT / "liteseg" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


setup(
    name="liteseg",
    version=read_version(),
    description="PP-LiteSeg real-time semantic segmentation on PaddlePaddle, from YAML",
    license="Apache-2.0",
    python_requires=">=3.9,<3.14",
    packages=[
        *find_packages(include=["liteseg", "liteseg.*"]),
        "liteseg.configs",
        "liteseg.constraints",
    ],
    # A wheel carries these folders inside the package; a checkout has them beside it.
    package_dir={"liteseg.configs": "configs", "liteseg.constraints": "scripts/constraints"},
    package_data={
        "liteseg.configs": ["*.yml", "*/*.yml"],
        "liteseg.constraints": ["*.txt"],
        "liteseg.report": ["*.jinja"],
    },
    # Paddle is an extra: users with a GPU install the build for it themselves.
    install_requires=[
        # 2.4: float(tensor) fails on Paddle 3.3. Paddle 2.6 needs <2: scripts/constraints.
        "numpy>=1.22,<2.4",
        "opencv-python>=4.5",
        "pillow>=9",
        "pyyaml>=6",
        "tqdm>=4.60",
        "visualdl>=2.5.3,<3",
        "filelock>=3.12",
        "jinja2>=3.1",
        # Paddle 2.6 imports it without saying so, and Python no longer brings it along.
        "setuptools; python_version >= '3.12'",
    ],
    extras_require={
        # 3.3.1 unless a constraint says 2.6.2, the other line that is tested.
        "cpu": ["paddlepaddle>=2.6.2,<=3.3.1"],
        # PNGs in two thirds of OpenCV's time.
        "fast": ["imagecodecs>=2023.3.16"],
        # Tested on Paddle 3.3 and Python 3.11; paddle2onnx 2 reads what Paddle 3 writes.
        "export": [
            "nncf>=2.14",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "openvino>=2024.6",
            "paddle2onnx>=2.1.0; python_version < '3.13'",  # has no wheel for 3.13
        ],
        # playwright drives the Chromium that is installed; its own download is not needed.
        "test": [
            "cityscapesscripts==2.3.0",
            "hypothesis>=6.100",
            "mypy>=1.19",
            "playwright>=1.48",
            "pytest>=8.2",
            "ruff==0.17.6",
            "types-PyYAML>=6",
        ],
    },
    entry_points={"console_scripts": ["liteseg=liteseg.cli:main"]},
)
