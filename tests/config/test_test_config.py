"""The `test_config` section."""

from __future__ import annotations

import pytest

from liteseg.config.test_config import TestConfig
from liteseg.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aug_evl": True}, "test_config.aug_evl is not a known key"),
        ({"scales": [0.5, 0]}, "test_config.scales: must be greater than 0, found 0"),
        ({"scales": []}, r"test_config.scales: .*found \[\]"),
        ({"is_slide": True, "crop_size": [8, 8]}, "test_config.stride: is_slide needs it"),
        (
            {"is_slide": True, "crop_size": [8, 8], "stride": [9, 8]},
            r"test_config.stride: \[9, 8\] leaves gaps between windows of \[8, 8\]",
        ),
        ({"crop_size": 8}, r"test_config.crop_size: expected \[an integer, an integer\]"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        TestConfig.from_dict(options)


def test_options_of_the_published_configs():
    assert TestConfig.from_dict(None) == TestConfig()
    test = TestConfig.from_dict({"aug_eval": True, "scales": 0.5})
    assert test.views() == [(0.5, ())]
