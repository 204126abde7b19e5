"""The contract of every registered backbone."""

from __future__ import annotations

import paddle
import pytest

from liteseg.models import PPLiteSeg
from liteseg.registry import BACKBONES

BUILT_IN = [name for name, made in BACKBONES.items() if made.__module__.startswith("liteseg.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_features_have_the_declared_channels_and_halved_sizes_rounded_up(name):
    backbone = BACKBONES[name]()
    backbone.eval()
    features = backbone(paddle.zeros([1, 3, 50, 33]))
    assert [feature.shape[1] for feature in features] == list(backbone.feat_channels)
    sizes = [feature.shape[2:] for feature in features]
    assert sizes == [[25, 17], [13, 9], [7, 5], [4, 3], [2, 2]]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_decoder_takes_every_backbone(name):
    model = PPLiteSeg(3, BACKBONES[name]())
    model.eval()
    (logits,) = model(paddle.zeros([1, 3, 50, 33]))
    assert logits.shape == [1, 3, 50, 33]
