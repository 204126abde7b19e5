"""The Python face of a model, trained or exported: image in, labels out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Optional, Protocol, Union

import numpy as np

from liteseg.config.build import build_model
from liteseg.config.component import build
from liteseg.config.load import Config
from liteseg.config.resolve import checked, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.deploy import manifest
from liteseg.errors import UserError
from liteseg.registry import DATASETS, TRANSFORMS
from liteseg.tasks.overlap import read_ahead
from liteseg.tasks.video import Video
from liteseg.utils.runtime import select_device
from liteseg.utils.weights.download import is_url
from liteseg.utils.weights.load import load_weights

# A weights file lies at most that deep in its run: RUN/checkpoints/best/model.pdparams.
_LEVELS_BELOW_RUN = 3
_FRAMES_AHEAD = 4


class Network(Protocol):
    """What a `Segmenter` asks for labels."""

    def labels(
        self, images: np.ndarray, trans_info: Sequence[tuple[str, Sequence[int]]]
    ) -> Sequence[np.ndarray]:
        """(N, H, W, 3) uint8 RGB -> N label maps at the size before the steps of `trans_info`."""


class TrainedNetwork:
    """A Paddle model with the normalisation and test settings of its config.

    Args:
        model: maps (N, 3, H, W) float32 to a list of logits; put into eval mode.
        normalize: the `Normalize` at the end of the validation transforms.
        test: the `TestConfig`: scales, flips, sliding window.
    """

    def __init__(self, model: Any, normalize: Any, test: Any):
        model.eval()
        self.model = model
        self.normalize = normalize
        self.test = test

    def labels(
        self, images: np.ndarray, trans_info: Sequence[tuple[str, Sequence[int]]]
    ) -> np.ndarray:
        """See `Network`."""
        import paddle

        from liteseg.engine.inference import predict_labels

        batch = self.normalize.batch(paddle.to_tensor(images))
        return predict_labels(self.model, batch, self.test, trans_info)


class Segmenter:
    """A network with everything around it: transforms, class names, colours.

    Args:
        network: trained or exported.
        transforms: the validation `Compose`; a `Normalize` at its end is left to the network.
        class_names: one for each class.
        palette: (classes, 3) uint8 RGB.
    """

    def __init__(
        self,
        network: Network,
        transforms: Any,
        class_names: Sequence[str],
        palette: np.ndarray,
    ):
        self.network = network
        self.transforms = transforms
        self.class_names = tuple(class_names)
        self.palette = np.asarray(palette, np.uint8)

    @classmethod
    def from_pretrained(
        cls,
        source: Union[str, Path],
        config: Union[str, Path, Config, CheckedConfig, None] = None,
        *,
        device: Optional[str] = None,
        runtime: Optional[str] = None,
        threads: Optional[int] = None,
        precision: Optional[str] = None,
    ) -> Segmenter:
        """Make one from an exported model, a training's output or published weights.

        No dataset is needed, and for an exported model not even Paddle (unless it runs it).

        Args:
            source: the folder of `liteseg export` or the model's file in it; or a run directory
                (its best checkpoint), a checkpoint directory, or a weights file, archive or URL.
            config: YAML file or loaded config, for weights; the `config.yml` of the run when None.
            device: `auto`, `cpu` or `gpu`; the `device` of the config when None.
            runtime: of an exported model: `paddle`, `onnxruntime` or `openvino`; by its format
                when None.
            threads: of an exported model on CPU; all cores when None.
            precision: of an exported model: `fp32`, or (OpenVINO) `bf16`; `fp32` when None.

        Raises:
            UserError: no config can be found, it has errors, the weights don't fit, or the runtime
                is missing or can't do what is asked for.
        """
        if (folder := manifest.find(source)) is not None:
            if config is not None:
                raise UserError(
                    f"{source}: an exported model carries its settings; leave the config out"
                )
            how = {"runtime": runtime, "threads": threads, "precision": precision}
            return cls._exported(folder, device=device, **how)
        if (runtime, threads, precision) != (None, None, None):
            raise UserError(
                f"{source}: runtime, threads and precision are for exported models; make one with "
                f"`liteseg export --weights {source} --format openvino --output DIR`"
            )
        from liteseg.ops.onednn import accelerate_convolutions

        if isinstance(config, (Config, CheckedConfig)):
            cfg = checked(config)
        else:
            cfg = trained_config(source, config)
        select_device(device or cfg.device)
        model = build_model(cfg)
        load_weights(model, source)
        accelerate_convolutions(model)
        return cls.from_model(model, cfg)

    @classmethod
    def from_model(cls, model: Any, cfg: CheckedConfig) -> Segmenter:
        """Make one from a Paddle model and the (checked) config it was built from."""

        names, palette = _appearance(cfg)
        test = cfg.test_config
        transforms = build_val_transforms(cfg)
        return cls(TrainedNetwork(model, transforms.normalize, test), transforms, names, palette)

    @classmethod
    def _exported(cls, folder: Path, **how: Any) -> Segmenter:
        from liteseg.deploy.network import ExportedNetwork
        from liteseg.deploy.runtimes import open_runtime
        from liteseg.transforms import Compose  # and nothing that needs Paddle

        about = manifest.read(folder)
        network = ExportedNetwork(open_runtime(folder, about, **how), about)
        where = f"{folder / manifest.NAME}: transforms"
        steps = [build(spec, TRANSFORMS, where) for spec in about.transforms]
        return cls(network, Compose(steps), about.class_names, about.palette)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Labels of one image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8 class numbers.

        Raises:
            ValueError: another shape or dtype.
            UserError: an exported model takes another size.
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
            batch = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
            labels.update(zip(places, self.network.labels(batch, way)))
        return [labels[place] for place in range(len(images))]

    def stream(
        self, video: Union[str, Path, Iterable[np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each frame of a video with its labels, in order; the next ones are read meanwhile.

        Memory is that of a few frames, whatever the length.

        Args:
            video: a file or a stream's URL that OpenCV reads, or the frames themselves.

        Yields:
            (H, W, 3) uint8 RGB and (H, W) uint8.

        Raises:
            UserError: the video can't be read.
        """
        frames = Video(video) if isinstance(video, (str, Path)) else video
        for frame in read_ahead(frames, _FRAMES_AHEAD):
            yield frame, self.predict(frame)


