"""Registry: lookup, duplicates, messages for unknown names."""

from __future__ import annotations

import pytest

from liteseg.errors import UserError
from liteseg.registry import Registry, nearest


@pytest.fixture
def registry():
    toys = Registry("TOYS")

    @toys.register
    class Ball:
        pass

    toys.register(dict, name="Box")
    return toys


def test_lookup_by_own_or_explicit_name(registry):
    assert registry["Ball"].__name__ == "Ball"
    assert registry["Box"] is dict
    assert list(registry) == ["Ball", "Box"]
    assert len(registry) == 2
    assert "Ball" in registry
    assert "ball" not in registry


def test_called_decorator(registry):
    @registry.register(name="Cube")
    def make_cube():
        pass

    assert registry["Cube"] is make_cube


def test_duplicates_raise(registry):
    with pytest.raises(ValueError, match="TOYS already contains 'Box'"):
        registry.register(list, name="Box")
    assert registry["Box"] is dict


@pytest.mark.parametrize(("name", "hint"), [("ball", "'Ball'"), ("Boxx", "'Box'")])
def test_unknown_name_lists_the_known_names_and_the_nearest(registry, name, hint):
    with pytest.raises(UserError) as error:
        registry[name]
    assert str(error.value) == f"{name!r} is not in TOYS (Ball, Box); did you mean {hint}?"


def test_unknown_name_without_a_similar_one_has_no_hint(registry):
    assert registry.missing_message("Quux") == "'Quux' is not in TOYS (Ball, Box)"
    assert nearest("Quux", registry) is None
    assert nearest("", []) is None
