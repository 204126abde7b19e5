"""A YAML in PaddleSeg's form, as people have them, trains unchanged."""

from __future__ import annotations

import json

import cv2
import golden_rule
import numpy as np
import pytest
from paddleseg_form import PADDLESEG_BASE

import liteseg
from liteseg.config.check import check
from liteseg.models import STDC1
from liteseg.utils.weights.load import read_pdparams, save_pdparams

RECIPE = """
_base_: '../_base_/cityscapes.yml'

batch_size: 2
iters: 2

train_dataset:
  _inherited_: False
  type: Dataset
  dataset_root: {root}
  train_path: {root}/train.txt
  num_classes: 3
  transforms:
    - type: ResizeStepScaling
      min_scale_factor: 0.5
      max_scale_factor: 2.0
      scale_step_size: 0.25
    - type: RandomPaddingCrop
      crop_size: [64, 32]
    - type: RandomHorizontalFlip
    - type: RandomDistort
      brightness_range: 0.5
      contrast_range: 0.5
      saturation_range: 0.5
    - type: Normalize
  mode: train

val_dataset:
  _inherited_: False
  type: Dataset
  dataset_root: {root}
  val_path: {root}/val.txt
  num_classes: 3
  transforms:
    - type: Normalize
  mode: val

test_config:
  aug_eval: True
  scales: 0.5

optimizer:
  weight_decay: 5.0e-4

lr_scheduler:
  learning_rate: 1.0e-9
  warmup_iters: 1
  warmup_start_lr: 1.0e-10

loss:
  types:
    - type: OhemCrossEntropyLoss
      min_kept: 200
    - type: OhemCrossEntropyLoss
      min_kept: 200
    - type: OhemCrossEntropyLoss
      min_kept: 200
  coef: [1, 1, 1]

model:
  type: PPLiteSeg
  backbone:
    type: STDC1
    pretrained: {weights}
  arm_out_chs: [32, 64, 128]
  seg_head_inter_chs: [32, 64, 64]
"""


@pytest.fixture
def recipe(tmp_path):
    """The YAML with its base, four tiny pairs and an encoder's weights."""
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        label = cv2.resize(rng.integers(0, 3, (4, 8), np.uint8), (96, 48), interpolation=0)
        image = np.repeat(label[..., None] * 80, 3, axis=2)
        assert cv2.imwrite(str(root / f"{i}.jpg"), image)
        assert cv2.imwrite(str(root / f"{i}.png"), label)
    for split, frames in (("train", range(3)), ("val", range(3, 4))):
        (root / f"{split}.txt").write_text("".join(f"{i}.jpg {i}.png\n" for i in frames))
    weights = tmp_path / "encoder.pdparams"
    save_pdparams(golden_rule.fill(STDC1()).state_dict(), weights)
    config = tmp_path / "configs" / "pp_liteseg" / "recipe.yml"
    base = tmp_path / "configs" / "_base_" / "cityscapes.yml"
    for path, text in ((config, RECIPE.format(root=root, weights=weights)), (base, PADDLESEG_BASE)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return config


def test_a_paddleseg_yaml_trains(recipe, tmp_path):
    run = tmp_path / "run"
    assert check(liteseg.load_config(recipe)) == []
    liteseg.train(recipe, output=run)
    lines = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    trained = [line for line in lines if line["phase"] == "train"]
    assert trained[-1]["step"] == 2
    assert np.isfinite(trained[-1]["loss"])
    assert trained[-1]["lr"] == pytest.approx(1e-9)  # after one iteration of warm-up
    *_, evaluated = (line for line in lines if line["phase"] == "eval")
    assert len(evaluated["class_iou"]) == 3
    # The learning rate is tiny: the encoder is close to the file's, but not equal.
    initial = read_pdparams(tmp_path / "encoder.pdparams")
    now = read_pdparams(run / "checkpoints" / "last" / "model.pdparams")
    kernels = [key for key in initial if key.endswith("conv.weight")]
    for key in kernels:
        np.testing.assert_allclose(now[f"backbone.{key}"], initial[key], atol=1e-4, err_msg=key)
    assert any((now[f"backbone.{key}"] != initial[key]).any() for key in kernels)
