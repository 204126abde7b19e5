"""The checker and the builder, on small components registered for these tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional, Union

import numpy as np
import pytest

from liteseg.config import build as builder
from liteseg.config import check, plugins
from liteseg.config.check import checked
from liteseg.config.component import build
from liteseg.config.keys import REQUIRED, describe, matches
from liteseg.config.load import load_config
from liteseg.config.schema import SCHEMA
from liteseg.errors import UserError
from liteseg.registry import (
    BACKBONES,
    DATASETS,
    LOSSES,
    LR_SCHEDULERS,
    MODELS,
    OPTIMIZERS,
    TRANSFORMS,
)
from liteseg.transforms import Normalize
from liteseg.utils.class_weights import class_weights


class ToyNet:
    def __init__(
        self,
        num_classes: int,
        backbone: Any,
        channels: Sequence[int] = (1, 2),
        mode: Literal["fast", "slow"] = "fast",
        pretrained: Optional[str] = None,
    ):
        self.num_classes, self.backbone, self.channels = num_classes, backbone, channels
        self.mode, self.pretrained = mode, pretrained


class ToyBackbone:
    def __init__(self, depth: int = 3, scale: float = 1.0, pretrained: Optional[str] = None):
        if depth > 9:
            raise ValueError(f"depth: {depth} is more than 9")
        self.depth, self.scale = depth, scale


class OtherBackbone:
    def __init__(self, width: int = 1):
        self.width = width


class ToyScenes:
    CLASSES = ("road", "sky", "car")

    def __init__(self, transforms: Sequence, dataset_root: str, mode: str = "train"):
        self.transforms, self.root, self.mode = transforms, dataset_root, mode


class ToyList:
    def __init__(
        self, dataset_root: str, transforms: Sequence, num_classes: int, ignore_index: int = 254
    ):
        raise UserError(f"dataset_root: {dataset_root} does not exist")


class ToyCrop:
    def __init__(self, crop_size: tuple[int, int], ratio: Union[int, float] = 1.0):
        if min(crop_size) < 1:
            raise ValueError(f"crop_size: {crop_size} is empty")
        self.crop_size = crop_size


class ToyLoss:
    def __init__(self, weight: Optional[Sequence[float]] = None, ignore_index: int = 255):
        self.weight, self.ignore_index = weight, ignore_index


class ToyMix:
    def __init__(self, losses: Sequence, coef: Sequence[float]):
        if len(losses) != len(coef):
            raise ValueError(f"coef: {len(coef)} for {len(losses)} losses")
        self.losses = losses


def toy_sgd(parameters, learning_rate, momentum: float = 0.9, grad_clip: Optional[float] = None):
    return ("sgd", parameters, learning_rate, momentum, grad_clip)


def toy_adam(parameters, learning_rate, beta: float = 0.9):
    return ("adam", parameters, learning_rate, beta)


def toy_decay(iters: int, learning_rate: float, warmup_iters: int = 0):
    assert learning_rate < 9, f"learning_rate is {learning_rate}"
    assert warmup_iters < iters
    return ("decay", iters, learning_rate)


TOYS = [
    (MODELS, ToyNet),
    (BACKBONES, ToyBackbone),
    (BACKBONES, OtherBackbone),
    (DATASETS, ToyScenes),
    (DATASETS, ToyList),
    (TRANSFORMS, ToyCrop),
    (TRANSFORMS, Normalize),
    (LOSSES, ToyLoss),
    (LOSSES, ToyMix),
    (OPTIMIZERS, toy_sgd),
    (OPTIMIZERS, toy_adam),
    (LR_SCHEDULERS, toy_decay),
]
GOOD = """\
batch_size: 2
iters: 100
train_dataset:
  type: ToyScenes
  dataset_root: data/toy
  transforms:
    - {type: ToyCrop, crop_size: [8, 4]}
    - {type: Normalize}
optimizer: {type: toy_sgd, momentum: 0.8}
lr_scheduler: {type: toy_decay, learning_rate: 0.1, warmup_iters: 5}
loss: {types: [{type: ToyLoss}], coef: [1]}
model:
  type: ToyNet
  backbone: {type: ToyBackbone, depth: 2}
