"""Splits of annotated images by shares, with all images of a group in one split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from liteseg.errors import UserError

NAMES = ("train", "val", "test")


def parse_shares(text: str) -> dict[str, float]:
    """`80,20` or `80,10,10` as {split: share}, of train, val and test.

    Raises:
        UserError: other than one to three numbers above 0.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 < number < float("inf") for number in numbers):
        raise UserError(
            f"--split {text}: expected the shares of train, val and test, such as 80,20 or 80,10,10"
        )
    return {name: number / sum(numbers) for name, number in zip(NAMES, numbers)}


def groups_of(names: Sequence[str], pattern: Optional[str]) -> list[str]:
    """The group of each name: the first group of the regular expression, or the whole match.

    Without a pattern, every image is a group of its own.

    Raises:
        UserError: the pattern is no regular expression, or does not match a name.
    """
    if pattern is None:
        return list(names)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-by {pattern!r}: not a regular expression: {error}") from None
    found = []
    for name in names:
        match = expression.search(name)
        group = match and match[1 if expression.groups else 0]
        if not group:
            raise UserError(
                f"--group-by {pattern!r} does not match {name!r}; every image needs one"
            )
        found.append(group)
    return found


def assign(groups: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """A split for each image, so that no group is in two splits.

    Groups in random order go to the split that lacks most of its share; the largest groups first,
    because they fit worst.

    Raises:
        UserError: fewer groups than splits.
    """
    sizes = {group: groups.count(group) for group in dict.fromkeys(groups)}
    if len(sizes) < len(shares):
        raise UserError(
            f"--split: {len(shares)} splits need as many groups, found {len(sizes)} "
            f"({', '.join(list(sizes)[:3])}); change --group-by or --split"
        )
    order = np.random.default_rng(seed).permutation(sorted(sizes))
    lacking = {name: share * len(groups) for name, share in shares.items()}
    chosen: dict[str, str] = {}
    for place, group in enumerate(sorted(order, key=lambda g: -sizes[g])):
        empty = [name for name in shares if name not in chosen.values()]
        # The last groups fill splits that are still empty.
        candidates = empty if len(empty) == len(sizes) - place else list(shares)
        split = max(candidates, key=lambda name: lacking[name])
        chosen[str(group)] = split
        lacking[split] -= sizes[group]
    return [chosen[group] for group in groups]
