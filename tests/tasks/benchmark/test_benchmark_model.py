"""`benchmark_model` on the shipped configs."""

from __future__ import annotations

from pathlib import Path

import pytest

from liteseg.config.check import load_checked
from liteseg.errors import UserError
from liteseg.tasks.benchmark.model import benchmark_model, default_size

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
QUICKSTART = CONFIGS / "quickstart.yml"
PARTS = [
    *("backbone.features.0", "backbone.features.1", "backbone.features.2-3"),
    *("backbone.features.4-5", "backbone.features.6-7", "ppseg_head.cm"),
    *(f"ppseg_head.arm_list.{i}" for i in (2, 1, 0)),
    *("seg_heads.0", "final upsample and other functions"),
]


def cityscapes(encoder, scale):
    name = f"pp_liteseg_stdc{encoder}_cityscapes_1024x512_scale{scale}_160k.yml"
    return CONFIGS / "pp_liteseg" / name


def test_parts_and_total():
    """The published weights are not downloaded: the cost does not depend on them."""
    found = benchmark_model(cityscapes(1, 0.5), size=(64, 32))
    assert found.size == (64, 32)
    assert [part.name for part in found.parts] == PARTS
    assert [part.output for part in found.parts][-2:] == [(19, 4, 8), ()]
    for key in ("parameters", "multiply_adds"):
        total = getattr(found.total, key)
        assert total == sum(getattr(part, key) for part in found.parts)
    assert found.total.peak_bytes == max(part.peak_bytes for part in found.parts)
    assert f"{found.total.parameters / 1e6:.4f}" == "8.0397"


@pytest.mark.parametrize(
    ("config", "overrides", "size"),
    [
        (cityscapes(1, 0.5), [], (1024, 512)),
        (cityscapes(2, 0.75), [], (1536, 768)),
        (cityscapes(2, 0.75), ["test_config.aug_eval=false"], (2048, 1024)),
        (cityscapes(1, 0.5), ["test_config.scales=[0.5, 1.0]"], (2048, 1024)),
        (QUICKSTART, [], (384, 192)),
        (
            QUICKSTART,
            ["test_config={is_slide: true, crop_size: [256, 128], stride: [128, 64]}"],
            (256, 128),
        ),
    ],
)
def test_size_of_the_config(config, overrides, size):
    assert default_size(load_checked(config, overrides)) == size


def test_unknown_size():
    changes = ["train_dataset.transforms=[{type: Normalize}]"]
    with pytest.raises(UserError, match="give --size W H"):
        benchmark_model(QUICKSTART, overrides=changes)