def build_val_transforms(cfg: CheckedConfig) -> Any:
    """The `Compose` of the validation transforms, without the dataset and its files.

    Raises:
        UserError: there are none, or they don't end in `Normalize`, which prediction needs.
    """
    from liteseg.transforms import Compose

    path = "val_dataset.transforms"
    specs = (cfg.val_dataset or {}).get("transforms") or []
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


def _appearance(cfg: CheckedConfig) -> tuple[Sequence[str], np.ndarray]:
    """Class names and palette, from the dataset's class or arguments: its files may be missing."""
    from liteseg.datasets.file_list import default_palette
    from liteseg.datasets.own_files import Colours

    spec = cfg.val_dataset or cfg.train_dataset
    component = DATASETS[spec["type"]]
    colours = Path(spec.get("dataset_root") or "", spec.get("colours") or "")
    if spec.get("colours") and colours.is_file():
        return Colours.read(colours, spec.get("ignore_index", 255))[:2]
    names = spec.get("class_names") or getattr(component, "CLASSES", None)
    if names is None:
        names = [f"class_{i}" for i in range(spec["num_classes"])]
    palette = spec.get("palette") or getattr(component, "PALETTE", None)
    return names, default_palette(len(names)) if palette is None else np.asarray(palette, np.uint8)


def trained_config(
    source: Union[str, Path],
    config: Union[str, Path, None] = None,
    overrides: Sequence[str] = (),
) -> CheckedConfig:
    """The config of trained weights: `config`, or the `config.yml` of the run they lie in.

    Args:
        source: the weights, as for `Segmenter.from_pretrained`.
        config: YAML file, or None.
        overrides: `key=value` changes.

    Raises:
        UserError: no config can be found, or it can't be read.
    """
    config = config or file_of_run(source, "config.yml")
    if config is None:
        raise UserError(
            f"{source}: no config.yml there or around it, so the model is unknown; give config= "
            "(on the command line --config) the YAML file that the weights were trained with"
        )
    return load_checked(config, overrides)


def file_of_run(source: Union[str, Path], name: str) -> Optional[Path]:
    """The file `name` of the run that the weights `source` are or lie in; None if there is none."""
    if is_url(source):
        return None
    path = Path(source).expanduser().resolve()
    around = islice(path.parents, _LEVELS_BELOW_RUN)  # Python 3.9 has no slices of them
    files = (folder / name for folder in (path, *around))
    return next((file for file in files if file.is_file()), None)


def _require_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8 RGB")
