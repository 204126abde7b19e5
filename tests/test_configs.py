"""Every shipped YAML passes the check and builds; the recipes have the published values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paddleseg_form import PADDLESEG_BASE

from liteseg.cli import main
from liteseg.config.build import build_losses, build_model, build_optimizer
from liteseg.config.check import load_checked
from liteseg.config.component import build
from liteseg.config.load import load_config
from liteseg.registry import LR_SCHEDULERS, TRANSFORMS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = sorted(p for p in CONFIGS.rglob("*.yml") if p.parent.name != "_base_")
NO_DOWNLOAD = ("model.backbone.pretrained=null",)
URL = "https://bj.bcebos.com/paddleseg/dygraph/PP_STDCNet{}.tar.gz"


def _id(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_recipe_and_its_dump_pass_the_check(path, tmp_path):
    cfg = load_checked(path).source
    (tmp_path / "config.yml").write_text(cfg.dump())
    assert load_checked(tmp_path / "config.yml").source.data == cfg.data


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The networks that were built, since several recipes have the same."""
    return {}


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_recipe_builds(path, models):
    """Model, transforms, losses and optimizer; the files of the datasets are not needed."""
    cfg = load_config(path, NO_DOWNLOAD)
    key = str((cfg["model"], cfg["train_dataset"]["type"]))  # which sets the number of classes
    model = models[key] = models.get(key) or build_model(cfg)
    heads = len(cfg["model"].get("arm_out_chs", (64, 96, 128)))
    losses = build_losses(cfg, heads, [1.0] * 32)
    assert len(losses) == heads
    build_optimizer(cfg, model.parameters())
    for split in ("train_dataset", "val_dataset"):
        for i, spec in enumerate(cfg[split]["transforms"]):
            build(spec, TRANSFORMS, f"{split}.transforms.{i}")
        assert cfg[split]["transforms"][-1]["type"] == "Normalize"


@pytest.mark.parametrize("path", RECIPES, ids=_id)
def test_recipe_of_a_few_iterations(path):
    source = load_config(path)
    spec = source["lr_scheduler"]
    for iters in range(1, 13):
        assert load_checked(source.changed([f"iters={iters}"])).iters == iters
        schedule = build(spec, LR_SCHEDULERS, "lr_scheduler", iters=iters)
        for _ in range(iters):
            assert 0 <= schedule() <= spec["learning_rate"]
            schedule.step()


# The published values: the paper's tables and section 4, and PaddleSeg's configs/pp_liteseg.
CITY = {
    "data": ("Cityscapes", "train", "val"),
    "iters": 160000,
    "batch_size": 4,
    "total_batch_size": 16,
    "lr": 0.005,
    "warmup": 1000,
    "warmup_lr": 1e-5,
    "weight_decay": 5e-4,
    "crop": [1024, 512],
    "min_kept": 130000,
}
CAMVID = {
    "data": ("CamVid", "train", "val"),
    "iters": 10000,
    "batch_size": 6,
    "total_batch_size": 24,
    "lr": 0.01,
    "warmup": 200,
    "warmup_lr": 1e-5,
    "weight_decay": 5e-4,
    "crop": [960, 720],
    "scales": (0.5, 2.5, 0.25),
    "min_kept": 250000,
    "test": None,
}
PAPER = {**CAMVID, "iters": 1000, "weight_decay": 1e-4, "warmup": 0}
FOR_TEST = {"data": ("CamVid", "trainval", "test")}
SMALL, LARGE = (0.125, 1.5, 0.125), (0.5, 2.0, 0.25)
T = {"backbone": "STDC1", "decoder": ([32, 64, 128], [32, 64, 64]), "url": URL.format(1)}
B = {"backbone": "STDC2", "decoder": (None, None), "url": URL.format(2)}  # None: B is the default

PUBLISHED = {
    f"stdc{n}_cityscapes_1024x512_scale{test}_160k": {**CITY, **net, "scales": s, "test": test}
    for n, net in ((1, T), (2, B))
    for test, s in ((0.5, SMALL), (0.75, SMALL), (1.0, LARGE))
}
for _n, _net in ((1, T), (2, B)):
    PUBLISHED[f"stdc{_n}_camvid_960x720_10k"] = {**CAMVID, **_net}
    PUBLISHED[f"stdc{_n}_camvid_960x720_1k"] = {**PAPER, **_net}
    PUBLISHED[f"stdc{_n}_camvid_960x720_10k_for_test"] = {**CAMVID, **_net, **FOR_TEST}
    PUBLISHED[f"stdc{_n}_camvid_960x720_1k_for_test"] = {**PAPER, **_net, **FOR_TEST}


