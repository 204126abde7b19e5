"""`check_min_kept`: OHEM's number of pixels, compared with the published recipes."""

from __future__ import annotations

import pytest

from liteseg.losses import CrossEntropyLoss, MixedLoss, OhemCrossEntropyLoss, check_min_kept


def warnings_of(loss, batch_size=4, width=480, height=360):
    return check_min_kept([("head0", loss, 1.0)], batch_size, lambda: (height, width))


@pytest.mark.parametrize(
    ("min_kept", "batch_size", "width", "height"),
    [(43200, 4, 480, 360), (130000, 4, 1024, 512), (250000, 6, 960, 720), (0, 1, 8, 8)],
)
def test_published_recipes_give_no_warning(min_kept, batch_size, width, height):
    loss = OhemCrossEntropyLoss(min_kept=min_kept)
    assert not warnings_of(loss, batch_size, width, height)


def test_another_batch_size_is_reported_with_the_fix():
    (message,) = warnings_of(OhemCrossEntropyLoss(min_kept=43200), batch_size=1)
    assert "head0: min_kept 43200 is 25.0% of the 172800 pixels" in message
    assert "min_kept 10800, or min_kept_ratio 0.0625" in message


def test_a_loss_inside_a_mixed_loss_is_checked():
    mixed = MixedLoss([CrossEntropyLoss(), OhemCrossEntropyLoss(min_kept=10)], [1, 1])
    assert len(warnings_of(mixed)) == 1


def test_a_ratio_fits_any_batch_size():
    assert not warnings_of(OhemCrossEntropyLoss(min_kept_ratio=0.5))
