"""A target for each file format that liteseg reads: a function, the file's name, and sound bytes.

Shared by `test_fuzz_formats.py` and `scripts/soak/fuzz.py`.
"""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import cv2
import numpy as np
from torch_writer import legacy, state_dict, zipped

from liteseg.config.load import load_config
from liteseg.datasets.color_map import ColorMap
from liteseg.datasets.list_file import read_list
from liteseg.datasets.pack import Pack
from liteseg.deploy import manifest
from liteseg.deploy.operators import require_known_operators
from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.writers import MetricsFile
from liteseg.errors import UserError
from liteseg.metrics.comparison import compare_runs
from liteseg.report.comparison import write_comparison
from liteseg.report.report import ReportData, read_history, write_report
from liteseg.tasks.compare import read_run
from liteseg.utils.images import read_image, read_label
from liteseg.utils.weights.archive import unpack_weights
from liteseg.utils.weights.index import read_index
from liteseg.utils.weights.load import read_pdparams, read_state
from liteseg.utils.weights.torch_file import read_torch


class Target(NamedTuple):
    """A format: `read` raises nothing but UserError, whatever is in the file `name`."""

    name: str
    sound: bytes
    read: Callable[[Path], object]


def _archive(kind: str) -> bytes:
    buffer, content = io.BytesIO(), pickle.dumps({"w": np.ones(3, np.float32)}, 4)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as packed:
            packed.writestr("a/model.pdparams", content)
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as tar:
            info = tarfile.TarInfo("a/model.pdparams")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(path: Path) -> None:
    unpack_weights(path, path.parent / "unpacked")


def _report(path: Path) -> None:
    write_report(path.with_suffix(".html"), ReportData("t", "s", "c", read_history(path)))
    MetricsFile(path, 5)


def _checkpoint(path: Path) -> None:
    (path.parent / "last").mkdir(exist_ok=True)
    path.replace(path.parent / "last" / path.name)
    Checkpointer(path.parent).load_last()


def _pack(path: Path) -> None:
    (path.parent / "pixels.bin").write_bytes(bytes(100))
    pack = Pack(path.parent)
    for entry in pack.entries:
        pack.load(entry)


def _export(path: Path) -> None:
    (path.parent / "model.onnx").touch()
    manifest.read(path.parent)


def _evaluation(path: Path) -> None:
    run = read_run(path)
    found = compare_runs([[run], [run]])
    json.dumps(found.as_json())
    write_comparison(path.with_suffix(".html"), found)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_STATE = {"iteration": 3, "w": np.ones((2, 3), np.float32), "l": [1, (2.5, None, "x", b"y", True)]}
_MANIFEST = {
    "name": "m", "format": "onnx", "file": "model.onnx", "input": {"size": [64, 32]},
    "output": {"kind": "label"}, "mean": [0.5] * 3, "std": [0.5] * 3, "scale": 1.0,
    "transforms": [{"type": "Resize"}], "class_names": ["a", "b"],
    "palette": [[1, 2, 3], [4, 5, 6]], "precision": "float32", "versions": {}, "verified": {},
    "files": ["liteseg.json", "model.onnx"],
}  # fmt: skip
_LINES = [
    {"step": 1, "phase": "train", "loss": 1.5, "lr": 0.1, "seconds_per_step": 0.1,
     "reader_share": 0.2, "images_per_second": 9},
    {"step": 2, "phase": "eval", "miou": 0.5, "loss": 1, "class_iou": {"a": 0.5}, "seconds": 2},
]  # fmt: skip
_OPS = [{"#": "p"}, {"#": "1.conv2d", "A": [1, "x"]}, {"#": "1.fetch"}]
_PROGRAM = {"program": {"regions": [{"#": "r", "blocks": [{"#": "b", "ops": _OPS}]}]}}
_PACK = {
    "format": "liteseg pack 1", "bytes": 100,
    "samples": [["a", [1, 2], [3, 4], 4, 5, 0, 7], ["b", [1, 2], None, 2, 2, 80, 7]],
}  # fmt: skip
_ZOO = {"format": "liteseg-zoo-1", "models": {"a": {
    "file": "a.zip", "sha256": "0" * 64, "size": 9, "aliases": ["b"], "classes": 3, "scale": 1.0,
    "miou": 0.5, "data": "Streets val", "config": "quickstart",
}}}  # fmt: skip
_COUNTS = {"sequence": None, "intersection": [5, 3], "predicted": [6, 4], "labeled": [7, 3]}
_EVALUATION = {
    "class_iou": {"a": 0.5, "b": None}, "boundary": {"width": 0.02, "tolerance": 1},
    "per_image": [{"name": name, **_COUNTS} for name in "pqr"],
}  # fmt: skip
_IMAGE = cv2.imencode(".png", np.arange(192, dtype=np.uint8).reshape(8, 8, 3))[1].tobytes()
_LABEL = cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()

TARGETS = {
    "weights": Target("m.pdparams", pickle.dumps({"w": _STATE["w"]}, 2), read_pdparams),
    "state": Target("training.pdstate", pickle.dumps(_STATE, 4), read_state),
    "torch zip": Target("m.pth", zipped(state_dict({"w": _STATE["w"]})), read_torch),
    "torch legacy": Target("m.pth", legacy(state_dict({"w": _STATE["w"]})), read_torch),
    "tar": Target("m.tar", _archive("w"), _unpack),
    "tar.gz": Target("m.tar.gz", _archive("w:gz"), _unpack),
    "zip": Target("m.zip", _archive("zip"), _unpack),
    "checkpoint": Target(
        "manifest.json",
        _json({"iteration": 3, "sha256": {"model.pdparams": "0", "training.pdstate": "0"}}),
        _checkpoint,
    ),
    "export": Target("liteseg.json", _json(_MANIFEST), _export),
    "operators": Target("model.json", _json(_PROGRAM), require_known_operators),
    "old operators": Target(
        "model.pdmodel", b"\x0a\x14\x08\x00\x10\x00\x22\x0e\x1a\x06conv2d", require_known_operators
    ),
    "evaluation": Target("eval.json", _json(_EVALUATION), _evaluation),
    "metrics": Target("metrics.jsonl", b"\n".join(map(_json, _LINES)), _report),
    "pack": Target("index.json", _json(_PACK), _pack),
    "zoo": Target("index.json", _json(_ZOO), lambda path: read_index(str(path.parent))),
    "config": Target("c.yml", b"a: [1, {b: 2.5}]\nc: &x {d: text}\ne: {<<: *x}\n", load_config),
    "list": Target("list.txt", b"a.png a_label.png\nb.png b_label.png\n", read_list),
    "colors": Target("c.txt", b"1 2 3 road\n4 5 6 car\n", lambda path: ColorMap.read(path, 255)),
    "image": Target("a.png", _IMAGE, read_image),
    "label": Target("a.png", _LABEL, read_label),
}


def run(target: Target, content: bytes, folder: Path) -> bool:
    """Write `content` as the target's file in an empty folder and read it; False if refused."""
    path = folder / target.name
    path.write_bytes(content)
    try:
        target.read(path)
    except UserError as error:
        message = str(error)
    else:
        return True
    assert message.strip()
    assert len(message) < 4000, message
    return False
