"""`report.html`: its content, that it is self-contained, and that it fits a phone."""

from __future__ import annotations

import base64
import functools
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from toy_training import CLASSES, ToyImages, evaluation_hooks, make_trainer

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.writers import Log, MetricsFile
from liteseg.report.report import ReportData, read_history, write_report, write_run_report


class NoDashboard:
    def scalars(self, *args):
        pass

    def image(self, *args):
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with the report of four iterations and two evaluations."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    folder.mkdir()
    metrics = MetricsFile(folder / "metrics.jsonl", 0)
    store = Checkpointer(folder / "checkpoints", keep=1)
    write_page = functools.partial(write_run_report, folder, "iters: 4\nname: <b>&\n")
    options = {"count": 2, "write_page": write_page}
    hooks = evaluation_hooks(2, ToyImages(6), store, metrics, NoDashboard(), **options)
    make_trainer(4, [Log(1, metrics, NoDashboard()), *hooks]).run()
    return folder


class Tags(HTMLParser):
    """Every start tag, and whether each is closed."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, wanted):
        return [attrs for tag, attrs in self.found if tag == wanted]


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_complete_and_self_contained(page):
    tags = Tags(page)
    for _, attrs in tags.found:
        for key in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(key, "data:").startswith("data:")
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags.found}
    assert "url(" not in page
    assert "@import" not in page


def test_metrics_of_the_last_evaluation(run, page):
    last = read_history(run / "metrics.jsonl")[-1]
    assert last["phase"] == "eval"
    best = max(line["miou"] for line in read_history(run / "metrics.jsonl") if "miou" in line)
    for value in (last["miou"], last["acc"], last["kappa"], last["mdice"], best):
        assert f"<b>{value:.4f}</b>" in page
    for name in CLASSES:
        for key in ("class_iou", "class_precision", "class_recall"):
            assert f'<td class="number">{100 * last[key][name]:.1f}</td>' in page
        assert f'style="width:{100 * last["class_iou"][name]:.1f}%"' in page
    matrix = np.array(last["confusion"])
    assert matrix.sum() == 6 * 32 * 32
    share = 100 * matrix[0, 1] / matrix[0].sum()
    assert f'title="{CLASSES[0]} predicted as {CLASSES[1]}: {share:.2f} %"' in page


def test_curves_have_a_point_for_each_line(run, page):
    charts = re.findall(r"<svg .*?</svg>", page)
    assert len(charts) == 5
    points = {
        re.search(r'aria-label="(.*?)"', chart)[1]: re.search(r'points="(.*?)"', chart)[1].split()
        for chart in charts
    }
    assert len(points["loss (all heads)"]) == 4
    assert len(points["validation mIoU"]) == 2


def test_the_images_can_be_decoded(page):
    images = Tags(page).all("img")
    assert [image["alt"] for image in images[:4]] == ["input", "label", "prediction", "errors"]
    assert len(images) == 4 * 4  # two worst and two best
    for image in images:
        data = np.frombuffer(base64.b64decode(image["src"].partition(",")[2]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (32, 32, 3)


def test_the_text_is_escaped(page):
    assert "<pre>iters: 4\nname: &lt;b&gt;&amp;\n</pre>" in page
    for word in ("Paddle", "numpy", "OpenCV", "training iterations", "this evaluation"):
        assert f"<th>{word}</th>" in page


def test_without_validation_there_are_curves(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    make_trainer(2, [Log(1, metrics, NoDashboard())]).run()
    write_run_report(tmp_path, "iters: 2")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "loss (all heads)" in text
    assert "mIoU" not in text


def test_an_absent_class(tmp_path):
    names = ("a", "b")
    metrics = {key: dict.fromkeys(names, 1.0) for key in ("class_precision", "class_recall")}
    metrics |= {"class_iou": {"a": 1.0, "b": None}, "confusion": [[4, 0], [0, 0]], "images": 1}
    metrics |= dict.fromkeys(("miou", "acc", "kappa", "mdice"), 1.0)
    write_report(tmp_path / "r.html", ReportData("t", "of <nothing>", "", metrics=metrics))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<td class="number">–</td>' in text
    assert "of &lt;nothing&gt;; " in text
    Tags(text)


def test_history_skips_incomplete_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = {"step": 1, "phase": "train"}
    path.write_text(f'{json.dumps(whole)}\n[1]\n{{"step": 2, "pha')
    assert read_history(path) == [whole]
    assert read_history(tmp_path / "absent") == []


def test_a_failure_does_not_end_training(tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    write_run_report(tmp_path, "")
    assert "cannot write" in caplog.text
    caplog.clear()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "phase": "eval"}\n')  # without metrics
    write_run_report(tmp_path, "")
    assert "continuing without" in caplog.text


def test_in_a_browser(run, browser):
    for width in (390, 1200):
        page = browser.new_page(viewport={"width": width, "height": 900}, is_mobile=width < 600)
        page.goto((run / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing is wider
        assert page.evaluate("[...document.images].filter(i => i.naturalWidth > 0).length") == 16
        assert page.locator("svg").count() == 5
        assert "best mIoU" in page.inner_text("body")


HOSTILE_LINES = [
    '{"step": "<script>alert(1)</script>", "phase": "eval", "miou": NaN}',
    '{"step": 1, "phase": "eval", "miou": "<script>alert(1)</script>"}',
    '{"step": 1, "phase": "<script>alert(1)</script>", "miou": 1}',
    '{"step": 1, "phase": {"a": 1}}', '{"step": [], "phase": "eval"}', '{"step": 1, "phase": []}',
    '{"step": 1, "phase": "eval", "miou": 1e400}',
    '{"step": 1' + "0" * 5000 + ', "phase": "eval", "miou": 1}',
    '{"step": 1e400, "phase": "train"}',
    "[" * 100_000, "[1]", "1", "null", '"x"', "[" * 500 + "]" * 500, "\0", "{",
]  # fmt: skip
HARMLESS_LINES = [
    '{"step": 0, "phase": "train", "seconds_per_step": 0, "reader_share": 0, "loss": [1]}',
    '{"step": 9, "phase": "train", "seconds_per_step": 9e11, "reader_share": -9, "lr": "<b>"}',
    '{"step": 9, "phase": "eval", "miou": 9e11, "seconds": "<b>", "loss": {"a": 1}}',
]


def test_history_of_a_stranger(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(HOSTILE_LINES))
    assert read_history(path) == []
    path.write_text("\n".join([*HOSTILE_LINES, *HARMLESS_LINES]))
    history = read_history(path)
    assert len(history) == len(HARMLESS_LINES)
    write_report(
        tmp_path / "r.html",
        ReportData("<script>", "", "a: https://me:pw@h/f?token <script>", history),
    )
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page
    assert "<b>\n" not in page
    assert "a: https://***@h/f?*** &lt;" in page
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    for length in (1, 0):  # resuming the run
        MetricsFile(path, length)
