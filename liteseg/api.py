"""The Python face of a trained model: image in, labels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import paddle

from liteseg.builder import build, build_model, ensure
from liteseg.config import Config, load_config
from liteseg.engine.inference import TestConfig, predict_labels
from liteseg.errors import UserError
from liteseg.plugins import load_components
from liteseg.registry import DATASETS, TRANSFORMS
from liteseg.schema import setting
from liteseg.utils.download import is_url
from liteseg.utils.onednn import accelerate_convolutions
from liteseg.utils.runtime import select_device
from liteseg.utils.weights import load_weights

# A weights file lies at most that deep in its run: RUN/checkpoints/best/model.pdparams.
_LEVELS_BELOW_RUN = 3


class Segmenter:
    """A network with everything around it: transforms, test settings, class names, colours.

    Args:
        model: maps (N, 3, H, W) float32 to a list of logits; put into eval mode.
        transforms: the validation `Compose`, with a `Normalize` at its end.
        test: scales, flips, sliding window.
        class_names: one for each class.
        palette: (classes, 3) uint8 RGB.
    """

    def __init__(
        self,
        model: paddle.nn.Layer,
        transforms: Any,
        test: TestConfig,
        class_names: Sequence[str],
        palette: np.ndarray,
    ):
        model.eval()
        self.model = model
        self.transforms = transforms
        self.test = test
        self.class_names = tuple(class_names)
        self.palette = np.asarray(palette, np.uint8)

    @classmethod
    def from_pretrained(
        cls,
        source: Union[str, Path],
        config: Union[str, Path, Config, None] = None,
        *,
        device: Optional[str] = None,
    ) -> Segmenter:
        """Make one from a training's output or from published weights; no dataset is needed.

        Args:
            source: a run directory (its best checkpoint), a checkpoint directory, or a weights
                file, archive or URL.
            config: YAML file or loaded config; the `config.yml` of the run when None.
            device: `auto`, `cpu` or `gpu`; the `device` of the config when None.

        Raises:
            UserError: no config can be found, it has errors, or the weights don't fit.
        """
        cfg = config if isinstance(config, Config) else load_config(config or _run_config(source))
        ensure(cfg)
        select_device(device or setting(cfg, "device"))
        model = build_model(cfg)
        load_weights(model, source)
        accelerate_convolutions(model)
        names, palette = _appearance(cfg)
        test = TestConfig.from_dict(setting(cfg, "test_config"))
        return cls(model, build_val_transforms(cfg), test, names, palette)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Labels of one image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8 class numbers.

        Raises:
            ValueError: another shape or dtype.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels of several images; those of one size go through the network together."""
        groups: dict[Any, list[tuple[int, np.ndarray]]] = {}
        for place, image in enumerate(images):
            _require_rgb(image)
            sample = self.transforms({"img": image, "trans_info": []})
            way = tuple((step, tuple(size)) for step, size in sample["trans_info"])
            group = groups.setdefault((sample["img"].shape, way), [])
            group.append((place, sample["img"]))
        labels: dict[int, np.ndarray] = {}
        for (_, way), members in groups.items():
            places, pixels = zip(*members)
            batch = self.transforms.normalize.batch(paddle.to_tensor(np.stack(pixels)))
            labels.update(zip(places, predict_labels(self.model, batch, self.test, way)))
        return [labels[place] for place in range(len(images))]


def build_val_transforms(cfg: Mapping[str, Any]) -> Any:
    """The `Compose` of the validation transforms, without the dataset and its files.

    Raises:
        UserError: there are none, or they don't end in `Normalize`, which prediction needs.
    """
    load_components(cfg)
    from liteseg.transforms import Compose

    path = "val_dataset.transforms"
    specs = (cfg.get("val_dataset") or {}).get("transforms") or []
    built = [build(spec, TRANSFORMS, f"{path}.{index}") for index, spec in enumerate(specs)]
    try:
        transforms = Compose(built)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if transforms.normalize is None:
        raise UserError(
            f"{path}: must end in Normalize, found {[spec.get('type') for spec in specs]}; "
            "add `- type: Normalize` as the last one"
        )
    return transforms


def _appearance(cfg: Mapping[str, Any]) -> tuple[Sequence[str], np.ndarray]:
    """Class names and palette, from the dataset's class or arguments: its files may be missing."""
    from liteseg.datasets.file_list import default_palette

    spec = cfg.get("val_dataset") or cfg.get("train_dataset") or {}
    component = DATASETS[spec["type"]]
    names = spec.get("class_names") or getattr(component, "CLASSES", None)
    if names is None:
        names = [f"class_{i}" for i in range(spec["num_classes"])]
    palette = spec.get("palette") or getattr(component, "PALETTE", None)
    return names, default_palette(len(names)) if palette is None else np.asarray(palette, np.uint8)


def _run_config(source: Union[str, Path]) -> Path:
    """The `config.yml` of the run that `source` is, or lies in."""
    if not is_url(source):
        path = Path(source).expanduser().resolve()
        for folder in (path, *path.parents[:_LEVELS_BELOW_RUN]):
            if (folder / "config.yml").is_file():
                return folder / "config.yml"
    raise UserError(
        f"{source}: no config.yml there or around it, so the model is unknown; give config= the "
        "YAML file that the weights were trained with"
    )


def _require_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8 RGB")
