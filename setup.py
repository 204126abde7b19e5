"""Packaging of liteseg: `pip install -e '.[cpu]'` is enough to train."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """The version in `liteseg/__init__.py`, read as text, because imports would need packages."""
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
    # In a wheel these folders are inside the package, in a checkout next to it.
    package_dir={"liteseg.configs": "configs", "liteseg.constraints": "scripts/constraints"},
    package_data={
        "liteseg": ["py.typed"],
        "liteseg.configs": ["*.yml", "*/*.yml"],
        "liteseg.constraints": ["*.txt"],
        "liteseg.report": ["*.jinja"],
    },
    # Paddle is an extra: users with a GPU install the build for their GPU themselves.
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
        # Paddle 2.6 imports it without declaring it, and Python no longer includes it.
        "setuptools; python_version >= '3.12'",
    ],
    extras_require={
        # Tested: 3.3.1 and, with its constraints, 2.6.2.
        "cpu": ["paddlepaddle>=2.6.2,<=3.3.1"],
        # Decodes PNGs in two thirds of OpenCV's time.
        "fast": ["imagecodecs>=2023.3.16"],
        # COCO masks, the splits of GTA5, TIFF of many bands, tables in Parquet; weights, images
        # and results on S3.
        "data": [
            "fsspec>=2024.2",
            "pyarrow>=14",
            "pycocotools>=2.0.7",
            "s3fs>=2024.2",
            "scipy>=1.9",
            "tifffile>=2023.3",
        ],
        # Prediction on a cluster; Ray 2.60 is the tested one, on Python 3.11.
        "ray": ["fsspec>=2024.2", "ray[data]>=2.40,<3"],
        # Result videos in H.264.
        "video": ["av>=12"],
        # Tested on Paddle 3.3 and Python 3.11; paddle2onnx 2 reads the models of Paddle 3.
        "export": [
            "nncf>=2.14",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "openvino>=2024.6",
            "paddle2onnx>=2.1.0; python_version < '3.13'",  # has no wheel for 3.13
        ],
        # playwright uses the installed Chromium, not a download of its own.
        "test": [
            "cityscapesscripts==2.3.0",
            "flask-cors>=5; python_version >= '3.11'",  # of moto's server
            "hypothesis>=6.100",
            "moto[s3]>=5; python_version >= '3.11'",
            "mypy>=1.19",
            "playwright>=1.48",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "types-pyyaml>=6",
        ],
    },
    entry_points={"console_scripts": ["liteseg=liteseg.cli:main"]},
)
