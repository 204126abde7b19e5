"""Write a model in a format that other programs run."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import liteseg
from liteseg.deploy import manifest
from liteseg.deploy.manifest import COARSE, INPUT, OUTPUTS
from liteseg.deploy.packages import require
from liteseg.errors import UserError
from liteseg.utils.files import replacing_folder, scratch_folder

if TYPE_CHECKING:
    from liteseg.deploy.graph import DeployGraph

_STEM = "model"
_SUFFIXES = (".json", ".pdmodel", ".pdiparams", ".info", ".onnx", ".data", ".xml", ".bin")


def write_model(
    graph: DeployGraph, model_format: str, size: Optional[tuple[int, int]], folder: Path
) -> str:
    """Write the files of an exported model.

    Args:
        graph: the model.
        model_format: paddle, onnx or openvino.
        size: (w, h) of the images; None: any size.
        folder: an existing directory.

    Returns:
        The name of the model file.

    Raises:
        UserError: a package is missing, or the conversion failed.
    """
    if model_format == "paddle":
        return save_paddle(graph, size, folder).name
    with scratch_folder(folder) as scratch:
        saved = save_paddle(graph, size, scratch)
        if model_format == "onnx":
            target = folder / f"{_STEM}.onnx"
            _to_onnx(saved, target, [OUTPUTS[graph.kind], COARSE])
            return target.name
        openvino = require("openvino", "the openvino format")
        _to_onnx(saved, scratch / f"{_STEM}.onnx", [OUTPUTS[graph.kind], COARSE])
        model = openvino.convert_model(scratch / f"{_STEM}.onnx")
        target = folder / f"{_STEM}.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        return target.name


def save_paddle(graph: DeployGraph, size: Optional[tuple[int, int]], folder: Path) -> Path:
    """Write the format of Paddle Inference: `.json` (Paddle 3) or `.pdmodel`, and `.pdiparams`."""
    import paddle

    width, height = size or (None, None)
    spec = paddle.static.InputSpec([None, height, width, graph.channels], graph.dtype, INPUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        static = paddle.jit.to_static(graph, input_spec=[spec], full_graph=True)
        paddle.jit.save(static, str(folder / _STEM))
    candidates = [folder / f"{_STEM}{suffix}" for suffix in (".json", ".pdmodel")]
    return next(path for path in candidates if path.exists())


def _to_onnx(saved: Path, target: Path, names: list[str]) -> None:
    require("onnx", "the onnx format")
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
        + "\n  try `--format paddle`, which needs no conversion, or a fixed --input-size"
    )


def replacing(output: Path) -> AbstractContextManager[Path]:
    """An empty directory that replaces `output` when the block ends without an exception.

    Raises:
        UserError: `output` is a file, or contains a file that is not of an earlier export.
    """
    return replacing_folder(output, require_replaceable)


def require_replaceable(output: Path) -> None:
    """Check that an export loses nothing in `output`.

    Raises:
        UserError: it is a file, or contains a file that the `liteseg.json` in it does not list.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; give a directory for the exported model")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / manifest.NAME).is_file():
        raise UserError(
            f"{output}: is not empty and contains no earlier export; give a new directory, "
            "because an export replaces the whole directory"
        )
    own = manifest.read(output).files
    for path in output.iterdir():
        if path.name not in own or not path.is_file() or path.suffix not in _SUFFIXES:
            raise UserError(
                f"{output}: contains {path.name!r}, which no export has written; give a new "
                "directory, because an export replaces the whole directory"
            )


def versions(model_format: str) -> dict[str, str]:
    """The versions of liteseg and of the packages that wrote the model."""
    import paddle

    used = {"liteseg": liteseg.__version__, "paddle": paddle.__version__}
    if model_format != "paddle":
        from importlib.metadata import version

        used.update({name: version(name) for name in ("onnx", "paddle2onnx")})
    if model_format == "openvino":
        used["openvino"] = require("openvino", "the openvino format").get_version()
    return used
