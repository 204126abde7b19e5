"""Shares and groups of splits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from liteseg.datasets.annotations.splits import assign, groups_of, parse_shares
from liteseg.errors import UserError


def test_shares():
    assert parse_shares("80,20") == {"train": 0.8, "val": 0.2}
    assert list(parse_shares("8,1,1")) == ["train", "val", "test"]
    assert parse_shares("100") == {"train": 1.0}


@pytest.mark.parametrize("text", ["", "80,x", "80,0", "80,-1", "1,2,3,4", "nan", "inf,1"])
def test_bad_shares(text):
    with pytest.raises(UserError, match="expected the shares of train, val and test"):
        parse_shares(text)


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_together_and_shares_are_met(seed):
    rng = np.random.default_rng(seed)
    groups = [f"g{g}" for g in rng.integers(0, 40, 400)]
    splits = assign(groups, parse_shares("80,10,10"), seed)
    assert all(len({s for g, s in zip(groups, splits) if g == group}) == 1 for group in groups)
    counts = Counter(splits)
    for name, share in (("train", 320), ("val", 40), ("test", 40)):
        assert abs(counts[name] - share) <= max(Counter(groups).values())
    assert splits == assign(groups, parse_shares("80,10,10"), seed)


def test_no_split_is_empty():
    assert set(assign(["a"] * 98 + ["b", "c"], parse_shares("80,10,10"), 0)) == {
        *("train", "val", "test")
    }
    with pytest.raises(UserError, match="2 splits need as many groups, found 1"):
        assign(["a", "a"], parse_shares("80,20"), 0)


def test_groups_of_names():
    names = ["drive1/001", "drive1/002", "drive2/001"]
    assert groups_of(names, None) == names
    assert groups_of(names, r"drive\d") == ["drive1", "drive1", "drive2"]
    assert groups_of(names, r"drive(\d)/") == ["1", "1", "2"]
    with pytest.raises(UserError, match="does not match 'drive2/001'"):
        groups_of(names, "drive1")
    with pytest.raises(UserError, match="not a regular expression"):
        groups_of(names, "(")
