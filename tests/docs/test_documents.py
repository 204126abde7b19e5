"""The documents against the things they describe: keys, tables, paths, links, commands."""

from __future__ import annotations

import re
import shlex
from collections import Counter

import pytest
from documents import GENERATED, NAMES, ROOT, block, blocks, section, text_of, with_tables

from liteseg.cli import COMMANDS, main
from liteseg.config.check import check
from liteseg.config.load import load_config


def test_the_readme_is_short():
    assert text_of("README.md").count("\n") <= 200


def test_every_document_is_in_the_list():
    # `tests/golden` and `shared` describe data and come from elsewhere.
    found = {
        str(path.relative_to(ROOT))
        for folder in (".", ".github", "configs", "liteseg", "scripts")
        for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
    }
    assert found == set(NAMES)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_tables_are_current(name):
    # If this fails: python tests/docs/documents.py
    assert text_of(name) == with_tables(name)


def _links(name):
    text = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)
    return re.findall(r"\]\((?!https?:)([^)]+)\)", text)


def _anchors(text):
    """The anchors that GitHub gives to the headings of a document."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    broken = []
    for link in _links(name):
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else ROOT / name
        if target.is_dir():
            target = target / "README.md"
        if not target.is_file() or (anchor and anchor not in _anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "README.md"])
def test_every_document_links_back_to_the_readme(name):
    folder = (ROOT / name).parent
    assert ROOT / "README.md" in {(folder / link).resolve() for link in _links(name)}
    links = [(ROOT / link.partition("#")[0]).resolve() for link in _links("README.md")]
    links = [link / "README.md" if link.is_dir() else link for link in links]
    assert (ROOT / name) in links


@pytest.mark.parametrize("name", NAMES)
def test_paths_exist(name):
    pattern = r"(?<![\w/.])((?:scripts|configs|liteseg|tests|\.github|\.ci)/[\w./-]*\w)"
    text = text_of(name)
    if name == "liteseg/README.md":  # the walk through an iteration names files of this folder
        walk = section(name, "How an image becomes a loss")
        for path in re.findall(r"`([\w/]+\.py)`", walk):
            assert (ROOT / "liteseg" / path).is_file(), path
        text = text.replace("liteseg/tasks/count.py", "").replace("liteseg/cli/count.py", "")
    assert [path for path in re.findall(pattern, text) if not (ROOT / path).exists()] == []


def test_the_floor_plan_names_every_package_and_no_other():
    (plan,) = (code for code in blocks("liteseg/README.md") if code.startswith("liteseg/\n"))
    named = set(re.findall(r"^  (\w+)/ ", plan, re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "liteseg").glob("*/__init__.py")}
    assert named == folders


def test_names_in_the_walk_through_an_iteration_are_in_their_files():
    walk = section("liteseg/README.md", "How an image becomes a loss")
    items = re.findall(r"^\d+\. .+(?:\n   .+)*", walk, re.MULTILINE)
    assert len(items) == 10
    for item in items:
        quoted = re.findall(r"`([^`]+)`", item)
        code = "".join(text_of(f"liteseg/{name}") for name in quoted if name.endswith(".py"))
        names = [name for name in quoted if re.fullmatch(r"[A-Z]\w+(\.\w+)?|\w+_\w+", name)]
        assert names
        for name in names:
            assert re.search(rf"\b{name.split('.')[-1]}\b", code), name


# Commands. A continued line ends in a backslash; text after # is a comment.


def _commands(name):
    """Every command line in the bash blocks of a document and in its inline code."""
    for code in blocks(name, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            yield line.partition(" #")[0].strip()
    text = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)
    for inline in re.findall(r"`([^`]+)`", text):
        yield " ".join(inline.split())


def _help(words, capsys):
    with pytest.raises(SystemExit) as exited:
        main([*words, "--help"])
    assert exited.value.code == 0, words
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist_and_take_the_named_flags(name, capsys):
    used = [line for line in _commands(name) if re.match(r"liteseg \w+( |$)", line)]
    for line in used:
        words = shlex.split(line.replace("…", "").replace("'", ""))[1:]
        if words[0] == "count":  # the example of a new command
            continue
        assert words[0] in COMMANDS, line
        nested = words[0] in ("bench", "config", "data", "models") and words[1:]
        chosen = words[:2] if nested and not words[1].startswith("-") else words[:1]
        described = _help(chosen, capsys)
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if flag != "--help":
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", described), f"{line}: {flag}"


SCRIPT = re.compile(r"((?:[A-Z_]+=\S+ )*)(?:bash|python) (scripts/[\w/]+\.(?:sh|py))(.*)")


@pytest.mark.parametrize("name", NAMES)
def test_flags_and_variables_of_scripts_exist(name):
    for line in _commands(name):
        found = SCRIPT.match(line)
        if not found:
            continue
        script = ROOT / found[2]
        text = script.read_text(encoding="utf-8")
        text += (ROOT / "scripts" / "lib.sh").read_text(encoding="utf-8")
        for variable in re.findall(r"([A-Z_]+)=", found[1]):
            assert variable in text, line
        if "train_" in script.name:  # passes its arguments to `liteseg train`
            text += (ROOT / "liteseg" / "cli" / "train.py").read_text(encoding="utf-8")
            text += (ROOT / "liteseg" / "cli" / "arguments.py").read_text(encoding="utf-8")
        for path in [*script.parent.glob("*.py"), *(ROOT / "scripts" / "soak").glob("*.py")]:
            text += path.read_text(encoding="utf-8")
        for flag in re.findall(r"(--[a-z-]+)", found[3]):
            assert flag in text, line


# Configs in the text


def test_the_example_of_config_check_is_its_output(tmp_path):
    base = ROOT / "configs" / "pp_liteseg" / "pp_liteseg_stdc1_camvid_480x360_600.yml"
    config = tmp_path / "my.yml"
    config.write_text(
        f"_base_: {base}\nmodel:\n  backbone:\n    type: STDC3\niterz: 1000\n", encoding="utf-8"
    )
    printed = re.sub(r"\(STDC.*?\)", "", block("configs/README.md", "my.yml: 2 errors"))
    for problem in check(load_config(config)):
        problem = re.sub(r"BACKBONES \(.*?\)", "BACKBONES ", problem)  # there may be more
        assert problem.replace(f"{config}", "my.yml") in printed


def _loaded(tmp_path, start):
    config = tmp_path / "mine.yml"
    text = block("configs/README.md", start)
    config.write_text(text.replace("_base_: ", f"_base_: {ROOT}/configs/"), encoding="utf-8")
    return load_config(config)


def test_the_examples_of_inheritance_are_right(tmp_path):
    cfg = _loaded(tmp_path, "# my.yml")
    assert check(load_config(cfg.path, ["model={type: PPLiteSeg, backbone: {type: STDC1}}"])) == []
    assert cfg["optimizer"] == {"type": "AdamW", "weight_decay": 0.01}
    assert cfg["train_dataset"]["type"] == "Cityscapes"
    cfg = _loaded(tmp_path, "# mine.yml")
    assert check(cfg) == []
    assert cfg["loss"]["types"] == [{"type": "OhemCrossEntropyLoss", "min_kept_ratio": 0.0625}]
    assert cfg["lr_scheduler"]["warmup_iters"] == 1000  # inherited from the recipe


def test_every_recipe_is_described():
    text = text_of("configs/README.md")
    for path in (ROOT / "configs" / "pp_liteseg").glob("*_cityscapes_*.yml"):
        encoder, scale = re.search(r"(stdc\d).*(scale[\d.]+)_", path.stem).groups()
        assert f"`…{encoder}…{scale}…`" in text
    for path in (ROOT / "configs" / "pp_liteseg").glob("*_camvid_*.yml"):
        assert path.stem.rpartition("_")[2] in text


def test_nothing_is_written_twice():
    lines = Counter()
    for name in NAMES:
        lines.update({line.strip() for line in text_of(name).splitlines() if len(line) > 60})
    repeated = [line for line, count in lines.items() if count > 1 and "pip install" not in line]
    assert repeated == []
