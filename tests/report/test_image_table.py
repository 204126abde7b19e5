"""The table of images: ranks, columns, small images; sorted in a real browser."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from liteseg.metrics import BoundaryOptions, ConfusionMatrix, ImageCounts
from liteseg.report import image_table as module
from liteseg.report.image_table import image_table, sequence_table, thumbnails_of
from liteseg.report.report import ReportData, write_report

CLASSES = ("road", "car", "sky")
SHARES = (0.2, 0.9, 0.5, 0.7)  # of correct pixels


@pytest.fixture(scope="module")
def images():
    """Images a to d; only the last one has a car."""
    found = []
    for name, share in zip("abcd", SHARES):
        label = np.zeros((20, 20), np.uint8)
        pred = label.copy()
        pred[int(20 * share) :] = 2
        if name == "d":
            label[:2], pred[:2] = 1, 1
        sequence = "first" if name in "ab" else "second"
        counts = ImageCounts.of(name, sequence, pred, label, 3, boundary=BoundaryOptions())
        found.append(counts)
    return found


def test_ranks_and_cells(images):
    table = image_table(images, CLASSES, {})
    assert table.columns[:5] == ["name", "sequence", "pixels", "accuracy", "mIoU"]
    assert table.columns[-3:] == ["road", "car", "sky"]
    accuracy, car = table.columns.index("accuracy"), table.columns.index("car")
    assert [row.order[accuracy] for row in table.rows] == [0, 3, 1, 2]
    assert [row.cells[accuracy] for row in table.rows] == ["20.0", "90.0", "50.0", "70.0"]
    assert [row.order[car] for row in table.rows] == [None, None, None, 0]
    assert [row.cells[car] for row in table.rows] == ["–", "–", "–", "100.0"]


def test_sequences(images):
    table = sequence_table(images, CLASSES)
    assert [row.cells[:3] for row in table.rows] == [
        ["first", "2", "55.0"],
        ["second", "2", "60.0"],
    ]
    assert sequence_table(images[:2], CLASSES).rows == []


def test_a_long_table_has_the_extremes_only(images, monkeypatch):
    monkeypatch.setattr(module, "_MANY", 3)
    table = image_table(images, CLASSES, {3: b"d", 0: b"a"})
    assert [row.cells[0] for row in table.rows] == ["a", "d"]
    assert table.hidden == 2


@pytest.mark.parametrize("image", [None, (300, 400), (100, 130)])
def test_thumbnails(image):
    """Without an image, and with one that the transforms have resized."""
    palette = np.array([(128, 64, 128), (0, 0, 142), (70, 130, 180)], np.uint8)
    draw = thumbnails_of(SimpleNamespace(palette=palette, ignore_index=255))
    sample = {"label": np.zeros((300, 400), np.uint8)}
    if image:
        sample["img"] = np.full((*image, 3), 200, np.uint8)
    drawn = Image.open(io.BytesIO(draw(0, sample, np.ones((300, 400), np.uint8))))
    tiles = 4 if image else 3
    assert drawn.size == (tiles * 128 + (tiles - 1) * 4, 96)
    wrong = np.asarray(drawn)[48, -64]  # the error map: all red
    assert wrong[0] > 180
    assert wrong[2] < 80


@pytest.fixture
def page(images, tmp_path):
    matrix = ConfusionMatrix(3, class_names=CLASSES)
    matrix.update(np.zeros((2, 2), int), np.zeros((2, 2), int))
    draw = thumbnails_of(SimpleNamespace(palette=np.zeros((3, 3), np.uint8), ignore_index=255))
    label = np.zeros((20, 20), np.uint8)
    thumbnails = {i: draw(i, {"label": label}, label) for i in range(4)}
    table = image_table(images, CLASSES, thumbnails)
    sequences = sequence_table(images, CLASSES)
    data = ReportData("x", "", "", (), matrix.compute(), None, table, sequences)
    write_report(tmp_path / "x.html", data)
    return tmp_path / "x.html"


def test_the_page_sorts_by_every_column(page, browser):
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.goto(page.as_uri())

    def order(section):
        rows = tab.locator(f"section:has(h2:text-is('{section}')) .line:not(.head)")
        places = [(row.bounding_box()["y"], row.inner_text().split()[0]) for row in rows.all()]
        return "".join(name[0] for _, name in sorted(places))

    def click(section, column, title):
        header = f"section:has(h2:text-is('{section}')) .head span:has-text('{column}')"
        tab.locator(header).first.get_by_title(title).click()

    assert order("Images") == "acbd"  # the lowest mIoU first
    click("Images", "accuracy", "highest first")
    assert order("Images") == "bdca"
    click("Images", "name", "lowest first")
    assert order("Images") == "abcd"
    click("Images", "car", "highest first")
    assert order("Images")[0] == "d"  # the others have none, at both ends of the order
    click("Images", "car", "lowest first")
    assert order("Images")[0] == "d"
    click("Sequences", "accuracy", "highest first")
    assert order("Sequences") == "sf"
    assert "<script" not in page.read_text()
