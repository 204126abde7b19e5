"""`liteseg.json`: the description of an exported model, in the directory of its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_json, write_json

NAME = "liteseg.json"
FORMATS = ("paddle", "onnx", "openvino")
# Names in the graph: the input, the first output by its kind, the second output.
INPUT = "image"
OUTPUTS = {
    "label": "labels",
    "logits": "logits",
    "softmax": "probabilities",
    "confidence": "labels_confidence",
}
COARSE = "coarse"
_LARGEST_SIDE = 1 << 16
# Fields that exports of earlier versions lack.
_ADDED: dict[str, Any] = {"files": [], "pad_multiple": None, "temperature": 1.0, "thresholds": []}


@dataclass(frozen=True)
class Manifest:
    """The content of `liteseg.json`.

    Attributes:
        name: display name: the config or run that was exported.
        format: paddle, onnx or openvino.
        file: the model file, in the same directory.
        input: `name`, `layout` NHWC, `size` [w, h] or None for any; `dtype` uint8 with `channels`
            RGB, or float32 with the numbers of the bands of the files as `channels`, and their
            `max_value`; the model itself normalizes with `mean` and `std` and resizes by `scale`.
        output: `name` and `kind` of the first output: label (N, H, W) uint8, logits or softmax
            (N, C, H, W) float32, or confidence (N, 2, H, W) uint8: the labels, and their
            probability times 255; at the size of the input. The second output, `coarse`, is the
            logits (N, C, h, w) float32 before upsampling and not divided by `temperature`.
        mean: of each channel in units of 255, or of the `max_value` of the input.
        std: as `mean`.
        scale: resizing of the image inside the model (`test_config.scales`).
        pad_multiple: the model pads its resized input with zeros (after normalization) at the
            bottom and right, to multiples of this many pixels (`test_config.pad_multiple`); None:
            not.
        transforms: the validation transforms before normalization, as in the config; the caller
            applies them, and reverts their resizing and padding on the result.
        class_names: in the order of the labels.
        palette: one RGB color per class.
        precision: float32 or int8.
        temperature: probabilities are the softmax of the logits divided by it. The first output
            includes it.
        thresholds: the lowest probability of each class; pixels below it are labeled 255, unknown,
            by `Segmenter` and `predict`, not in the model. Empty: none.
        versions: of the packages that wrote the model.
        verified: the result of the comparison with the trained model; empty: not compared.
        files: names of all files that liteseg has written; a later export replaces these alone.
    """

    name: str
    format: str
    file: str
    input: dict[str, Any]
    output: dict[str, str]
    mean: list[float]
    std: list[float]
    scale: float
    transforms: list[dict[str, Any]]
    class_names: list[str]
    palette: list[list[int]]
    pad_multiple: Optional[int] = None
    precision: str = "float32"
    temperature: float = 1.0
    thresholds: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    verified: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(w, h) of the images, None for any."""
        return tuple(self.input["size"]) if self.input["size"] else None

    @property
    def bands(self) -> Optional[list[int]]:
        """Numbers of the bands of image files that the model takes; None: 8-bit RGB."""
        channels = self.input.get("channels", "RGB")
        return None if channels == "RGB" else channels

    @property
    def max_value(self) -> float:
        """Largest possible value of the images."""
        return self.input.get("max_value", 255)

    def write(self, folder: Path) -> None:
        """Write `liteseg.json`.

        Raises:
            UserError: the file can't be written.
        """
        names = {NAME, *(path.name for path in folder.iterdir() if path.is_file())}
        write_json(folder / NAME, {**asdict(self), "files": sorted(names)})


def find(source: Union[str, Path]) -> Optional[Path]:
    """The directory of an exported model, given itself or a file in it; None: not an export."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent
    is_model = path.is_dir() or path.suffix in (".json", ".pdmodel", ".onnx", ".xml")
    return folder if is_model and (folder / NAME).is_file() else None


def read(folder: Path) -> Manifest:
    """Read the `liteseg.json` of a directory.

    Raises:
        UserError: the file is missing or invalid, or its format is unknown.
    """
    path = folder / NAME
    try:
        content = {**_ADDED, **read_json(path)}
        manifest = Manifest(**{f.name: content[f.name] for f in fields(Manifest)})
        _require_types(manifest)
        # Exports of earlier versions do not list their files.
        stem = Path(manifest.file).stem
        listed = manifest.files or [NAME, manifest.file, f"{stem}.pdiparams", f"{stem}.bin"]
        manifest = replace(manifest, files=listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: not the description of an exported model ({type(error).__name__}: {error}); "
            "export it again with `liteseg export`"
        ) from None
    if manifest.format not in FORMATS:
        raise UserError(
            f"{path}: format is {quoted(manifest.format)}; expected one of {', '.join(FORMATS)}"
        )
    if not (folder / manifest.file).is_file():
        raise UserError(f"{path}: the model file {manifest.file} is not next to it; copy it there")
    for name in manifest.files:
        if (file := folder / name).is_symlink() and file.resolve().parent != folder.resolve():
            raise UserError(
                f"{file}: is a link to another folder; replace it by a copy of the file"
            )
    return manifest


def _require_types(manifest: Manifest) -> None:
    """Raise ValueError for a value of another type than an export has: it may be from anyone."""
    size, classes = manifest.input["size"], manifest.class_names
    colors = [number for color in manifest.palette for number in (*color, len(color) - 3)]
    numbers = (*manifest.mean, *manifest.std, manifest.scale)
    checks = {
        "name": isinstance(manifest.name, str) and isinstance(manifest.precision, str),
        "file": all(_is_name(name) for name in (manifest.file, *manifest.files)),
        "input": size is None
        or (len(size) == 2 and all(type(n) is int and 0 < n <= _LARGEST_SIDE for n in size)),
        "output": manifest.output["kind"] in OUTPUTS,
        "channels": manifest.bands is None
        or all(type(band) is int and 0 < band <= 512 for band in manifest.bands),
        "max_value": _within(manifest.max_value, 1e-9, 1e12),
        "mean, std or scale": len(numbers) == 2 * len(manifest.bands or "RGB") + 1
        and all(type(n) in (int, float) and abs(n) < 1e4 for n in numbers)
        and 0 < manifest.scale <= 64,
        "pad_multiple": manifest.pad_multiple is None
        or (type(manifest.pad_multiple) is int and 0 < manifest.pad_multiple <= _LARGEST_SIDE),
        "temperature": _within(manifest.temperature, 1e-3, 1e3),
        "thresholds": len(manifest.thresholds) in (0, len(classes))
        and all(_within(n, 0, 1) for n in manifest.thresholds),
        "transforms": all(isinstance(spec, dict) for spec in manifest.transforms),
        "class_names": 0 < len(classes) <= 256
        and all(isinstance(name, str) and name.isprintable() for name in classes),
        "palette": len(manifest.palette) == len(classes)
        and all(type(n) is int and 0 <= n < 256 for n in colors),
        "verified": isinstance(manifest.verified, dict) and isinstance(manifest.versions, dict),
    }
    if wrong := [name for name, holds in checks.items() if not holds]:
        raise ValueError(f"{', '.join(wrong)}: not as an export writes it")


def _within(number: Any, low: float, high: float) -> bool:
    return type(number) in (int, float) and low <= number <= high


def _is_name(name: Any) -> bool:
    """Whether `name` is that of a file, without any folder."""
    return isinstance(name, str) and name.isprintable() and Path(name).name == name != ".."
