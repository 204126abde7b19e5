"""The validation transforms of a config, which prediction and exports apply as well."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from liteseg.config.component import build
from liteseg.config.schema import CheckedConfig
from liteseg.errors import UserError
from liteseg.registry import TRANSFORMS

if TYPE_CHECKING:
    from liteseg.transforms import Compose


def val_transform_specs(cfg: CheckedConfig) -> list[dict[str, Any]]:
    """The transforms of the validation set or, without one, of the training set.

    Of those of the training set, the fixed ones at the beginning and `Normalize`.
    """
    if cfg.val_dataset and cfg.val_dataset.get("transforms"):
        return cfg.val_dataset["transforms"]
    specs = cfg.train_dataset.get("transforms") or []
    built = [build(spec, TRANSFORMS, "train_dataset.transforms") for spec in specs]
    count = len(list(itertools.takewhile(_is_fixed, built)))
    return specs[:count] + specs[max(count, len(specs) - 1) :]


def _is_fixed(transform: Any) -> bool:
    declared = (getattr(transform, name, None) for name in ("random", "keeps_geometry"))
    return tuple(declared) == (False, True)


def build_val_transforms(cfg: CheckedConfig) -> Compose:
    """The transforms of `val_transform_specs`, without the dataset and its files.

    Raises:
        UserError: there are none, or they do not end in `Normalize`, which prediction requires.
    """
    from liteseg.transforms import Compose

    path = f"{'val' if cfg.val_dataset else 'train'}_dataset.transforms"
    specs = val_transform_specs(cfg)
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
