"""The table of published weights against the shipped configs, the golden keys and its own rules."""

from __future__ import annotations

import json
import math

import pytest

from liteseg.config.build import build_model
from liteseg.config.check import load_checked, num_classes_by_key
from liteseg.config.load import find_config, load_config
from liteseg.errors import UserError
from liteseg.utils.weights.source import cached_file, model_of
from liteseg.utils.weights.zoo import DEFAULT, PUBLISHED, find, nearest

NETWORKS = [model for model in PUBLISHED if model.config]
ENCODERS = [model for model in PUBLISHED if not model.config]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LITESEG_ZOO", raising=False)


def test_every_published_recipe_has_weights():
    shipped = {path.stem for path in find_config(DEFAULT.config).parent.glob("*.yml")}
    published = {n for n in shipped if n.endswith("_160k") or n.endswith("960x720_10k")}
    assert {model.name for model in NETWORKS} == published
    assert len(NETWORKS) == 8
    assert len(ENCODERS) == 2


def test_names_and_aliases_are_unique():
    names = [name for model in PUBLISHED for name in (model.name, *model.aliases)]
    assert len(set(names)) == len(names) == 2 * len(PUBLISHED)
    assert len({cached_file(model) for model in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.name)
def test_a_network_is_that_of_its_config(model, golden):
    cfg = load_config(model.aliases[0])
    assert cfg.path.stem == model.name
    assert load_config(model.name).data == cfg.data
    assert tuple(load_checked(cfg).test_config.scales) == (model.scale,)
    assert model.url.endswith(f"/{model.name}/model.pdparams")
    letter = "T" if cfg["model"]["backbone"]["type"] == "STDC1" else "B"
    assert model.aliases[0].startswith(f"pp_liteseg_{letter.lower()}")
    shapes = json.loads((golden / f"state_dict_{letter}.json").read_text())
    assert model.size == pytest.approx(4 * sum(map(math.prod, shapes.values())), rel=1e-3)
    assert set(num_classes_by_key(vars(load_checked(cfg))).values()) == {model.classes}
    encoder = model_of(cfg["model"]["backbone"]["pretrained"])  # the address is that of a name
    assert encoder in ENCODERS
    assert encoder.name.endswith(cfg["model"]["backbone"]["type"][-1])


def test_unknown_names_get_the_nearest():
    assert find("pp_liteseg_t1_cityscape") is None
    assert nearest("pp_liteseg_t1_cityscape")[0] == "pp_liteseg_t1_cityscapes"
    with pytest.raises(UserError, match=r"no config 'pp_liteseg_b_camvit'.*pp_liteseg_b_camvid"):
        load_config("pp_liteseg_b_camvit")
    with pytest.raises(UserError, match="come without a config"):
        load_config("stdc1_imagenet")


def test_a_file_or_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_of(DEFAULT.name) == DEFAULT
    (tmp_path / DEFAULT.name).mkdir()
    assert model_of(DEFAULT.name) is None


def test_weights_of_the_whole_network_spare_those_of_the_encoder(tmp_path):
    from liteseg.utils.weights.load import save_pdparams

    config = "pp_liteseg_t_camvid"
    model = build_model(load_config(config), pretrained=False)
    save_pdparams(model.state_dict(), tmp_path / "whole.pdparams")
    cfg = load_config(config, [f"model.pretrained={tmp_path / 'whole.pdparams'}"])
    build_model(cfg)
    assert not (tmp_path / "home" / "weights").exists()  # the encoder's address was not tried
