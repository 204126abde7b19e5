"""Every loss ignores the dataset's void label, whatever its number."""

import numpy as np
import paddle
import pytest

from liteseg.config.component import build
from liteseg.registry import LOSSES

MIXED = {"losses": [{"type": "DiceLoss"}, {"type": "CrossEntropyLoss"}], "coef": [1, 1]}
OPTIONS = {
    "MixedLoss": MIXED,
    "OhemCrossEntropyLoss": {"min_kept": 10},
    "BootstrappedCrossEntropyLoss": {"min_K": 10, "loss_th": 0.3},
}


def names():
    import liteseg.losses  # noqa: F401  registers them

    return sorted(LOSSES)


@pytest.mark.parametrize("void", [0, 4, 255])
@pytest.mark.parametrize("name", names())
def test_the_void_label_does_not_count(name, void):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 8, 8)).astype("float32")
    label = rng.integers(1, 4, (2, 8, 8))  # class 0 is void in one case
    label[:, :3] = void
    other = np.where(label == void, 255, label)
    found, expected = (
        float(
            build({"type": name, **OPTIONS.get(name, {})}, LOSSES, "loss", ignore_index=ignored)(
                paddle.to_tensor(logits), paddle.to_tensor(values)
            )
        )
        for ignored, values in ((void, label), (255, other))
    )
    assert found == pytest.approx(expected, rel=1e-6)
