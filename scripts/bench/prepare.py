"""Data and weights for all peers, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import protocol

import liteseg  # noqa: F401  before Paddle
from liteseg.datasets import CamVid, Cityscapes
from liteseg.datasets.base import SegmentationDataset
from liteseg.datasets.pack import build_pack
from liteseg.datasets.streets.generate import generate
from liteseg.models import STDC1, PPLiteSeg
from liteseg.report.visualize import write_png

import numpy as np  # isort: skip
import paddle  # isort: skip

CITYSCAPES_SIZE = (2048, 1024)


def prepare(work: Path, cityscapes: Optional[Path], camvid: Optional[Path]) -> None:
    """Fill `work` with data in a layout that PaddleSeg reads too, a pack, and random weights.

    Args:
        work: an empty folder.
        cityscapes: Cityscapes in its official layout; None: synthetic streets of the same size.
        camvid: CamVid in a layout that `CamVid` reads; None: left out.
    """
    if cityscapes is None:
        cityscapes = generate(work / "streets", train=5, val=1, size=CITYSCAPES_SIZE)
    for source in ("train", "val"):
        dataset = Cityscapes([], str(cityscapes), source)
        for split in ("train", "val"):  # there may be few pairs: both splits have all
            folder = f"{split}/{source}"
            _write_cityscapes(dataset, work / "cityscapes", folder)
    build_pack(Cityscapes([], str(work / "cityscapes"), "train"), work / "cityscapes.pack")
    if camvid is not None:
        _write_camvid(CamVid([], str(camvid), "val"), work / "camvid")
    paddle.seed(0)
    for name, classes in (("cityscapes", 19), ("camvid", 11), ("train", protocol.TRAIN_CLASSES)):
        model = PPLiteSeg(classes, STDC1(init="kaiming"), **protocol.MODEL)
        state = model.state_dict()
        paddle.save(state, str(work / f"{name}.pdparams"))
        np.savez(work / f"{name}.npz", **{key: value.numpy() for key, value in state.items()})


def _write_cityscapes(dataset: SegmentationDataset, root: Path, folder: str) -> None:
    """Write the pairs, with labels as train ids: PaddleSeg reads no others."""
    for index, sample in enumerate(dataset.samples):
        image = root / "leftImg8bit" / folder / sample.image.name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(sample.image.resolve())
        label = root / "gtFine" / folder / f"{sample.name}_gtFine_labelTrainIds.png"
        write_png(label, dataset.load_label(index))


def _write_camvid(dataset: SegmentationDataset, root: Path) -> None:
    """Write the images, labels whose void is 255, and their list."""
    lines = []
    for index, sample in enumerate(dataset.samples):
        image = root / "images" / sample.image.name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(sample.image.resolve())
        write_png(root / "annot" / f"{sample.name}.png", dataset.load_label(index))
        lines.append(f"images/{image.name} annot/{sample.name}.png\n")
    (root / "val.txt").write_text("".join(lines))
