"""Transforms of the pixel values: color jitter, blur, noise, normalization.

All read and write "img" (h, w, 3) uint8 and leave "label" unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Optional

import cv2
import numpy as np

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
    circle. The results equal Pillow's within 2 gray levels (see `functional`).

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
        for index in rng.permutation(len(self.operations)):
            function, neutral, reach, prob = self.operations[index]
            if rng.random() < prob:
                image = function(image, rng.uniform(neutral - reach, neutral + reach))
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
        sample["img"] = _BLURS[kind](sample["img"], side)
        return sample


@TRANSFORMS.register
class RandomNoise(Transform):
    """Add Gaussian noise of random strength with probability `prob`.

    Reads and writes "img".

    Args:
        prob: probability of adding noise.
        max_sigma: maximum standard deviation in gray levels.
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
            sample["img"] = cv2.add(sample["img"], noise, dtype=cv2.CV_8U)
        return sample


@TRANSFORMS.register
class Normalize(Transform):
    """(img / 255 - mean) / std.

    Reads "img" uint8, writes "img" float32, still (h, w, 3). In training, `Compose` leaves it to
    `planes`, on the device.

    Args:
        mean: of the channels R, G, B in units of 255; a single value is used for all three.
        std: the same for the standard deviation.

    Raises:
        ValueError: not one or three numbers, or a std that is not above 0.
    """

    random, keeps_geometry = False, True

    def __init__(self, mean: Sequence[float] = (0.5,) * 3, std: Sequence[float] = (0.5,) * 3):
        for name, values in (("mean", mean), ("std", std)):
            ok = isinstance(values, Sequence) and len(values) in (1, 3)
            ok = ok and all(args.is_number(value) for value in values)
            args.expect(ok, name, values, "a list of one or three numbers")
        args.expect(all(value > 0 for value in std), "std", std, "numbers above 0")
        self.mean = np.broadcast_to(np.asarray(mean, np.float32), 3)
        self.std = np.broadcast_to(np.asarray(std, np.float32), 3)
        self._statistics: Optional[list[Tensor]] = None  # mean and variance in gray levels

    def _apply(self, sample: dict, rng: np.random.Generator) -> dict:
        levels = np.arange(256, dtype=np.float32)[:, None] / 255
        sample["img"] = cv2.LUT(sample["img"], ((levels - self.mean) / self.std)[None])
        return sample

    def batch(self, images: Tensor) -> Tensor:
        """Normalize on the device: (N, H, W, 3) values 0..255 -> (N, 3, H, W) float32."""
        return self.planes(images.transpose([0, 3, 1, 2]))

    def planes(self, images: Tensor) -> Tensor:
        """Normalize on the device: (N, 3, H, W) values 0..255 -> the same shape in float32."""
        import paddle
        from paddle.nn.functional import batch_norm

        if self._statistics is None:  # once: a copy to the device is a CPU-GPU sync point
            levels = 255 * self.mean, (255 * self.std) ** 2
            self._statistics = [paddle.to_tensor(values) for values in levels]
        mean, variance = self._statistics
        # One pass; x * a + b with (1, 3, 1, 1) tensors takes five times as long on CPU.
        return batch_norm(images.astype("float32"), mean, variance, epsilon=0.0)
