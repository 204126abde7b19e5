"""Configs whose keys are valid alone but would fail, or mislead, during training."""

import pytest

from liteseg.config.check import check
from liteseg.config.load import load_config

OWN = (
    "_inherited_: false, type: Dataset, dataset_root: d, mode: {}, {}_path: l.txt, num_classes: {}"
)


def problems(*overrides):
    return [problem.rpartition(" (")[0] for problem in check(load_config("quickstart", overrides))]


def own(split, extra, transforms="{type: Normalize}", classes=4):
    keys = OWN.format(split, split, classes)
    return f"{split}_dataset={{{keys}, {extra}transforms: [{transforms}]}}"


CROP = "{type: RandomPaddingCrop, crop_size: [64, 64]}, {type: Normalize}"
VOID = [own("train", "ignore_index: 4, ", CROP), own("val", "ignore_index: 4, ")]


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("{type: RandomHorizontalFlip}", "RandomHorizontalFlip is random"),
        ("{type: RandomHorizontalFlip, prob: 1}", "RandomHorizontalFlip is random"),
        ("{type: RandomDistort}", "RandomDistort is random"),
        ("{type: RandomBlur}", "RandomBlur is random"),
        ("{type: RandomRotation}", "RandomRotation is random"),
        ("{type: ResizeStepScaling}", "ResizeStepScaling is random"),
        ("{type: RandomPaddingCrop}", "RandomPaddingCrop is random"),
        ("{type: Resize, interp: RANDOM}", "Resize is random"),
        ("{type: RandomHorizontalFlip, prob: 0}", None),
        ("{type: RandomRotation, max_rotation: 0}", None),
        ("{type: Resize, target_size: [64, 64]}", None),
        ("{type: PaddingByAspectRatio}", None),
    ],
)
@pytest.mark.parametrize("split", ["val", "test"])
def test_transforms_of_evaluation_are_fixed(split, transform, expected):
    dataset = f"{split}_dataset={{type: Streets, dataset_root: d, mode: val, transforms: "
    found = problems(f"{dataset}[{transform}, {{type: Normalize}}]}}")
    assert found == (
        [] if expected is None else
        [f"{split}_dataset.transforms.0: {expected}, and evaluation needs fixed images; remove it"]
    )  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("names", [[], ["Resize"], ["Normalize", "Resize"], ["Normalize"] * 2])
def test_normalize_is_last_and_alone(split, names):
    transforms = ", ".join(f"{{type: {name}}}" for name in names)
    (found,) = problems(f"{split}_dataset.transforms=[{transforms}]")
    listed = ", ".join(names) or "none"
    assert found == (
        f"{split}_dataset.transforms: must end in Normalize, and have only one; found {listed}"
    )


def test_void_label_of_the_dataset():
    assert problems(*VOID) == []
    assert problems(*VOID, "loss.types.0.ignore_index=4") == []
    (found,) = problems(*VOID, "loss.types.0.ignore_index=255")
    assert found.startswith("loss.types.0.ignore_index: is 255, expected the 4 of the dataset")
    (found,) = problems(VOID[0], own("val", ""))
    assert found == "val_dataset.ignore_index: is 255, expected 4 as in train_dataset.ignore_index"
    (found,) = problems(*VOID, "train_dataset.transforms.0.label_padding_value=255")
    assert "label_padding_value is 255, expected the ignore_index 4 of the dataset" in found
    assert problems(*VOID, "train_dataset.transforms.0.label_padding_value=0") == []  # a class
    (found,) = problems(*VOID, "train_dataset.transforms.0.ignore_index=255")
    assert "RandomPaddingCrop: ignore_index is 255, expected that of the dataset, 4" in found


@pytest.mark.parametrize(("classes", "reason"), [(1, "every pixel is right"), (300, "2 to 255")])
def test_number_of_classes(classes, reason):
    data = [own(split, "", classes=classes) for split in ("train", "val")]
    (found,) = problems(*data)
    assert found.startswith(f"train_dataset: {classes} class") or found.startswith(
        f"train_dataset: {classes}, expected"
    )
    assert reason in found


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.coef=[1, 1]", "loss.coef: has 2 entries for 3 heads; give 1 or 3"),
        (
            "model.backbone_indices=[2, 3, 4, 4]",
            "loss.coef: has 3 entries for 4 heads; give 1 or 4",
        ),
        ("early_stop={patience: 2}", None),
        ("epochs=10", "epochs: liteseg counts iterations; write iters: <epochs x training"),
        (
            "optimizer.lr=0.1",
            "optimizer.lr: AdamW has no argument 'lr'; write lr_scheduler.learning",
        ),
        ("optimizer.backbone_lr_mult=0.1", None),
        ("backbone_lr_mult=0.1", "backbone_lr_mult: rates of their own are optimizer.custom_cfg"),
        ("freeze=true", "freeze: expected a list of text or null, found"),
        ("model.backbone.frozen_stages=2", "model.backbone.frozen_stages: STDC1 has no argument"),
    ],
)
def test_what_to_write_instead(override, expected):
    found = problems(override)
    assert found == [] if expected is None else found[0].startswith(expected) and len(found) == 1


def test_early_stop_needs_a_validation_set():
    (found,) = problems("early_stop={patience: 2}", "val_dataset=null")
    assert found == "early_stop: needs a val_dataset: it watches the validation mIoU"
