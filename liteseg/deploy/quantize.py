"""Post-training quantization of an OpenVINO model to int8, by NNCF."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from liteseg.deploy.manifest import COARSE
from liteseg.deploy.packages import need
from liteseg.errors import UserError


def quantize(path: Path, images: Iterable[np.ndarray]) -> int:
    """Replace a model by its int8 form.

    Convolutions compute in 8 bits; what follows the coarse logits stays in float, where an 8-bit
    step of a logit would move the borders of the regions.

    Args:
        path: the `.xml` of the model; rewritten, with its `.bin`.
        images: (1, H, W, 3) uint8 RGB each, to measure the range of every layer on.

    Returns:
        The number of images.

    Raises:
        UserError: no image, or a package is missing.
    """
    nncf = need("nncf", "--int8")
    openvino = need("openvino", "--int8")
    # Not nncf.set_log_level, which changes all handlers it finds there, whoever put them.
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
        ignored_scope=nncf.IgnoredScope(names=_behind(model.output(COARSE))),
    )
    fresh = path.with_name("int8.xml")
    openvino.save_model(quantized, fresh, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        os.replace(fresh.with_suffix(suffix), path.with_suffix(suffix))
    return len(images)


def _behind(output) -> list[str]:
    """The names of the operations that use a model's output."""
    # The output itself is fed by what computes it, which others read too.
    found, waiting = {}, list(output.node.input_value(0).get_target_inputs())
    while waiting:
        node = waiting.pop().get_node()
        if node.get_friendly_name() in found or node.get_type_name() == "Result":
            continue
        found[node.get_friendly_name()] = node
        for port in node.outputs():
            waiting.extend(port.get_target_inputs())
    return list(found)
