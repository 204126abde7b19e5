"""The files and class names of a run directory, found from the weights in it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.component import parts_to_leave
from liteseg.config.load import OVERRIDE_ORIGIN, Config, find_config, load_config
from liteseg.config.plugins import load_components
from liteseg.config.schema import CheckedConfig
from liteseg.errors import UserError, quoted
from liteseg.registry import DATASETS
from liteseg.utils.files import check_writable, require_contained
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import is_main
from liteseg.utils.weights.archive import WEIGHTS_NAME
from liteseg.utils.weights.download import is_url
from liteseg.utils.weights.load import load_weights
from liteseg.utils.weights.source import is_archive, missing, model_of, resolve
from liteseg.utils.weights.zoo import DEFAULT

Weights = Union[str, Path]  # a name, file, archive or URL, or a run directory (best checkpoint)
AUTO = "auto"  # value of `resume`

_PRETRAINED = ("model.pretrained", "model.backbone.pretrained")
_FILES = {".lock", "config.yml", "train.log", "metrics.jsonl", "report.html", "vdl", "launch",
          "checkpoints", "plugins"}  # fmt: skip
_DEPTHS = ("*/", "*/*/")
# Temporary files, and the output of a batch system; a run writes no other hidden file or log.
_HARMLESS = re.compile(r"\..+\.tmp|\.nfs.*|(?!train\.log).+\.(log|out|err)")


def config_of(
    weights: Weights,
    cfg: Optional[AnyConfig] = None,
    overrides: Sequence[str] = (),
    built: Sequence[str] = (),
) -> CheckedConfig:
    """The config of trained weights, for inference; plugins that it does not need stay out.

    Args:
        weights: a run directory, or weights in one.
        cfg: the config; by default the `config.yml` of the run.
        overrides: `key=value` changes of it.
        built: keys to build, next to the model and the validation transforms.

    Raises:
        UserError: no config is found, or it has errors.
    """
    if not (is_url(weights) or Path(weights).expanduser().exists() or model_of(weights)):
        raise missing(weights)
    if cfg is not None:
        return load_checked(cfg, overrides, built)
    found = config_file(weights)
    if found is None:
        if not is_url(weights) and (Path(weights).expanduser() / "liteseg.json").is_file():
            raise UserError(
                f"{weights}: an exported model, not trained weights; `liteseg predict` and `eval` "
                "take it as --model"
            )
        raise UserError(
            f"{weights}: no config.yml there or in its run directory, so the model is unknown; "
            "give the config that the weights were trained with (--config on the command line)"
        )
    return load_found(found, overrides, built)


def config_file(weights: Weights) -> Optional[Path]:
    """The config of a run, of a pack, or of a model in the zoo; None if there is none.

    Raises:
        UserError: a pack cannot be downloaded or read.
    """
    model = model_of(weights)
    if model is not None and model.config is not None:
        return find_config(model.config)
    if model is not None or is_archive(weights):
        weights = resolve(weights)
    return file_of_run(weights, "config.yml")


def load_found(
    path: Path, overrides: Sequence[str] = (), built: Optional[Sequence[str]] = None
) -> CheckedConfig:
    """Load a config that was found, not given: it may be anyone's, so it must not run plugins.

    Raises:
        UserError: it needs plugins (unless an override does), or has errors.
    """
    cfg = load_config(path, overrides)
    load_components()
    needed = cfg.get("plugins") and (built is None or not parts_to_leave(cfg, built))
    if needed and cfg.origin("plugins") != OVERRIDE_ORIGIN:
        raise UserError(
            f"{cfg.origin('plugins')}: the config found with the weights would run "
            f"{quoted(cfg['plugins'])}; if you trust these Python files, add --trust-plugins or "
            f"--config {path}"
        )
    # A run keeps no secrets of addresses, and its weights replace these.
    keys = [key for key in _PRETRAINED if "***" in str(_value(cfg.data, key))]
    return load_checked(cfg, [f"{key}=null" for key in keys], built)


def _value(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def default_weights() -> Weights:
    """The newest run in `output` or, without one, the default model of the zoo; logs which.

    Runs of other users do not count.
    """
    folders = (Path("output").glob(f"{depth}checkpoints/[bl]*/{WEIGHTS_NAME}") for depth in _DEPTHS)
    found = sorted(itertools.chain(*folders), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        if path.stat().st_uid == os.geteuid() and file_of_run(path, "config.yml"):
            run = path.parents[2]
            get_logger().info(f"no --weights: using the newest run in output, {run}")
            return run
    get_logger().info(
        f"no --weights, and no run in output: using {DEFAULT.name} ({DEFAULT.data}); `liteseg "
        "models` lists others"
    )
    return DEFAULT.name


def file_of_run(weights: Weights, name: str) -> Optional[Path]:
    """The file `name` of the run that contains `weights`; None if there is no such file.

    Only the folder of the weights is searched, and RUN for weights in RUN/checkpoints; a file of
    another user does not count.

    Raises:
        UserError: the file is a link to another folder.
    """
    if is_url(weights) or not os.path.exists(path := Path(weights).expanduser().resolve()):
        return None
    folder = path if path.is_dir() else path.parent
    run = next((f.parent for f in (folder, folder.parent) if f.name == "checkpoints"), folder)
    owners = (path.stat().st_uid, os.geteuid())
    for file in (folder / name, run / name):
        if file.is_file() and file.stat().st_uid in owners:
            if file.resolve().parent != file.parent:
                raise UserError(f"{file}: is a link to another folder; replace it by a copy")
            return file
    return None


def require_own_output(output: Path, cfg: CheckedConfig, resume: bool) -> None:
    """Check that a run can write in `output`, and replaces nothing but files of earlier runs.

    Raises:
        UserError: it can't be written, a new run would replace files of the user, or links in the
            run to resume leave it.
    """
    check_writable(output)
    if resume:
        require_contained(output)
    if resume or not is_main():
        return
    known = _FILES if (output / ".lock").exists() else {"launch"}  # every run creates .lock
    for path in sorted(output.iterdir()):
        is_config = path.name == "config.yml" and cfg.path.exists() and path.samefile(cfg.path)
        if is_config or not (path.name in known or _HARMLESS.fullmatch(path.name)):
            raise UserError(
                f"{output}: contains {path.name!r}, which no run has written; give a new or empty "
                "--output"
            )


def run_directory(
    cfg: Optional[AnyConfig], output: Union[str, Path, None], resume: Union[bool, str, Path]
) -> tuple[Path, Optional[str]]:
    """The run directory, and the name of the checkpoint that `resume` gives, if it gives one.

    Raises:
        UserError: it is not defined.
    """
    chosen = None
    if not isinstance(resume, bool) and resume != AUTO:
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
        output = Path("output") / re.sub(r"\.ya?ml$", "", Path(path).name)
    return Path(output or ""), chosen


def resumes(output: Path, resume: Union[bool, str, Path]) -> bool:
    """Whether the run in `output` is resumed; `AUTO` resumes it if there is one.

    Raises:
        UserError: it contains another run, or nothing to resume.
    """
    # Hidden folders are incomplete, from a run that was killed during its first checkpoint.
    started = any((output / "checkpoints").glob("[!.]*"))
    if resume == AUTO:
        return started
    if resume and not started:
        raise UserError(
            f"--resume: {output} contains no run with checkpoints; give a run directory, one of "
            "its checkpoints (RUN/checkpoints/step_N), or start a new run without --resume"
        )
    if started and not resume:
        raise UserError(
            f"{output} already contains a run: give --resume to resume it, or another --output"
        )
    return started


def class_names_of(source: Weights) -> Optional[tuple[str, ...]]:
    """The class names of a run's weights; None if they are unknown, or only numbered."""
    try:
        file = config_file(source)
        cfg = None if file is None else load_config(file)
        spec = cfg and (cfg.get("val_dataset") or cfg.get("train_dataset"))
        names = None if spec is None else names_and_palette(spec)[0]
    except (UserError, KeyError, TypeError, ValueError):  # not a config of this version
        return None
    return None if names is None or _numbered(names) else tuple(map(str, names))


