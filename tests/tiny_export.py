"""An exported model in ONNX format with one convolution: made and loaded in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from liteseg.deploy.manifest import COARSE, INPUT, Manifest

CLASSES = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}
STRIDE = 8


def make_export(folder: Path) -> Path:
    """Write the model; its logits are random functions of the 8x8 pixels below each."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra `export`")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: the extra `export`")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(len(CLASSES), 3, STRIDE, STRIDE))
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], [COARSE], strides=[STRIDE, STRIDE]),
        helper.make_node("ArgMax", [COARSE], ["labels"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("labels", TensorProto.INT64, None),
            helper.make_tensor_value_info(COARSE, TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    Manifest(
        name="tiny",
        format="onnx",
        file="model.onnx",
        input={"name": INPUT, "dtype": "uint8", "layout": "NHWC", "channels": "RGB", "size": None},
        output={"name": "labels", "kind": "label"},
        mean=[0.5] * 3,
        std=[0.5] * 3,
        scale=1.0,
        transforms=[],
        class_names=list(CLASSES),
        palette=[list(color) for color in CLASSES.values()],
    ).write(folder)
    return folder
