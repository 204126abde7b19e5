"""`liteseg bench` on the shipped configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from liteseg.cli import bench, main
from liteseg.config.load import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICKSTART = f"{CONFIGS}/quickstart.yml"
CITYSCAPES = f"{CONFIGS}/pp_liteseg/pp_liteseg_stdc{{}}_cityscapes_1024x512_scale{{}}_160k.yml"
PARTS = [
    *("backbone.features.0", "backbone.features.1", "backbone.features.2-3"),
    *("backbone.features.4-5", "backbone.features.6-7", "ppseg_head.cm"),
    *(f"ppseg_head.arm_list.{i}" for i in (2, 1, 0)),
    *("seg_heads.0", "final upsample and other functions"),
]


def test_table_and_json(tmp_path, capsys):
    """The published weights are not fetched: the figures don't depend on them."""
    file = tmp_path / "sub" / "f.json"
    config = CITYSCAPES.format(1, 0.5)
    assert (
        main(["bench", "model", "--config", config, "--size", "64", "32", "--json", f"{file}"]) == 0
    )
    said = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["size"] == [64, 32]
    assert [part["name"] for part in found["parts"]] == PARTS
    assert [part["output"] for part in found["parts"]][-2:] == [[19, 4, 8], []]
    total = found["total"]
    for key in ("parameters", "multiply_adds"):
        assert total[key] == sum(part[key] for part in found["parts"])
    assert total["peak_bytes"] == max(part["peak_bytes"] for part in found["parts"])
    for text in (*PARTS, "64x32", "8.0397 M"):
        assert text in said


@pytest.mark.parametrize(
    ("config", "overrides", "size"),
    [
        (CITYSCAPES.format(1, 0.5), [], (1024, 512)),
        (CITYSCAPES.format(2, 0.75), [], (1536, 768)),
        (CITYSCAPES.format(2, 0.75), ["test_config.aug_eval=false"], (2048, 1024)),
        (CITYSCAPES.format(1, 0.5), ["test_config.scales=[0.5, 1.0]"], (2048, 1024)),
        (QUICKSTART, [], (384, 192)),
        (
            QUICKSTART,
            ["test_config={is_slide: true, crop_size: [256, 128], stride: [128, 64]}"],
            (256, 128),
        ),
    ],
)
def test_size_of_the_config(config, overrides, size):
    assert bench.default_size(load_config(config, overrides)) == size


def test_size_unknown(capsys):
    command = ["bench", "model", "--config", QUICKSTART]
    command += ["--set", "train_dataset.transforms=[{type: Normalize}]"]
    assert main(command) == 2
    assert "give --size W H" in capsys.readouterr().err


@pytest.mark.parametrize("size", [["0", "32"], ["64", "x"], ["64"]])
def test_bad_size(size, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "model", "--config", QUICKSTART, "--size", *size])
    assert end.value.code == 2
    assert "--size" in capsys.readouterr().err
