"""Writing a model in a format that other programs run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import liteseg
from liteseg.deploy import manifest
from liteseg.deploy.graph import DeployGraph
from liteseg.deploy.manifest import COARSE, INPUT, OUTPUTS
from liteseg.deploy.packages import need
from liteseg.errors import UserError

_STEM = "model"


def write_model(
    graph: DeployGraph, model_format: str, size: Optional[tuple[int, int]], folder: Path
) -> str:
    """Write the graph's files into `folder`.

    Args:
        graph: what to write.
        model_format: paddle, onnx or openvino.
        size: (w, h) of the images; None: any size.
        folder: exists.

    Returns:
        The name of the model's file.

    Raises:
        UserError: a package is missing, or the conversion failed.
    """
    if model_format == "paddle":
        return save_paddle(graph, size, folder).name
    with _scratch(folder) as scratch:
        saved = save_paddle(graph, size, scratch)
        if model_format == "onnx":
            target = folder / f"{_STEM}.onnx"
            _to_onnx(saved, target, [OUTPUTS[graph.kind], COARSE])
            return target.name
        openvino = need("openvino", "the openvino format")
        _to_onnx(saved, scratch / f"{_STEM}.onnx", [OUTPUTS[graph.kind], COARSE])
        model = openvino.convert_model(scratch / f"{_STEM}.onnx")
        target = folder / f"{_STEM}.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        return target.name


def save_paddle(graph: DeployGraph, size: Optional[tuple[int, int]], folder: Path) -> Path:
    """Write the form of Paddle Inference: `.json` (Paddle 3) or `.pdmodel`, and `.pdiparams`."""
    import paddle

    width, height = size or (None, None)
    spec = paddle.static.InputSpec([None, height, width, 3], "uint8", INPUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        static = paddle.jit.to_static(graph, input_spec=[spec], full_graph=True)
        paddle.jit.save(static, str(folder / _STEM))
    found = [folder / f"{_STEM}{suffix}" for suffix in (".json", ".pdmodel")]
    return next(path for path in found if path.exists())


def _to_onnx(saved: Path, target: Path, names: list[str]) -> None:
    need("onnx", "the onnx format")
    command = [sys.executable, "-m", "liteseg.deploy.paddle_to_onnx"]
    command += [str(saved), str(saved.with_suffix(".pdiparams")), str(target), *names]
    root = str(Path(liteseg.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0 and target.exists():
        return
    if "No module named 'paddle2onnx'" in done.stdout:
        raise UserError(
            "the onnx and openvino formats need the package paddle2onnx; install it: "
            "pip install paddle2onnx  (or all of deployment: pip install 'liteseg[export]')"
        )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines[-5:]
    raise UserError(
        f"paddle2onnx could not convert the model (exit code {done.returncode}):\n  "
        + "\n  ".join(errors)
        + "\ntry `--format paddle`, which needs no conversion, or a fixed --input-size"
    )


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """An empty folder beside `output` that takes its place when the block ends well.

    Raises:
        UserError: `output` holds something that is not an earlier export.
    """
    output = output.absolute()
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; give a folder for the exported model")
    if output.is_dir() and any(output.iterdir()) and not (output / manifest.NAME).is_file():
        raise UserError(
            f"{output}: is not empty and holds no earlier export; give a new folder, because "
            "an export replaces the whole folder"
        )
    with _scratch(output.parent) as scratch:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if output.exists():
            output.rename(scratch / "old")
        fresh.rename(output)


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder for the time of the block, on the disk of `parent`."""
    folder = parent / f".liteseg.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write in {parent}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def versions(model_format: str) -> dict[str, str]:
    """The versions of liteseg and of the packages that made the model."""
    import paddle

    used = {"liteseg": liteseg.__version__, "paddle": paddle.__version__}
    if model_format != "paddle":
        from importlib.metadata import version

        used.update({name: version(name) for name in ("onnx", "paddle2onnx")})
    if model_format == "openvino":
        used["openvino"] = need("openvino", "the openvino format").get_version()
    return used
