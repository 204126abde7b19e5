"""Post-training quantization of an OpenVINO model to int8, by NNCF."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liteseg.deploy.manifest import COARSE
from liteseg.deploy.packages import require
from liteseg.errors import UserError

if TYPE_CHECKING:
    import openvino


def quantize(path: Path, images: Iterable[np.ndarray]) -> int:
    """Replace a model by its int8 version.

    Convolutions compute in 8 bits. The operations after the coarse logits stay in float, because
    logits rounded to 8 bits would move the borders of the regions.

    Args:
        path: the `.xml` of the model; overwritten, with its `.bin`.
        images: (1, H, W, 3) uint8 RGB each, to calibrate the range of every layer.

    Returns:
        The number of images.

    Raises:
        UserError: no image, or a package is missing.
    """
    nncf = require("nncf", "--int8")
    openvino = require("openvino", "--int8")
    # nncf.set_log_level would change the handlers of other packages too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = list(images)
    if not images:
        raise UserError("there are no images to calibrate int8 with; give --calib DIR")
    model = openvino.Core().read_model(path)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(images),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=_downstream(model.output(COARSE))),
    )
    fresh = path.with_name("int8.xml")
    openvino.save_model(quantized, fresh, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        os.replace(fresh.with_suffix(suffix), path.with_suffix(suffix))
    return len(images)


def _downstream(output: openvino.Output) -> list[str]:
    """The names of the operations that depend on an output of the model."""
    # The Result node of the output has no consumers; its input value has.
    found, waiting = set(), list(output.node.input_value(0).get_target_inputs())
    while waiting:
        node = waiting.pop().get_node()
        name = node.get_friendly_name()
        if name in found or node.get_type_name() == "Result":
            continue
        found.add(name)
        for port in node.outputs():
            waiting.extend(port.get_target_inputs())
    return sorted(found)