def _facts(cfg) -> dict:
    """The same values of a config."""
    transforms = {t["type"]: t for t in cfg["train_dataset"]["transforms"]}
    scaling, schedule, model = transforms["ResizeStepScaling"], cfg["lr_scheduler"], cfg["model"]
    (min_kept,) = {loss["min_kept"] for loss in cfg["loss"]["types"]}
    test = cfg.get("test_config")
    return {
        "iters": cfg["iters"],
        "batch_size": cfg["batch_size"],
        "total_batch_size": cfg.get("total_batch_size"),
        "lr": schedule["learning_rate"],
        "weight_decay": cfg["optimizer"]["weight_decay"],
        "crop": transforms["RandomPaddingCrop"]["crop_size"],
        "scales": tuple(scaling[f"{k}_size" if k == "scale_step" else f"{k}_scale_factor"]
                        for k in ("min", "max", "scale_step")),
        "min_kept": min_kept,
        "warmup": schedule["warmup_iters"],
        "warmup_lr": schedule["warmup_start_lr"],
        "test": test["scales"] if test and test.get("aug_eval") else None,
        "data": (cfg["train_dataset"]["type"], cfg["train_dataset"]["mode"],
                 cfg["val_dataset"]["mode"]),
        "backbone": model["backbone"]["type"],
        "url": model["backbone"].get("pretrained"),
        "decoder": (model.get("arm_out_chs"), model.get("seg_head_inter_chs")),
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    cfg = load_config(f"pp_liteseg/pp_liteseg_{name}")
    assert _facts(cfg) == PUBLISHED[name]
    # Common to all.
    assert cfg["optimizer"] == {
        "type": "SGD", "momentum": 0.9, "weight_decay": PUBLISHED[name]["weight_decay"],
    }  # fmt: skip
    assert (cfg["lr_scheduler"]["type"], cfg["lr_scheduler"]["power"]) == ("PolynomialDecay", 0.9)
    assert cfg["lr_scheduler"]["end_lr"] == 0
    assert [loss["type"] for loss in cfg["loss"]["types"]] == ["OhemCrossEntropyLoss"] * 3
    assert cfg["loss"]["coef"] == [1, 1, 1]
    train = [t["type"] for t in cfg["train_dataset"]["transforms"]]
    assert train == [
        "ResizeStepScaling", "RandomPaddingCrop", "RandomHorizontalFlip", "RandomDistort",
        "Normalize",
    ]  # fmt: skip
    distort = cfg["train_dataset"]["transforms"][3]
    assert {distort[f"{kind}_range"] for kind in ("brightness", "contrast", "saturation")} == {0.5}
    assert cfg["val_dataset"]["transforms"] == [{"type": "Normalize"}]


def test_values_of_camvid_600():
    facts = _facts(load_config("pp_liteseg/pp_liteseg_stdc1_camvid_480x360_600"))
    assert facts == {
        **CAMVID, **T, "iters": 600, "batch_size": 4, "total_batch_size": None, "crop": [480, 360],
        "min_kept": 43200, "warmup": 50, "url": None,
    }  # fmt: skip


ABLATION = {  # FLD, SPPM, UAFM
    "baseline": ([128, 128, 128], [1], "UAFM"),
    "fld": ([64, 96, 128], [1], "UAFM"),
    "sppm": ([128, 128, 128], [1, 2, 4], "UAFM"),
    "uafm": ([128, 128, 128], [1], "UAFM_SpAtten"),
    "all": ([64, 96, 128], [1, 2, 4], "UAFM_SpAtten"),
}


@pytest.mark.parametrize("name", ABLATION)
def test_ablation_differs_from_b2_in_the_model_only(name):
    cfg = load_config(f"ablation/pp_liteseg_stdc2_cityscapes_scale0.75_{name}")
    b2 = load_config("pp_liteseg/pp_liteseg_stdc2_cityscapes_1024x512_scale0.75_160k")
    model = cfg["model"]
    assert (model["arm_out_chs"], model["cm_bin_sizes"], model["arm_type"]) == ABLATION[name]
    changed = {"arm_out_chs", "cm_bin_sizes", "arm_type"}
    assert {k: v for k, v in model.items() if k not in changed} == b2["model"]
    assert {k: v for k, v in cfg.items() if k != "model"} == {
        k: v for k, v in b2.items() if k != "model"
    }


# YAMLs in PaddleSeg's form (keys, spellings, references), written for this test.
PADDLESEG_T = f"""\
_base_: '../_base_/cityscapes.yml'
batch_size: 4
iters: 160000
optimizer:
  weight_decay: 5.0e-4
lr_scheduler:
  warmup_iters: 1000
  warmup_start_lr: 1.0e-5
  learning_rate: 0.005
loss:
  types:
    - type: OhemCrossEntropyLoss
      min_kept: 130000
    - type: OhemCrossEntropyLoss
      min_kept: 130000
    - type: OhemCrossEntropyLoss
      min_kept: 130000
  coef: [1, 1, 1]
train_dataset:
  transforms:
    - type: ResizeStepScaling
      min_scale_factor: 0.125
      max_scale_factor: 1.5
      scale_step_size: 0.125
    - type: RandomPaddingCrop
      crop_size: [1024, 512]
    - type: RandomHorizontalFlip
    - type: RandomDistort
      brightness_range: 0.5
      contrast_range: 0.5
      saturation_range: 0.5
    - type: Normalize
  mode: train
test_config:
  aug_eval: True
  scales: 0.5
model:
  type: PPLiteSeg
  backbone:
    type: STDC1
    pretrained: {URL.format(1)}
  arm_out_chs: [32, 64, 128]
  seg_head_inter_chs: [32, 64, 64]
"""
PADDLESEG_B = f"""\
_base_: './t.yml'
test_config:
  aug_eval: True
  scales: 0.75
model:
  _inherited_: False
  type: PPLiteSeg
  backbone:
    type: STDC2
    pretrained: {URL.format(2)}
"""
PADDLESEG_LISTS = """\
_base_: './t.yml'
train_dataset:
  _inherited_: False
  type: Dataset
  dataset_root: data/camvid
  num_classes: 11
  mode: train
  train_path: data/camvid/train.txt
  transforms:
    - type: RandomPaddingCrop
      crop_size: [960, 720]
    - type: Normalize
val_dataset:
  _inherited_: False
  type: Dataset
  dataset_root: data/camvid
  num_classes: 11
  mode: val
  val_path: data/camvid/val.txt
  transforms:
    - type: Normalize
"""


@pytest.fixture
def paddleseg(tmp_path):
    for name, text in (
        ("_base_/cityscapes.yml", PADDLESEG_BASE),
        ("pp_liteseg/t.yml", PADDLESEG_T),
        ("pp_liteseg/b.yml", PADDLESEG_B),
        ("pp_liteseg/lists.yml", PADDLESEG_LISTS),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "pp_liteseg"


@pytest.mark.parametrize(("name", "classes"), [("t", 19), ("b", 19), ("lists", 11)])
def test_paddleseg_yaml_passes_and_builds(paddleseg, name, classes):
    load_checked(paddleseg / f"{name}.yml")
    cfg = load_config(paddleseg / f"{name}.yml", NO_DOWNLOAD)
    head = build_model(cfg).state_dict()["seg_heads.0.conv_out.weight"]
    assert head.shape[0] == classes
    assert len(build_losses(cfg, 3)) == 3


def test_paddleseg_yaml_has_the_values_of_the_recipe(paddleseg):
    assert _facts(load_config(paddleseg / "b.yml")) == {
        **PUBLISHED["stdc2_cityscapes_1024x512_scale0.75_160k"], "total_batch_size": None,
    }  # fmt: skip


def test_cli_check_lists_errors_of_every_file(paddleseg, capsys):
    files = [str(paddleseg / "t.yml"), "quickstart"]
    assert main(["config", "check", *files, *map(str, RECIPES)]) == 0
    wrong = ["--set", "iters=0", "--set", "model.backbone.type=STDC3"]
    assert main(["config", "check", *files, "quikstart", *wrong]) == 2
    err = capsys.readouterr().err
    assert err.count("model.backbone.type: 'STDC3' is not in BACKBONES (STDC1, STDC2)") == 2
    assert err.count("iters: must be greater than 0, found 0 (--set)") == 2
    assert "no config 'quikstart'" in err


def test_cli_show_prints_values_with_origins(capsys):
    assert main(["config", "show", "quickstart", "--set", "batch_size=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("batch_size: 7 ") and line.endswith("# --set") for line in lines)
    assert any("type: PPLiteSeg " in line and "quickstart.yml:" in line for line in lines)
    assert main(["config", "show", "absent"]) == 2
    assert "no config" in capsys.readouterr().err
