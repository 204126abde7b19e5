"""Weights of STDC and PP-LiteSeg from PyTorch files, under the published names.

Sources: the official STDC encoders and STDC-Seg networks (github.com/MichaelFan01/STDC-Seg), and
super-gradients' STDC and PP-LiteSeg, whose layers compute the same under other names. Its attention
weights the other feature and reads the features in the other order; both are exact changes of the
weights. Its auxiliary heads read the encoder, ours the decoder: those have no source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from liteseg.errors import UserError, quoted
from liteseg.models import STDC1, STDC2, PPLiteSeg
from liteseg.utils.files import require_kind
from liteseg.utils.weights.load import save_pdparams
from liteseg.utils.weights.torch_file import read_torch

ENCODERS: dict[str, tuple[Callable, tuple[int, ...]]] = {  # class and modules per stage
    "stdc1": (STDC1, (2, 2, 2)),
    "stdc2": (STDC2, (4, 5, 3)),
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {  # encoder and arguments
    "pp_liteseg_t": ("stdc1", {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}),
    "pp_liteseg_b": ("stdc2", {"arm_out_chs": [64, 96, 128], "seg_head_inter_chs": [64, 64, 64]}),
}
ARCHITECTURES = (*ENCODERS, *NETWORKS)
_STATES = ("ema_net", "net", "state_dict", "model_state_dict", "model")
# Beginnings of the encoder's keys. Each network contains its encoder under another name.
_OFFICIAL = ("features.", "cp.backbone.features.", "backbone.features.")
_STAGES = ("encoder.backbone.stages.", "cp.backbone.stages.", "backbone.stages.")
# Our names of the decoder and the head, and super-gradients'.
_DECODER: tuple[tuple[str, Any], ...] = (
    (r"ppseg_head\.cm\.stages\.(\d)\.", r"encoder.context_module.branches.\1."),
    (r"ppseg_head\.cm\.conv_out\.", "encoder.context_module.conv_out."),
    (r"ppseg_head\.arm_list\.(\d)\.conv_x\.", r"encoder.proj_convs.\1."),
    (
        r"ppseg_head\.arm_list\.(\d)\.conv_(?:xy_)?",
        lambda match: f"decoder.up_stages.{2 - int(match[1])}.conv_",  # coarsest first
    ),
    (r"seg_heads\.0\.conv\.", "seg_head.0.seg_head.0."),
    (r"seg_heads\.0\.conv_out\.", "seg_head.0.seg_head.2."),
    (r"\b_conv\.", "seq.conv."),
    (r"\b_batch_norm\.", "seq.bn."),
)
# Keys of files that the networks here do not have; the first pattern that matches.
_SKIPPED = (
    (r".*num_batches_tracked$", "counters, which Paddle does not have"),
    (r"((cp\.)?backbone\.)?(conv_last|bn|fc|linear)\.", "the ImageNet classifier"),
    (r"(aux_heads|aux_head_s\d+|detail_head\d+)\.", "auxiliary heads, which read the encoder"),
)
_OF_NETWORKS = (  # where only the encoder is imported
    r"(cp|ffm|conv_out\w*|segmentation_head|encoder|decoder|seg_head)\.",
    "the decoder and heads",
)


@dataclass
class ImportReport:
    """Every key of an import.

    Attributes:
        state: the name of the state dict in the file; empty if it is the whole file.
        mapped: keys here, with that in the file.
        changed: keys whose values are converted, with the change.
        skipped: keys in the file without a place here, with the reason.
        initialized: keys here without a source; they have the values of a new network.
        config: YAML lines of the network and the images as in the original.
    """

    state: str
    mapped: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    initialized: list[str] = field(default_factory=list)
    config: list[str] = field(default_factory=list)


def import_torch(file: Path, architecture: str, output: Path) -> ImportReport:
    """Convert a PyTorch file of `architecture` to `output`, a `.pdparams` file.

    Raises:
        UserError: the file can't be read or is not of that architecture, or `output` can't be
            written. Nothing is written then.
    """
    require_kind(output, ".pdparams")
    name, arrays = _state_dict(read_torch(file), file)
    report = ImportReport(name)
    target = _target(architecture, arrays, file)
    found = _converted(target, arrays, architecture, report)
    problems = [
        *(f"missing: {report.mapped[k]} (here {k})" for k in target if k not in found),
        *(
            f"of another shape: {report.mapped[key]} is {list(array.shape)}, expected "
            f"{list(target[key].shape)}"
            for key, array in found.items()
            if array.shape != target[key].shape
        ),
        *(f"unknown: {key}" for key in _unknown(arrays, architecture, report)),
        *(f"not finite: {key}" for key, array in found.items() if not np.isfinite(array).all()),
    ]
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:8])
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(
            f"{file} is not {architecture}: {len(problems)} keys do not fit{shown}{more}\n  Give "
            f"the architecture it was trained with as --as ({', '.join(ARCHITECTURES)})"
        )
    save_pdparams({key: found[key].astype(np.float32) for key in target}, output)
    report.config = _config(architecture, output)
    return report


def _state_dict(content: Any, file: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The name and arrays of the state dict in a file, without the prefix of several devices."""
    entries = content if isinstance(content, dict) else {}
    for name in ("", *_STATES):
        state = entries.get(name) if name else entries
        if not isinstance(state, dict) or not state:
            continue
        if all(isinstance(value, np.ndarray) for value in state.values()):
            arrays = {str(key): value for key, value in state.items()}
            start = len("module.") if all(key.startswith("module.") for key in arrays) else 0
            return name, {key[start:]: value for key, value in arrays.items()}
    found = ", ".join(map(quoted, list(entries)[:8])) or f"a {type(content).__name__}"
    raise UserError(
        f"{file} contains no state dict: expected tensors by name, or these under one of "
        f"{', '.join(_STATES)}; found {found}"
    )


