"""How an image is evaluated: the `test_config` of the YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from liteseg.config.keys import POSITIVE, key, keys_of
from liteseg.errors import UserError

Size = tuple[int, int]


@dataclass(frozen=True)
class TestConfig:
    """Scales, flips, sliding window and padding of evaluation and prediction.

    `crop_size` and `stride` are (w, h) in pixels, as written in the YAML. `scales` and the flips
    apply only with `aug_eval`, the crops only with `is_slide`.

    Raises:
        UserError: a value of a wrong type or range, or a sliding window that leaves gaps.
    """

    __test__ = False  # pytest collects classes named Test*

    aug_eval: bool = key(False, "evaluate with `scales` and flips (otherwise at scale 1, no flip)")
    scales: Union[float, Sequence[float]] = key(
        1.0, "image scale, or several whose results are added", POSITIVE
    )
    flip_horizontal: bool = key(False, "add the mirrored image")
    flip_vertical: bool = key(False, "add the image upside down")
    is_slide: bool = key(False, "evaluate in windows of `crop_size`")
    crop_size: Optional[Size] = key(None, "sliding window [w, h]", POSITIVE)
    stride: Optional[Size] = key(None, "stride of the sliding window [w, h]", POSITIVE)
    pad_multiple: Optional[int] = key(
        None,
        "pad the network's input to a multiple of this many pixels (null: no padding)",
        POSITIVE,
    )

    def __post_init__(self) -> None:
        values = vars(self)
        for name, declared in keys_of(TestConfig).items():
            if problem := declared.problem(values[name]):
                raise UserError(f"test_config.{name}: {problem}")
        for name, problem in self.conflicts(values):
            raise UserError(f"test_config.{name}: {problem}")
        scales = self.scales if isinstance(self.scales, Sequence) else (self.scales,)
        normalized = {
            "scales": tuple(float(scale) for scale in scales),
            "crop_size": self.crop_size and tuple(self.crop_size),
            "stride": self.stride and tuple(self.stride),
        }
        for name, value in normalized.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, options: Optional[Mapping[str, Any]]) -> TestConfig:
        """Check the YAML mapping (None: all defaults).

        Raises:
            UserError: unknown key, or a value that cannot be used; the message has the path.
        """
        options = options or {}
        known = keys_of(TestConfig)
        for name in options:
            if name not in known:
                raise UserError(
                    f"test_config.{name} is not a known key; test_config takes {', '.join(known)}"
                )
        return cls(**options)

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(key, problem) of values that are valid alone but not together."""
        if values.get("is_slide") is not True:
            return
        crop, stride = values.get("crop_size"), values.get("stride")
        for name, size in (("crop_size", crop), ("stride", stride)):
            if size is None:
                yield name, "is_slide needs it: [w, h]"
        if crop and stride and (stride[0] > crop[0] or stride[1] > crop[1]):
            yield "stride", f"{list(stride)} leaves gaps between windows of {list(crop)}"

    def views(self) -> list[tuple[float, tuple[int, ...]]]:
        """The (scale, axes to flip) of every forward pass, scales in the given order."""
        if not self.aug_eval:
            return [(1.0, ())]
        flips: list[tuple[int, ...]] = [()]
        if self.flip_horizontal:
            flips.append((3,))
        if self.flip_vertical:
            flips += [(*flip, 2) for flip in flips]
        scales: Any = self.scales
        return [(scale, flip) for scale in scales for flip in flips]
