"""Check that every operator liteseg runs has a GPU kernel, on a machine without a GPU.

Needs a `paddlepaddle-gpu`: its CPU kernels run a training iteration, an evaluation and a prediction
with the operators of a GPU, its log gives each kernel and dtype, and its registry of kernels gives
those for GPUs. `scripts/gpu_kernels.sh` installs one and calls this.

    python scripts/gpu/kernels.py [--json RESULT]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import liteseg  # before Paddle 2.6, which exports a zlib of its own

# isort: split
import paddle

_KERNEL = re.compile(r"\w+ API kernel key: \[\w+, [^\]]*?, (\w+)\]$|\] (\w+) kernel: \{")
_GPU_BACKENDS = ("GPU", "GPUDNN", "KPS")
# They need NCCL or a loss scaler, which are not available on a CPU.
_UNRECORDED = {
    "several GPUs": [("sync_batch_norm", "float32"), ("sync_batch_norm_grad", "float32")],
    "amp": [("check_finite_and_unscale", "float32"), ("update_loss_scaling", "float32")],
}
_LOSSES = [
    "{type: OhemCrossEntropyLoss, min_kept: 2000, weight: auto}",
    "{type: CrossEntropyLoss, weight: auto, logit_shift: 0.5, top_k_percent_pixels: 0.5}",
    "{type: BootstrappedCrossEntropyLoss, min_K: 500, loss_th: 0.5}",
    "{type: MixedLoss, losses: [{type: DiceLoss, weight: auto}, {type: LovaszSoftmaxLoss}], "
    "coef: [1, 0.1]}",
]


def _config(data: Path, *overrides: str) -> Any:
    roots = (f"{split}_dataset.dataset_root={data}" for split in ("train", "val"))
    small = ("batch_size=1", "num_workers=0", "iters=1", "ema=true", "grad_clip=5.0")
    return liteseg.load_config("quickstart", [*roots, *small, *overrides])


def _train(data: Path) -> None:
    """An iteration with each loss, each optimizer and each variant of the network."""
    for loss in _LOSSES:
        _iterate(_config(data, f"loss.types=[{loss}]", "loss.coef=[1]"))
    for optimizer in ("SGD", "Adam", "AdamW"):
        _iterate(_config(data, f"optimizer={{_inherited_: false, type: {optimizer}}}"))
    for variant in ("resize_mode=nearest", *(f"arm_type={arm}" for arm in _ARMS)):
        _iterate(_config(data, f"model.{variant}"))


def _iterate(cfg: Any) -> None:
    trainer = liteseg.build_trainer(cfg, liteseg.build_dataset(cfg, "train"), "cpu")
    trainer.run()
    trainer.read_losses()


def _run_network(data: Path) -> None:
    """The part that mixed precision casts: the network, forward and backward."""
    model = liteseg.build_model(_config(data))
    model.train()
    sum(logits.sum() for logits in model(paddle.ones([1, 3, 64, 96]))).backward()


def _evaluate(data: Path) -> None:
    from liteseg.config.build import build_losses
    from liteseg.engine.evaluator import evaluate

    cfg = _config(data, "loss.types.0.weight=null")
    model, dataset = liteseg.build_model(cfg), liteseg.build_dataset(cfg, "val")
    evaluate(model, dataset, liteseg.TestConfig(), losses=build_losses(cfg, 3)[:1])


def _predict(data: Path) -> None:
    """In one pass, by sliding window, and over scales and flips."""
    from liteseg.engine.inference import predict_labels

    model = liteseg.build_model(_config(data))
    model.eval()
    for options in (
        {},
        {"is_slide": True, "crop_size": (64, 64), "stride": (32, 32)},
        {"aug_eval": True, "scales": (0.5, 1.0), "flip_horizontal": True, "flip_vertical": True},
    ):
        predict_labels(model, paddle.ones([1, 3, 96, 128]), liteseg.TestConfig(**options))


_ARMS = ("UAFM", "UAFM_ChAtten", "UAFM_ChAtten_S", "UAFM_SpAtten_S")
PARTS: dict[str, Callable[[Path], None]] = {
    "network": _run_network,
    "training": _train,
    "evaluation": _evaluate,
    "prediction": _predict,
}


def run_part(part: str, data: Path) -> None:
    """Run one part with the operators of a GPU."""
    from liteseg.ops.device import portable_operators, select_device

    select_device("cpu")
    with portable_operators():
        PARTS[part](data)


def recorded(part: str, data: Path) -> set[tuple[str, str]]:
    """(kernel, dtype) of every kernel that a part launches."""
    verbose = {"GLOG_v": "6", "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
    command = [sys.executable, __file__, "--part", part, "--data", str(data)]
    found, dtype, lines = set(), "", []
    with subprocess.Popen(
        command, env={**os.environ, **verbose}, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        for line in process.stderr or ():
            match = _KERNEL.search(line.rstrip())
            if match and match[1]:
                dtype = match[1]
            elif match:
                found.add((match[2], dtype))
            lines = [*lines[-20:], line] if line[:1] not in "IW" else lines
    if process.returncode:
        sys.exit(f"{part} failed:\n{''.join(lines).rpartition('Traceback')[2]}")
    return found


def gpu_kernels() -> dict[str, set[str]]:
    """The dtypes of the GPU kernels of each operator in the installed Paddle."""
    kernels: dict[str, set[str]] = defaultdict(set)
    for name, keys in paddle.base.core._get_registered_phi_kernels("all").items():
        for key in keys:
            backend, *_, dtype = key.strip("()").split(", ")
            if backend in _GPU_BACKENDS:
                kernels[name].add(dtype)
    return kernels


def missing(pairs: Iterable[tuple[str, str]], kernels: dict[str, set[str]]) -> list[str]:
    """Those of the (kernel, dtype) `pairs` that no GPU kernel computes."""
    return sorted(
        f"{name} {dtype}" for name, dtype in pairs if not kernels_for(name, dtype, kernels)
    )


def kernels_for(name: str, dtype: str, kernels: dict[str, set[str]]) -> bool:
    """Whether `name` has a GPU kernel of `dtype`, or one of any dtype."""
    return bool({dtype, "Undefined", "All", "ALL_DTYPE"} & kernels.get(name, set()))


def check(data: Path) -> dict[str, Any]:
    """Record all parts and compare them with the registry."""
    kernels = gpu_kernels()
    if not kernels:
        sys.exit(f"Paddle {paddle.__version__} has no GPU kernels: install paddlepaddle-gpu")
    parts: dict[str, Iterable[tuple[str, str]]] = {name: recorded(name, data) for name in PARTS}
    low_precision = {
        dtype: missing(
            ((name, dtype) for name, found in parts["network"] if found == "float32"), kernels
        )
        for dtype in ("float16", "bfloat16")
    }
    parts = {**parts, **_UNRECORDED}
    pairs = {pair for part in parts.values() for pair in part}
    dtypes: dict[str, list[str]] = defaultdict(list)
    for name, dtype in sorted(pairs):
        dtypes[name].append(dtype)
    return {
        "date": datetime.date.today().isoformat(),
        "paddle": paddle.__version__,
        "cuda": paddle.version.cuda(),
        "pairs": {"all": len(pairs), **{name: len(set(part)) for name, part in parts.items()}},
        "missing": missing(pairs, kernels),
        "float32_under_amp": low_precision,
        "kernels": {name: ", ".join(found) for name, found in dtypes.items()},
    }


def main() -> None:
    """Print a table, write the result, and exit with 1 if a kernel is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the result to")
    parser.add_argument("--part", choices=PARTS, help="run one part (used internally)")
    parser.add_argument("--data", type=Path, help="a Streets dataset (default: a new one)")
    args = parser.parse_args()
    if args.part:
        run_part(args.part, args.data)
        return
    with tempfile.TemporaryDirectory() as folder:
        from liteseg.tasks.data import make_streets

        data = make_streets(Path(folder, "streets"), train=2, val=1, size=(384, 192))
        result = check(data)
    for name, count in result["pairs"].items():
        print(f"{name:13} {count:4} kernels with their dtypes")
    for dtype, names in result["float32_under_amp"].items():
        print(f"amp {dtype}: {len(names)} kernels of the network stay in float32")
    print(f"without a GPU kernel: {', '.join(result['missing']) or 'none'}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["missing"]))


if __name__ == "__main__":
    main()
