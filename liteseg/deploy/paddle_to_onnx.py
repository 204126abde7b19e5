"""Convert a saved Paddle model to ONNX.

Run as a separate process, because paddle2onnx aborts the interpreter if it can't convert a model:

    python -m liteseg.deploy.paddle_to_onnx MODEL PARAMETERS TARGET.onnx OUTPUT_NAME…
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_OPSET = 17


def main(model: str, parameters: str, target: str, *names: str) -> None:
    """Convert and name the outputs."""
    import onnx
    import paddle2onnx

    paddle2onnx.export(model, parameters, save_file=target, opset_version=_OPSET)
    graph = onnx.load(target)
    rename_outputs(graph, names)
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def rename_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Rename the outputs of an ONNX model in order, in all nodes."""
    renamed = {output.name: name for output, name in zip(model.graph.output, names)}
    for output in model.graph.output:
        output.name = renamed[output.name]
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]


if __name__ == "__main__":
    main(*sys.argv[1:])
