"""The glossary of .github/CONTRIBUTING.md, applied to code, comments, texts and documents."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# pattern -> what to write instead; matched as whole words, in any case
WORDS = {
    r"figures": "metrics, values or numbers",
    r"pictures?": "image, visualization or chart",
    r"mend(?:s|ed|ing)?": "fix",
    r"told": "reported, given or found",
    r"ask(?:s|ed|ing)? for": "requested, given",
    r"beside": "next to, alongside",
    r"go(?:es|ing)? on": "resumes, continues",
    r"likewise": "(drop it)",
    r"readers?": "worker",
    r"whom|thereafter|hence|as it were": "a shorter sentence",
    r"says|hears|speaks|knows": "reports, raises, contains or checks",
    r"see the class": "what the thing is",
    r"(?:training|optimizer) steps?|steps? of training": "iteration",
    r"colour(?:s|ed|ing|less)?|coloured": "color",
    r"centre[sd]?": "center",
    r"grey(?:s|ish)?": "gray",
    r"neighbour(?:s|ing|hood)?": "neighbor",
    r"(?:un|re|de)?(?:normal|initial|real|optim|quant|minim|maxim|summar|serial|organ|recogn|"
    r"visual|synchron|parallel|random|vector|general|emphas|util)is(?:e[sdr]?|ing|ation)": "-ize",
    r"artefacts?": "artifact",
    r"behaviour(?:s|al)?": "behavior",
    r"label(?:led|ling)|cancell(?:ed|ing)|modell(?:ed|ing)": "one l",
    r"(?:images?|samples?|frames?|seconds|ms|s|MiB|MB|GB|KB|calls?|times|lines?|files?) a "
    r"(?:second|step|sample|image|frame|call|process|batch|iteration|line)": "per",
    r"(?:misfit|blame|sweep)": "a plain verb",
}
# Sentences that begin with a clause as their subject.
CLAUSE = re.compile(r"(?:^|[.:] |# |\"\"\")(What|Whatever|Who|Whoever) (?!is\b|are\b)[a-z]+ [a-z]+")
# Words of an identifier, separated by underscores or capitals.
IDENTIFIERS = {
    *("figure", "figures", "picture", "pictures", "mend", "told", "said", "misfit", "blame"),
    *("sweep", "colour", "coloured", "centre", "grey", "neighbour", "neighbours", "beside"),
    *("normalise", "normalised", "initialise", "initialised", "behaviour", "artefact", "mine"),
}
# Names that are not ours: YAML keys, JSON fields, and the names of other packages.
FOREIGN = re.compile(
    r"\b(?:num_pictures|reader_share|colours(?=[`\"':=.,)\]}])|(?<=[`\"'.=(])colours"
    r"|LogReader|colour\.npz|reader\.get_\w+|add_figure|matplotlib\.figure)\b"
)
FOREIGN_NAMES = {"num_pictures", "colours", "Figure", "figure", "figcaption"}
SUFFIXES = {".py", ".md", ".sh", ".yml", ".yaml", ".jinja", ".cfg", ".txt"}
FOLDERS = ("liteseg", "configs", "scripts", "tests", ".github", ".ci")
FILES = ("README.md", "CHANGELOG.md", "setup.py", "setup.cfg")
GLOSSARY = ROOT / ".github" / "CONTRIBUTING.md"
SKIPPED = {"tests/test_language.py", ".github/CONTRIBUTING.md"}  # they contain the banned words
# Entries of the glossary that no pattern can tell from a right use.
UNCHECKED = {"a second", "step", "steps", "iters", "whose", "takes", "miss", "need"}

_WORDS = [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), pattern) for pattern in WORDS]


def sources() -> list[Path]:
    found = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [path for path in found if path.suffix in SUFFIXES or path.parent.name == ".ci"]
    names = {path: path.relative_to(ROOT).as_posix() for path in found}
    return sorted(
        path for path in found if names[path] not in SKIPPED and "golden" not in names[path]
    )


def prose_hits(text: str) -> Iterator[str]:
    """The banned words of a text, each with its replacement."""
    text = FOREIGN.sub("", text)
    for expression, pattern in _WORDS:
        for match in expression.finditer(text):
            yield f"{match[0]!r}: {WORDS[pattern]}"


def identifier_hits(name: str) -> Iterator[str]:
    """The banned words of an identifier."""
    if name in FOREIGN_NAMES:
        return
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name):
        if word.lower() in IDENTIFIERS:
            yield f"{name}: a name without {word.lower()!r}"


def python_hits(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "NAME":
            hits = identifier_hits(token.string)
        elif kind in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            hits = prose_hits(token.string)
            if clause := CLAUSE.search(token.string):
                yield token.start[0], f"{clause[0]!r}: a noun as the subject"
        else:
            continue
        for hit in hits:
            yield token.start[0], hit


def hits_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = list(python_hits(text))
    else:
        lines = enumerate(text.splitlines(), start=1)
        found = [(number, hit) for number, line in lines for hit in prose_hits(line)]
    return [f"{path.relative_to(ROOT)}:{number}: {hit}" for number, hit in found]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_glossary(path):
    assert hits_of(path) == []


def test_the_whole_glossary_is_checked():
    table = GLOSSARY.read_text(encoding="utf-8").partition("| instead of |")[2]
    cells = re.findall(r"^\| ([^|]+) \|", table.partition("\n\n")[0], re.MULTILINE)
    words = {word for cell in cells for word in re.sub(r" \(.*?\)", "", cell).split(", ")}
    words = {word for word in words if word.strip("-") and "clause" not in word}
    assert {"figures", "colour"} <= words
    assert {word for word in words if not list(prose_hits(word))} == UNCHECKED


def test_hits_are_found():
    text = "The pictures beside it, at 3 images a second; `colours: c.txt` and the colours"
    assert [hit.partition(":")[0] for hit in prose_hits(text)] == [
        "'pictures'",
        "'beside'",
        "'colours'",
        "'images a second'",
    ]
    code = '"""What a run leaves."""\nnum_pictures = told_figures = 1  # asked for\n'
    found = sorted(number for number, _ in python_hits(code))
    assert found == [1, 2, 2, 2]
