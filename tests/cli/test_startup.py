"""The start-up lines of `liteseg train` about hard-pixel mining."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from liteseg.cli.startup import _announce_hard_pixels
from liteseg.losses import CrossEntropyLoss, MixedLoss, OhemCrossEntropyLoss


def warnings_of(loss, caplog, batch_size=4, height=360, width=480):
    dataset = [{"img": np.zeros((height, width, 3), np.uint8)}]
    trainer = SimpleNamespace(
        dataset=dataset,
        options=SimpleNamespace(batch_size=batch_size),
        losses=[("head0", loss, 1.0)],
    )
    _announce_hard_pixels(trainer)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("min_kept", "batch_size", "width", "height"),
    [(43200, 4, 480, 360), (130000, 4, 1024, 512), (250000, 6, 960, 720), (0, 1, 8, 8)],
)
def test_the_published_recipes_say_nothing(min_kept, batch_size, width, height, caplog):
    loss = OhemCrossEntropyLoss(min_kept=min_kept)
    assert not warnings_of(loss, caplog, batch_size, height, width)


def test_another_batch_is_told_with_the_mend(caplog):
    (message,) = warnings_of(OhemCrossEntropyLoss(min_kept=43200), caplog, batch_size=1)
    assert "head0: min_kept 43200 is 25.0% of the 172800 pixels" in message
    assert "min_kept 10800, or min_kept_ratio 0.0625" in message


def test_a_loss_inside_a_mixed_one_is_seen(caplog):
    mixed = MixedLoss([CrossEntropyLoss(), OhemCrossEntropyLoss(min_kept=10)], [1, 1])
    assert len(warnings_of(mixed, caplog)) == 1


def test_a_ratio_follows_the_batch(caplog):
    assert not warnings_of(OhemCrossEntropyLoss(min_kept_ratio=0.5), caplog)