def _numbered(names: Sequence[str]) -> bool:
    """Whether a dataset has numbered its classes, because they have no names."""
    return names[0] == "class_0"


def load_to_fine_tune(
    model: Any, weights: Weights, classes: Sequence[str], init: Optional[str]
) -> None:
    """Load weights whose classes may be others.

    Args:
        model: the network to train.
        weights: file, archive, URL or run directory.
        classes: names of the classes of the training set.
        init: `init_classes` of the config.

    Raises:
        UserError: the weights do not fit, or `by_name` lacks the names.
    """
    names: Optional[Sequence[str]] = None if _numbered(classes) else class_names_of(weights)
    if init == "anew":
        names = ()
    elif init == "by_name" and names is None:
        raise UserError(
            f"init_classes: by_name needs the class names of {weights} and of the training set; "
            "give a run directory with its config.yml, and class_names to the dataset"
        )
    report = load_weights(
        model,
        weights,
        fine_tune=True,
        class_names=None if names is None else (names, classes),
        adapt_inputs=True,
    )
    if names is None and not report.left_out:
        get_logger().info(
            "weights: class names are unknown, of the checkpoint or of the training set; the "
            "classifier is kept as it is"
        )


def require_class_order(weights: Weights, names: Sequence[str]) -> None:
    """Compare the class names of a config with those that the weights were trained with.

    Other names only log a warning: a class may have been renamed.

    Raises:
        UserError: the same names in another order, which would exchange classes.
    """
    trained, given = class_names_of(weights), tuple(map(str, names))
    if trained is None or trained == given or _numbered(given):
        return
    found = f"the weights were trained with the classes {', '.join(trained)}"
    if sorted(trained) == sorted(given):
        raise UserError(
            f"{weights}: {found}, and the config lists them as {', '.join(given)}; give the "
            "classes in the order of the training"
        )
    if len(trained) == len(given):  # another number does not fit the weights, and is an error
        get_logger().warning(f"{weights}: {found}; the config names them {', '.join(given)}")


def names_and_palette(spec: Mapping[str, Any]) -> tuple[Sequence[str], np.ndarray]:
    """Class names and palette from a dataset's class or arguments; its files may be missing."""
    from liteseg.datasets.color_map import ColorMap, default_palette

    component = DATASETS[spec["type"]]
    color_file = Path(spec.get("dataset_root") or "", spec.get("colours") or "")
    written = spec.get("class_names") and spec.get("palette")  # by a run; the file may differ now
    if spec.get("colours") and not written and color_file.is_file():
        color_map = ColorMap.read(color_file, spec.get("ignore_index", 255))
        return color_map.names, color_map.palette
    names = spec.get("class_names") or getattr(component, "CLASSES", None)
    if names is None:
        names = [f"class_{i}" for i in range(spec["num_classes"])]
    palette = spec.get("palette") or getattr(component, "PALETTE", None)
    return names, default_palette(len(names)) if palette is None else np.asarray(palette, np.uint8)
