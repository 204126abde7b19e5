"""`report.html`: a training or an evaluation on one page, in one self-contained file.

The page is the template `report.html.jinja`; this module computes its values.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import cv2
import numpy as np

from liteseg import __version__
from liteseg.metrics.comparison import HEADLINES
from liteseg.report.charts import line_chart
from liteseg.report.gallery import Gallery
from liteseg.report.image_table import ImageTable
from liteseg.report.page import write_page
from liteseg.utils.files import parse_json, read_regular
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import cpu_threads
from liteseg.utils.text import decimal, redacted

_JPEG_QUALITY = 88
_MAX_HISTORY = 256 << 20  # bytes
_LARGEST = 1e12
# Values of a line that the page computes with, by phase.
_REQUIRED = {"train": (), "eval": ("miou",)}
_MANY_CLASSES = 60  # a larger confusion matrix is unreadable, so it is left out

Line = Mapping[str, Any]  # a line of metrics.jsonl


class ReportData(NamedTuple):
    """Content of a report.

    Attributes:
        title: of the page.
        subtitle: the line below it: which run or evaluation this is.
        config: the YAML.
        history: the lines of `metrics.jsonl`; empty without a training.
        metrics: of the evaluation, as `evaluate` returns them; None without one.
        gallery: images of that evaluation.
        images: the metrics of each of its images.
        sequences: the metrics of each sequence of images.
    """

    title: str
    subtitle: str
    config: str
    history: Sequence[Line] = ()
    metrics: Optional[Mapping[str, Any]] = None
    gallery: Optional[Gallery] = None
    images: Optional[ImageTable] = None
    sequences: Optional[ImageTable] = None


def write_run_report(run: Path, config: str, gallery: Optional[Gallery] = None) -> None:
    """Write `report.html` into a run directory, from its `metrics.jsonl`.

    A failure is logged as a warning and never ends training.

    Args:
        run: the run directory.
        config: the YAML.
        gallery: images of the latest evaluation; None without evaluations.
    """
    try:
        history = read_history(run / "metrics.jsonl")
        latest = next((line for line in reversed(history) if line["phase"] == "eval"), None)
        run = run.resolve()
        data = ReportData(run.name, f"training in {run}", config, history, latest, gallery)
        write_report(run / "report.html", data)
    except Exception as error:
        get_logger().warning(f"continuing without {run / 'report.html'}: {error!r}")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a `metrics.jsonl`; none if there is no such file.

    The file may be from anywhere: lines without the values that the page computes with are left
    out, and values of other types become None.
    """
    lines = []
    text = read_regular(path, _MAX_HISTORY) if path.is_file() else b""
    for line in text.decode(errors="replace").splitlines():
        with contextlib.suppress(
            ValueError, RecursionError
        ):  # a killed process left it half-written
            content = _checked(parse_json(line))
            content = content if isinstance(content, dict) else {}
            required = ("step", *_REQUIRED.get(str(content.get("phase")), ("phase",)))
            if all(isinstance(content.get(key), (int, float)) for key in required):
                lines.append(content)
    return lines


