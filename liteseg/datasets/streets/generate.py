"""Streets: synthetic street scenes in Cityscapes layout, for trying things without real data.

Each scene is a street seen from a car: a road with kerbs, repairs, tracks, markings and a
crossing, straight or bent, under a camera of varying pitch, heading, height and lane; pavements of
slabs; rows of houses in perspective with windows, doors, shop fronts and roofs; trees, hedges, a
skyline; lamps, traffic signs and signals; parked, oncoming and leading cars; people; now and then
our own bonnet. Noon, clouds, evening or dusk give sun, sky, shadows and haze; things are
painted from far to near, so they hide each other; blur, exposure, colour cast and noise come last.
Colours overlap between the classes (grey walls, roads and cars, green cars and trees), so that form
and place must be learnt. Nine classes have Cityscapes label ids; our bonnet ("ego vehicle") and
traffic lights keep their official ids too, and Streets ignores them.

`streets_scene` composes a scene, `streets_things` draws what stands in it, `streets_canvas` has
camera, light and canvas.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.datasets.streets.scene import render
from liteseg.errors import UserError
from liteseg.utils import logging

VERSION = 1  # of the pictures: raise it when the same parameters give other pixels
PARAMETERS_FILE = "streets.json"
SPLITS = ("train", "val")
SMALLEST = (128, 64)


def generate(
    root: Path,
    train: int = 200,
    val: int = 50,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
    progress: bool = True,
    workers: Optional[int] = None,
) -> Path:
    """Write a Streets dataset under `root`, or reuse the one there if its parameters are these.

    Writes `leftImg8bit/<split>/streets/streets_<index>_000019_leftImg8bit.png` (RGB),
    `gtFine/<split>/streets/..._gtFine_labelIds.png` and, with the parameters, `streets.json`.
    The pixels depend on `size`, `seed`, split and index alone (and, by rounding, on the version
    of OpenCV). Nothing is left at `root` when it is interrupted.

    Args:
        root: Folder of the dataset; new, empty, or written by an earlier call.
        train: Number of training scenes.
        val: Number of validation scenes.
        size: Width and height of the pictures in pixels.
        seed: Another seed gives other streets.
        progress: Show a progress bar.
        workers: Number of threads; None is one per core.

    Returns:
        `root`.

    Raises:
        UserError: a parameter is out of range, or `root` holds something else.
    """
    root = Path(root)
    wanted = _parameters(train, val, size, seed)
    if _is_there(root, wanted):
        return root
    partial = root.parent / f".{root.name}.partial-{os.getpid()}"
    try:
        for split in SPLITS:
            for kind in ("leftImg8bit", "gtFine"):
                (partial / kind / split / "streets").mkdir(parents=True)
        _write_scenes(partial, wanted, progress, workers)
        (partial / PARAMETERS_FILE).write_text(json.dumps(wanted, indent=2) + "\n")
        if root.exists():
            root.rmdir()  # it is empty, and only POSIX would rename over it
        partial.rename(root)
    except OSError as error:
        raise UserError(f"can't write the Streets dataset to {root}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _parameters(train: int, val: int, size: tuple[int, int], seed: int) -> dict:
    width, height = (int(side) for side in size)
    if min(train, val) < 1 or seed < 0 or width < SMALLEST[0] or height < SMALLEST[1]:
        raise UserError(
            f"Streets can't be made with train={train}, val={val}, size={width}x{height}, "
            f"seed={seed}: train and val must be at least 1, size (width x height) at least "
            f"{SMALLEST[0]}x{SMALLEST[1]}, and seed 0 or more"
        )
    return {
        "dataset": "liteseg Streets",
        "version": VERSION,
        "train": train,
        "val": val,
        "size": [width, height],
        "seed": seed,
    }


def _is_there(root: Path, wanted: dict) -> bool:
    """Whether `root` holds the wanted dataset; a UserError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        found = f"no readable {PARAMETERS_FILE}"
    if found == wanted:
        return True
    raise UserError(
        f"{root} is not the Streets dataset asked for: found {_in_words(found)}, "
        f"wanted {_in_words(wanted)}; delete {root} or choose another folder"
    )


def _in_words(parameters) -> str:
    if not isinstance(parameters, dict):
        return str(parameters)
    return ", ".join(f"{key} {value}" for key, value in parameters.items() if key != "dataset")


def _write_scenes(root: Path, wanted: dict, progress: bool, workers: Optional[int]) -> None:
    scenes = [(split, index) for split in SPLITS for index in range(wanted[split])]
    bar = logging.progress(total=len(scenes), desc="drawing streets", unit="scene", shown=progress)
    # Threads, not processes: most of the work is in numpy and OpenCV, which let go of the lock,
    # and a process would first have to import everything again.
    with bar, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        tasks = [pool.submit(_write_scene, root, wanted, *scene) for scene in scenes]
        try:
            for task in as_completed(tasks):
                task.result()
                bar.update()
        finally:
            for task in tasks:
                task.cancel()


def _write_scene(root: Path, wanted: dict, split: str, index: int) -> None:
    rng = np.random.default_rng((wanted["seed"], SPLITS.index(split), index))
    image, label = render(*wanted["size"], rng)
    name = f"streets/streets_{index:06d}_000019"
    _write_png(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", image[..., ::-1])
    _write_png(root / "gtFine" / split / f"{name}_gtFine_labelIds.png", label)


def _write_png(path: Path, array: np.ndarray) -> None:
    """Write grey or BGR; unlike cv2.imwrite this says why it fails, and where it can't fails."""
    path.write_bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
