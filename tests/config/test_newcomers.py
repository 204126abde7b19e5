"""Mistakes of the first hour: each message names the line, the value and the fix that works."""

from __future__ import annotations

import pytest
import yaml

from liteseg.cli import main
from liteseg.config.check import check, load_checked
from liteseg.config.defaults import with_defaults
from liteseg.config.load import SECTIONS, find_config, load_config
from liteseg.config.schema import SCHEMA
from liteseg.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(text, name="c.yml"):
        (tmp_path / name).write_text(text)
        return name

    return _write


def problems(*overrides, file="quickstart"):
    return "\n".join(check(load_config(file, overrides)))


def test_an_unknown_argument_is_called_inherited_only_if_it_is(write):
    assert "inherited" not in problems("optimizer.weight_deca=0.1")
    assert "did you mean 'weight_decay'?" in problems("optimizer.weight_deca=0.1")
    shipped = find_config("quickstart")
    child = write(f"_base_: {shipped}\noptimizer: {{weight_deca: 0.1, type: Adam}}\n")
    assert "inherited" not in problems(file=child)
    child = write(f"_base_: {shipped}\nlr_scheduler: {{type: PolynomialDecay}}\n")
    assert "`_inherited_: false` next to the new `type`" in problems(file=child)


def test_set_turns_on_a_section_that_is_off(write):
    assert set(SECTIONS) == {name for name, key in SCHEMA.items() if key.section and name != "loss"}
    assert load_checked("quickstart", ["early_stop.patience=2"]).early_stop.patience == 2
    off = write(f"_base_: {find_config('quickstart')}\nearly_stop: false\nema: true\n")
    cfg = load_checked(off, ["early_stop.patience=3", "ema.decay=0.5", "amp.dtype=bfloat16"])
    assert (cfg.early_stop.patience, cfg.ema.decay, cfg.amp.dtype) == (3, 0.5, "bfloat16")
    assert "early_stop.patience: is missing" in problems("early_stop.min_delta=0.1")
    with pytest.raises(UserError, match="no 'early_stopp' in the config"):
        load_config("quickstart", ["early_stopp.patience=2"])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nlr: {type: X, learning_rate: 0,002}\n", 2, "write 0.002"),
        ("a: 1\nlr: {rate: 0,5, power: 1}\n", 2, "decimal comma; write 0.5"),
        ("a: 1\niters:100\nb: 2\n", 2, "write `iters: 100`"),
        ("iters:100\nb: 2\n", 1, "write `iters: 100`"),
        ("a: 1\nb: {c: 1}\niters:100\n", 3, "write `iters: 100`"),
        ("a:\n  - type:X\n    k: 1\n", 2, "write `type: X`"),
        ("a: 1\niters = 100\nb: 2\n", 2, "write `iters: 100`"),
        ("a: 1\niters= 100\n", 2, "write `iters: 100`"),
        ("a: {type:X, k: 1}\n", 1, "write `type: X`"),
        ("a: 1\nb:\n\tc: 1\n", 3, "use spaces, not tabs"),
        ("a: 1\nb:\n  c: 1\n\td: 1\n", 4, "use spaces, not tabs"),
    ],
)
def test_slips_in_yaml(write, text, line, message):
    with pytest.raises(UserError) as error:
        load_config(write(text))
    assert f"c.yml:{line}: " in str(error.value)
    assert message in str(error.value)


def test_a_section_that_is_turned_on_is_one_change():
    cfg = load_checked("quickstart", ["early_stop.patience=9", "loss.coef.1=1"])
    assert with_defaults(load_config("quickstart")).changes(cfg.source) == [
        "loss.coef.1: 0.5 -> 1",
        "early_stop: False -> {'patience': 9, 'min_delta': 0.0}",
    ]


def test_what_looks_like_a_slip_and_is_none(write):
    text = "urls: [http://x:8, a:b]\nflow: {a: 0, b: [0,5]}\nnote: a:b\ncolor: 'c: 1'\n"
    assert load_config(write(text)).data == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("lr_scheduler.learning_rate=0,002", "it has a decimal comma; write 0.002"),
        ("iters='100'", "remove the quotes"),
        ("lr_scheduler.learning_rate='0.01'", "remove the quotes"),
        ("grad_clip='1e-3'", "remove the quotes"),
        ("iters=20,5", "write a whole number, with digits only"),
        ("iters=20,000", "write a whole number, with digits only"),
        ("iters=many", "(text) (--set)"),
        ("iters='0.5'", "(text) (--set)"),
    ],
)
def test_numbers_that_yaml_reads_as_text(override, hint):
    assert hint in problems(override)


def test_a_misspelled_file_suggests_its_neighbor_first(write):
    write("a: 1\n", "shapes.yml")
    with pytest.raises(UserError, match=r"did you mean shapes\.yml"):
        find_config("shape.yml")
    with pytest.raises(UserError, match=r"did you mean .*quickstart.yml"):
        find_config("quikstart")


@pytest.mark.parametrize(
    ("iters", "interval"), [(300, 30), (19, 1), (10_000, 1000), (160_000, 1000)]
)
def test_intervals_follow_from_the_number_of_iterations(write, iters, interval):
    null = "eval_interval: null\nsave_interval: null\n"
    cfg = load_checked(write(f"_base_: {find_config('quickstart')}\n{null}"), [f"iters={iters}"])
    assert (cfg.eval_interval, cfg.save_interval) == (interval, interval)


def test_published_configs_keep_their_intervals():
    for name in ("camvid_960x720_1k", "camvid_960x720_10k", "cityscapes_1024x512_scale0.5_160k"):
        cfg = load_checked(f"pp_liteseg/pp_liteseg_stdc1_{name}")
        assert (cfg.eval_interval, cfg.save_interval) == (1000, 1000)


def test_show_and_dump_have_the_defaults_of_arguments(write, capsys):
    assert main(["config", "show", "quickstart", "--set", "iters=50"]) == 0
    text = capsys.readouterr().out.partition("\n\n")[0]  # the table of rates follows
    shown = [line.split("  # ") for line in text.splitlines()]
    origins = {text.strip(): origin.strip() for text, origin in shown}
    for text in ("seed: 0", "beta1: 0.9", "arm_type: UAFM_SpAtten"):
        assert origins.get(text) == "default", text
    assert "quickstart.yml:" in origins["weight_decay: 0.01"]
    assert origins["contrast_prob: 0.5"] == "default"  # of a transform in a list
    cfg = load_checked("quickstart", ["optimizer={_inherited_: false, type: AdamW}"])
    again = load_checked(write(cfg.dump(), "again.yml"))
    assert again.optimizer["weight_decay"] == 0.01
    assert again.dump() == cfg.dump()
    # Arguments that follow from others stay open.
    assert "num_classes" not in again.model
    assert "ignore_index" not in again.loss.types[0]
