"""The files of a run directory, found from the weights in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Optional, Union

from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.schema import CheckedConfig
from liteseg.errors import UserError
from liteseg.utils.weights.download import is_url

Weights = Union[str, Path]  # a file, an archive, a URL, or a run directory (its best checkpoint)

# The deepest weights file of a run is RUN/checkpoints/best/model.pdparams.
_LEVELS_BELOW_RUN = 3


def config_of(
    weights: Weights, cfg: Optional[AnyConfig] = None, overrides: Sequence[str] = ()
) -> CheckedConfig:
    """The config of trained weights.

    Args:
        weights: a run directory, or weights in one.
        cfg: the config; by default the `config.yml` of the run.
        overrides: `key=value` changes of it.

    Raises:
        UserError: no config is found, or it has errors.
    """
    cfg = file_of_run(weights, "config.yml") if cfg is None else cfg
    if cfg is None:
        raise UserError(
            f"{weights}: no config.yml there or in the folders above it, so the model is unknown; "
            "give the config that the weights were trained with (--config on the command line)"
        )
    return load_checked(cfg, overrides)


def file_of_run(weights: Weights, name: str) -> Optional[Path]:
    """The file `name` of the run that contains `weights`; None if there is no such file."""
    if is_url(weights):
        return None
    path = Path(weights).expanduser().resolve()
    above = islice(path.parents, _LEVELS_BELOW_RUN)  # Python 3.9 cannot slice `parents`
    files = (folder / name for folder in (path, *above))
    return next((file for file in files if file.is_file()), None)
