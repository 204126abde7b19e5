"""`report.html`: a training or an evaluation on one page, in one file that needs nothing else."""

from __future__ import annotations

import base64
import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np
import paddle

from liteseg import __version__
from liteseg.report.charts import line_chart
from liteseg.report.gallery import TILES, Gallery, Picture
from liteseg.report.style import STYLE
from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import cpu_threads

_JPEG_QUALITY = 88
_MANY_CLASSES = 60  # a larger confusion matrix is left out: nobody can read it


class Story(NamedTuple):
    """What a report tells.

    Attributes:
        title: of the page.
        about: a line below it: what this is of.
        config: the YAML.
        history: the lines of `metrics.jsonl`; empty where there was no training.
        figures: of the evaluation, as `evaluate` returns them; None without one.
        gallery: pictures of that evaluation.
    """

    title: str
    about: str
    config: str
    history: Sequence[Mapping[str, Any]] = ()
    figures: Optional[Mapping[str, Any]] = None
    gallery: Optional[Gallery] = None


def report_run(run: Path, config: str, gallery: Optional[Gallery] = None) -> None:
    """Write `report.html` into a run directory, from its `metrics.jsonl`.

    A failure is warned of and never ends the training.

    Args:
        run: the directory.
        config: the YAML.
        gallery: pictures of the latest evaluation; None where nothing is evaluated.
    """
    try:
        history = read_history(run / "metrics.jsonl")
        figures = next((line for line in reversed(history) if line["phase"] == "eval"), None)
        about = f"training in {run.resolve()}"
        story = Story(run.resolve().name, about, config, history, figures, gallery)
        write_report(run / "report.html", story)
    except Exception as error:
        get_logger().warning(f"going on without {run / 'report.html'}: {error!r}")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `metrics.jsonl`; none if there is no such file."""
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # a killed process left it half-written
        if isinstance(found, dict) and {"step", "phase"} <= found.keys():
            lines.append(found)
    return lines


def write_report(path: Path, story: Story) -> None:
    """Write the page.

    Raises:
        UserError: the file can't be written.
    """
    sections = [
        ("Figures", _summary(story)),
        ("Curves", _curves(story.history)),
        ("Classes", _classes(story)),
        ("Confusion", _confusion(story)),
        ("Worst images", _pictures(story.gallery, "worst")),
        ("Best images", _pictures(story.gallery, "best")),
        ("Time", _table(_timings(story))),
        ("Versions", _table(_versions())),
        ("Configuration", f"<pre>{escape(story.config)}</pre>"),
    ]
    body = "\n".join(f"<section><h2>{name}</h2>{html}</section>" for name, html in sections if html)
    title = escape(story.title)
    about = f"{escape(story.about)}; {datetime.datetime.now():%Y-%m-%d %H:%M}"
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · liteseg</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1><p>{about}</p>\n{body}\n</body></html>\n"
    )
    with atomic_write(path, "w") as file:
        file.write(page)


def _summary(story: Story) -> str:
    tiles = []
    evaluations = _of_phase(story.history, "eval")
    if evaluations:
        best = max(evaluations, key=lambda line: line["miou"])
        tiles.append(("best mIoU", f"{best['miou']:.4f}", f"step {best['step']}"))
    if story.figures:
        figures = story.figures
        at = f"step {figures['step']}" if "step" in figures else f"{figures['images']} images"
        tiles.append(("mIoU", f"{figures['miou']:.4f}", at))
        tiles.append(("pixel accuracy", f"{figures['acc']:.4f}", ""))
        tiles.append(("kappa", f"{figures['kappa']:.4f}", ""))
        tiles.append(("mean Dice", f"{figures['mdice']:.4f}", ""))
    cells = "".join(
        f"<div><span>{name}</span><b>{value}</b><span>{note}</span></div>"
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cells}</div>' if cells else ""


def _of_phase(history: Iterable[Mapping], phase: str) -> list[Mapping]:
    return [line for line in history if line["phase"] == phase]


def _curve(lines: Iterable[Mapping], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    train, evaluations = _of_phase(history, "train"), _of_phase(history, "eval")
    charts = [
        line_chart("loss (all heads)", {"train": _curve(train, "loss")}),
        line_chart("validation loss (last head)", {"val": _curve(evaluations, "loss")}),
        line_chart("validation mIoU", {"mIoU": _curve(evaluations, "miou")}),
        line_chart("learning rate", {"lr": _curve(train, "lr")}),
        line_chart("images a second", {"train": _curve(train, "images_per_second")}),
    ]
    drawn = "".join(charts)
    return f'<div class="charts">{drawn}</div><p>Across: steps.</p>' if drawn else ""


def _classes(story: Story) -> str:
    """A row for each class: colour, bar of IoU, and the figures in percent."""
    if not story.figures:
        return ""
    figures, rows = story.figures, []
    for index, (name, iou) in enumerate(figures["class_iou"].items()):
        numbers = [iou, figures["class_precision"][name], figures["class_recall"][name]]
        cells = "".join(f'<td class="number">{_percent(number)}</td>' for number in numbers)
        bar = f'<div class="bar" style="width:{100 * (iou or 0):.1f}%"></div>'
        rows.append(f"<tr><th>{_swatch(story, index)}{escape(name)}</th><td>{bar}</td>{cells}</tr>")
    head = "<tr><th>class</th><th></th><th>IoU</th><th>precision</th><th>recall</th></tr>"
    note = "<p>Percent. –: in neither the labels nor the predictions; not in the means.</p>"
    return f'<table class="classes">{head}{"".join(rows)}</table>{note}'


def _swatch(story: Story, index: int) -> str:
    if story.gallery is None:
        return ""
    red, green, blue = story.gallery.dataset.palette[index]
    return f'<i style="background:rgb({red},{green},{blue})"></i>'


def _percent(value: Optional[float]) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _confusion(story: Story) -> str:
    """Shares of each label's pixels; blue where they are right, red where not."""
    if not story.figures or "confusion" not in story.figures:
        return ""
    names = [escape(name) for name in story.figures["class_iou"]]
    if len(names) > _MANY_CLASSES:
        return ""
    matrix = np.array(story.figures["confusion"], np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = ["<tr><th></th>" + "".join(f"<th><span>{name}</span></th>" for name in names) + "</tr>"]
    for i, name in enumerate(names):
        cells = []
        for j, share in enumerate(shares[i]):
            colour = "31,111,180" if i == j else "209,60,44"
            shown = f"{100 * share:.0f}" if share >= 0.005 else ""
            title = f"{name} labelled {names[j]}: {100 * share:.2f} %"
            style = f"background:rgba({colour},{share:.3f})"
            if share > 0.6:
                style += ";color:#fff"
            cells.append(f'<td title="{title}" style="{style}">{shown}</td>')
        rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    note = "<p>Rows: the label; columns: the prediction; percent of the label's pixels.</p>"
    return f'<div class="scroll"><table class="confusion">{"".join(rows)}</table></div>{note}'


def _pictures(gallery: Optional[Gallery], kind: str) -> str:
    shown: Sequence[Picture] = getattr(gallery, kind) if gallery else ()
    if not shown:
        return ""
    figures = []
    for picture in shown:
        tiles = "".join(
            f'<div><img alt="{name}" src="{_data_url(tile)}"><span>{name}</span></div>'
            for name, tile in zip(TILES, picture.tiles)
        )
        caption = f"<figcaption>{escape(picture.name)}: mIoU {picture.miou:.3f}</figcaption>"
        figures.append(f'<figure>{caption}<div class="row">{tiles}</div></figure>')
    note = (
        "<p>mIoU of the image alone. Errors: red is wrong, grey is right, black does not count.</p>"
    )
    return note + "".join(figures)


def _data_url(image: np.ndarray) -> str:
    """PNG or JPEG, whichever is smaller: one suits label colours, the other photographs."""
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    kinds = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]}
    encoded = {k: cv2.imencode(f".{k}", stored, how)[1].tobytes() for k, how in kinds.items()}
    kind = min(encoded, key=lambda k: len(encoded[k]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def _timings(story: Story) -> dict[str, str]:
    """What took how long, as far as it was logged."""
    told = {}
    train, evaluations = _of_phase(story.history, "train"), _of_phase(story.history, "eval")
    if train:
        starts = [0, *(line["step"] for line in train)]
        spans = [(b - a, line) for a, b, line in zip(starts, starts[1:], train)]
        seconds = sum(steps * line["seconds_per_step"] for steps, line in spans)
        waiting = sum(
            steps * line["seconds_per_step"] * line["reader_share"] for steps, line in spans
        )
        steps = train[-1]["step"]
        told["training steps"] = f"{_clock(seconds)} for {steps}: {seconds / steps:.3g} s a step"
        told["of it waiting for data"] = f"{waiting / seconds:.1%}"
    if evaluations:
        spent = sum(line.get("seconds", 0.0) for line in evaluations)
        told["evaluations"] = f"{_clock(spent)} for {len(evaluations)}"
    if story.figures and "seconds" in story.figures:
        figures = story.figures
        parts = ", ".join(f"{name} {s:.1f} s" for name, s in figures["timings"].items())
        told["this evaluation"] = (
            f"{figures['seconds']:.1f} s for {figures['images']} images "
            f"({figures['images_per_second']:.2f} a second): {parts}"
        )
    return told


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _versions() -> dict[str, str]:
    return {
        "liteseg": __version__,
        "Paddle": f"{paddle.__version__}, {paddle.get_device()}",
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
        "machine": f"{platform.platform()}, {cpu_threads()} of {os.cpu_count()} cores",
    }


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>" if cells else ""
