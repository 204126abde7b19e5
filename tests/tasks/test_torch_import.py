"""Imported PyTorch weights compute what the original modules do, and every key is accounted for."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
import yaml
from torch_twin import Twin
from torch_writer import legacy, state_dict, zipped

import liteseg.models
from liteseg.cli import main
from liteseg.config.component import build
from liteseg.errors import UserError
from liteseg.registry import MODELS
from liteseg.tasks.torch_import import ARCHITECTURES, import_torch
from liteseg.utils.weights.load import load_weights, read_pdparams

STDC = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
# projected, decoded and inner channels of super-gradients' networks
NETWORKS = {
    "pp_liteseg_t": ((64, 128, 128), (128, 64, 32), 32),
    "pp_liteseg_b": ((96, 128, 128), (128, 96, 64), 64),
}


def image():
    return paddle.to_tensor(np.random.default_rng(2).normal(size=(1, 3, 64, 96)).astype("float32"))


@pytest.fixture(scope="module")
def encoders():
    """Twins of both encoders with their features: {name: (twin, features)}."""
    twins = {name: Twin(modules) for name, modules in STDC.items()}
    return {name: (twin, twin.stdc(image())) for name, twin in twins.items()}


@pytest.fixture(scope="module")
def networks():
    """Twins of super-gradients' networks with their logits."""
    found = {}
    for name, channels in NETWORKS.items():
        twin = Twin(STDC["stdc1" if name.endswith("t") else "stdc2"])
        found[name] = twin, twin.pp_liteseg(image(), *channels, auxiliary=True)
    return found


def imported(tmp_path, data, architecture):
    (tmp_path / "original.pth").write_bytes(data)
    output = tmp_path / "imported.pdparams"
    return import_torch(tmp_path / "original.pth", architecture, output), output


def encoder(architecture, output):
    model = getattr(liteseg.models, architecture.upper())(count_include_pad=True)
    load_weights(model, output)
    model.eval()
    return model


def assert_close(found, expected):
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4 * max(1.0, scale))


def all_keys(report):
    return sorted([*report.mapped.values(), *report.skipped])


def official(twin, prefix=""):
    """The keys of the official file: the classifier, and the blocks once more in x2 to x32."""
    state = {f"{prefix}{key}": value for key, value in twin.state.items()}
    ends = np.cumsum([0, 1, 1, *twin.modules])
    for key, value in twin.state.items():
        index = int(key.split(".")[1])
        stage = int(np.searchsorted(ends, index, side="right"))
        state[f"{prefix}x{2**stage}.0.{key.partition('.')[2]}"] = value
    extra = ("conv_last.conv.weight", "fc.weight", "bn.running_mean", "linear.weight")
    return state | {f"{prefix}{key}": np.ones((4, 4), np.float32) for key in extra}


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("name", STDC)
def test_official_encoders(tmp_path, encoders, name, write):
    twin, features = encoders[name]
    state = state_dict({f"module.{key}": value for key, value in official(twin).items()})
    report, output = imported(tmp_path, write({"state_dict": state, "epoch": 3}), name)
    for found, expected in zip(encoder(name, output)(image()), features):
        assert_close(found, expected)
    assert all_keys(report) == sorted(key[len("module.") :] for key in state)
    assert not report.initialized
    assert not report.changed
    assert set(report.skipped.values()) == {
        "counters, which Paddle does not have",
        "the ImageNet classifier",
        "copies of features.*",
    }


def test_only_the_padding_differs_by_default(tmp_path, encoders):
    twin, features = encoders["stdc1"]
    _, output = imported(tmp_path, zipped(state_dict(twin.state)), "stdc1")
    model = liteseg.models.STDC1(pretrained=str(output))
    model.eval()
    differences = (model(image())[2] - features[2]).abs().max(axis=[0, 1]).numpy()
    assert differences[0].max() > 0.01
    assert differences[5:, 5:].max() < 1e-3


