"""Convert a saved Paddle model to ONNX, in a process of its own.

paddle2onnx ends the interpreter (abort) where it meets something that it can't convert.

    python -m liteseg.deploy.paddle_to_onnx MODEL PARAMETERS TARGET.onnx OUTPUT_NAME…
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_OPSET = 17


def main(model: str, parameters: str, target: str, *names: str) -> None:
    """Convert, and give the outputs their names."""
    import onnx
    import paddle2onnx

    paddle2onnx.export(model, parameters, save_file=target, opset_version=_OPSET)
    graph = onnx.load(target)
    rename_outputs(graph, names)
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def rename_outputs(model, names: Sequence[str]) -> None:
    """Name the outputs of an ONNX model in their order, wherever they are used."""
    renamed = {output.name: name for output, name in zip(model.graph.output, names)}
    for output in model.graph.output:
        output.name = renamed[output.name]
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]


if __name__ == "__main__":
    main(*sys.argv[1:])
