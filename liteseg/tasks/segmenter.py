"""`Segmenter`: a trained or exported model from image to labels."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

import numpy as np

from liteseg.config.build import build_model
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.component import build, dataset_attribute, dataset_bands
from liteseg.config.schema import CheckedConfig
from liteseg.config.test_config import TestConfig
from liteseg.deploy import manifest
from liteseg.errors import UserError
from liteseg.ops.exclusive import exclusive
from liteseg.registry import TRANSFORMS
from liteseg.tasks.background import prefetch
from liteseg.tasks.runs import Weights, config_of, names_and_palette, require_class_order
from liteseg.tasks.val_transforms import build_val_transforms
from liteseg.tasks.video import Video
from liteseg.utils.bands import decode_bands
from liteseg.utils.image_files import read_bytes
from liteseg.utils.images import decode_image
from liteseg.utils.weights.load import load_weights

if TYPE_CHECKING:  # an exported model needs no Paddle
    import paddle

    from liteseg.engine.inference import Prediction
    from liteseg.transforms import Compose, Normalize

AnyImage = Any  # (H, W, 3) uint8 RGB, the path of an image file, or a PIL image
TransInfo = Sequence[tuple[str, Sequence[int]]]
Confidences = list[tuple[np.ndarray, np.ndarray]]
UNKNOWN = 255  # label of pixels below a threshold
_FRAMES_AHEAD = 4


class Network(Protocol):
    """The model of a `Segmenter`."""

    def labels(self, images: np.ndarray, trans_info: TransInfo) -> Sequence[np.ndarray]:
        """Predict labels.

        Args:
            images: (N, H, W, 3) uint8 RGB, after the validation transforms.
            trans_info: ("resize" | "padding", (h, w)): the size before each of these transforms.

        Returns:
            N label maps, uint8, at the size before all of `trans_info`.
        """

    def probabilities(self, images: np.ndarray, trans_info: TransInfo) -> np.ndarray:
        """(N, classes, h, w) float32; arguments as of `labels`."""

    def confidences(self, images: np.ndarray, trans_info: TransInfo) -> Confidences:
        """The result of `labels`, each with the probability of its labels, (h, w) float32."""


class TrainedNetwork:
    """A Paddle model with the normalization and the test settings of its config.

    Args:
        model: maps (N, 3, H, W) float32 to a list of logits; it is put into eval mode.
        normalize: the `Normalize` at the end of the validation transforms.
        test: scales, flips and the sliding window.

    Attributes:
        temperature: probabilities are the softmax of the logits divided by it.
    """

    temperature = 1.0

    def __init__(self, model: paddle.nn.Layer, normalize: Normalize, test: TestConfig):
        model.eval()
        self.model = model
        self.normalize = normalize
        self.test = test

    @exclusive
    def labels(self, images: np.ndarray, trans_info: TransInfo) -> Sequence[np.ndarray]:
        """As `Network.labels`."""
        return list(self._predict(images, trans_info).labels())

    @exclusive
    def probabilities(self, images: np.ndarray, trans_info: TransInfo) -> np.ndarray:
        """(N, classes, h, w) float32; arguments as of `labels`."""
        return self._softmax(self._predict(images, trans_info)).numpy()

    @exclusive
    def confidences(self, images: np.ndarray, trans_info: TransInfo) -> Confidences:
        """As `Network.confidences`."""
        prediction = self._predict(images, trans_info)
        return list(zip(prediction.labels(), self._softmax(prediction).max(axis=1).numpy()))

    def _predict(self, images: np.ndarray, trans_info: TransInfo) -> Prediction:
        import paddle

        from liteseg.engine.inference import predict
        from liteseg.ops.device import explained_out_of_memory

        count, height, width, _ = images.shape
        advice = (
            f"predicting {count} x {width}x{height} at once; give fewer images, or windows: "
            "test_config.is_slide=true with crop_size and stride"
        )
        with explained_out_of_memory(lambda: advice):
            batch = self.normalize.batch(paddle.to_tensor(images))
            return predict(self.model, batch, self.test, trans_info)

    def _softmax(self, prediction: Prediction) -> paddle.Tensor:
        from paddle.nn import functional

        return functional.softmax(prediction.logits() / self.temperature, axis=1)


class Segmenter:
    """A trained or exported model with its transforms, class names and colors.

    Several threads may share one: each gets the labels that it would get alone. With Paddle and
    OpenVINO their networks take turns, because each uses all cores.

    Args:
        network: the model.
        transforms: the validation transforms; a `Normalize` at the end is left to the network.
        class_names: one for each class.
        palette: (classes, 3) uint8 RGB.
        exif: how image files are to be read: `apply` or `ignore` their EXIF orientation.
        bands: numbers of the bands to read from image files, from 1; images are then (H, W, number
            of bands) of any type. None: 8-bit RGB.

    Attributes:
        thresholds: (classes,) float: pixels with a lower probability than that of their class are
            labeled 255, unknown. None: no pixel is.
    """

    thresholds: Optional[np.ndarray] = None

    def __init__(
        self,
        network: Network,
        transforms: Compose,
        class_names: Sequence[str],
        palette: np.ndarray,
        exif: str = "apply",
        bands: Optional[Sequence[int]] = None,
    ):
        self.network = network
        self.exif = exif
        self.bands = bands
        self.transforms = transforms
        self.class_names: Sequence[str] = tuple(class_names)
        self.palette = np.asarray(palette, np.uint8)

    @classmethod
    def from_pretrained(
        cls,
        source: Weights,
        config: Optional[AnyConfig] = None,
        *,
        device: Optional[str] = None,
        runtime: Optional[str] = None,
        threads: Optional[int] = None,
        precision: Optional[str] = None,
    ) -> Segmenter:
        """Load an exported model, the output of a training, or published weights.

        No dataset is required; an exported model does not even require Paddle, unless its runtime
        is Paddle.

        Args:
            source: the folder of an exported model, or the model file in it; or a run directory
                (its best checkpoint), a checkpoint directory, a weights file, archive or URL, or
                the name of a model (`liteseg models`).
            config: YAML file or loaded config of the weights; by default the `config.yml` of the
                run. Not for exported models.
            device: `auto`, `cpu` or `gpu`; by default the `device` of the config.
            runtime: of an exported model: `paddle`, `onnxruntime` or `openvino`; by default the
                first installed one for its format.
            threads: of an exported model on CPU; by default all cores.
            precision: of an exported model: `fp32` (default) or, with OpenVINO, `bf16`.

        Raises:
            UserError: no config is found, it has errors, the weights do not fit, or the runtime
                is not installed or does not support an argument.
        """
        options: dict[str, Any] = {"runtime": runtime, "threads": threads, "precision": precision}
        if (folder := manifest.find(source)) is not None:
            if config is not None:
                raise UserError(
                    f"{source}: an exported model contains its settings; leave the config out"
                )
            return cls._from_exported(folder, device=device, **options)
        if any(value is not None for value in options.values()):
            raise UserError(
                f"{source}: runtime, threads and precision are for exported models; make one with "
                f"`liteseg export --weights {source} --format openvino --output DIR`"
            )
        cfg = config_of(source, config)
        return cls._from_trained(source, cfg, device)

    @property
    def trained_network(self) -> TrainedNetwork:
        """The network of trained weights, with its Paddle model.

        Raises:
            TypeError: the model is an exported one.
        """
        if not isinstance(self.network, TrainedNetwork):
            raise TypeError("an exported model has no Paddle model")
        return self.network

    @classmethod
    def from_model(cls, model: paddle.nn.Layer, cfg: AnyConfig) -> Segmenter:
        """Wrap a Paddle model and the config that it was built from."""
        cfg = load_checked(cfg)
        names, palette = names_and_palette(cfg.val_dataset or cfg.train_dataset)
        transforms = build_val_transforms(cfg)
        assert transforms.normalize is not None  # checked by build_val_transforms
        network = TrainedNetwork(model, transforms.normalize, cfg.test_config)
        spec = cfg.val_dataset or cfg.train_dataset
        exif = dataset_attribute(spec, "exif") or "apply"
        return cls(network, transforms, names, palette, exif, dataset_bands(spec))

    @classmethod
    @exclusive
    def _from_trained(cls, source: Weights, cfg: CheckedConfig, device: Optional[str]) -> Segmenter:
        from liteseg.ops.device import select_device

        select_device(device or cfg.device)
        model = build_model(cfg, pretrained=False)
        load_weights(model, source)
        segmenter = cls.from_model(model, cfg)
        require_class_order(source, segmenter.class_names)
        return segmenter

    @classmethod
    def _from_exported(cls, folder: Path, **options: Any) -> Segmenter:
        from liteseg.deploy.network import ExportedNetwork
        from liteseg.deploy.runtimes import open_runtime
        from liteseg.transforms import Compose

        description = manifest.read(folder)
        network = ExportedNetwork(open_runtime(folder, description, **options), description)
        path = f"{folder / manifest.NAME}: transforms"
        transforms = [build(spec, TRANSFORMS, path) for spec in description.transforms]
        palette = np.asarray(description.palette, np.uint8)
        exif = description.input.get("exif", "apply")
        names, bands = description.class_names, description.bands
        segmenter = cls(network, Compose(transforms), names, palette, exif, bands)
        segmenter.thresholds = (
            np.asarray(description.thresholds) if any(description.thresholds) else None
        )
        return segmenter

    def predict(self, image: AnyImage) -> np.ndarray:
        """Predict the labels of one image; `segmenter(image)` is the same.

        Args:
            image: (H, W, 3) uint8 RGB, the path of an image file, or a PIL image; with `bands`,
                (H, W, number of bands) or a path.

        Returns:
            (H, W) uint8 class indices.

        Raises:
            ValueError: another shape or dtype, or no image.
            UserError: the file cannot be read, or an exported model was exported for another size.
        """
        return self.predict_batch([image])[0]

    __call__ = predict

    def probabilities(self, image: AnyImage) -> np.ndarray:
        """The probability of each class at each pixel: (classes, H, W) float32.

        Args:
            image: as for `predict`.

        Raises:
            ValueError: no image of the right shape and dtype.
            UserError: the file cannot be read, or an exported model was exported for another size.
        """
        return self.network.probabilities(*self._transformed(image))[0]

    def predict_with_confidence(self, image: AnyImage) -> tuple[np.ndarray, np.ndarray]:
        """The labels of one image as of `predict`, and the highest probability at each pixel.

        Args:
            image: as for `predict`; errors too.

        Returns:
            (H, W) uint8 and (H, W) float32.
        """
        labels, confidence = self.network.confidences(*self._transformed(image))[0]
        return self._known(labels, confidence), confidence

    def _known(self, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """The labels, with UNKNOWN where the confidence is below the threshold of the class."""
        if self.thresholds is None:
            return labels
        return np.where(confidence < self.thresholds[labels], UNKNOWN, labels).astype(np.uint8)

    def _labels(self, batch: np.ndarray, trans_info: TransInfo) -> Sequence[np.ndarray]:
        if self.thresholds is None:
            return self.network.labels(batch, trans_info)
        return [self._known(*found) for found in self.network.confidences(batch, trans_info)]

    def _transformed(self, image: AnyImage) -> tuple[np.ndarray, TransInfo]:
        sample = self.transforms({"img": self._pixels(image), "trans_info": []})
        return sample["img"][None], sample["trans_info"]

    def _pixels(self, image: AnyImage) -> np.ndarray:
        if isinstance(image, (str, Path)):
            return self.decode(read_bytes(image), str(image))
        if self.bands is not None:
            return _require_channels(image, len(self.bands))
        if hasattr(image, "getexif"):  # of PIL
            from PIL import ImageOps

            upright = ImageOps.exif_transpose(image) if self.exif == "apply" else image
            image = np.asarray(upright.convert("RGB"))
        _require_rgb(image)
        return image

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The image (H, W, C) in the bytes of a file; `name` is for errors.

        Raises:
            UserError: it is no image, damaged, or has other bands.
        """
        upright = self.exif == "apply"
        if self.bands is None:
            return decode_image(data, name, upright)
        return decode_bands(data, name, self.bands, upright)

    def predict_batch(self, images: Sequence[AnyImage]) -> list[np.ndarray]:
        """Predict the labels of several images; those of one size share a forward pass."""
        groups: dict[Any, list[tuple[int, np.ndarray]]] = {}
        for place, image in enumerate(images):
            pixels, found = self._transformed(image)
            trans_info = tuple((name, tuple(size)) for name, size in found)
            groups.setdefault((pixels.shape, trans_info), []).append((place, pixels))
        labels: dict[int, np.ndarray] = {}
        for (_, trans_info), members in groups.items():
            places, parts = zip(*members)
            batch = parts[0] if len(parts) == 1 else np.concatenate(parts)
            labels.update(zip(places, self._labels(batch, trans_info)))
        return [labels[place] for place in range(len(images))]

    def stream(
        self, video: Union[str, Path, Iterable[np.ndarray]]
    ) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Predict a video frame by frame; the next frames are read in the background.

        Memory is that of a few frames for a video of any length.

        Args:
            video: a file or stream URL that OpenCV reads, or (H, W, 3) uint8 RGB frames.

        Yields:
            The frame, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8.

        Raises:
            UserError: the video cannot be read.
        """
        frames = Video(video) if isinstance(video, (str, Path)) else video
        for frame in prefetch(frames, _FRAMES_AHEAD):
            yield frame, self.predict(frame)


def _require_channels(image: Any, channels: int) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != channels:
        found = getattr(image, "shape", type(image).__name__)
        raise ValueError(f"image is {found}; expected an array (H, W, {channels}) or a path")
    return image.astype(np.float32)


def _require_rgb(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"image is a {type(image).__name__}; expected an array (H, W, 3) uint8 RGB, a path or "
            "a PIL image"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8 RGB")