def _target(architecture: str, arrays: Mapping[str, np.ndarray], file: Path) -> dict[str, Any]:
    """The keys of the network with their initial values."""
    paddle.seed(0)  # of the heads without a source
    network = NETWORKS.get(architecture)
    if network is None:
        model = ENCODERS[architecture][0]()
    else:
        classifier = arrays.get("seg_head.0.seg_head.2.weight")
        if classifier is None or classifier.ndim != 4 or not 2 <= len(classifier) <= 255:
            beginnings = sorted({key.partition(".")[0] for key in arrays})
            raise UserError(
                f"{file} is not a PP-LiteSeg of super-gradients: no seg_head.0.seg_head.2.weight "
                f"of 2 to 255 classes is among its {len(arrays)} keys (they begin with "
                f"{', '.join(map(quoted, beginnings[:8]))}); for the encoder alone give --as stdc1 "
                "or --as stdc2"
            )
        model = PPLiteSeg(len(classifier), ENCODERS[network[0]][0](), **network[1])
    return {key: value.numpy() for key, value in model.state_dict().items()}


def _converted(
    target: Mapping[str, np.ndarray],
    arrays: Mapping[str, np.ndarray],
    architecture: str,
    report: ImportReport,
) -> dict[str, np.ndarray]:
    """The arrays of the keys of `target`, as far as the file has them."""
    converted = {}
    modules = ENCODERS[NETWORKS.get(architecture, (architecture,))[0]][1]
    prefixes = [p for p in (*_OFFICIAL, *_STAGES) if any(key.startswith(p) for key in arrays)]
    for key, initial in target.items():
        if key.endswith("._scale"):
            converted[key], report.changed[key] = initial, "1: a constant that nothing reads"
            continue
        if re.match(r"seg_heads\.[12]\.", key):
            converted[key] = initial
            report.initialized.append(key)
            continue
        source = _source(key, prefixes[0] if prefixes else _OFFICIAL[0], modules)
        if source in arrays:
            report.mapped[key] = source
            converted[key] = _changed(key, arrays[source], report)
        elif key.endswith("_conv.bias"):
            converted[key] = np.zeros_like(initial)
            report.changed[key] = "0: the original has no bias"
        else:
            report.mapped[key] = source
    return converted


