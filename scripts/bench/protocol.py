"""What the peers share: the inputs of every case, and how a peer answers `compare.py`.

A peer is started as `python peer_x.py CASE WORK_FOLDER`, says `{"about": "<names and versions>"}`
once everything is loaded, and then answers each line on its standard input with a line of JSON:

    run             one measured run: {"seconds": 1.23, "cpu_seconds": 2.4, "peak_mib": 456.7}
    result FILE     writes what the case computes to FILE (.npz): {"result": "FILE"}

Needs numpy alone, so that it runs in every peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

IGNORE = 255
# Cityscapes' published recipe at test scale 0.5.
CROP = (1024, 512)  # w, h
SCALES = (0.125, 1.5, 0.125)  # smallest, largest, step
JITTER = {
    "brightness_range": 0.5,
    "contrast_range": 0.5,
    "saturation_range": 0.5,
}
SAMPLES_A_RUN = 10
# PP-LiteSeg-T on CamVid, and one OHEM head of the Cityscapes recipe.
STEP_SHAPE, STEP_CLASSES, STEP_RATE = (4, 352, 480), 11, 0.01
OHEM_SHAPE = (2, 19, 512, 1024)
KEPT = 1 / 16  # share of the pixels, as in the recipes
MODEL = {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}
CITYSCAPES_SCALE = 0.5


class Case(NamedTuple):
    """One piece of work: `run` is timed; the arrays of `result` begin with a key of TOLERANCES."""

    run: Callable[[], object]
    result: Callable[[], dict[str, np.ndarray]]


class Draws:
    """Stands in for a `numpy.random.Generator`, drawing whole numbers like `numpy.random`."""

    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)

    def integers(self, stop: int) -> int:
        """A number from 0 to `stop` - 1."""
        return self.state.randint(stop)

    def uniform(self, low: float, high: float) -> float:
        """The one number of an empty range."""
        assert low == high
        return low


def scales() -> np.ndarray:
    """Every scale of the recipe."""
    smallest, largest, step = SCALES
    return np.arange(smallest, largest + step / 2, step)


def step_batch() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) uint8 and labels (N, H, W) uint8 of a training step."""
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (*STEP_SHAPE, 3)).astype(np.uint8)
    return images, _labels(rng, STEP_SHAPE, STEP_CLASSES)


def ohem_batch() -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C, H, W) float32 and labels (N, H, W) int64 of one head."""
    rng = np.random.RandomState(1)
    count, classes, *size = OHEM_SHAPE
    logits = rng.standard_normal(OHEM_SHAPE).astype(np.float32) * 3
    return logits, _labels(rng, (count, *size), classes).astype(np.int64)


def prediction() -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a label of 2048x1024, both uint8, of 19 classes; the two agree often."""
    rng = np.random.RandomState(2)
    label = np.kron(_labels(rng, (64, 128), 19), np.ones((16, 16), np.uint8))
    wrong = rng.uniform(size=label.shape) < 0.1
    guess = np.where(label == IGNORE, 0, label)
    return np.where(wrong, rng.randint(0, 19, label.shape), guess).astype(np.uint8), label


def ohem_case(paddle: ModuleType, loss_of: Callable) -> Case:
    """Forward and backward of a loss on `ohem_batch`, with whichever Paddle the peer has."""
    logits, label = (paddle.to_tensor(array) for array in ohem_batch())
    logits.stop_gradient = False

    def run():
        logits.clear_gradient()
        loss = loss_of(logits, label)
        loss.backward()
        return float(loss)

    return Case(run, lambda: {"loss": np.array(run()), "gradient": logits.grad.numpy()})


def moves(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far a step moved all weights, and how far the statistics of batch norm."""
    moved = {key: (after[key] - before[key]).ravel() for key in sorted(before)}
    of_norm = {key for key in moved if key.endswith(("._mean", "._variance"))}
    return {
        "weights": np.concatenate([moved[key] for key in moved if key not in of_norm]),
        "statistics": np.concatenate([moved[key] for key in moved if key in of_norm]),
    }


def _labels(rng: np.random.RandomState, shape: tuple[int, ...], classes: int) -> np.ndarray:
    labels = rng.randint(0, classes, shape)
    labels[rng.uniform(size=shape) < 0.1] = IGNORE
    return labels.astype(np.uint8)


def serve(about: str, cases: dict[str, Callable[[Path], Case]]) -> None:
    """Answer `compare.py` until it closes the standard input; `about` names the peer."""
    # Libraries print to the standard output: keep it for the answers, give them the other one.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: object) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    name, work = sys.argv[1], Path(sys.argv[2])
    case = cases[name](work)
    say(about=about)
    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        if order == "run":
            begin, cpu_begin = time.perf_counter(), time.process_time()
            case.run()
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
            say(seconds=seconds, cpu_seconds=cpu_seconds, peak_mib=_peak_mib())
        else:
            np.savez(argument, **case.result())
            say(result=argument)


def _peak_mib() -> float:
    """The most memory this process had; getrusage's figure would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
