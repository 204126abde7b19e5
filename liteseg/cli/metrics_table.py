"""The metrics of an evaluation as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from liteseg.utils.text import decimal, joined


def format_table(metrics: Mapping[str, Any]) -> str:
    """The metrics per class and their means, in percent."""
    columns = ("class_iou", "class_precision", "class_recall", "class_dice")
    width = max(len("class"), *map(len, metrics["class_iou"]))
    intervals = metrics["intervals"]
    lines = [f"{'class':{width}}     IoU       95 %       precision  recall    Dice"]
    for name in metrics["class_iou"]:
        iou, precision, recall, dice = (_percent(metrics[column][name]) for column in columns)
        ends = intervals["class_iou"][name]
        reach = f"{_percent(ends[0])} - {_percent(ends[1])}" if ends else "-"
        lines.append(
            f"{name:{width}}  {iou:>6}  {reach:^14}  {precision:>9}  {recall:>6}  {dice:>6}"
        )
    if None in metrics["class_iou"].values():
        lines.append("-: in neither the labels nor the predictions; not in the means")
    names = {"miou": "mIoU", "acc": "accuracy", "kappa": "kappa", "mdice": "mean Dice"}
    lines.append(f"{_headlines(metrics, names)}  images {metrics['images']}")
    lines += _interval_lines(intervals, names)
    if "boundary_iou" in metrics:
        lines.append(
            _headlines(metrics, {"boundary_iou": "boundary IoU", "boundary_f": "boundary F-score"})
        )
        sizes = ("small", "medium", "large", "thin")
        lines.append(f"mIoU by object size: {_headlines(metrics, {f'miou_{s}': s for s in sizes})}")
        thin = ", ".join(metrics["thin_classes"]) or "no class"
        lines[-1] += f" ({thin})"
    lines.append(f"{metrics['seconds']:.1f} s, {metrics['images_per_second']:.2f} images/s")
    return joined(lines)


def _interval_lines(intervals: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    parts = [
        f"{name} {intervals[key][0]:.4f} to {intervals[key][1]:.4f}"
        for key, name in names.items()
        if intervals[key]
    ]
    if not parts:
        return [f"no 95 % intervals, which require two units: {intervals['units']}"]
    return [f"95 % intervals over {intervals['units']}:", f"  {'  '.join(parts)}"]


def _headlines(metrics: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return "  ".join(f"{name} {decimal(metrics[key])}" for key, name in names.items())


def format_calibration(found: Mapping[str, Any]) -> str:
    """The calibration as text."""
    text = f"expected calibration error {100 * found['ece']:.2f} % over all pixels"
    if "temperature" not in found:
        return f"{text}; two images with labels are required to fit a temperature"
    before, after = (f"{100 * found[name]['ece']:.2f}" for name in ("before", "after"))
    return (
        f"{text}\ntemperature {found['temperature']:.3f}, fitted on {found['fit_images']} images: "
        f"{before} % -> {after} % on the other {found['held_out_images']}"
    )


def _percent(value: Optional[float]) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
