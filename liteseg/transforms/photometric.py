"""Transforms of the pixel values: color jitter, blur, noise, normalization.

All read and write "img" (h, w, C) and leave "label" unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

import cv2
import numpy as np

from liteseg.errors import UserError
from liteseg.registry import TRANSFORMS
from liteseg.transforms import arguments as args
from liteseg.transforms import functional as F
from liteseg.transforms.base import Transform

if TYPE_CHECKING:
    from paddle import Tensor


@TRANSFORMS.register
class RandomDistort(Transform):
    """Jitter brightness, contrast, saturation, hue and sharpness, in random order.

    Reads and writes "img". Each operation is applied with its own probability, by a factor from
    1 - range to 1 + range (1 changes nothing); the hue shifts by -range to range, in 255ths of the
    circle. The results equal Pillow's within 2 gray levels (see `functional`). Images that are not
    8-bit RGB have no saturation and no hue, so these need the probability 0; contrast is then the
    distance from the mean of all channels.

    Args:
        brightness_range: maximum distance of the brightness factor from 1.
        brightness_prob: probability of changing the brightness.
        contrast_range: the same for the distance from the image's mean gray.
        contrast_prob: probability of changing the contrast.
        saturation_range: the same for the distance from the pixel's gray.
        saturation_prob: probability of changing the saturation.
        hue_range: maximum shift of the hue in 255ths of the circle.
        hue_prob: probability of shifting the hue.
        sharpness_range: the same for the distance from the smoothed image.
        sharpness_prob: probability of changing the sharpness.

    Raises:
        ValueError: a range is negative or a probability is not from 0 to 1.
        UserError: at the call, for colors that the image does not have.
    """

    random, keeps_geometry = True, True

    def __init__(
        self,
        brightness_range: float = 0.5,
        brightness_prob: float = 0.5,
        contrast_range: float = 0.5,
        contrast_prob: float = 0.5,
        saturation_range: float = 0.5,
        saturation_prob: float = 0.5,
        hue_range: float = 18,
        hue_prob: float = 0.5,
        sharpness_range: float = 0.5,
        sharpness_prob: float = 0,
    ):
        # (function, neutral amount, range, probability)
        self.operations = (
            (F.brightness, 1, brightness_range, brightness_prob),
            (F.contrast, 1, contrast_range, contrast_prob),
            (F.saturation, 1, saturation_range, saturation_prob),
            (F.hue, 0, hue_range, hue_prob),
            (F.sharpness, 1, sharpness_range, sharpness_prob),
        )
        for function, _, reach, prob in self.operations:
            args.non_negative(f"{function.__name__}_range", reach)
            args.probability(f"{function.__name__}_prob", prob)
        self._declare_identity(not any(operation[3] for operation in self.operations))

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        image = sample["img"]
        colored = {F.saturation, F.hue}
        if image.dtype != np.uint8 and any(op[3] for op in self.operations if op[0] in colored):
            raise UserError(
                "RandomDistort: saturation and hue need 8-bit RGB images, and `channels` of the "
                "dataset gives others; set saturation_prob: 0 and hue_prob: 0"
            )
        for index in rng.permutation(len(self.operations)):
            function, neutral, reach, prob = self.operations[index]
            if rng.random() < prob:
                amount = rng.uniform(neutral - reach, neutral + reach)
                image = function(image, amount, self.white)
        sample["img"] = image
        return sample


_BLURS: dict[str, Callable] = {
    "gaussian": lambda image, side: cv2.GaussianBlur(image, (side, side), 0),
    "median": cv2.medianBlur,
    "blur": lambda image, side: cv2.blur(image, (side, side)),
}


@TRANSFORMS.register
class RandomBlur(Transform):
    """Blur with a random odd kernel size of 3 to 9 pixels.

    Reads and writes "img".

    Args:
        prob: probability of blurring. As in PaddleSeg, one in int(1 / prob) images is blurred, so
            0.4 means one in two.
        blur_type: gaussian, median, blur (box), or random for one of them at each call
            (with probability 0.3, 0.3 and 0.4).
    """

    random, keeps_geometry = True, True

    def __init__(self, prob: float = 0.1, blur_type: str = "gaussian"):
        self.prob = args.probability("prob", prob)
        known = [*_BLURS, "random"]
        args.expect(blur_type in known, "blur_type", blur_type, f"one of {', '.join(known)}")
        self.blur_type = blur_type
        self._declare_identity(prob == 0)

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        if self.prob == 0 or rng.integers(int(1 / self.prob)) > 0:
            return sample
        side = min(9, int(rng.integers(3, 10)) | 1)  # even sizes become the next odd one
        kind = self.blur_type
        if kind == "random":
            kind = rng.choice(list(_BLURS), p=[0.3, 0.3, 0.4])
        image = sample["img"]
        if kind == "median" and image.dtype != np.uint8:
            raise UserError(
                "RandomBlur: the median needs 8-bit RGB images, and `channels` of the dataset "
                "gives others; set blur_type: gaussian or blur"
            )
        sample["img"] = _BLURS[kind](image, side).reshape(image.shape)
        return sample


@TRANSFORMS.register
class RandomNoise(Transform):
    """Add Gaussian noise of random strength with probability `prob`.

    Reads and writes "img".

    Args:
        prob: probability of adding noise.
        max_sigma: maximum standard deviation in 255ths of the largest value.
    """

    random, keeps_geometry = True, True

    def __init__(self, prob: float = 0.5, max_sigma: float = 10.0):
        self.prob = args.probability("prob", prob)
        self.max_sigma = args.non_negative("max_sigma", max_sigma)
        self._declare_identity(0 in (prob, max_sigma))

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        if rng.random() < self.prob:
            sigma = np.float32(rng.random() * self.max_sigma)
            noise = sigma * rng.standard_normal(sample["img"].shape, dtype=np.float32)
            if sample["img"].dtype == np.uint8:
                sample["img"] = cv2.add(sample["img"], noise, dtype=cv2.CV_8U)
            else:
                noise *= np.float32(self.white / 255)
                sample["img"] = np.clip(sample["img"] + noise, 0, self.white)
        return sample


@TRANSFORMS.register
class Normalize(Transform):
    """(img / max_value - mean) / std.

    Reads "img" uint8 or float32, writes "img" float32, still (h, w, C). In training, `Compose`
    leaves it to `planes`, on the device.

    Args:
        mean: of the channels, such as R, G, B, in units of `max_value`; a single value is used for
            all of them.
        std: the same for the standard deviation.
        max_value: largest possible value of the images, such as 4095 for 12 bits.

    Raises:
        ValueError: no numbers, a std or `max_value` that is not above 0, or lists of different
            lengths.
    """

    random, keeps_geometry = False, True

    def __init__(
        self,
        mean: Sequence[float] = (0.5,) * 3,
        std: Sequence[float] = (0.5,) * 3,
        max_value: float = 255,
    ):
        for name, values in (("mean", mean), ("std", std)):
            ok = isinstance(values, Sequence) and len(values) > 0
            ok = ok and all(args.is_number(value) for value in values)
            args.expect(ok, name, values, "a list of numbers, one or one for each channel")
        args.expect(all(value > 0 for value in std), "std", std, "numbers above 0")
        lengths = {len(mean), len(std)} - {1}
        args.expect(len(lengths) < 2, "std", std, f"{len(mean)} numbers, as in mean, or one")
        self.max_value = args.positive("max_value", max_value)
        self.mean, self.std = (
            np.asarray(values * 3 if len(values) == 1 else values, np.float32)
            for values in (list(mean), list(std))
        )
        self._statistics: dict[int, list[Tensor]] = {}  # mean and variance, by number of channels

    def for_channels(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std of each channel, float32.

        The default, three equal values, also serves another number of channels.

        Raises:
            UserError: neither one value nor one for each channel.
        """
        found = []
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels and len(set(values.tolist())) > 1:
                raise UserError(
                    f"Normalize: {name} has {len(values)} values for images with {channels} "
                    "channels; give one for each (`liteseg data stats` prints them)"
                )
            found.append(values if len(values) == channels else np.repeat(values[:1], channels))
        return found[0], found[1]

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        image = sample["img"]
        mean, std = self.for_channels(image.shape[2])
        if image.dtype == np.uint8 and image.shape[2] == 3:
            levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(self.max_value)
            sample["img"] = cv2.LUT(image, ((levels - mean) / std)[None])
        else:
            scaled = image.astype(np.float32) / np.float32(self.max_value)
            sample["img"] = (scaled - mean) / std
        return sample

    def batch(self, images: Tensor) -> Tensor:
        """Normalize on the device: (N, H, W, C) -> (N, C, H, W) float32."""
        return self.planes(images.transpose([0, 3, 1, 2]))

    def planes(self, images: Tensor) -> Tensor:
        """Normalize on the device: (N, C, H, W) -> the same shape in float32."""
        import paddle
        from paddle.nn.functional import batch_norm

        channels = images.shape[1]
        if channels not in self._statistics:  # once: a copy to the device is a CPU-GPU sync point
            mean, std = self.for_channels(channels)
            levels = self.max_value * mean, (self.max_value * std) ** 2
            self._statistics[channels] = [paddle.to_tensor(v.astype("float32")) for v in levels]
        mean, variance = self._statistics[channels]
        # One pass; x * a + b with (1, C, 1, 1) tensors takes five times as long on CPU.
        return batch_norm(images.astype("float32"), mean, variance, epsilon=0.0)
