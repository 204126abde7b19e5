"""Benchmark of exported models: latency and throughput, compared with PaddleSeg's inference.

All cases run in turns, so that other work on the machine affects them equally.
"""

from __future__ import annotations

import functools
import io
import itertools
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

import cv2
import numpy as np

from liteseg.config.check import AnyConfig
from liteseg.config.schema import CheckedConfig
from liteseg.deploy import timing
from liteseg.deploy.manifest import COARSE, read
from liteseg.deploy.network import ExportedNetwork
from liteseg.deploy.packages import require
from liteseg.deploy.reference import PaddleSegPath
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.tasks import examples
from liteseg.tasks.runs import Weights, config_of
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.files import atomic_write
from liteseg.utils.images import read_image
from liteseg.utils.logging import progress
from liteseg.utils.runtime import cpu_threads

Size = tuple[int, int]  # (w, h)

REFERENCE = "PaddleSeg path"
METHOD = (
    "Images are uint8 RGB in memory, labels uint8 of the same size. `image_to_labels` contains "
    "everything in between: normalization, resizing by test_config.scales, network, upsampling, "
    "arg-max. `network` leaves out the work after the graph (upsampling and arg-max) and, for the "
    "PaddleSeg path, the work before it: normalization in numpy, which PaddleSeg's script leaves "
    "out of its time. Neither contains reading and writing of files. "
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_DEFAULT_SIZE = (1024, 512)


@dataclass(frozen=True)
class Row:
    """The result of one case.

    Attributes:
        model: name of the exported model, or `REFERENCE`.
        runtime: package that runs it.
        precision: fp32, bf16, int8 or int8+bf16.
        scale: of the image, before the network.
        threads: of the CPU.
        batch: images per call.
        size: (w, h) of the images.
        miou: on the validation set, 0 to 1; None if not measured.
        equal_labels: share of labels equal to those of the trained model; None if not measured.
        image_to_labels, network: `median_ms`, `p90_ms`, `p99_ms` per call, `images_per_second`.
    """

    model: str
    runtime: str
    precision: str
    scale: float
    threads: int
    batch: int
    size: Size
    miou: Optional[float]
    equal_labels: Optional[float]
    image_to_labels: dict[str, float]
    network: dict[str, float]


@dataclass(frozen=True)
class InferenceBenchmark:
    """The speed of exported models.

    Attributes:
        machine: description of the machine.
        method: description of the measurement.
        rows: one for each case; the first is the reference, if there is one.
    """

    machine: dict[str, Any]
    method: str
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg bench infer --json`."""
        return asdict(self)


class _Case(NamedTuple):
    """The calls to time, and the fields of their `Row` that are known before."""

    fields: dict[str, Any]
    labels: Callable[[], Any]
    network: Callable[[], Any]
    segmenter: Optional[Segmenter] = None


@dataclass(frozen=True)
class _Inputs:
    """The images of all cases."""

    sizes: Sequence[Size]  # empty: the size of each model
    batches: Sequence[int]
    threads: Sequence[int]
    image: Union[str, Path, None]  # None: a synthetic street

    def load(self, size: Size) -> np.ndarray:
        image = read_image(self.image) if self.image else next(examples.synthetic(size)).image
        return image if image.shape[1::-1] == size else cv2.resize(image, size)

    def batches_of(self, default: Size) -> Iterator[tuple[int, Size]]:
        return itertools.product(self.batches, self.sizes or [default])


def benchmark_inference(
    models: Sequence[Union[str, Path]],
    *,
    runtimes: Sequence[Optional[str]] = (None,),
    precisions: Sequence[str] = ("fp32",),
    threads: Optional[Sequence[int]] = None,
    batches: Sequence[int] = (1,),
    sizes: Sequence[Size] = (),
    weights: Optional[Weights] = None,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    image: Union[str, Path, None] = None,
    calls: int = 40,
    warm_up: int = 5,
    accuracy: int = 0,
) -> InferenceBenchmark:
    """Measure exported models in every combination of runtime, precision, threads, batch and size.

    Args:
        models: folders of exported models.
        runtimes: `paddle`, `onnxruntime`, `openvino`; None for the first one of the format.
        precisions: `fp32`, `bf16`.
        threads: of the CPU; by default all cores.
        batches: images per call.
        sizes: (w, h) of the images; by default the model's size, or 1024x512.
        weights: a run directory: adds PaddleSeg's inference with this network as the first rows.
        cfg: config of the weights; by default the `config.yml` of their run.
        overrides: `key=value` changes of the config.
        image: the image to time on; by default a synthetic street.
        calls: timed calls per case.
        warm_up: untimed calls per case, before the timed ones.
        accuracy: number of images of the validation set to compare labels and mIoU on; requires
            `weights`.

    Raises:
        UserError: a model cannot be loaded, or an argument is not supported.
    """
    if accuracy and not weights:
        raise UserError("--accuracy compares with the trained model: give --weights RUN")
    inputs = _Inputs([(w, h) for w, h in sizes], batches, threads or [cpu_threads()], image)
    trained = validation = None
    if weights:
        cfg = config_of(weights, cfg, overrides)
        trained = Segmenter.from_pretrained(weights, cfg, device="cpu")
        validation = _Validation(cfg, trained, accuracy) if accuracy else None
    with tempfile.TemporaryDirectory() as scratch:
        cases = _reference_cases(trained, inputs, Path(scratch)) if trained else []
        cases += _exported_cases(models, runtimes, precisions, inputs)
        seconds = _time(cases, calls, warm_up)
    rows = []
    for case, (labels, network) in zip(cases, seconds):
        batch = case.fields["batch"]
        miou, equal_labels = validation.compare(case.segmenter) if validation else (None, None)
        row = Row(
            **case.fields,
            miou=miou,
            equal_labels=equal_labels,
            image_to_labels=timing.summary(labels, batch),
            network=timing.summary(network, batch),
        )
        rows.append(row)
    method = METHOD + " ".join(str(timing.__doc__).split())
    return InferenceBenchmark(describe_machine(), method, rows)


def _time(cases: Sequence[_Case], calls: int, warm_up: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Seconds per call of each case: image to labels, and the network."""
    parts: dict[Any, Callable[[], Any]] = {}
    for number, case in enumerate(cases):
        parts[number, "labels"] = case.labels
        parts[number, "network"] = case.network
    bursts = len(parts) * -(-calls // (timing.BURST - 1))
    with progress(total=bursts, unit="burst", desc="bench") as bar:
        found = timing.time_interleaved(parts, calls, warm_up, bar.update)
    return [(found[n, "labels"], found[n, "network"]) for n in range(len(cases))]


def _exported_cases(
    models: Sequence[Union[str, Path]],
    runtimes: Sequence[Optional[str]],
    precisions: Sequence[str],
    inputs: _Inputs,
) -> list[_Case]:
    cases = []
    for model, runtime, precision, threads in itertools.product(
        models, runtimes, precisions, inputs.threads
    ):
        about = read(Path(model))
        segmenter = Segmenter.from_pretrained(
            model, runtime=runtime, precision=precision, threads=threads
        )
        engine = _exported_network(segmenter).runtime
        shown = precision
        if about.precision == "int8":
            shown = "int8+bf16" if precision == "bf16" else "int8"
        for batch, size in inputs.batches_of(about.size or _DEFAULT_SIZE):
            images = [inputs.load(size)] * batch
            pixels = np.stack([segmenter.transforms({"img": image})["img"] for image in images])
            cases.append(
                _Case(
                    {
                        "model": about.name,
                        "runtime": engine.package,
                        "precision": shown,
                        "scale": about.scale,
                        "threads": threads,
                        "batch": batch,
                        "size": size,
                    },
                    functools.partial(segmenter.predict_batch, images),
                    functools.partial(engine.run, pixels, COARSE),
                    segmenter,
                )
            )
    return cases


def _reference_cases(trained: Segmenter, inputs: _Inputs, scratch: Path) -> list[_Case]:
    """PaddleSeg's inference for every number of threads, batch and size."""
    network, cases = trained.trained_network, []
    scale = network.test.views()[0][0]
    for threads in inputs.threads:
        folder = scratch / str(threads)
        folder.mkdir()
        mean, std = network.normalize.mean.tolist(), network.normalize.std.tolist()
        path = PaddleSegPath(network.model, mean, std, folder, threads)
        for batch, size in inputs.batches_of(_DEFAULT_SIZE):
            images = np.stack([inputs.load(size)] * batch)
            inner = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
            ready = path.prepare(np.stack([inputs.load(inner)] * batch))
            cases.append(
                _Case(
                    {
                        "model": REFERENCE,
                        "runtime": "paddle",
                        "precision": "fp32",
                        "scale": scale,
                        "threads": threads,
                        "batch": batch,
                        "size": size,
                    },
                    functools.partial(path.labels, images, scale),
                    functools.partial(path.run, ready),
                )
            )
    return cases


class _Validation:
    """Images of the validation set with their labels and those of the trained model.

    Args:
        cfg: config of the trained model.
        trained: the model that the others are compared with.
        count: number of images.
    """

    def __init__(self, cfg: CheckedConfig, trained: Segmenter, count: int):
        self.classes = len(trained.class_names)
        self.ignore_index = examples.ignore_index(cfg)
        self.examples = list(itertools.islice(examples.from_dataset(cfg, "val"), count))
        self.predict = trained.predict
        self.expected: dict[Any, np.ndarray] = {}

    def compare(self, segmenter: Optional[Segmenter]) -> tuple[Optional[float], Optional[float]]:
        """mIoU and the share of equal labels; None for the reference.

        For a model of one size, images and labels are resized to it.
        """
        if segmenter is None:
            return None, None
        matrix, equal, total = ConfusionMatrix(self.classes, self.ignore_index), 0, 0
        size = _exported_network(segmenter).manifest.size
        for number, example in enumerate(self.examples):
            image, label = examples.fitted(example, segmenter.transforms, size)
            found, key = segmenter.predict(image), (number, size)
            if key not in self.expected:
                self.expected[key] = self.predict(image)
            equal += np.count_nonzero(found == self.expected[key])
            total += found.size
            matrix.update(found, label)
        return (matrix.compute()["miou"], equal / total) if total else (None, None)


def _exported_network(segmenter: Segmenter) -> ExportedNetwork:
    """The network of an exported model."""
    assert isinstance(segmenter.network, ExportedNetwork)
    return segmenter.network


def describe_machine() -> dict[str, Any]:
    """Platform, processor, its vector instructions and the number of usable cores."""
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


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot mIoU over images per second as PNG, one point per row that has a mIoU.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    require("matplotlib", "--plot")
    from matplotlib.figure import Figure  # no window, no global state

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xlabel="images per second, image to labels", ylabel="mIoU on the validation set (%)"
    )
    for row in rows:
        if row.miou is not None:
            name = f"{row.model}, {row.runtime} {row.precision}, {row.size[0]}x{row.size[1]}"
            axes.scatter(row.image_to_labels["images_per_second"], 100 * row.miou, label=name)
    axes.margins(0.15)
    middle = sum(axes.get_ylim()) / 2
    axes.set_ylim(min(axes.get_ylim()[0], middle - 1), max(axes.get_ylim()[1], middle + 1))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with atomic_write(path, sync=False) as file:
        file.write(buffer.getvalue())
