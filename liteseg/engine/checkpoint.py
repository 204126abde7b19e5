"""Checkpoints: folders that are whole or not there, with a checksum of every file.

`checkpoints/last`, `best` and `step_<n>` each hold `model.pdparams` (the weights to evaluate and
ship; the averaged ones under EMA), `training.pdstate` (all that resuming needs) and
`manifest.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import paddle

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import is_main, world_size
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
        """The iteration after which it was saved."""
        return self.state["iteration"]


class Checkpointer:
    """Writes and reads the checkpoints of one run.

    Args:
        folder: `<run>/checkpoints`; made when the first one is written.
        keep: how many `step_<n>` to keep, the newest; 0 keeps none.
    """

    def __init__(self, folder: Path, keep: int = 0):
        self.folder = folder
        self.keep = keep

    def save(self, name: str, weights: dict, state: dict[str, Any]) -> Path:
        """Write a checkpoint beside the one of that name, then let it take its place.

        Killed at any moment, even by a power cut, the folder has the old one or the new one
        (`recover` tidies up).

        Raises:
            UserError: it can't be written; the old one is still there.
        """
        target, beside = self.folder / name, self.folder / f".{name}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            save_pdparams(weights, beside / WEIGHTS)
            write_state(state, beside / STATE)
            manifest = {
                "iteration": state["iteration"],
                "sha256": {file: _sha256(beside / file) for file in (WEIGHTS, STATE)},
            }
            with atomic_write(beside / MANIFEST, "w") as file:
                json.dump(manifest, file, indent=2)
            _sync_folder(beside)
            self._replace(beside, target)
        except OSError as error:
            raise UserError(f"cannot write the checkpoint {target}: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return target

    def save_step(self, weights: dict, state: dict[str, Any]) -> None:
        """Write `step_<iteration>` and drop the oldest beyond `keep`."""
        if not self.keep:
            return
        self.save(f"step_{state['iteration']}", weights, state)
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load_last(self) -> ResumeState:
        """The checkpoint `last` or, if it is damaged, the newest one that is intact.

        Raises:
            UserError: there is none.
        """
        if is_main():
            self.recover()
        if world_size() > 1:
            paddle.distributed.barrier()  # the others look when it is tidy
        others = [self.folder / f"last{_PREVIOUS}", *self._steps(), self.folder / "best"]
        candidates = [self.folder / "last", *sorted(others, key=_iteration, reverse=True)]
        problems = []
        for path in candidates:
            problem = _damage(path)
            if problem is None:
                if problems:
                    get_logger().warning(f"resuming from {path}, because {'; '.join(problems)}")
                state = _with_current_hooks(read_state(path / STATE))
                return ResumeState(path, read_state(path / WEIGHTS), state)
            if path.exists():
                problems.append(problem)
        told = "; ".join(problems) or f"{self.folder} holds none"
        raise UserError(f"no checkpoint to resume from: {told}; train from the start instead")

    def recover(self) -> None:
        """Finish or undo what a killed process left in the middle."""
        if not self.folder.is_dir():
            return
        for beside in self.folder.glob(".*.tmp"):
            shutil.rmtree(beside, ignore_errors=True)
        for previous in self.folder.glob(f"*{_PREVIOUS}"):
            target = previous.with_name(previous.name[: -len(_PREVIOUS)])
            if not target.exists():
                os.replace(previous, target)
            elif target.name != "last":
                shutil.rmtree(previous, ignore_errors=True)

    def _steps(self) -> list[Path]:
        found = [p for p in self.folder.glob("step_*") if p.name[5:].isdecimal()]
        return sorted(found, key=lambda path: int(path.name[5:]))

    def _replace(self, beside: Path, target: Path) -> None:
        # A folder that is not empty can't be replaced in one call: the old one steps aside first.
        previous = target.with_name(target.name + _PREVIOUS)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(target, previous)
        try:
            os.replace(beside, target)
        except OSError:
            self.recover()
            raise
        for folder in (self.folder, self.folder.parent):  # it may be the first checkpoint
            _sync_folder(folder)
        if target.name != "last":  # the previous `last` stays as a fall-back
            shutil.rmtree(previous, ignore_errors=True)


def _iteration(path: Path) -> int:
    """The step that the checkpoint at `path` was written after; -1 if that can't be read."""
    try:
        return int(json.loads((path / MANIFEST).read_text())["iteration"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def _damage(path: Path) -> Optional[str]:
    """What is wrong with the checkpoint at `path`, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for file, checksum in manifest["sha256"].items():
            if _sha256(path / file) != checksum:
                return f"{path / file} is damaged (its checksum differs)"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{path} is incomplete"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _with_current_hooks(state: dict[str, Any]) -> dict[str, Any]:
    """The training state with the hook `Evaluate` of 0.1.0 split into those that replaced it."""
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


def optimizer_state(optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer) -> dict:
    """The optimizer's state under the model's key names.

    Paddle's own names (`conv2d_7.w_0_velocity_0`) count the layers made in a process, so they
    differ when anything else was built before.
    """
    keys = {parameter.name: key for key, parameter in model.named_parameters()}
    state = optimizer.state_dict()
    return {"slots": _renamed(state, keys), "schedule": dict(state.get("LR_Scheduler", {}))}


def load_optimizer_state(
    optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer, state: dict
) -> None:
    """Continue from what `optimizer_state` returned, perhaps in another process."""
    names = {key: parameter.name for key, parameter in model.named_parameters()}
    slots = _renamed(state["slots"], names)
    with warnings.catch_warnings():
        # Paddle's LinearWarmup takes the state of the schedule inside it for unused values.
        warnings.filterwarnings("ignore", "There are some unused values", UserWarning)
        optimizer.set_state_dict({**slots, "LR_Scheduler": state["schedule"]})


def _renamed(state: dict, names: dict[str, str]) -> dict:
    """Slots `<name>_<slot>` (also inside `master_weights`) with their names replaced."""
    renamed = {}
    for key, value in state.items():
        if key == "LR_Scheduler":
            continue
        if isinstance(value, dict):
            renamed[key] = _renamed(value, names)
            continue
        # Slot names have underscores too, so the parameter's name is the longest that fits.
        fits = [name for name in names if key == name or key.startswith(f"{name}_")]
        name = max(fits, key=len, default="")
        renamed[names.get(name, "") + key[len(name) :]] = value
    return renamed
