"""The tested sets, compared with the `packaging` library that pip uses."""

from __future__ import annotations

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from liteseg.doctor import constraints
from liteseg.doctor.constraints import read_constraints


@pytest.mark.parametrize("minor", range(9, 14))
def test_pins_equal_those_of_packaging(minor):
    newest, oldest = read_constraints(minor)
    assert (newest.line, oldest.line) == ("3.3", "2.6")
    for tested in (newest, oldest):
        expected = {}
        for line in tested.path.read_text().splitlines():
            if line.partition("#")[0].strip():
                pin = Requirement(line)
                if pin.marker is None or pin.marker.evaluate({"python_version": f"3.{minor}"}):
                    (specifier,) = pin.specifier
                    expected[pin.name] = specifier.version
        assert tested.pins == expected
        assert tested.pins["paddlepaddle"].startswith(tested.line)


def test_python_versions():
    assert [tested.pythons for tested in read_constraints()] == [(9, 13), (9, 12)]


def test_installed_from_a_wheel(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "liteseg"
    (package / "constraints").mkdir(parents=True)
    text = (ROOT / "scripts/constraints/paddle-3.3.txt").read_text()
    (package / "constraints" / "paddle-3.3.txt").write_text(text)
    here = [(tested.line, tested.pins) for tested in read_constraints()]
    monkeypatch.setattr(constraints, "__file__", str(package / "doctor" / "constraints.py"))
    assert [(tested.line, tested.pins) for tested in read_constraints()] == here[:1]


def test_line_without_a_pin(tmp_path, monkeypatch):
    path = tmp_path / "paddle-9.9.txt"
    path.write_text("# Python 3.9 to 3.13\nnumpy>=2\n")
    monkeypatch.setattr(constraints, "_folders", lambda: [tmp_path])
    with pytest.raises(ValueError, match="numpy>=2"):
        read_constraints()
