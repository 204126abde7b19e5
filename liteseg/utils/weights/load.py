"""Weights and training state: read `.pdparams` safely, compare them with the model, load them."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write, read_regular
from liteseg.utils.logging import get_logger
from liteseg.utils.weights import safe_pickle
from liteseg.utils.weights.source import resolve

if TYPE_CHECKING:
    from paddle import Tensor, nn

# Layers whose first dimension is the number of classes.
_CLASSIFIER = re.compile(r"(^|\.)seg_heads\.\d+\.conv_out\.")
# Layers of the published ImageNet encoders that follow the encoder: the classifier of 1000 classes.
_IMAGENET_LAYERS = ("conv_last.", "bn.", "fc.", "linear.")
_BOOKKEEPING = "StructuredToParameterName@@"
_ROWS_PER_PROBLEM = 7


def read_state(path: str | Path) -> Any:
    """Read a file of `write_state` or `paddle.save`: nested containers, numbers, text and arrays.

    Raises:
        UserError: the file can't be read, is damaged, or would run code (see `safe_pickle`).
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return safe_pickle.loads(data, str(path))


def write_state(state: Any, path: str | Path) -> None:
    """Write nested dicts, lists, numbers, text, arrays and tensors for `read_state`.

    `paddle.load` can read the file too. It is written whole or not at all.

    Raises:
        TypeError: `state` contains a value of another type.
        UserError: the file can't be written.
    """
    with atomic_write(path) as file:
        pickle.dump(safe_pickle.portable(state), file, protocol=4)


