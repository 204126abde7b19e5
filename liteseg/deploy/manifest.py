"""`liteseg.json`: the description of an exported model, in the directory of its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.errors import UserError
from liteseg.utils.files import write_json

NAME = "liteseg.json"
FORMATS = ("paddle", "onnx", "openvino")
# Names in the graph: the input, the first output by its kind, the second output.
INPUT = "image"
OUTPUTS = {"label": "labels", "logits": "logits", "softmax": "probabilities"}
COARSE = "coarse"


@dataclass(frozen=True)
class Manifest:
    """The content of `liteseg.json`.

    Attributes:
        name: display name: the config or run that was exported.
        format: paddle, onnx or openvino.
        file: the model file, in the same directory.
        input: `name`, `dtype` uint8, `layout` NHWC, `channels` RGB, `size` [w, h] or None for any;
            the model itself normalizes with `mean` and `std` and resizes by `scale`.
        output: `name` and `kind` of the first output: label (N, H, W) uint8, logits or softmax
            (N, C, H, W) float32, at the size of the input. The second output, `coarse`, is the
            logits (N, C, h, w) float32 before upsampling.
        mean: of R, G, B in units of 255.
        std: of R, G, B in units of 255.
        scale: resizing of the image inside the model (`test_config.scales`).
        transforms: the validation transforms before normalization, as in the config; the caller
            applies them, and reverts their resizing and padding on the result.
        class_names: in the order of the labels.
        palette: one RGB color per class.
        precision: float32 or int8.
        versions: of the packages that wrote the model.
        verified: the result of the comparison with the trained model; empty: not compared.
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
    precision: str = "float32"
    versions: dict[str, str] = field(default_factory=dict)
    verified: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(w, h) of the images, None for any."""
        return tuple(self.input["size"]) if self.input["size"] else None

    def write(self, folder: Path) -> None:
        """Write `liteseg.json`.

        Raises:
            UserError: the file can't be written.
        """
        write_json(folder / NAME, asdict(self))


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
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(**{f.name: content[f.name] for f in fields(Manifest)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not the description of an exported model ({type(error).__name__}: {error}); "
            "export it again with `liteseg export`"
        ) from None
    if manifest.format not in FORMATS:
        raise UserError(
            f"{path}: format is {manifest.format!r}; expected one of {', '.join(FORMATS)}"
        )
    if not (folder / manifest.file).is_file():
        raise UserError(f"{path}: the model file {manifest.file} is not next to it; copy it there")
    return manifest
