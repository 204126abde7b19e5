"""Inputs of every case, and the protocol between `compare.py` and its peers.

A peer is started as `python peer_x.py CASE WORK_FOLDER`. It writes `{"about": "<name, versions>"}`
once everything is loaded, and then answers each line of its standard input with a line of JSON:

    run             times one run: {"seconds": 1.23, "cpu_seconds": 2.4, "peak_mib": 456.7}
    result FILE     writes the results of the case to FILE (.npz): {"result": "FILE"}

Needs nothing but numpy, so that it runs in every peer's environment.
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
# The published Cityscapes recipe for test scale 0.5.
CROP = (1024, 512)  # w, h
SCALES = (0.125, 1.5, 0.125)  # smallest, largest, step
JITTER = {
    "brightness_range": 0.5,
    "contrast_range": 0.5,
    "saturation_range": 0.5,
}
SAMPLES_PER_RUN = 10
# PP-LiteSeg-T on CamVid, and one OHEM head of the Cityscapes recipe.
TRAIN_SHAPE, TRAIN_CLASSES, LEARNING_RATE = (4, 352, 480), 11, 0.01
OHEM_SHAPE = (2, 19, 512, 1024)
KEPT = 1 / 16  # share of the pixels, as in the recipes
MODEL = {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}
CITYSCAPES_SCALE = 0.5


class Case(NamedTuple):
    """A piece of work: `run` is timed; names of `result` start with a key of TOLERANCES."""

    run: Callable[[], object]
    result: Callable[[], dict[str, np.ndarray]]


class LegacyGenerator:
    """The part of `numpy.random.Generator` that a crop needs, with the draws of `numpy.random`."""

    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)

    def integers(self, stop: int) -> int:
        """An integer below `stop`."""
        return self.state.randint(stop)

    def uniform(self, low: float, high: float) -> float:
        """The only number of an empty range."""
        assert low == high
        return low


def scales() -> np.ndarray:
    """Every scale of the recipe."""
    smallest, largest, step = SCALES
    return np.arange(smallest, largest + step / 2, step)


def train_batch() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) uint8 and labels (N, H, W) uint8 of a training iteration."""
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (*TRAIN_SHAPE, 3)).astype(np.uint8)
    return images, _labels(rng, TRAIN_SHAPE, TRAIN_CLASSES)


def ohem_batch() -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C, H, W) float32 and labels (N, H, W) int64 of one head."""
    rng = np.random.RandomState(1)
    count, classes, *size = OHEM_SHAPE
    logits = rng.standard_normal(OHEM_SHAPE).astype(np.float32) * 3
    return logits, _labels(rng, (count, *size), classes).astype(np.int64)


def prediction() -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a label, both (1024, 2048) uint8 with 19 classes; 90 % of them agree."""
    rng = np.random.RandomState(2)
    label = np.kron(_labels(rng, (64, 128), 19), np.ones((16, 16), np.uint8))
    wrong = rng.uniform(size=label.shape) < 0.1
    guess = np.where(label == IGNORE, 0, label)
    return np.where(wrong, rng.randint(0, 19, label.shape), guess).astype(np.uint8), label


def ohem_case(paddle: ModuleType, loss_of: Callable) -> Case:
    """Forward and backward pass of a loss on `ohem_batch`, with the Paddle of the peer."""
    logits, label = (paddle.to_tensor(array) for array in ohem_batch())
    logits.stop_gradient = False

    def run():
        logits.clear_gradient()
        loss = loss_of(logits, label)
        loss.backward()
        return float(loss)

    return Case(run, lambda: {"loss": np.array(run()), "gradient": logits.grad.numpy()})


def updates(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The changes of all weights, and those of the batch norm statistics."""
    changes = {key: (after[key] - before[key]).ravel() for key in sorted(before)}
    statistics = {key for key in changes if key.endswith(("._mean", "._variance"))}
    return {
        "weights": np.concatenate([changes[key] for key in changes if key not in statistics]),
        "statistics": np.concatenate([changes[key] for key in changes if key in statistics]),
    }


def _labels(rng: np.random.RandomState, shape: tuple[int, ...], classes: int) -> np.ndarray:
    labels = rng.randint(0, classes, shape)
    labels[rng.uniform(size=shape) < 0.1] = IGNORE
    return labels.astype(np.uint8)


def serve(about: str, cases: dict[str, Callable[[Path], Case]]) -> None:
    """Answer `compare.py` until it closes the standard input; `about` names the peer."""
    # Libraries print to the standard output: keep it for the answers, send theirs to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    name, work = sys.argv[1], Path(sys.argv[2])
    case = cases[name](work)
    answer(about=about)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "run":
            begin, cpu_begin = time.perf_counter(), time.process_time()
            case.run()
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
            answer(seconds=seconds, cpu_seconds=cpu_seconds, peak_mib=_peak_mib())
        else:
            np.savez(argument, **case.result())
            answer(result=argument)


def _peak_mib() -> float:
    """Peak memory of this process; the one of getrusage starts at its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
