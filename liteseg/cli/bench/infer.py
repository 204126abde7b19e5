"""`liteseg bench infer`: latency and throughput of exported models, measured in turns."""

from __future__ import annotations

import argparse
import itertools
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from liteseg.cli.arguments import changes_of_config, complete, not_negative, positive
from liteseg.errors import UserError

if TYPE_CHECKING:
    from liteseg.tasks.segmenter import Segmenter

REFERENCE = "PaddleSeg path"
METHOD = (
    "Images are uint8 RGB in memory, labels uint8 of the same size. `image_to_labels` is all in "
    "between: normalising, resizing by test_config.scales, network, upsampling, arg-max. `network` "
    "leaves out what comes behind the graph (upsampling and arg-max) and, for the PaddleSeg path, "
    "what comes before it: normalising in numpy, which PaddleSeg's script leaves out of its time. "
    "Reading and writing files is in neither. "
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_DEFAULT_SIZE = (1024, 512)


@dataclass
class Case:
    """One row: how it runs, and what it runs."""

    about: dict[str, Any]
    labels: Callable[[], Any]
    network: Callable[[], Any]
    segmenter: Optional[Segmenter] = None


def add_arguments(actions: Any) -> None:
    """Declare the action and its options."""
    parser = actions.add_parser(
        "infer", help="latency and throughput of exported models, beside PaddleSeg's way"
    )
    parser.add_argument("models", nargs="+", metavar="EXPORTED", help="folders of `liteseg export`")
    parser.add_argument("--runtime", nargs="+", metavar="NAME", help="(default: by the format)")
    parser.add_argument(
        "--precision", nargs="+", default=["fp32"], metavar="P", help="fp32, bf16 (default: fp32)"
    )
    parser.add_argument(
        "--threads", nargs="+", type=positive, metavar="N", help="(default: all cores)"
    )
    parser.add_argument("--batch", nargs="+", type=positive, default=[1], metavar="N")
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive,
        action="append",
        metavar=("W", "H"),
        help="of the images; may be repeated (default: the model's, or 1024 512)",
    )
    parser.add_argument(
        "--weights",
        metavar="RUN",
        help="a run directory: adds PaddleSeg's way of inference with this network as the first "
        "row, and lets --accuracy work",
    )
    parser.add_argument("--config", help="YAML file (default: config.yml of the run of --weights)")
    changes_of_config(parser)
    parser.add_argument(
        "--image", metavar="FILE", help="picture to time on (default: a drawn street)"
    )
    parser.add_argument("--calls", type=positive, default=40, metavar="N", help="counted, of each")
    parser.add_argument("--warm-up", type=positive, default=5, metavar="N")
    parser.add_argument(
        "--accuracy",
        type=not_negative,
        default=0,
        metavar="N",
        help="run each model on N images of the validation set: mIoU, and the share of labels "
        "equal to the trained model's",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw mIoU over images a second (PNG)")
    complete(parser, "liteseg bench infer exported --weights output/quickstart --size 512 256")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write what was asked for."""
    from liteseg.deploy import timing
    from liteseg.utils.files import write_json

    if args.accuracy and not args.weights:
        raise UserError("--accuracy needs the trained model to compare with: give --weights RUN")
    if args.plot and not args.accuracy:
        raise UserError("--plot draws mIoU over speed: give --accuracy N, and --weights RUN")
    cfg, trained = _trained(args)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [*_reference_cases(args, trained, Path(scratch)), *_exported_cases(args)]
        seconds = _timed(args, cases)
    validation = _Validation(cfg, trained, args.accuracy) if args.accuracy else None
    rows = []
    for case, (labels, network) in zip(cases, seconds):
        row = {**case.about, "miou": None, "equal_labels": None}
        if validation is not None:
            row.update(validation.figures(case.segmenter))
        row["image_to_labels"] = timing.summary(labels, row["batch"])
        row["network"] = timing.summary(network, row["batch"])
        rows.append(row)
    print(format_table(rows))
    if args.json:
        write_json(args.json, {"machine": machine(), "method": _method(), "rows": rows})
    if args.plot:
        plot(rows, Path(args.plot))
    return 0


def _timed(args: argparse.Namespace, cases: list[Case]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Seconds of each call, for each case: image to labels, and the network."""
    from tqdm import tqdm

    from liteseg.deploy import timing

    parts: dict[Any, Callable[[], Any]] = {}
    for number, case in enumerate(cases):
        parts[number, "labels"] = case.labels
        parts[number, "network"] = case.network
    bursts = len(parts) * -(-args.calls // (timing.BURST - 1))
    with tqdm(total=bursts, unit="burst", desc="bench", disable=None) as bar:
        found = timing.in_turns(parts, args.calls, args.warm_up, bar.update)
    return [(found[n, "labels"], found[n, "network"]) for n in range(len(cases))]


def _trained(args: argparse.Namespace) -> tuple[Any, Optional[Segmenter]]:
    """The config and the model of --weights; None where it isn't given."""
    from liteseg.tasks.segmenter import Segmenter, trained_config

    if not args.weights:
        return None, None
    cfg = trained_config(args.weights, args.config, args.set)
    return cfg, Segmenter.from_pretrained(args.weights, cfg, device="cpu")


def _exported_cases(args: argparse.Namespace) -> list[Case]:
    from liteseg.deploy.manifest import COARSE, read
    from liteseg.tasks.segmenter import Segmenter
    from liteseg.utils.runtime import cpu_threads

    cases = []
    ways = itertools.product(
        args.models, args.runtime or [None], args.precision, args.threads or [cpu_threads()]
    )
    for model, runtime, precision, threads in ways:
        about = read(Path(model))
        segmenter = Segmenter.from_pretrained(
            model, runtime=runtime, precision=precision, threads=threads
        )
        engine = segmenter.network.runtime
        shown = "int8" if about.precision == "int8" else precision
        if about.precision == "int8" and precision == "bf16":
            shown = "int8+bf16"
        sizes = args.size or [about.size or _DEFAULT_SIZE]
        for batch, size in itertools.product(args.batch, map(tuple, sizes)):
            images = [_picture(args, size)] * batch
            pixels = np.stack([segmenter.transforms({"img": image})["img"] for image in images])
            row = _about(about.name, engine.package, shown, about.scale)
            row.update(threads=threads, batch=batch, size=size)
            cases.append(
                Case(
                    row,
                    lambda s=segmenter, i=images: s.predict_batch(i),
                    lambda e=engine, p=pixels: e.run(p, COARSE),
                    segmenter,
                )
            )
    return cases


def _reference_cases(
    args: argparse.Namespace, trained: Optional[Segmenter], scratch: Path
) -> list[Case]:
    """PaddleSeg's way, for every batch, size and number of threads asked for."""
    if trained is None:
        return []
    from liteseg.deploy.reference import PaddleSegPath
    from liteseg.utils.runtime import cpu_threads

    network, cases = trained.network, []
    scale = network.test.views()[0][0]
    for threads in args.threads or [cpu_threads()]:
        folder = scratch / str(threads)
        folder.mkdir()
        mean, std = network.normalize.mean, network.normalize.std
        path = PaddleSegPath(network.model, mean, std, folder, threads)
        sizes = map(tuple, args.size or [_DEFAULT_SIZE])
        for batch, size in itertools.product(args.batch, sizes):
            images = np.stack([_picture(args, size)] * batch)
            inner = tuple(int(side * scale + 0.5) for side in size)
            ready = path.prepare(np.stack([_picture(args, inner)] * batch))
            row = _about(REFERENCE, "paddle", "fp32", scale)
            row.update(threads=threads, batch=batch, size=size)
            cases.append(
                Case(
                    row,
                    lambda p=path, i=images: p.labels(i, scale),
                    lambda p=path, r=ready: p.run(r),
                )
            )
    return cases


def _about(model: str, runtime: str, precision: str, scale: float) -> dict[str, Any]:
    return {"model": model, "runtime": runtime, "precision": precision, "scale": scale}


def _picture(args: argparse.Namespace, size: tuple[int, int]) -> np.ndarray:
    import cv2

    from liteseg.tasks import examples

    source = examples.from_files([args.image]) if args.image else examples.drawn(size)
    image = next(source).image
    return image if image.shape[1::-1] == size else cv2.resize(image, size)


class _Validation:
    """Images of the validation set, with their labels and the trained model's.

    Args:
        cfg: of the trained model.
        trained: what the others are compared with.
        count: number of images.
    """

    def __init__(self, cfg: Any, trained: Segmenter, count: int):
        from liteseg.tasks import examples

        self.classes = len(trained.class_names)
        self.ignore_index = examples.ignore_index(cfg)
        source = itertools.islice(examples.from_dataset(cfg, "val"), count)
        self.examples = [(image, label, trained.predict(image)) for image, label in source]

    def figures(self, segmenter: Optional[Segmenter]) -> dict[str, Optional[float]]:
        """`miou`, and `equal_labels`; None for a model of another size of image."""
        from liteseg.metrics import ConfusionMatrix

        matrix, equal, total = ConfusionMatrix(self.classes, self.ignore_index), 0, 0
        for image, label, expected in self.examples if segmenter else ():
            size = segmenter.network.manifest.size
            if size is not None and image.shape[1::-1] != size:
                break
            found = segmenter.predict(image)
            equal += np.count_nonzero(found == expected)
            total += found.size
            matrix.update(found, label)
        if not total:
            return {"miou": None, "equal_labels": None}
        return {"miou": matrix.compute()["miou"], "equal_labels": equal / total}


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, and how many times faster than the first each is."""
    columns = ("median", "p90", "p99", "images/s", "network", "faster")
    width = max(len(row["model"]) for row in rows)
    lines = [
        f"{'model':{width}}  {'runtime':11}  {'precision':9}  {'size':>9}  batch  threads"
        + "".join(f"  {column:>8}" for column in columns)
        + "    mIoU  labels equal"
    ]
    first = rows[0]["image_to_labels"]["images_per_second"]
    for row in rows:
        whole, network = row["image_to_labels"], row["network"]
        size = "x".join(map(str, row["size"]))
        figures = (
            *(f"{whole[name]:.1f}" for name in ("median_ms", "p90_ms", "p99_ms")),
            f"{whole['images_per_second']:.2f}",
            f"{network['median_ms']:.1f}",
            f"{whole['images_per_second'] / first:.2f}x",
        )
        lines.append(
            f"{row['model']:{width}}  {row['runtime']:11}  {row['precision']:9}  {size:>9}  "
            f"{row['batch']:5}  {row['threads']:7}"
            + "".join(f"  {figure:>8}" for figure in figures)
            + ("       -" if row["miou"] is None else f"  {row['miou']:.4f}")
            + ("  -" if row["equal_labels"] is None else f"  {100 * row['equal_labels']:.3f}%")
        )
    lines.append(
        "median, p90, p99, network: ms a call; the others are of the whole way from image to "
        "labels, but `network` leaves out\nupsampling and arg-max (in the PaddleSeg path: "
        "normalising in numpy); the cases were measured in turns"
    )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from liteseg.utils.runtime import cpu_threads

    found = {"platform": platform.platform(), "cores": cpu_threads(), "cpu": platform.processor()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return found
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in values.items()}
    flags = values.get("flags", "").split()
    found["cpu"] = values.get("model name", found["cpu"])
    found["instructions"] = [flag for flag in _CPU_FLAGS if flag in flags]
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw mIoU over images a second, a point a row; rows without a mIoU are left out."""
    import io

    from liteseg.deploy.packages import need
    from liteseg.utils.files import atomic_write

    need("matplotlib", "--plot")
    from matplotlib.figure import Figure  # no window, no global state

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="images a second, image to labels", ylabel="mIoU on the validation set (%)"
    )
    for row in rows:
        if row["miou"] is None:
            continue
        name = f"{row['model']}, {row['runtime']} {row['precision']}"
        size = "{}x{}".format(*row["size"])
        point = row["image_to_labels"]["images_per_second"], 100 * row["miou"]
        axes.scatter(*point, label=f"{name}, {size}")
    axes.margins(0.15)
    middle = sum(axes.get_ylim()) / 2
    axes.set_ylim(min(axes.get_ylim()[0], middle - 1), max(axes.get_ylim()[1], middle + 1))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with atomic_write(path, sync=False) as file:
        file.write(buffer.getvalue())


def _method() -> str:
    from liteseg.deploy import timing

    return METHOD + " ".join(timing.__doc__.split())
