"""`liteseg.json`: what an exported model needs around it, in the folder with its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.errors import UserError
from liteseg.utils.files import write_json

NAME = "liteseg.json"
FORMATS = ("paddle", "onnx", "openvino")
# The names in the model's graph: of the input, of the first output by its kind, of the second.
INPUT = "image"
OUTPUTS = {"label": "labels", "logits": "logits", "softmax": "probabilities"}
COARSE = "coarse"


@dataclass(frozen=True)
class Manifest:
    """The content of `liteseg.json`.

    Attributes:
        name: what was exported, for people.
        format: paddle, onnx or openvino.
        file: the model's file, in the same folder.
        input: `name`, `dtype` uint8, `layout` NHWC, `channels` RGB, `size` [w, h] or None for any;
            the model normalises with `mean` and `std` and resizes by `scale` itself.
        output: `name` and `kind` of the first output: label (N, H, W) uint8, logits or softmax
            (N, C, H, W) float32, at the size of the input. The second, `coarse`, has the logits
            (N, C, h, w) float32 as the network makes them.
        mean: of R, G, B in units of 255.
        std: likewise.
        scale: what evaluation resizes the image by (`test_config.scales`).
        transforms: the validation transforms before normalising, as in the config; whoever runs
            the model applies them, and undoes their resizing and padding on the result.
        class_names: in the order of the labels.
        palette: an RGB colour for each.
        precision: float32 or int8.
        versions: of the programs that made it.
        verified: what the comparison with the trained model found; empty: not compared.
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
        """(w, h) the model takes, None for any."""
        return tuple(self.input["size"]) if self.input["size"] else None

    def write(self, folder: Path) -> None:
        """Write `liteseg.json`.

        Raises:
            UserError: the file can't be written.
        """
        write_json(folder / NAME, asdict(self))


def find(source: Union[str, Path]) -> Optional[Path]:
    """The folder of the exported model that `source` is: the folder itself or a file in it."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent
    is_model = path.is_dir() or path.suffix in (".json", ".pdmodel", ".onnx", ".xml")
    return folder if is_model and (folder / NAME).is_file() else None


def read(folder: Path) -> Manifest:
    """Read the `liteseg.json` of a folder.

    Raises:
        UserError: it is not one, or of an unknown format.
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
        raise UserError(f"{path}: the model's file {manifest.file} is not beside it; copy it there")
    return manifest
