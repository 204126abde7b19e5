"""Operators of a Paddle export, checked before Paddle opens the file."""

from __future__ import annotations

import copy
import json

import pytest
from paddle.base.proto import framework_pb2

from liteseg.deploy.operators import require_known_operators
from liteseg.errors import UserError

SAVE = {"#": "1.save", "A": [{"N": "file_path", "AT": {"#": "0.a_str", "D": "executed"}}]}


def program(*names):
    operators = [{"#": name} for name in names]
    return {"base_code": {}, "program": {"regions": [{"blocks": [{"ops": operators}]}]}}


def pdmodel(*names, blocks=1):
    found = framework_pb2.ProgramDesc()
    for _ in range(blocks):
        block = found.blocks.add(idx=0, parent_idx=-1)
    for name in names:
        block.ops.add(type=name)
    return found.SerializeToString()


def check(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    require_known_operators(path)


def test_operators_that_compute_are_accepted(tmp_path):
    check(tmp_path / "m.json", program("p", "1.data", "1.conv2d", "1.relu_", "1.fetch"))
    check(tmp_path / "m.pdmodel", pdmodel("feed", "conv2d", "elementwise_add", "fetch"))


NESTED = program("p")
NESTED["program"]["regions"][0]["blocks"][0]["ops"].append(
    {"#": "1.relu", "regions": [{"blocks": [{"ops": [SAVE]}]}]}
)


@pytest.mark.parametrize(
    ("name", "content", "operator"),
    [
        ("m.json", program("p", "1.save"), "1.save"),
        ("m.json", program("p", "pd_op.save"), "pd_op.save"),
        ("m.json", program("1.py_func"), "py_func"),
        ("m.json", program("1.load_combine", "1.print"), "load_combine"),
        ("m.json", program("2.relu"), "2.relu"),
        ("m.json", program(["1.relu"]), "1.relu"),
        ("m.json", NESTED, "1.save"),
        ("m.pdmodel", pdmodel("conv2d", "save"), "save"),
        ("m.pdmodel", pdmodel("py_func", blocks=3), "py_func"),
    ],
)
def test_other_operators_are_refused(name, content, operator, tmp_path):
    with pytest.raises(UserError, match="refused, because") as caught:
        check(tmp_path / name, content)
    assert operator in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"ops": {}}', b'{"ops": [1]}', b"null",
        b'{"ops": [{"#": "1.save"}], "ops": [{"#": "1.relu"}]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["m.json", "m.pdmodel"])
def test_broken_models_are_refused(name, content, tmp_path):
    with pytest.raises(UserError, match="not a model of Paddle"):
        check(tmp_path / name, content)


def test_a_missing_file_and_a_device_are_refused(tmp_path):
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("none.json", "zero.json"):
        with pytest.raises(UserError, match="can't read the model"):
            require_known_operators(tmp_path / name)


def test_an_added_save_operator_writes_nothing(exported, tmp_path, monkeypatch):
    """One extra operator in a real export, which `predict` would run."""
    import shutil

    from liteseg.tasks.segmenter import Segmenter

    folder = tmp_path / "copy"
    shutil.copytree(exported("paddle"), folder)
    (file,) = [*folder.glob("model.json"), *folder.glob("model.pdmodel")]
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        content["program"]["regions"][0]["blocks"][0]["ops"].append(copy.deepcopy(SAVE))
        file.write_text(json.dumps(content))
    else:
        content = framework_pb2.ProgramDesc.FromString(file.read_bytes())
        content.blocks[0].ops.add(type="save")
        file.write_bytes(content.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="refused"):
        Segmenter.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()
