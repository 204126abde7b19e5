"""Operators of an exported Paddle model, checked before Paddle opens it.

A Paddle model is a program: among its operators are `save`, `print` and `py_func`, and Paddle runs
whatever the file contains. Only operators that compute are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_regular

_MAX_BYTES = 64 << 20
# PIR writes `1.add` for `pd_op.add`, `0.combine` for `builtin.combine`, and `p` for parameters.
_PIR_BUILTIN = {"p", "0.combine", "0.slice", "0.split"}
_ELEMENTWISE = """
add subtract multiply divide floor_divide remainder pow elementwise_pow maximum minimum fmax fmin
scale abs exp log log1p sqrt rsqrt square reciprocal floor ceil round sign sin cos tanh sigmoid relu
relu6 leaky_relu prelu gelu silu swish hardswish hardsigmoid hardtanh softplus mish elu celu selu
clip cast equal not_equal less_than less_equal greater_than greater_equal logical_and logical_or
logical_not logical_xor where assign assign_value dropout
"""
_SHAPES = """
concat split split_with_num stack unstack reshape flatten squeeze unsqueeze transpose slice
strided_slice expand tile pad pad3d roll flip gather gather_nd index_select shape shape64 full
full_like full_int_array full_with_tensor arange data fetch feed pixel_shuffle pixel_unshuffle
channel_shuffle meshgrid
"""
_REDUCTIONS = """
sum mean max min prod amax amin argmax argmin topk softmax log_softmax matmul bmm addmm cumsum norm
"""
_LAYERS = """
conv2d depthwise_conv2d conv2d_transpose depthwise_conv2d_transpose pool2d max_pool2d_with_index
batch_norm layer_norm group_norm instance_norm bilinear_interp nearest_interp
bicubic_interp grid_sample
"""
# A trailing _ (in place) is left out.
_NAMES = f"{_ELEMENTWISE} {_SHAPES} {_REDUCTIONS} {_LAYERS}".split()
_PIR = _PIR_BUILTIN | {f"1.{name}" for name in _NAMES}
_OLD = """
elementwise_add elementwise_sub elementwise_mul elementwise_div elementwise_floordiv elementwise_mod
elementwise_max elementwise_min elementwise_fmax elementwise_fmin hard_swish hard_sigmoid brelu
reshape2 flatten2 flatten_contiguous_range squeeze2 unsqueeze2 transpose2 expand_v2 fill_constant
fill_any_like range reduce_sum reduce_mean reduce_max reduce_min reduce_prod
reduce_amax reduce_amin arg_max arg_min top_k_v2 matmul_v2 mul p_norm bilinear_interp_v2
nearest_interp_v2 bicubic_interp_v2 grid_sampler sync_batch_norm
"""
_PDMODEL = {*_NAMES, *_OLD.split()}


def require_known_operators(path: Path) -> None:
    """Check the operators of a `.json` (Paddle 3) or `.pdmodel` file without running it.

    Raises:
        UserError: the file can't be read, or has an operator that no segmentation network needs.
    """
    known = _PDMODEL if path.suffix == ".pdmodel" else _PIR
    try:
        content = read_regular(path, _MAX_BYTES)
        names = list(_pdmodel(content) if path.suffix == ".pdmodel" else _pir(content))
        unknown = [name for name in names if str(name).removesuffix("_") not in known]
        if not names:
            raise ValueError("it contains no operator")
    except OSError as error:
        raise UserError(f"{path}: can't read the model: {error.strerror or error}") from None
    except Exception as error:  # protobuf has an error type of its own
        raise UserError(
            f"{path}: not a model of Paddle ({type(error).__name__}: {error}); export it again"
        ) from None
    if unknown:
        raise UserError(
            f"{path}: refused, because it contains the operator {quoted(unknown[0])}, and some of "
            "Paddle's operators write files or run code; get the model from its publisher, or as "
            "onnx. If it is your own, run it with Paddle directly"
        )


def _pdmodel(content: bytes) -> Iterator[str]:
    from paddle.base.proto import framework_pb2

    for block in framework_pb2.ProgramDesc.FromString(content).blocks:
        for operator in block.ops:
            yield operator.type


def _pir(content: bytes) -> Iterator[Any]:
    return _operators(json.loads(content, object_pairs_hook=_without_duplicates))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Another parser may use the other one.
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _operators(tree: Any) -> Iterator[Any]:
    """The name of every entry of an `ops` list, wherever it is."""
    if isinstance(tree, dict):
        operators = tree.get("ops", [])
        if not isinstance(operators, list):
            raise ValueError("`ops` is not a list")
        yield from (entry.get("#") for entry in operators)
        for item in tree.values():
            yield from _operators(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _operators(item)