def test_the_encoder_of_stdc_seg(tmp_path, encoders):
    twin, features = encoders["stdc1"]
    state = official(twin, "cp.backbone.")
    rest = ("cp.arm16.conv.conv.weight", "ffm.conv1.weight", "conv_out16.conv.bn.weight")
    state |= {key: np.ones(3, np.float32) for key in rest}
    report, output = imported(tmp_path, zipped(state_dict(state)), "stdc1")
    assert_close(encoder("stdc1", output)(image())[-1], features[-1])
    assert all_keys(report) == sorted(state)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_super_gradients(tmp_path, networks, name):
    twin, logits = networks[name]
    worse = {key: value * 0 for key, value in twin.state.items()}
    content = {"net": state_dict(worse), "ema_net": state_dict(twin.state), "acc": 0.7}
    report, output = imported(tmp_path, zipped(content), name)
    assert report.state == "ema_net"
    assert all_keys(report) == sorted(twin.state)
    keys = {*report.mapped, *report.changed, *report.initialized}
    assert keys == read_pdparams(output).keys()
    kind = liteseg.models.STDC1 if name.endswith("t") else liteseg.models.STDC2
    _, decoded, inner = NETWORKS[name]
    model = liteseg.models.PPLiteSeg(
        twin.classes,
        kind(count_include_pad=True),
        arm_out_chs=decoded[::-1],
        seg_head_inter_chs=[inner, 64, 64],
    )
    load_weights(model, output)
    model.eval()
    (found,) = model(image())
    assert float(logits.std()) > 0.1
    assert_close(found, logits)


def test_the_encoder_of_super_gradients(tmp_path, networks):
    twin, _ = networks["pp_liteseg_t"]
    report, output = imported(tmp_path, zipped({"net": state_dict(twin.state)}), "stdc1")
    features = twin.stages(image(), "encoder.backbone.")
    assert_close(encoder("stdc1", output)(image())[-1], features[-1])
    assert all_keys(report) == sorted(twin.state)
    assert "the decoder and heads" in report.skipped.values()


def test_the_command_reports_every_key_and_a_config_that_works(tmp_path, networks, capsys):
    twin, logits = networks["pp_liteseg_t"]
    file, output = tmp_path / "sg.pth", tmp_path / "t.pdparams"
    file.write_bytes(zipped({"net": state_dict(twin.state)}))
    arguments = [
        "--as",
        "pp_liteseg_t",
        "--output",
        str(output),
        "--json",
        str(tmp_path / "k.json"),
    ]
    assert main(["models", "import", str(file), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "negated: the attention is of the low-level feature here" in printed
    assert "not in the file" in printed
    record = json.loads((tmp_path / "k.json").read_text())
    assert sorted([*record["mapped"].values(), *record["skipped"]]) == sorted(twin.state)
    config = next(line for line in printed.splitlines() if "model:" in line)
    model = build(yaml.safe_load(config)["model"], MODELS, "model", num_classes=twin.classes)
    load_weights(model, output)
    model.eval()
    assert_close(model(image())[0], logits)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("stdc2", {}, r"is not stdc2: .*missing: features"),
        ("stdc1", {"features.0.conv.weight": None}, r"missing: features.0.conv.weight \(here"),
        (
            "stdc1",
            {"features.0.conv.weight": np.ones((32, 4, 3, 3), "f4")},
            r"features.0.conv.weight is \[32, 4, 3, 3\], expected \[32, 3, 3, 3\]",
        ),
        ("stdc1", {"extra.weight": np.ones(3, "f4")}, "unknown: extra.weight"),
        ("stdc1", {"x2.0.0.conv.weight": np.ones(3, "f4")}, "unknown: x2.0.0.conv.weight"),
        ("stdc1", {"features.0.bn.bias": np.full(32, np.nan, "f4")}, "not finite: features.0.bn.b"),
        ("pp_liteseg_t", {}, "is not a PP-LiteSeg of super-gradients"),
    ],
)
def test_files_that_do_not_fit(tmp_path, encoders, name, change, problem):
    state = {**encoders["stdc1"][0].state, **change}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(UserError, match=problem.replace(" .*", r"(.|\n)*")):
        imported(tmp_path, zipped(state_dict(state)), name)
    assert not (tmp_path / "imported.pdparams").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"optimizer": {"lr": 0.1}}, "contains no state dict.*found 'optimizer'"),
        ([1, 2], "contains no state dict.*found a list"),
        ({"state_dict": {}}, "contains no state dict"),
    ],
)
def test_files_without_weights(tmp_path, content, problem):
    with pytest.raises(UserError, match=problem):
        imported(tmp_path, zipped(content), "stdc1")


def test_bad_commands(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"nonsense")
    command = ["models", "import", str(tmp_path / "x.pth"), "--output"]
    assert main([*command, str(tmp_path / "w.pdparams"), "--as", "stdc1"]) == 2
    assert "can't be read as a PyTorch file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path / "w.pdparams"), "--as", "stdc3"])
    error = capsys.readouterr().err
    assert all(name in error for name in ARCHITECTURES)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.pth"]
