"""Sequences in the names of images."""

from __future__ import annotations

import pytest

from liteseg.errors import UserError
from liteseg.tasks.sequences import sequence_function


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("frankfurt_000001_009854", "frankfurt_000001"),
        ("aachen_000005_000019_leftImg8bit", "aachen_000005"),
        ("monchengladbach_000000_000076", "monchengladbach_000000"),
        ("0016E5_07959", "0016E5"),
        ("0006R0_f00930", "0006R0"),
        ("0001TP_006690", "0001TP"),
        ("Seq05VD_f00000", "Seq05VD"),
        ("street_0", None),
        ("img_0001", None),
        ("2007_000032", None),
    ],
)
def test_known_names(name, sequence):
    assert sequence_function()(name) == sequence


def test_expressions():
    assert sequence_function("^[^_]+")("day1_0001") == "day1"
    assert sequence_function(r"drive(\d+)")("drive12_0001") == "12"
    assert sequence_function(r"drive(\d+)")("walk_0001") is None
    with pytest.raises(UserError, match="not a regular expression"):
        sequence_function("(")