def read_pdparams(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.pdparams` file by parameter name, without Paddle's bookkeeping.

    Raises:
        UserError: the file can't be read (see `read_state`), or contains other than named arrays.
    """
    state = read_state(path)
    if not isinstance(state, dict):
        raise UserError(f"{path} contains a {type(state).__name__}, expected arrays by name")
    state.pop(_BOOKKEEPING, None)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise UserError(
                f"{path} is not a weights file: its entry {key!r} is a {type(value).__name__}, "
                "expected an array; give model.pdparams, not the training state next to it"
            )
    return state


def save_pdparams(state_dict: Mapping[str, Tensor | np.ndarray], path: str | Path) -> None:
    """Write `model.state_dict()` in the format of `paddle.save`, with arrays for tensors.

    Raises:
        UserError: the file can't be written.
    """
    write_state(dict(state_dict), path)


class LoadReport(NamedTuple):
    """The keys that `load_weights` loaded and those it did not."""

    path: Path
    loaded: tuple[str, ...]
    #: model keys that keep their initial values
    left_out: tuple[str, ...]
    #: file keys that the model does not have
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        text = f"weights: {len(self.loaded)} arrays from {self.path}"
        if self.left_out:
            text += f": {', '.join(_layers(self.loaded, self.left_out))}"
            text += f"; left as initialized ({len(self.left_out)}): {_some(self.left_out)}"
        if self.ignored:
            text += f"; not used ({len(self.ignored)}): {_some(self.ignored)}"
        return text


def load_weights(
    model: nn.Layer,
    path_or_url: str | Path,
    *,
    strict: bool = True,
    fine_tune: bool = False,
    class_names: tuple[Sequence[str], Sequence[str]] | None = None,
    adapt_inputs: bool = False,
) -> LoadReport:
    """Load weights into `model` from a file, run directory or URL, and log a report.

    The ImageNet classifier of the published encoders is ignored and reported.

    Args:
        model: a whole network or an encoder, with the published parameter names.
        path_or_url: `.pdparams`, an archive with `model.pdparams`, a run or checkpoint directory,
            or the URL of a file or archive (see `source.resolve`).
        strict: require every key and shape to match. Otherwise load the matching ones and report
            the rest.
        fine_tune: if the number of classes is the only difference, leave out the classifier layers
            instead of raising.
        class_names: those of the file and of the model: rows of the classifier layers are matched
            by name (case and punctuation ignored), and those of other classes keep their initial
            values. No names of the file: all rows do.
        adapt_inputs: a first convolution of three channels may serve another number of channels.

    Raises:
        UserError: the file can't be downloaded or read, does not fit (the message has a table of
            the differences), matches no key, or contains NaN or infinity. The model is then
            unchanged.
    """
    path = resolve(path_or_url)
    arrays = read_pdparams(path)
    target = model.state_dict()
    if class_names is not None and tuple(class_names[0]) != tuple(class_names[1]):
        _match_classes(arrays, target, *class_names)
    if adapt_inputs:
        _adapt_inputs(arrays, target)
    missing = [key for key in target if key not in arrays]
    extra = [key for key in arrays if key not in target]
    unexpected = [key for key in extra if not key.startswith(_IMAGENET_LAYERS)]
    unfit = [key for key in target if key in arrays and not _fits(arrays[key], target[key])]
    resized = bool(unfit) and all(_is_other_num_classes(arrays[k], target[k], k) for k in unfit)
    only_classes = resized and not missing and not unexpected

    loaded = [key for key in target if key in arrays and key not in unfit]
    tolerated = not strict or (fine_tune and only_classes)
    if not loaded or (not tolerated and (missing or unexpected or unfit)):
        table = _table(
            [("missing", key, None, target[key]) for key in missing],
            [("unexpected", key, arrays[key], None) for key in unexpected],
            [("mismatched", key, arrays[key], target[key]) for key in unfit],
        )
        fix = _suggest_fix(arrays, target, unfit if only_classes else [])
        raise UserError(f"{path} does not fit {type(model).__name__}: {table}\n  {fix}")
    _check_finite(path, {key: arrays[key] for key in loaded})
    _fill(target, {key: arrays[key] for key in loaded})
    report = LoadReport(path, tuple(loaded), tuple(missing + unfit), tuple(extra))
    get_logger().info(str(report))
    if only_classes:
        get_logger().info(
            f"weights: the checkpoint has {len(arrays[unfit[0]])} classes, this model "
            f"{target[unfit[0]].shape[0]}: the classifier layers above are trained from scratch"
        )
    return report


def _adapt_inputs(arrays: dict[str, np.ndarray], target: Mapping[str, Tensor]) -> None:
    """Replace a convolution of RGB in `arrays` by one of the channels of `target`.

    Channels beyond the third begin as the mean of the three; a single channel as their sum, so that
    a gray image gives the same features as the three equal channels.
    """
    for key, tensor in target.items():
        array = arrays.get(key)
        if array is None or array.ndim != 4 or len(tensor.shape) != 4 or array.shape[1] != 3:
            continue
        channels = tensor.shape[1]
        if channels == 3 or list(array.shape) != [tensor.shape[0], 3, *tensor.shape[2:]]:
            continue
        mean = array.mean(axis=1, keepdims=True, dtype=np.float64).astype(array.dtype)
        if channels == 1:
            arrays[key], how = 3 * mean, "the sum of red, green and blue"
        else:
            further = [mean] * max(0, channels - 3)
            arrays[key] = np.concatenate([array[:, :channels], *further], axis=1)
            how = "as published for the first three, their mean for the others"
        get_logger().info(f"weights: {key} is adapted from 3 to {channels} channels: {how}")


def _match_classes(
    arrays: dict[str, np.ndarray],
    target: Mapping[str, Tensor],
    names: Sequence[str],
    wanted: Sequence[str],
) -> None:
    """Replace the classifiers in `arrays` by those of `target` with the rows of equal names."""
    places = {_plain(name): row for row, name in enumerate(names)}
    common = [name for name in wanted if _plain(name) in places]
    for key, tensor in target.items():
        array = arrays.get(key)
        if array is None or not _is_other_num_classes(array, tensor, key):
            continue
        if (names and len(array) != len(names)) or tensor.shape[0] != len(wanted):
            return
        rows = tensor.numpy()
        for row, name in enumerate(wanted):
            if _plain(name) in places:
                rows[row] = array[places[_plain(name)]]
        arrays[key] = rows
    used = {_plain(name) for name in common}
    lists = (
        (f"{len(common)} of {len(wanted)} rows kept", common),
        ("learned anew", [name for name in wanted if name not in common]),
        ("not used", [name for name in names if _plain(name) not in used]),
    )
    found = "; ".join(f"{text}: {', '.join(some)}" for text, some in lists if some)
    found = found if common else f"no row is kept; {found}"
    get_logger().info(f"weights: the classes of the checkpoint are matched by name: {found}")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _fits(array: np.ndarray, tensor: Tensor) -> bool:
    # All published arrays are floating point; integers are bfloat16 saved by paddle.save.
    return list(array.shape) == list(tensor.shape) and array.dtype.kind == "f"


def _is_other_num_classes(array: np.ndarray, tensor: Tensor, key: str) -> bool:
    same_inputs = list(array.shape[1:]) == list(tensor.shape[1:])
    return bool(_CLASSIFIER.search(key)) and same_inputs and array.dtype.kind == "f"


def _check_finite(path: Path, arrays: dict[str, np.ndarray]) -> None:
    bad = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise UserError(
            f"{path}: NaN or infinity in {len(bad)} of {len(arrays)} arrays: {_some(bad)}; the "
            "training run had diverged: use an earlier checkpoint"
        )


def _fill(target: dict[str, Tensor], arrays: dict[str, np.ndarray]) -> None:
    import paddle

    for key, array in arrays.items():
        target[key].set_value(paddle.to_tensor(array, dtype=target[key].dtype))


def _table(*problems: list[tuple]) -> str:
    """Counts of missing, unexpected and mismatched keys, then their first keys with shapes."""
    counts = ("missing from the file", "unexpected in the file", "of another shape or type")
    lines = [", ".join(f"{len(rows)} {text}" for rows, text in zip(problems, counts))]
    lines.append(f"  {'':10}  {'in the file':22}  {'in the model':22}  key")
    for rows in problems:
        for problem, key, array, tensor in rows[:_ROWS_PER_PROBLEM]:
            lines.append(f"  {problem:10}  {_describe(array):22}  {_describe(tensor):22}  {key}")
        if len(rows) > _ROWS_PER_PROBLEM:
            lines.append(f"  {rows[0][0]:10}  … and {len(rows) - _ROWS_PER_PROBLEM} more")
    return "\n".join(lines)


def _describe(value: Any) -> str:
    if value is None:
        return "-"
    dtype = str(value.dtype).rsplit(".", 1)[-1]
    return f"{list(value.shape)}" + ("" if dtype == "float32" else f" {dtype}")


def _suggest_fix(arrays: dict, target: dict, classifiers: list[str]) -> str:
    """The likely fix, from the key names."""
    if classifiers:
        return (
            f"Only the number of classes differs: set num_classes to {len(arrays[classifiers[0]])}"
            " to use these weights unchanged, or give them as model.pretrained to fine-tune with "
            "new classifier layers"
        )
    if any(f"backbone.{key}" in target for key in arrays):
        return "These are the weights of an encoder: give them as model.backbone.pretrained"
    if any(f"backbone.{key}" in arrays for key in target):
        return "These are the weights of a whole network: give them as model.pretrained"
    return (
        "The weights are for another network: use a config with the model (backbone, channels, "
        "fusion, num_classes) that they were trained with"
    )


def _layers(keys: Sequence[str], others: Sequence[str]) -> list[str]:
    """The names of the largest layers that contain all of `keys` and none of `others`."""
    outside = {prefix for key in others for prefix in _prefixes(key)}
    names = (next((p for p in _prefixes(key) if p not in outside), key) for key in keys)
    return list(dict.fromkeys(names))


def _prefixes(key: str) -> Iterator[str]:
    return itertools.accumulate(key.split("."), "{}.{}".format)


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" … ({len(keys) - 4} more)" if len(keys) > 4 else "")
