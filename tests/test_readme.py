"""The README against what it describes: keys, paths and commands."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from liteseg.cli import COMMANDS
from liteseg.config.load import load_config
from liteseg.config.schema import REQUIRED, SCHEMA

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "configs/README.md": (ROOT / "configs/README.md").read_text()}


def table_of_keys() -> dict[str, tuple[str, str]]:
    """Key -> (default, meaning) as the README's table has it."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    return {key: (default, meaning) for key, default, meaning in rows}


def test_every_config_key_is_documented_as_it_is():
    documented = table_of_keys()
    for name, key in SCHEMA.items():
        default, meaning = documented.pop(name)
        assert meaning == key.meaning
        assert (default == "required") == (key.default is REQUIRED)
        if key.default not in (REQUIRED, None, False, {}, ()):
            assert default == f"`{key.default}`"
    assert {name.partition(".")[0] for name in documented} <= set(SCHEMA)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_the_documents_exist(document):
    named = re.findall(
        r"\b(?:scripts|configs|liteseg|tests|docs)/[\w./-]+\.(?:sh|py|yml|md|txt|png)",
        DOCUMENTS[document],
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_of_the_readme_are_commands():
    used = set(re.findall(r"^liteseg (\w+)", README, re.MULTILINE))
    assert used
    assert used <= set(COMMANDS)


def test_the_check_example_is_what_check_prints(tmp_path):
    from liteseg.config.check import check

    base = ROOT / "configs" / "pp_liteseg" / "pp_liteseg_stdc1_camvid_480x360_600.yml"
    config = tmp_path / "my.yml"
    config.write_text(
        f"_base_: {base}\nmodel:\n  backbone:\n    type: STDC3\niterz: 1000\n", encoding="utf-8"
    )
    for problem in check(load_config(config)):
        problem = problem.replace(f"{config}", "my.yml")
        assert problem in README


def test_the_config_of_the_recipes_page_is_right(tmp_path):
    from liteseg.config.check import check

    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENTS["configs/README.md"], re.DOTALL)
    config = tmp_path / "mine.yml"
    config.write_text(text.replace("_base_: ", f"_base_: {ROOT}/configs/"))
    cfg = load_config(config)
    assert check(cfg) == []
    assert cfg["loss"]["types"] == [{"type": "OhemCrossEntropyLoss", "min_kept_ratio": 0.0625}]
    assert cfg["lr_scheduler"]["warmup_iters"] == 1000  # what it does not say is the recipe's
