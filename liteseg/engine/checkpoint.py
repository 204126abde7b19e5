"""Checkpoints: folders that are complete or absent, with a checksum of every file.

`checkpoints/last`, `best` and `step_<n>` each hold `model.pdparams` (the weights to evaluate and
ship; the averaged ones under EMA), `training.pdstate` (all else that a resume needs) and
`manifest.json`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import paddle

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write, read_json, sha256_of
from liteseg.utils.logging import get_logger
from liteseg.utils.weights.load import read_state, save_pdparams, write_state

WEIGHTS, STATE, MANIFEST = "model.pdparams", "training.pdstate", "manifest.json"
_PREVIOUS = ".previous"


@dataclass(frozen=True)
class ResumeState:
    """A checkpoint to resume from.

    Attributes:
        path: its folder.
        weights: the shipped weights by key (the averaged ones under EMA).
        state: all else that `Trainer.load_state_dict` needs.
    """

    path: Path
    weights: dict[str, Any]
    state: dict[str, Any]

    @property
    def iteration(self) -> int:
        """The number of finished iterations."""
        return self.state["iteration"]

    @property
    def owes_evaluation(self) -> bool:
        """Whether a resume starts with the evaluation of this iteration."""
        return bool(self.state["hooks"].get("Evaluate", {}).get("owed"))


class Checkpointer:
    """Writes and reads the checkpoints of one run.

    Args:
        folder: `<run>/checkpoints`; created with the first checkpoint.
        keep: number of `step_<n>` to keep, the newest; 0 writes none.
    """

    def __init__(self, folder: Path, keep: int = 0):
        self.folder = folder
        self.keep = keep

    def save(self, name: str, weights: dict[str, Any], state: dict[str, Any]) -> Path:
        """Write a checkpoint in a temporary folder, then replace the one of that name.

        If the process is killed at any moment, even by a power cut, the old or the new one is
        complete (`recover` cleans up).

        Raises:
            UserError: it can't be written; the old one is unchanged.
        """
        target, temporary = self.folder / name, self.folder / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            save_pdparams(weights, temporary / WEIGHTS)
            write_state(state, temporary / STATE)
            manifest = {
                "iteration": state["iteration"],
                "sha256": {file: sha256_of(temporary / file) for file in (WEIGHTS, STATE)},
            }
            with atomic_write(temporary / MANIFEST, "w") as file:
                json.dump(manifest, file, indent=2)
            _sync_folder(temporary)
            self._replace(target, temporary)
        except OSError as error:
            raise UserError(f"cannot write the checkpoint {target}: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def save_step(self, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Write `step_<iteration>` and remove the oldest ones beyond `keep`."""
        if not self.keep:
            return
        self.save(f"step_{state['iteration']}", weights, state)
        for old in self._numbered()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load_last(self) -> ResumeState:
        """The checkpoint `last` or, if it is damaged, the newest one that is intact.

        Raises:
            UserError: there is none.
        """
        self.recover()
        others = [self.folder / f"last{_PREVIOUS}", *self._numbered(), self.folder / "best"]
        candidates = [self.folder / "last", *sorted(others, key=_iteration, reverse=True)]
        problems: list[str] = []
        for path in candidates:
            problem = _damage(path)
            if problem is None:
                if problems:
                    get_logger().warning(f"resuming from {path}, because {'; '.join(problems)}")
                state = _with_current_hooks(read_state(path / STATE))
                if not (self.folder / "best").exists():  # the next evaluation is the best
                    state.get("hooks", {}).pop("KeepBest", None)
                return ResumeState(path, read_state(path / WEIGHTS), state)
            if path.exists():
                problems.append(problem)
        reasons = "; ".join(problems) or f"{self.folder} holds none"
        raise UserError(f"no checkpoint to resume from: {reasons}; train from the start instead")

    def rewind(self, name: str) -> None:
        """Make the checkpoint `name` the last one; later ones move to `replaced_<n>` of the run.

        Raises:
            UserError: it does not exist or is damaged.
        """
        self.recover()
        chosen = self.folder / name
        if problem := _damage(chosen) if chosen.exists() else f"{chosen} does not exist":
            names = [path.name for path in sorted(self.folder.glob("[!.]*"))]
            raise UserError(f"--resume: {problem}; {self.folder} contains {', '.join(names)}")
        iteration = _iteration(chosen)
        later = [path for path in self.folder.glob("[!.]*") if _iteration(path) > iteration]
        if later:
            run = self.folder.parent
            aside = next(p for i in itertools.count(1) if not (p := run / f"replaced_{i}").exists())
            aside.mkdir()
            for path in later:
                os.replace(path, aside / path.name)
            moved = ", ".join(sorted(path.name for path in later))
            get_logger().info(f"the later checkpoints {moved} are now in {aside}")
        best = read_state(chosen / STATE)["hooks"].get("KeepBest", {}).get("best_iteration")
        for target, wanted in (("best", best), ("last", iteration)):
            same = [path for path in [chosen, *self._numbered()] if _iteration(path) == wanted]
            if same and not (self.folder / target).exists():
                shutil.copytree(same[0], self.folder / f".{target}.tmp")
                self._replace(self.folder / target, self.folder / f".{target}.tmp")

    def recover(self) -> None:
        """Finish or undo the save during which a process was killed."""
        if not self.folder.is_dir():
            return
        for temporary in self.folder.glob(".*.tmp"):
            shutil.rmtree(temporary, ignore_errors=True)
        for previous in self.folder.glob(f"*{_PREVIOUS}"):
            target = previous.with_name(previous.name[: -len(_PREVIOUS)])
            if not target.exists():
                os.replace(previous, target)
            elif target.name != "last":
                shutil.rmtree(previous, ignore_errors=True)

    def _numbered(self) -> list[Path]:
        """The folders `step_<n>`, oldest first."""
        found = [p for p in self.folder.glob("step_*") if p.name[5:].isdecimal()]
        return sorted(found, key=lambda path: int(path.name[5:]))

    def _replace(self, target: Path, temporary: Path) -> None:
        # A folder that is not empty can't be replaced in one call: move the old one away first.
        previous = target.with_name(target.name + _PREVIOUS)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(target, previous)
        try:
            os.replace(temporary, target)
        except OSError:
            self.recover()
            raise
        for folder in (self.folder, self.folder.parent):  # it may be the first checkpoint
            _sync_folder(folder)
        if target.name != "last":  # the previous `last` stays as a fallback
            shutil.rmtree(previous, ignore_errors=True)