def _checked(value: Any, key: str = "phase") -> Any:
    """A copy with None for anything but phases, usual numbers, lists, and dicts."""
    if isinstance(value, dict):
        return {name: _checked(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_checked(item, "") for item in value]
    if isinstance(value, (int, float)):
        return value if abs(value) < _LARGEST else None  # NaN too
    return value if key == "phase" and isinstance(value, str) else None


def write_report(path: Path, data: ReportData) -> None:
    """Write the page.

    Raises:
        UserError: the file can't be written.
    """
    train = [line for line in data.history if line["phase"] == "train"]
    evaluations = [line for line in data.history if line["phase"] == "eval"]
    write_page(
        path,
        "report.html.jinja",
        data=data,
        config=redacted(data.config),
        date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        tiles=_tiles(data, evaluations),
        charts=_charts(train, evaluations),
        reliability=_reliability(data),
        classes=_classes(data),
        confusion=_confusion(data),
        timings=_timings(data, train, evaluations),
        versions=_versions(),
        image_url=_image_url,
        decimal=decimal,
        base64=lambda content: base64.b64encode(content).decode(),
        percent=_percent,
    )


def _tiles(data: ReportData, evaluations: Sequence[Line]) -> list[tuple[str, str, str]]:
    """(name, value, note) of the main metrics."""
    tiles = []
    if evaluations:
        best = max(evaluations, key=lambda line: line["miou"])
        tiles.append(("best mIoU", f"{best['miou']:.4f}", f"iteration {best['step']}"))
    if data.metrics:
        metrics = data.metrics
        images = f"{metrics['images']} images"
        note = f"iteration {metrics['step']}" if "step" in metrics else images
        for key, name in HEADLINES.items():
            if key in metrics:
                ends = metrics.get("intervals", {}).get(key)
                interval = "95 %: {:.3f} to {:.3f}".format(*ends) if ends else ""
                about = "; ".join(filter(None, [note if key == "miou" else "", interval]))
                tiles.append((name, decimal(metrics[key]), about))
    return tiles


def _charts(train: Sequence[Line], evaluations: Sequence[Line]) -> list[str]:
    """The charts that have a point, as SVG."""

    def curve(lines: Iterable[Line], key: str) -> list[tuple[float, float]]:
        return [
            (line["step"], line[key]) for line in lines if isinstance(line.get(key), (int, float))
        ]

    charts = [
        line_chart("loss (all heads)", {"train": curve(train, "loss")}),
        line_chart("validation loss (finest head)", {"val": curve(evaluations, "loss")}),
        line_chart("validation mIoU", {"mIoU": curve(evaluations, "miou")}),
        line_chart("learning rate", {"lr": curve(train, "lr")}),
        line_chart("images per second", {"train": curve(train, "images_per_second")}),
    ]
    return [chart for chart in charts if chart]


def _reliability(data: ReportData) -> Optional[str]:
    """The reliability diagram before and after the temperature; None without calibration."""
    found = (data.metrics or {}).get("calibration")
    if not found:
        return None
    curves = {"before": found.get("before", found), "after": found.get("after")}
    points = {
        name: [(bin["confidence"], bin["accuracy"]) for bin in curve["bins"]]
        for name, curve in curves.items()
        if curve
    }
    return line_chart("accuracy by confidence", {"ideal": [(0.0, 0.0), (1.0, 1.0)], **points})


def _classes(data: ReportData) -> list[dict[str, Any]]:
    """A row per class: `name`, `color` (RGB or None), `iou`, and `values` by the column's name."""
    if not data.metrics:
        return []
    palette = data.gallery.dataset.palette if data.gallery else None
    metrics = {**data.metrics, "interval": data.metrics.get("intervals", {}).get("class_iou")}
    names = {
        "class_iou": "IoU",
        "interval": "95 % of IoU",
        "class_precision": "precision",
        "class_recall": "recall",
    }
    names.update(class_boundary_iou="boundary IoU", class_boundary_f="boundary F")
    return [
        {
            "name": name,
            "color": None if palette is None else palette[index].tolist(),
            "iou": data.metrics["class_iou"][name],
            "values": {
                title: metrics[key][name] for key, title in names.items() if metrics.get(key)
            },
        }
        for index, name in enumerate(data.metrics["class_iou"])
    ]


def _percent(value: Union[float, Sequence[float], None]) -> str:
    """A share or an interval in percent."""
    if value is None:
        return "–"
    ends = value if isinstance(value, Sequence) else [value]
    return " – ".join(f"{100 * end:.1f}" for end in ends)


def _confusion(data: ReportData) -> list[tuple[str, list[float]]]:
    """(class, share of its pixels predicted as each class) of every label."""
    if not data.metrics or "confusion" not in data.metrics:
        return []
    names = list(data.metrics["class_iou"])
    if len(names) > _MANY_CLASSES:
        return []
    matrix = np.array(data.metrics["confusion"], np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return list(zip(names, shares.tolist()))


def _image_url(image: np.ndarray) -> str:
    """A data URL: PNG or JPEG, whichever is smaller (PNG for labels, JPEG for photographs)."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]}
    encoded = {kind: cv2.imencode(f".{kind}", bgr, o)[1].tobytes() for kind, o in options.items()}
    kind = min(encoded, key=lambda kind: len(encoded[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def _timings(
    data: ReportData, train: Sequence[Line], evaluations: Sequence[Line]
) -> dict[str, str]:
    """The measured times by name, as far as they were logged."""
    timings = {}
    if train:
        starts = [0, *(line["step"] for line in train)]
        spent = [
            (b - a) * (line.get("seconds_per_step") or 0)
            for a, b, line in zip(starts, starts[1:], train)
        ]
        seconds, iterations = sum(spent) or 1e-9, train[-1]["step"] or 1
        waiting = sum(time * (line.get("reader_share") or 0) for time, line in zip(spent, train))
        timings["training iterations"] = (
            f"{_clock(seconds)} for {iterations}: {seconds / iterations:.3g} s per iteration"
        )
        timings["of which waiting for data"] = f"{waiting / seconds:.1%}"
    if evaluations:
        total = sum(line.get("seconds") or 0.0 for line in evaluations)
        timings["evaluations"] = f"{_clock(total)} for {len(evaluations)}"
    if data.metrics and "seconds" in data.metrics:
        metrics = data.metrics
        parts = ", ".join(f"{name} {s:.1f} s" for name, s in metrics["timings"].items())
        timings["this evaluation"] = (
            f"{metrics['seconds']:.1f} s for {metrics['images']} images "
            f"({metrics['images_per_second']:.2f} per second): {parts}"
        )
    return timings


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(min(max(seconds, 0), _LARGEST))))


def _versions() -> dict[str, str]:
    paddle = sys.modules.get("paddle")  # label maps of other tools are evaluated without it
    return {
        "liteseg": __version__,
        **({"Paddle": f"{paddle.__version__}, {paddle.get_device()}"} if paddle else {}),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
        "machine": f"{platform.platform()}, {cpu_threads()} of {os.cpu_count()} cores",
    }
