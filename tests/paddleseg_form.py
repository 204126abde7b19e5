"""A `_base_/cityscapes.yml` in PaddleSeg's form, written for the tests that build on it."""

PADDLESEG_BASE = """\
batch_size: 2
iters: 80000
train_dataset:
  type: Cityscapes
  dataset_root: data/cityscapes
  transforms:
    - type: RandomPaddingCrop
      crop_size: [1024, 512]
    - type: Normalize
  mode: train
val_dataset:
  type: Cityscapes
  dataset_root: data/cityscapes
  transforms:
    - type: Normalize
  mode: val
optimizer:
  type: sgd
  momentum: 0.9
  weight_decay: 4.0e-5
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
  end_lr: 0
  power: 0.9
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
"""
