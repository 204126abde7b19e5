"""`liteseg eval`: the figures of a trained model on a split of its dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional

from liteseg.cli.arguments import changes_of_config, complete, not_negative, positive
from liteseg.errors import UserError

SPLITS = ("train", "val", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `liteseg eval`."""
    parser.add_argument("--config", required=True, help="YAML file, e.g. config.yml of a run")
    parser.add_argument(
        "--weights", help="weights file, archive or URL, or a run directory (best checkpoint)"
    )
    parser.add_argument("--split", choices=SPLITS, default="val")
    changes_of_config(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write figures, curves of the run, worst and best images as one HTML page",
    )
    parser.add_argument(
        "--save-pred",
        metavar="DIR",
        help="write each prediction at full size as PNG (Cityscapes: original label ids under the "
        "official names; otherwise train ids)",
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at a time")
    parser.add_argument("--num-workers", type=not_negative, metavar="N", help="reader processes")
    parser.add_argument("--device", help="auto, cpu or gpu (default: the config's)")
    complete(
        parser, "liteseg eval --config output/quickstart/config.yml --weights output/quickstart"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    if not args.weights:
        raise UserError(
            "--weights is missing: without it a randomly initialised network would be evaluated, "
            "and its figures mean nothing; give a weights file, URL or run directory"
        )
    from liteseg.config.build import build_model
    from liteseg.config.resolve import load_checked
    from liteseg.engine.evaluator import evaluate
    from liteseg.ops.device import select_device
    from liteseg.report.gallery import Gallery
    from liteseg.utils.files import check_writable, write_json
    from liteseg.utils.weights.load import load_weights

    cfg = load_checked(args.config, args.set)
    for file in filter(None, (args.json, args.report)):
        check_writable(Path(file).parent)
    device = select_device(args.device or cfg.device)
    dataset = evaluated_dataset(cfg, args.split)
    evaluators: list[Any] = []
    if args.save_pred:
        evaluators.append(PredictionSaver(dataset, check_writable(args.save_pred)))
    gallery = Gallery(dataset, cfg.num_pictures) if args.report else None
    evaluators += [gallery] if gallery else []
    model = build_model(cfg)
    load_weights(model, args.weights)
    figures = evaluate(
        model,
        dataset,
        cfg.test_config,
        evaluators,
        **loading_options(args, cfg, device),
        require_labels=not evaluators,
    )
    if args.save_pred:
        print(f"{len(dataset)} predictions are in {args.save_pred}")
    if not figures["images"]:
        print(f"the images of {args.split} have no labels: there is nothing to evaluate")
        return 0
    print(format_table(figures))
    if args.json:
        about = {"config": str(args.config), "weights": str(args.weights), "split": args.split}
        write_json(args.json, {**figures, **about})
    if args.report:
        _write_report(args, cfg, figures, gallery)
    return 0


def _write_report(args: argparse.Namespace, cfg: Any, figures: dict, gallery: Any) -> None:
    from liteseg.report.report import ReportData, read_history, write_report
    from liteseg.tasks.segmenter import file_of_run

    metrics = file_of_run(args.weights, "metrics.jsonl")
    history = read_history(metrics) if metrics else []
    title = f"{Path(args.weights).name}: {args.split}"
    about = f"evaluation of {args.weights} on {args.split} of {args.config}"
    write_report(Path(args.report), ReportData(title, about, cfg.dump(), history, figures, gallery))


def format_table(figures: dict[str, Any]) -> str:
    """The per-class figures and the means of `ConfusionMatrix.compute` as text, in percent."""
    columns = ("class_iou", "class_precision", "class_recall", "class_dice")
    width = max(len("class"), *map(len, figures["class_iou"]))
    lines = [f"{'class':{width}}     IoU  precision  recall    Dice"]
    for name in figures["class_iou"]:
        iou, precision, recall, dice = (_percent(figures[column][name]) for column in columns)
        lines.append(f"{name:{width}}  {iou:>6}  {precision:>9}  {recall:>6}  {dice:>6}")
    if None in figures["class_iou"].values():
        lines.append("-: in neither the labels nor the predictions; not in the means")
    lines.append(
        f"mIoU {figures['miou']:.4f}  accuracy {figures['acc']:.4f}  kappa {figures['kappa']:.4f}  "
        f"mean Dice {figures['mdice']:.4f}  images {figures['images']}"
    )
    if "seconds" in figures:
        rate = figures["images_per_second"]
        lines.append(f"{figures['seconds']:.1f} s, {rate:.2f} images/s")
    return "\n".join(lines)


def _percent(value: Optional[float]) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def evaluated_dataset(cfg: Any, split: str) -> Any:
    """The dataset of a split, always with the transforms of validation (train's are random)."""
    from liteseg.config.build import build_dataset
    from liteseg.tasks.segmenter import build_val_transforms

    dataset = build_dataset(cfg, split)
    if split == "train" or dataset.transforms.normalize is None:
        dataset.transforms = build_val_transforms(cfg)
    return dataset


def loading_options(args: argparse.Namespace, cfg: Any, device: str) -> dict[str, int]:
    """`batch_size` and `num_workers` of `evaluate`, by the command line or the config.

    `num_workers: auto` is a few for a GPU; none on CPU, whose cores the network needs (a thread
    reads).
    """
    from liteseg.utils.runtime import cpu_threads

    workers = cfg.num_workers if args.num_workers is None else args.num_workers
    if workers == "auto":
        workers = min(cpu_threads(), 4) if device == "gpu" else 0
    batch_size = args.batch_size or cfg.eval_batch_size
    return {"batch_size": batch_size, "num_workers": workers}


class PredictionSaver:
    """Writes each prediction as PNG; an evaluator (see `liteseg.engine.evaluator.Evaluator`).

    Args:
        dataset: Cityscapes gets its official ids and file names, others train ids.
        folder: an existing one.
    """

    state = None

    def __init__(self, dataset: Any, folder: Path):
        from liteseg.datasets import Cityscapes, train_id_to_id

        self.dataset, self.folder = dataset, folder
        official = isinstance(dataset, Cityscapes)
        self.ids = train_id_to_id(dataset.classes) if official else None

    def reset(self) -> None:
        """Nothing to do: files of an earlier evaluation are overwritten."""

    def update(self, index: int, sample: Any, prediction: Any) -> None:
        """Write one prediction."""
        import cv2

        from liteseg.report.visualize import write_png

        files = self.dataset.samples[index]
        if self.ids is None:
            write_png(self.folder / f"{files.name}.png", prediction)
        else:
            write_png(self.folder / files.image.name, cv2.LUT(prediction, self.ids))

    def compute(self, states: Any) -> dict[str, Any]:
        """No metrics."""
        return {}
