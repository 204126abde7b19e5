"""The measurements of scripts/gpu/check.py, each in a process of its own.

A part is a function of a `Setup` and of options. It returns values for the JSON file, with a
`summary` for the table and, where there is a right answer, `passed`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import liteseg  # before Paddle 2.6, which exports a zlib of its own

# isort: split
import numpy as np
import paddle

Values = dict[str, Any]
_STREETS = [f"{split}_dataset.type=Streets" for split in ("train", "val")]
_STEP_LOSS, _STEP_WEIGHTS = 1e-4, 5e-2  # relative limits between a CPU and a GPU without TF32
_CURVE, _PROCESSES = 0.1, 1e-3  # relative limits of losses


class Setup(NamedTuple):
    """The device to check, and where its data and runs are.

    Attributes:
        device: gpu; or cpu, to try the check itself.
        quick: tiny sizes and few iterations.
        folder: contains `streets`, and receives the runs.
    """

    device: str
    quick: bool
    folder: Path

    def overrides(self, *changes: str) -> list[str]:
        """Changes of a config for Streets in `folder`."""
        root = self.folder / "streets"
        roots = [f"{split}_dataset.dataset_root={root}" for split in ("train", "val")]
        size = ["train_dataset.transforms.1.crop_size=[128,64]"] if self.quick else []
        return [*roots, f"device={self.device}", "num_pictures=0", *size, *changes]


def doctor(setup: Setup) -> Values:
    """`liteseg doctor`."""
    from liteseg.doctor.checks import run_checks

    findings = list(run_checks(setup.folder))
    bad = [f"{finding.check}: {finding.found}" for finding in findings if finding.state == "bad"]
    return {
        "passed": not bad,
        "summary": "; ".join(bad) or f"{len(findings)} checks, nothing that breaks training",
        "findings": [finding._asdict() for finding in findings],
    }


class _Noise:
    """Soft color spots and labels in memory, as a dataset of a trainer."""

    seed, ignore_index = 0, 255

    def __init__(self, size: tuple[int, int]):
        from liteseg.transforms import Compose, Normalize

        width, height = size
        self.transforms = Compose([Normalize()])
        rng = np.random.default_rng(0)
        spots = rng.integers(0, 256, (3, height // 32, width // 32), dtype=np.uint8)
        self.image = spots.repeat(32, axis=1).repeat(32, axis=2)
        self.label = (self.image[0] % 9).astype(np.uint8)  # of every dataset's first classes

    def batches(self, count: int) -> Iterator[dict[str, paddle.Tensor]]:
        """The same batch forever."""
        image = np.stack([np.roll(self.image, 7 * i, axis=2) for i in range(count)])
        label = np.stack([np.roll(self.label, 7 * i, axis=1) for i in range(count)])
        while True:
            yield {
                "img": paddle.to_tensor(image),
                "label": paddle.to_tensor(label),
                "index": paddle.arange(count),
            }


def _trainer(device: str, config: str, size: tuple[int, int], *changes: str) -> tuple[Any, _Noise]:
    from liteseg.tasks.train import set_up_device

    cfg = liteseg.load_config(config, [f"device={device}", "num_workers=0", *changes])
    set_up_device(liteseg.config.check.checked(cfg))
    noise = _Noise(size)
    trainer = liteseg.build_trainer(cfg, noise, device)
    trainer.model.train()
    return trainer, noise


def step(setup: Setup) -> Values:
    """An iteration on the CPU and on the device, from the same weights and images."""
    from liteseg.ops.device import portable_operators

    size = (128, 64) if setup.quick else (512, 256)
    sgd = "optimizer={_inherited_: false, type: SGD, weight_decay: 0.0005}"
    ohem = "loss.types=[{type: OhemCrossEntropyLoss, min_kept: 2000}]"
    changes = (sgd, ohem, "lr_scheduler.learning_rate=0.01")
    states, losses, start = [], [], {}
    for device in ("cpu", setup.device):
        trainer, noise = _trainer(device, "quickstart", size, *changes)
        if start:
            trainer.model.set_state_dict(start)
        start = start or {k: v.numpy() for k, v in trainer.model.state_dict().items()}
        # On a CPU, the second time with the operators of a GPU.
        second = states and device == "cpu"
        with portable_operators() if second else contextlib.nullcontext():
            trainer.run_iteration(noise.batches(4))
            losses.append(trainer.take_mean_losses()["loss"])
        states.append({k: v.numpy() for k, v in trainer.model.state_dict().items()})
    moved = max(float(np.abs(states[0][key] - start[key]).max()) for key in start)
    weights = max(float(np.abs(states[0][k] - states[1][k]).max()) for k in start) / moved
    loss = abs(losses[1] - losses[0]) / losses[0]
    return {
        "passed": loss < _STEP_LOSS and weights < _STEP_WEIGHTS,
        "summary": f"loss {loss:.1e}, updated weights {weights:.1e} of the largest update",
        "loss_difference": loss,
        "weight_difference": weights,
    }


def _train(setup: Setup, name: str, *changes: str, iters: int, **options: Any) -> Values:
    """Train quickstart on Streets: losses by log line, the mIoU and seconds per iteration."""
    run = setup.folder / name
    fixed = (f"iters={iters}", f"eval_interval={iters}", "log_interval=1", "save_interval=1000000")
    result = liteseg.train(
        "quickstart", overrides=setup.overrides(*fixed, *changes), output=run, **options
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if line["phase"] == "train"]
    seconds = sorted(row["seconds_per_step"] for row in rows)
    return {
        "losses": [round(row["loss"], 5) for row in rows],
        "miou": result.best_miou,
        "seconds_per_iteration": seconds[len(seconds) // 2],
    }


def curve(setup: Setup, amp: Optional[str] = None) -> Values:
    """The loss curve in float32, or with O1 in `amp`, compared with float32 if it ran before."""
    iters = 4 if setup.quick else 200
    changes = [f"amp={{level: O1, dtype: {amp}}}"] if amp else []
    values = _train(setup, f"curve_{amp or 'float32'}", *changes, iters=iters)
    tail = float(np.mean(values["losses"][-max(1, iters // 4) :]))
    summary = f"final loss {tail:.4f}, mIoU {values['miou']:.4f}, "
    summary += f"{1000 * values['seconds_per_iteration']:.1f} ms per iteration"
    (setup.folder / f"curve_{amp or 'float32'}.json").write_text(json.dumps(tail))
    plain = setup.folder / "curve_float32.json"
    passed = None
    if amp and plain.exists():
        passed = abs(tail / json.loads(plain.read_text()) - 1) < _CURVE
    return {"passed": passed, "summary": summary, **values}


class _Stop(liteseg.Hook):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def after_iteration(self, trainer: Any) -> None:
        """Stop as a signal would."""
        if trainer.iteration == self.iteration:
            trainer.stop_reason = "stopped to be resumed"


def resume(setup: Setup) -> Values:
    """A training that is stopped and resumed against one that is not."""
    iters = 4 if setup.quick else 20
    fixed: Any = {"iters": iters}
    changes = ("deterministic=true",)
    whole = _train(setup, "whole", *changes, **fixed)
    _train(setup, "stopped", *changes, hooks=[_Stop(iters // 2)], **fixed)
    resumed = _train(setup, "stopped", *changes, resume=True, **fixed)
    difference = float(np.abs(np.subtract(resumed["losses"], whole["losses"])).max())
    # Paddle's gradient of the upsampling adds in any order on a GPU.
    limit = 0 if setup.device == "cpu" else 0.05 * whole["losses"][0]
    return {
        "passed": difference <= limit,
        "summary": f"losses differ by at most {difference:.1e}",
        "loss_difference": difference,
    }


def _milliseconds(function: Callable[[], Any], calls: int) -> float:
    """The median time of a call, after two that do not count."""
    seconds = []
    for _ in range(calls + 2):
        begin = time.perf_counter()
        function()
        if paddle.get_device() != "cpu":
            paddle.device.synchronize()
        seconds.append(time.perf_counter() - begin)
    return 1000 * sorted(seconds[2:])[calls // 2]


def selection(setup: Setup) -> Values:
    """`kthvalue` and `topk` against a sort, on the probabilities of a batch of 4 x 1024x512."""
    paddle.set_device(setup.device)
    count = 1 << (12 if setup.quick else 21)
    k = count // 16
    values = paddle.to_tensor(np.random.default_rng(0).random(count, dtype=np.float32))
    cases = {
        "kthvalue": lambda: paddle.kthvalue(values, k)[0],
        "sort": lambda: paddle.sort(values)[k - 1],
        "topk": lambda: paddle.topk(values, k)[0],
        "argsort": lambda: paddle.argsort(values, descending=True)[:k],
    }
    times = {name: _milliseconds(case, 5) for name, case in cases.items()}
    return {
        "passed": float(cases["kthvalue"]()) == float(cases["sort"]()),
        "summary": ", ".join(f"{name} {time:.2f} ms" for name, time in times.items()),
        "milliseconds": times,
    }


def speed(
    setup: Setup, config: str, batches: Sequence[int] = (4, 8, 16), changes: Sequence[str] = ()
) -> Values:
    """Time and memory of an iteration of a published recipe at several batch sizes."""
    from liteseg.errors import UserError
    from liteseg.utils.runtime import peak_memory

    size = (960, 720) if "camvid" in config else (1024, 512)
    size, batches = ((128, 64), batches[:1]) if setup.quick else (size, batches)
    rows, fixed = [], ("model.backbone.pretrained=null", *changes)
    for batch in batches:
        trainer, noise = _trainer(setup.device, config, size, *fixed, f"batch_size={batch}")
        stream = noise.batches(batch)

        def iterate(trainer: Any = trainer, stream: Any = stream) -> None:
            trainer.run_iteration(stream)
            trainer.take_mean_losses()

        row: Values = {"batch": batch}
        try:
            row["milliseconds"] = _milliseconds(iterate, 2 if setup.quick else 20)
            row["peak_gib"] = peak_memory() / 2**30
        except UserError as error:
            row["error"] = str(error)
        rows.append(row)
        del trainer, stream
    texts = [
        f"batch {row['batch']}: out of memory"
        if "error" in row
        else f"batch {row['batch']}: {row['milliseconds']:.1f} ms, {row['peak_gib']:.1f} GiB"
        for row in rows
    ]
    return {"summary": "; ".join(texts), "rows": rows}


def workers(setup: Setup) -> Values:
    """The share of an iteration spent waiting for the workers, on 2048x1024 PNGs."""
    from liteseg.tasks.benchmark.train import benchmark_training

    config = "pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale1.0_160k"
    result = benchmark_training(
        config,
        overrides=setup.overrides(*_STREETS, "model.backbone.pretrained=null"),
        iterations=2 if setup.quick else 20,
    )
    bound = result.reader_share > 0.3
    return {
        "summary": f"waiting {result.reader_share:.0%} of an iteration with {result.num_workers} "
        f"workers{' (input-bound)' if bound else ''}, {result.images_per_second:.1f} images/s",
        **result.as_json(),
    }


def evaluation(setup: Setup) -> Values:
    """The speed of an evaluation of the validation images, at scales 0.5 and 1."""
    from liteseg.engine.evaluator import evaluate
    from liteseg.ops.device import select_device

    select_device(setup.device)
    cfg = liteseg.load_config("quickstart", setup.overrides())
    model, dataset = liteseg.build_model(cfg), liteseg.build_dataset(cfg, "val")
    speeds = {}
    for scale in (0.5, 1.0):
        options = liteseg.TestConfig(aug_eval=True, scales=scale)
        for _ in range(2):  # the first one loads kernels
            found = evaluate(model, dataset, options, progress=False, num_workers=2)
        network = 1000 * found["timings"]["network"] / len(dataset)
        speeds[str(scale)] = {"total": found["images_per_second"], "network_ms": network}
    text = "; ".join(
        f"scale {scale}: {speed['total']:.1f} images/s, network {speed['network_ms']:.1f} ms"
        for scale, speed in speeds.items()
    )
    return {"summary": text, "speed": speeds}


def export(setup: Setup) -> Values:
    """The paddle format of the float32 curve's run, verified, then run on the device."""
    run, folder = setup.folder / "curve_float32", setup.folder / "exported"
    if not run.exists():
        curve(setup)
    found = liteseg.export(run, "paddle", folder, num_images=2).verification or {}
    trained = liteseg.Segmenter.from_pretrained(run, device=setup.device)
    exported = liteseg.Segmenter.from_pretrained(folder, device=setup.device)
    cfg = liteseg.load_config(run / "config.yml")
    image = liteseg.build_dataset(cfg, "val").load(0)["img"]
    equal = float((trained.predict(image) == exported.predict(image)).mean())
    times = {
        "trained": _milliseconds(lambda: trained.predict(image), 5),
        "exported": _milliseconds(lambda: exported.predict(image), 5),
    }
    return {
        "passed": equal > 0.998,
        "summary": f"{equal:.2%} equal labels on the device; trained {times['trained']:.1f} ms, "
        f"exported {times['exported']:.1f} ms per image",
        "equal_labels": equal,
        "milliseconds": times,
        "verification": found,
    }


def processes(setup: Setup) -> Values:
    """Two processes against one with the same total batch; bit-equal weights in both."""
    from liteseg.ops.device import gpu_count

    if setup.device == "gpu" and gpu_count() < 2:
        return {"summary": f"left out: {gpu_count()} GPU"}
    shared: Any = {"iters": 2 if setup.quick else 10}
    one = _train(setup, "one", "batch_size=4", **shared)
    two = _train(setup, "two", "batch_size=2", devices=2, compare_weights=1, **shared)
    difference = float(np.abs(np.divide(two["losses"], one["losses"]) - 1).max())
    # Without SyncBatchNorm, on a CPU, each process has the statistics of its own images.
    passed = difference < _PROCESSES if setup.device == "gpu" else None
    return {
        "passed": passed,
        "summary": f"losses differ by {difference:.1e}, weights are equal; "
        f"{1000 * one['seconds_per_iteration']:.1f} and "
        f"{1000 * two['seconds_per_iteration']:.1f} ms per iteration",
        "loss_difference": difference,
    }


PARTS: dict[str, Callable[..., Values]] = {
    function.__name__: function
    for function in (
        *(doctor, step, curve, resume, selection, speed),
        *(workers, evaluation, export, processes),
    )
}