def _iteration(path: Path) -> int:
    """The iteration of the checkpoint at `path`; -1 if that can't be read."""
    try:
        return int(read_json(path / MANIFEST)["iteration"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def _damage(path: Path) -> Optional[str]:
    """The problem of the checkpoint at `path`, or None if it is intact."""
    try:
        manifest = read_json(path / MANIFEST)
        for file in (WEIGHTS, STATE):
            if sha256_of(path / file) != manifest["sha256"][file]:
                return f"{path / file} is damaged (its checksum differs)"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{path} is incomplete"
    return None


def _with_current_hooks(state: dict[str, Any]) -> dict[str, Any]:
    """The state with the former hook `Evaluate` split into the hooks that have replaced it."""
    old = state.get("hooks", {}).get("Evaluate", {})
    if "best" not in old:
        return state
    best = {"best": old["best"], "best_iteration": old["best_step"]}
    hooks = {
        **state["hooks"],
        "Evaluate": {"owed": old.get("owed", False)},
        "EarlyStop": {**best, "stalled": old["stalled"]},
        "KeepBest": best,
    }
    return {**state, "hooks": hooks}


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_state(
    optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer
) -> dict[str, Any]:
    """The optimizer's state under the model's keys.

    Paddle's own names (`conv2d_7.w_0_velocity_0`) count the layers created in a process, so they
    change if anything else was built before.
    """
    keys = {parameter.name: key for key, parameter in model.named_parameters()}
    # Paddle 2.6 keeps loaded slots aside until the first update, and leaves them out until then.
    state = {**getattr(optimizer, "_accumulators_holder", {}), **optimizer.state_dict()}
    return {"slots": _renamed(state, keys), "schedule": dict(state.get("LR_Scheduler", {}))}


def load_optimizer_state(
    optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer, state: Mapping[str, Any]
) -> None:
    """Restore what `optimizer_state` returned, perhaps in another process.

    A new schedule is advanced instead of restored, because the state would also restore the last
    learning rate, which another schedule or `learning_rate` does not have. Parameters that were
    frozen before start with new slots.
    """
    names = {key: parameter.name for key, parameter in model.named_parameters()}
    slots = _renamed(state["slots"], names)
    new = [
        parameter
        for parameter in optimizer._parameter_list
        if not parameter.stop_gradient
        and not any(slot.startswith(f"{parameter.name}_") for slot in slots)
    ]
    if slots and new:  # Paddle requires all slots, or none
        optimizer.helper = paddle.base.layer_helper.LayerHelper(type(optimizer).__name__)
        optimizer._create_accumulators(paddle.static.default_main_program().global_block(), new)
        slots = {**optimizer.state_dict(), **slots}
    schedule, saved = optimizer._learning_rate, state["schedule"]
    if schedule.last_epoch <= saved["last_epoch"]:
        for _ in range(saved["last_epoch"] - schedule.last_epoch):
            schedule.step()
        saved = schedule.state_dict()
    with warnings.catch_warnings():
        # Paddle's LinearWarmup reports the state of its inner schedule as unused values.
        warnings.filterwarnings("ignore", "There are some unused values", UserWarning)
        optimizer.set_state_dict({**slots, "LR_Scheduler": saved})


def _renamed(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Slots `<name>_<slot>` (also inside `master_weights`) with the names replaced."""
    renamed = {}
    for key, value in state.items():
        if key == "LR_Scheduler":
            continue
        if isinstance(value, dict):
            renamed[key] = _renamed(value, names)
            continue
        # Slot names contain underscores too: the parameter's name is the longest that matches.
        matches = [name for name in names if key == name or key.startswith(f"{name}_")]
        name = max(matches, key=len, default="")
        renamed[names.get(name, "") + key[len(name) :]] = value
    return renamed
