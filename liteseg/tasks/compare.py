"""Comparison of models on the same images. Runs without Paddle unless a network is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.deploy import manifest
from liteseg.errors import UserError, quoted
from liteseg.metrics import ImageCounts
from liteseg.metrics.comparison import Comparison, Run, compare_runs, require_same_images
from liteseg.report.comparison import write_comparison
from liteseg.tasks.sequences import sequence_function
from liteseg.utils.files import check_writable, read_json, require_kind
from liteseg.utils.logging import get_logger

_MAX_JSON = 1 << 30  # bytes
_OF_MODELS = ("config.yml", "checkpoints", "model.pdparams")  # files of a run or weights folder
_KINDS = ("json", "predictions", "model")  # in the order of loading: the fast ones first


def compare(
    entries: Sequence[Union[str, Path, Sequence[Union[str, Path]]]],
    *,
    labels: Union[str, Path, None] = None,
    classes: Union[str, Path, None] = None,
    cfg: Union[str, Path, None] = None,
    overrides: Sequence[str] = (),
    split: str = "val",
    sequence: Optional[str] = None,
    unit: str = "auto",
    device: Optional[str] = None,
    trust_plugins: bool = False,
    page: Union[str, Path, None] = None,
) -> Comparison:
    """Compare models with the first one: paired differences of all metrics, with 95 % intervals.

    Args:
        entries: two or more. Each is a run directory, weights, the directory of an exported model,
            a JSON file of `liteseg eval`, or a folder of predicted label maps; or a list of those,
            trainings of one config with different seeds. Networks are evaluated on `split`.
        labels: folder of the labels of prediction folders.
        classes: of prediction folders, as of `evaluate_predictions`.
        cfg: config of all networks and prediction folders; by default, that of each run.
        overrides: `key=value` changes of the configs.
        split: `train`, `val` or `test`.
        sequence: regular expression of sequences in image names, as of `liteseg.evaluate`.
        unit: what counts as an independent draw: `images`, `sequences`, or `auto`: sequences where
            they are known.
        device: as of `liteseg.evaluate`.
        trust_plugins: run the plugins of configs that are found with the weights.
        page: HTML file for the comparison.

    Raises:
        UserError: an entry cannot be read or evaluated, the entries differ in images, labels or
            classes, or there are too few images for an interval.
    """
    groups = [_sources(entry) for entry in entries]
    if not all(groups):
        raise UserError("an entry is empty; give a run, a file or a folder between the commas")
    for group in groups:
        if doubled := [source for source in group if group.count(source) > 1]:
            raise UserError(f"{doubled[0]} is in one entry twice; give each training once")
    if len(groups) < 2:
        raise UserError("one model cannot be compared; give at least two")
    if page:
        require_kind(page, ".html")
        check_writable(Path(page).parent)
    sequence_of = sequence_function(sequence)
    kinds = {source: _kind(source) for group in groups for source in group}
    if "predictions" in kinds.values():
        if labels is None:
            folder = next(source for source, kind in kinds.items() if kind == "predictions")
            raise UserError(f"{folder}: a folder of predictions needs --labels, their folder")
    elif labels or classes:
        raise UserError("--labels and --classes belong to folders of predictions; none is given")
    runs: dict[str, Run] = {}
    for source in sorted(kinds, key=lambda source: _KINDS.index(kinds[source])):
        if kinds[source] == "json":
            run = read_run(source)
        elif kinds[source] == "predictions":
            run = _evaluated_folder(source, labels, classes, cfg, overrides)
        else:
            from liteseg.tasks.runs import file_of_run

            found = file_of_run(source, "config.yml") if trust_plugins else None
            run = _evaluated(source, cfg or found, overrides, split, device)
        if sequence:
            images = [replace(image, sequence=sequence_of(image.name)) for image in run.images]
            run = run._replace(images=images)
        for other in runs.values():
            require_same_images(run, other)
        runs[source] = run
    comparison = compare_runs([[runs[source] for source in group] for group in groups], unit)
    if page:
        write_comparison(Path(page), comparison)
    return comparison


def read_run(path: Union[str, Path]) -> Run:
    """The counts of images in a file of `liteseg eval --json`.

    Raises:
        UserError: the file cannot be read, is something else, or lacks the counts.
    """
    advice = "give a file of `liteseg eval --json`"
    try:
        content = read_json(path, _MAX_JSON)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {advice}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); {advice}") from None
    if not isinstance(content, dict) or not isinstance(content.get("class_iou"), dict):
        raise UserError(f"{path}: has no class_iou, so it is not an evaluation; {advice}")
    if not content.get("per_image"):
        raise UserError(
            f"{path}: has no per_image, the counts of single images, which older versions did not "
            "write and unlabeled images lack; evaluate again with `liteseg eval --json`"
        )
    try:
        return _run(str(path), content)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = quoted(str(error))
        raise UserError(f"{path}: per_image is damaged: {reason}; evaluate again") from None


def _run(source: str, content: Mapping[str, Any]) -> Run:
    names = tuple(content["class_iou"])
    images = [ImageCounts.from_json(one, len(names)) for one in content["per_image"]]
    for image in images:
        if (image.intersection > image.labeled).any() or (
            image.intersection > image.predicted
        ).any():
            raise ValueError(f"{image.name} has more correct than labeled or predicted pixels")
    lengths = tuple((content.get("boundary") or {}).values())
    return Run(source, names, images, lengths or None)


def _sources(entry: Union[str, Path, Sequence[Union[str, Path]]]) -> list[str]:
    """The evaluations of an entry; the command line separates seeds by commas."""
    if isinstance(entry, Path):
        return [str(entry)]
    if not isinstance(entry, str):
        return [str(source) for source in entry]
    if Path(entry).exists():
        return [entry]
    return [source for source in entry.split(",") if source]


def _kind(source: str) -> str:
    path = Path(source).expanduser()
    if path.suffix.lower() == ".json" and not path.is_dir():
        return "json"  # perhaps in the folder of the export that it evaluates
    is_model = manifest.find(source) or any((path / name).exists() for name in _OF_MODELS)
    return "predictions" if path.is_dir() and not is_model else "model"


def _evaluated_folder(
    source: str,
    labels: Union[str, Path, None],
    classes: Union[str, Path, None],
    cfg: Union[str, Path, None],
    overrides: Sequence[str],
) -> Run:
    from liteseg.tasks.prediction_folder import evaluate_predictions

    assert labels is not None
    result = evaluate_predictions(source, labels, classes=classes, cfg=cfg, overrides=overrides)
    return _run(source, result.metrics)


def _evaluated(
    source: str,
    cfg: Union[str, Path, None],
    overrides: Sequence[str],
    split: str,
    device: Optional[str],
) -> Run:
    from liteseg.tasks.evaluate import evaluate

    get_logger().info(f"evaluating {source}")
    result = evaluate(cfg, source, overrides=overrides, split=split, device=device)
    if not result.metrics["per_image"]:
        raise UserError(f"{source}: the images of {split} have no labels; give another --split")
    return _run(source, result.metrics)
