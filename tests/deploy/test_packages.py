"""Messages about optional packages."""

import importlib

import pytest

from liteseg.deploy.packages import require
from liteseg.errors import UserError


@pytest.mark.parametrize(
    ("name", "advice"),
    [("paddle.inference", "`liteseg doctor` prints the command"), ("onnx", "pip install onnx ")],
)
def test_a_missing_package_names_the_right_command(monkeypatch, name, advice):
    """PyPI's package `paddle` is somebody else's."""

    def refuse(wanted, *args):
        raise ImportError(f"No module named {wanted!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UserError) as error:
        require(name, "the export")
    assert advice in str(error.value)
    assert "pip install paddle" not in str(error.value)
