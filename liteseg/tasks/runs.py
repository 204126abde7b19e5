"""The files of a run directory, found from the weights in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Optional, Union

from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.load import Config
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


def run_directory(
    cfg: Optional[AnyConfig], output: Union[str, Path, None], resume: Union[bool, str, Path]
) -> tuple[Path, Optional[str]]:
    """The run directory, and the name of the checkpoint that `resume` gives, if it gives one.

    Raises:
        UserError: it is not defined, contains another run, or nothing to resume.
    """
    chosen = None
    if not isinstance(resume, bool):
        resume = Path(resume)
        if resume.parent.name == "checkpoints" and not (resume / "checkpoints").exists():
            resume, chosen = resume.parent.parent, resume.name
        elif resume.name == "checkpoints":
            resume = resume.parent
        if output is not None and resume != Path(output):
            raise UserError(
                f"--resume {resume} and --output {output} differ: a run is resumed in its own "
                "directory; leave --output out"
            )
        output = resume
    if cfg is None and not (resume and output):
        raise UserError("--config is missing: give a YAML file, or --resume DIR to resume a run")
    if output is None and cfg is not None:
        path = cfg.path if isinstance(cfg, (Config, CheckedConfig)) else cfg
        output = Path("output") / Path(path).stem
    output = Path(output or "")
    # Hidden folders are incomplete, from a run that was killed during its first checkpoint.
    started = any((output / "checkpoints").glob("[!.]*"))
    if resume and not started:
        raise UserError(
            f"--resume: {output} contains no run with checkpoints; give a run directory, one of "
            "its checkpoints (RUN/checkpoints/step_N), or start a new run without --resume"
        )
    if started and not resume:
        raise UserError(
            f"{output} already contains a run: give --resume to resume it, or another --output"
        )
    return output, chosen