def _source(key: str, prefix: str, modules: Sequence[int]) -> str:
    """The key in the file, where the encoder's keys begin with `prefix`, of a key here."""
    inside = re.fullmatch(r"(?:backbone\.)?features\.(\d+)\.(.*)", key)
    if inside is None:
        for pattern, name in _DECODER:
            key = re.sub(pattern, name, key)
    elif prefix in _OFFICIAL:
        key = f"{prefix}{inside[1]}.{inside[2]}"
    else:
        key = prefix + _in_stages(int(inside[1]), inside[2], modules)
    return re.sub(r"\b_mean$", "running_mean", re.sub(r"\b_variance$", "running_var", key))


def _in_stages(block: int, layer: str, modules: Sequence[int]) -> str:
    """super-gradients' name of a layer in a block of the encoder."""
    stages = [(stage, i) for stage, count in enumerate((1, 1, *modules), 1) for i in range(count)]
    stage, place = stages[block]
    if place == 0 and stage > 2:  # the depthwise convolution precedes the second one
        layer = layer.replace("conv_list.1.", "conv_list.1.1.")
        layer = layer.replace("avd_layer.0.", "conv_list.1.0.conv.")
        layer = layer.replace("avd_layer.1.", "conv_list.1.0.bn.")
    return f"block_s{2**stage}.{place}." + re.sub(r"\b(conv|bn)\.(?=\w+$)", r"seq.\1.", layer)


def _changed(key: str, array: np.ndarray, report: ImportReport) -> np.ndarray:
    """The values here: the attention is of the other feature, and 1 - sigmoid(x) is sigmoid(-x)."""
    if key.endswith("conv_xy_atten.0._conv.weight") and array.shape[1:2] == (4,):
        report.changed[key] = "the statistics of the low-level feature come first here"
        return array[:, [2, 3, 0, 1]]
    if re.search(r"conv_xy_atten\.1\._batch_norm\.(weight|bias)$", key):
        report.changed[key] = "negated: the attention is of the low-level feature here"
        return -array
    return array


def _unknown(
    arrays: Mapping[str, np.ndarray], architecture: str, report: ImportReport
) -> list[str]:
    """The keys of the file that are neither mapped nor known to have no place here."""
    used, unknown = set(report.mapped.values()), []
    patterns = [*_SKIPPED, *([_OF_NETWORKS] if architecture in ENCODERS else [])]
    for key, array in arrays.items():
        copied = re.sub(r"\bx(?:2|4|8|16|32)\.0\.(?=\d)", "features.", key)
        reason = next((text for pattern, text in patterns if re.match(pattern, key)), None)
        if key in used:
            continue
        if copied in used and np.array_equal(array, arrays[copied]):
            report.skipped[key] = "copies of features.*"
        elif reason and (copied == key or reason == _SKIPPED[0][1]):
            report.skipped[key] = reason
        else:
            unknown.append(key)
    return unknown


def _config(architecture: str, output: Path) -> list[str]:
    """YAML lines with the padding and the normalization of the original."""
    encoder = f"type: {NETWORKS.get(architecture, (architecture,))[0].upper()}"
    encoder += ", count_include_pad: true"
    if architecture in ENCODERS:
        lines = [f"model: {{type: PPLiteSeg, backbone: {{{encoder}, pretrained: {output}}}}}"]
    else:
        arguments = "".join(f", {key}: {value}" for key, value in NETWORKS[architecture][1].items())
        lines = [f"model: {{type: PPLiteSeg, backbone: {{{encoder}}}{arguments}}}"]
    mean, std = "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"
    return [*lines, f"transforms: [..., {{type: Normalize, mean: {mean}, std: {std}}}]"]