"""


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for module in (check, plugins):
        monkeypatch.setattr(module, "load_components", lambda plugins=(): None)
    for registry, toy in TOYS:
        monkeypatch.setitem(registry._components, toy.__name__, toy)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _config(*overrides, text=GOOD):
        (tmp_path / "c.yml").write_text(text)
        return load_config("c.yml", overrides)

    return _config


def test_a_good_config_has_no_problems(config):
    assert check.check(config()) == []
    checked(config())


def test_deterministic_excludes_the_search_for_algorithms(config):
    (problem,) = check.check(config("deterministic=true", "cudnn_exhaustive_search=true"))
    assert problem.startswith("cudnn_exhaustive_search: true, and so is deterministic")
    assert check.check(config("deterministic=false", "cudnn_exhaustive_search=true")) == []


ERRORS = [
    ("batch_sise=3", "batch_sise: is not a known key; did you mean 'batch_size'? (--set)"),
    ("batch_size=0", "batch_size: must be greater than 0, found 0"),
    ("batch_size=true", "batch_size: expected an integer, found True (true or false)"),
    ("iters=1e3", "iters: expected an integer, found 1000.0 (a number)"),
    ("iters='9'", "iters: expected an integer, found '9' (text)"),
    ("device=tpu", "device: expected auto or cpu or gpu, found 'tpu' (text)"),
    ("num_workers=-1", "num_workers: must be 0 or more, found -1"),
    ("total_batch_size=3", "total_batch_size: 3 is not a multiple of batch_size 2"),
    ("grad_clip=.inf", "grad_clip: expected a number or null, found inf"),
    ("plugins=a.py", "plugins: expected a list of text, found 'a.py' (text)"),
    ("amp={level: O3}", "amp.level: expected O1, found 'O3'"),
    ("amp={level: O2}", "amp.level: O2 (low-precision weights) gains nothing on a network of this"),
    ("amp={levle: O1}", "amp.levle: is not a known key; did you mean 'level'?"),
    ("ema={decay: 1.0}", "ema.decay: must be between 0 and 1, found 1.0"),
    ("early_stop={}", "early_stop.patience: is missing"),
    ("early_stop=true", "early_stop: expected false or null or a mapping, found True"),
    ("learning_rate={value: 0.1}", "learning_rate: this is PaddleSeg's old form; write lr_sched"),
    ("to_static_training=true", "to_static_training: liteseg trains in dynamic mode"),
    ("test={scales: 1}", "test: PaddleSeg's development name of test_config"),
    ("test_config={scales: [1, 0]}", "test_config.scales: must be greater than 0, found 0"),
    ("test_config={is_slide: true}", "test_config.stride: is_slide needs it: [w, h]"),
    (
        "test_config={is_slide: true, crop_size: [4, 4], stride: [4, 5]}",
        "test_config.stride: [4, 5] leaves gaps between windows of [4, 4]",
    ),
    ("test_config={crop_size: [4]}", "test_config.crop_size: expected [an integer, an integer]"),
    (
        "model.backbone.type=ToyBackbon",
        "model.backbone.type: 'ToyBackbon' is not in BACKBONES (",
    ),
    ("model.backbone.type=[1]", "model.backbone.type: [1] is not in BACKBONES"),
    ("model.backbone=ToyBackbone", "model.backbone: expected a mapping with a `type` of BACKBONES"),
    ("model.backbone=null", "model.backbone: expected a mapping with a `type` of BACKBONES"),
    (
        "model.backbone={_inherited_: false, depth: 3}",
        "model.backbone: has no `type`; BACKBONES contains ",
    ),
    (
        "model.backbone.dept=1",
        "model.backbone.dept: ToyBackbone has no argument 'dept' (it takes depth, scale, "
        "pretrained); did you mean 'depth'?",
    ),
    ("model.backbone.depth=1.5", "model.backbone.depth: expected an integer, found 1.5"),
    ("model.mode=quick", "model.mode: expected fast or slow, found 'quick'"),
    ("model.channels=[1, a]", "model.channels: expected a list of an integer, found [1, 'a']"),
    ("model.num_classes=4", "numbers of classes differ: model.num_classes has 4, train_dataset"),
    ("model={_inherited_: false, type: ToyNet}", "model: ToyNet needs backbone"),
    (
        "val_dataset={type: ToyList}",
        "val_dataset: ToyList needs dataset_root, transforms, num_classes",
    ),
    ("train_dataset.transforms.0.crop_size=[0, 4]", "train_dataset.transforms.0: ToyCrop: crop_"),
    ("train_dataset.transforms.0.crop_size=8", "train_dataset.transforms.0.crop_size: expected ["),
    ("train_dataset.transforms={type: ToyCrop}", "train_dataset.transforms: expected a list of"),
    ("test_config={scales: []}", "test_config.scales: must be greater than 0, found []"),
    ("loss.coef=[-1]", "loss.coef: must be 0 or more, found -1"),
    ("loss.types=[]", "loss.types: is empty"),
    ("loss.types=[{type: ToyLoss}, {type: ToyLoss}]", "loss.coef: has 1 entries for 2 loss.types"),
    ("loss.types.0.weight=autom", "loss.types.0.weight: expected a list of a number or null, fou"),
    ("loss.types.0.weight=[1, 2]", "loss.types.0.weight: has 2 entries for 3 classes"),
    (
        "loss.types.0={_inherited_: false, type: ToyMix, losses: [{type: ToyLoss}], coef: [1, 1]}",
        "loss.types.0: ToyMix: coef: 2 for 1 losses",
    ),
    (
        "loss.types.0={_inherited_: false, type: ToyMix, losses: [{type: Toy}], coef: [1]}",
        "loss.types.0.losses.0.type: 'Toy' is not in LOSSES",
    ),
    ("optimizer.learning_rate=1", "optimizer.learning_rate: must not be given here: set"),
    ("lr_scheduler.iters=1", "lr_scheduler.iters: must not be given here: set the top-level iters"),
    ("lr_scheduler.learning_rate=10", "lr_scheduler: toy_decay: learning_rate is 10"),
]


@pytest.mark.parametrize(("override", "problem"), ERRORS, ids=[e[0] for e in ERRORS])
def test_each_error_is_named(config, override, problem):
    problems = check.check(config(override))
    assert any(p.startswith(problem) or problem in p for p in problems), problems
    assert all("(c.yml" in p or "(--set)" in p for p in problems)
    assert len(problems) == len({p.partition(":")[0] for p in problems})  # none is said twice


def _paths(node, path=""):
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield f"{path}{key}"
        if isinstance(value, (dict, list)):
            yield from _paths(value, f"{path}{key}.")


@pytest.mark.parametrize("junk", ["null", "3", "-1", "x", "[]", "[x]", "[[1]]", "{}", "{a: b}"])
def test_junk_anywhere_is_reported_not_raised(config, junk):
    for path in list(_paths(config().data)):
        value = junk.replace("{", "{_inherited_: false, ") if junk[0] == "{" else junk
        for problem in check.check(config(f"{path}={value}")):
            assert "(c.yml" in problem or "(--set)" in problem


def test_every_error_at_once_with_its_line(config):
    text = GOOD.replace("batch_size: 2", "batch_size: two").replace("ToyBackbone", "ToyBackbome")
    problems = check.check(config(text=text.replace("dataset_root", "dataset_rot")))
    assert [p.partition(":")[0] for p in problems] == [
        "model.backbone.type",
        "train_dataset.dataset_rot",
        "train_dataset",
        "batch_size",
    ]
    assert problems[0].endswith("did you mean 'ToyBackbone'? (c.yml:14)")
    assert problems[3].endswith("(c.yml:1)")
    with pytest.raises(UserError, match=r"^c.yml: 4 errors\n  - model.backbone.type: 'ToyBackbo"):
        checked(config(text=text.replace("dataset_root", "dataset_rot")))


def test_missing_keys(config):
    problems = check.check(config(text="iters: 1\n"))
    missing = [p.partition(":")[0] for p in problems if "is missing" in p]
    assert missing == [
        "model", "train_dataset", "batch_size", "optimizer", "lr_scheduler", "loss",
    ]  # fmt: skip


def test_a_changed_type_with_inherited_arguments_is_explained(config, tmp_path):
    (tmp_path / "base.yml").write_text(GOOD)
    text = "_base_: base.yml\nmodel:\n  backbone:\n    type: OtherBackbone\n"
    (problem,) = check.check(config(text=text))
    assert "OtherBackbone has no argument 'depth'" in problem
    assert "`_inherited_: false` next to the new `type`" in problem
    assert problem.endswith("(base.yml:14)")
    assert check.check(config(text=text + "    _inherited_: false\n")) == []


def test_build_model(config):
    model = builder.build_model(config())
    assert (model.num_classes, model.backbone.depth, model.mode) == (3, 2, "fast")
    with pytest.raises(UserError, match="numbers of classes differ"):
        builder.build_model(config("model.num_classes=4"))
    with pytest.raises(UserError, match=r"model.backbone: ToyBackbone: depth: 12 is more than 9"):
        builder.build_model(config("model.backbone.depth=12"))


def test_class_count_from_a_file_list(config):
    lists = "train_dataset={_inherited_: false, type: ToyList, num_classes: 7, dataset_root: d, "
    cfg = config(lists + "transforms: [{type: Normalize}]}")
    assert check.check(cfg) == []
    assert builder.build_model(cfg).num_classes == 7
    assert builder.build_losses(cfg, 1)[0][1].ignore_index == 254
    with pytest.raises(UserError, match="train_dataset: ToyList: dataset_root: d does not exist"):
        builder.build_dataset(cfg, "train")


def test_build_dataset(config):
    data = builder.build_dataset(config(), "train")
    assert (data.root, data.transforms[0].crop_size) == ("data/toy", [8, 4])
    with pytest.raises(UserError, match=r"no val_dataset \(it has train_dataset\)"):
        builder.build_dataset(config(), "val")


def test_build_losses_one_for_all_heads(config):
    losses = builder.build_losses(config("loss.coef=[0.5]"), 3)
    assert [name for name, _, _ in losses] == ["head0_ToyLoss", "head1_ToyLoss", "head2_ToyLoss"]
    assert [coef for _, _, coef in losses] == [0.5, 0.5, 0.5]
    assert len({id(loss) for _, loss, _ in losses}) == 3
    coefs = builder.build_losses(config("loss.coef=[3, 2, 1]"), 3)
    assert [coef for _, _, coef in coefs] == [3, 2, 1]
    assert builder.build_losses(config("loss.coef=null"), 1)[0][2] == 1
    with pytest.raises(UserError, match=r"loss.coef: 2 entries for 3 heads; give 1 or 3"):
        builder.build_losses(config("loss.coef=[1, 2]"), 3)


def test_class_weights_are_measured_once_and_only_if_asked(config):
    calls = []

    def measure():
        calls.append(1)
        return (60, 30, 10)

    builder.build_losses(config(), 2, measure)
    assert not calls
    mixed = "{_inherited_: false, type: ToyMix, coef: [1], losses: [{type: ToyLoss, weight: auto}]}"
    cfg = config(f"loss.types=[{{type: ToyLoss, weight: auto}}, {mixed}]", "loss.coef=[1, 1]")
    assert check.check(cfg) == []
    (_, plain, _), (_, mix, _) = builder.build_losses(cfg, 2, measure)
    assert plain.weight == mix.losses[0].weight == class_weights(np.array([60, 30, 10])).tolist()
    assert len(calls) == 1
    assert builder.build_losses(cfg, 2, [1, 1, 1])[0][1].weight == [1.0, 1.0, 1.0]
    with pytest.raises(UserError, match="`weight: auto` needs a training set"):
        builder.build_losses(cfg, 2)


def test_each_scheme_of_measured_weights_is_one_of_its_own(config):
    types = "[{type: ToyLoss, weight: auto}, {type: ToyLoss, weight: enet}]"
    cfg = config(f"loss.types={types}", "loss.coef=[1, 1]")
    assert check.check(cfg) == []
    (_, mild, _), (_, full, _) = builder.build_losses(cfg, 2, [60, 30, 10])
    # The root of a ratio of two weights is the ratio of their roots.
    assert mild.weight[2] / mild.weight[0] == pytest.approx(
        (full.weight[2] / full.weight[0]) ** 0.5
    )
    unknown = config("loss.types=[{type: ToyLoss, weight: enett}]", "loss.coef=[1]")
    assert check.check(unknown)


def test_build_optimizer(config):
    optimizer, schedule = builder.build_optimizer(config("grad_clip=5"), ["p"])
    assert schedule == ("decay", 100, 0.1)
    assert optimizer == ("sgd", ["p"], schedule, 0.8, 5)
    assert builder.build_optimizer(config(), ["p"])[0][-1] is None


def test_build_without_check_still_names_the_key(config):
    with pytest.raises(UserError, match=r"x: ToyLoss: got an unexpected keyword argument 'wait'"):
        build({"type": "ToyLoss", "wait": 1}, LOSSES, "x")
    with pytest.raises(UserError, match=r"x.type: 'ToyLos' is not in LOSSES"):
        build({"type": "ToyLos"}, LOSSES, "x")


def test_a_checked_config_has_every_default(config):
    cfg = checked(config("amp=true", "test_config={scales: 0.5}", "ema={decay: 0.9}"))
    assert vars(cfg.amp) == {"level": "O1", "dtype": "float16"}
    assert cfg.ema.decay == 0.9
    assert cfg.early_stop is None
    assert cfg.num_workers == "auto"
    assert cfg.batch_size == 2
    assert cfg.test_config.scales == (0.5,)
    assert checked(config()).test_config.aug_eval is False
    assert checked(cfg) is cfg


def test_the_dump_of_a_checked_config_has_every_key_and_loads_back(config, tmp_path):
    cfg = checked(config("test_config={scales: 0.5}", "ema={decay: 0.9}"))
    (tmp_path / "again.yml").write_text(cfg.dump())
    again = load_config("again.yml")
    assert set(again) == set(SCHEMA)
    assert again["test_config"]["stride"] is None
    assert again["seed"] == 0
    loaded = checked(again)
    plain = [name for name, key in SCHEMA.items() if not key.registry and name != "plugins"]
    plain.remove("loss")
    assert {key: getattr(loaded, key) for key in plain} == {key: getattr(cfg, key) for key in plain}
    assert loaded.dump() == cfg.dump()
    # Constructors' defaults too, except of arguments that follow from others or are supplied.
    assert again["train_dataset"]["mode"] == "train"
    assert again["train_dataset"]["transforms"][0] == {
        "type": "ToyCrop",
        "crop_size": [8, 4],
        "ratio": 1.0,
    }
    assert again["loss"] == {"types": [{"type": "ToyLoss", "weight": None}], "coef": [1]}
    assert again["optimizer"] == {"type": "toy_sgd", "momentum": 0.8}
    assert again["model"]["backbone"]["scale"] == 1.0


def test_schema_defaults_fit_their_own_types():
    for name, key in SCHEMA.items():
        if key.default is not REQUIRED and key.registry is None:
            assert matches(key.default, key.type), name
        assert key.meaning


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (10**400, float, True),
        (float("nan"), float, False),
        ([1, 2], Sequence[int], True),
        ("ab", Sequence[str], False),
        ([1, 2.5], list[float], True),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ([1, 2, 3], tuple[int, ...], True),
        (None, Optional[int], True),
        ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False),
        (1, Literal[True], False),
        ("x", ToyNet, True),
    ],
)
def test_matches(value, annotation, expected):
    assert matches(value, annotation) is expected
    assert describe(annotation)
