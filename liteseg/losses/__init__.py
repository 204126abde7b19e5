"""Losses: `loss(logits (N, C, H, W), label (N, H, W) int64) -> scalar`."""

from liteseg.losses.cross_entropy import BootstrappedCrossEntropyLoss, CrossEntropyLoss
from liteseg.losses.dice import DiceLoss
from liteseg.losses.lovasz import LovaszSoftmaxLoss
from liteseg.losses.mixed import MixedLoss
from liteseg.losses.ohem import OhemCrossEntropyLoss, check_min_kept

__all__ = [
    "BootstrappedCrossEntropyLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "LovaszSoftmaxLoss",
    "MixedLoss",
    "OhemCrossEntropyLoss",
    "check_min_kept",
]
