"""Generator of Streets: synthetic street scenes in Cityscapes layout, to try things without data.

Each scene is a street seen from a car: a road with curbs, repairs, wheel tracks, markings and a
crossing, straight or bent, under a camera of varying pitch, heading, height and lane; sidewalks of
slabs; rows of houses in perspective with windows, doors, shop fronts and roofs; trees, hedges, a
skyline; lamps, traffic signs and lights; parked, oncoming and leading cars; people; in half of the
scenes the hood of the ego vehicle. Noon, clouds, evening or dusk give sun, sky, shadows and haze.
Objects are painted from far to near, so they hide each other; blur, exposure, color cast and noise
come last. Colors overlap between the classes (gray walls, roads and cars, green cars and trees), so
that form and place must be learned. Nine classes have Cityscapes label ids; the hood ("ego
vehicle") and traffic lights keep their official ids too, which `Streets` ignores.

`scene` composes a scene, `objects` draws the objects, `canvas` has camera, light and canvas.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from liteseg.datasets.parallel import map_in_threads
from liteseg.datasets.streets.scene import render
from liteseg.errors import UserError
from liteseg.utils import logging

VERSION = 1  # of the images: increase it when the same parameters give other pixels
PARAMETERS_FILE = "streets.json"
SPLITS = ("train", "val")
MIN_SIZE = (128, 64)


def generate(
    root: Path,
    train: int = 200,
    val: int = 50,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
    progress: bool = True,
    workers: Optional[int] = None,
) -> Path:
    """Write a Streets dataset to `root`, or reuse the one there if it has the same parameters.

    Writes `leftImg8bit/<split>/streets/streets_<index>_000019_leftImg8bit.png` (RGB),
    `gtFine/<split>/streets/..._gtFine_labelIds.png` and `streets.json` with the parameters. The
    pixels only depend on `size`, `seed`, split and index (and, by rounding, on the version of
    OpenCV). An interrupted call leaves nothing at `root`.

    Args:
        root: folder of the dataset; new, empty, or written by an earlier call.
        train: number of training scenes.
        val: number of validation scenes.
        size: width and height of the images in pixels.
        seed: random seed of the scenes.
        progress: show a progress bar on stderr.
        workers: number of threads (default: one per core).

    Returns:
        `root`.

    Raises:
        UserError: a parameter is out of range, or `root` contains something else.
    """
    root = Path(root)
    wanted = _parameters(train, val, size, seed)
    if _is_generated(root, wanted):
        return root
    partial = root.parent / f".{root.name}.partial-{os.getpid()}"
    try:
        for split in SPLITS:
            for kind in ("leftImg8bit", "gtFine"):
                (partial / kind / split / "streets").mkdir(parents=True)
        scenes = [(split, index) for split in SPLITS for index in range(wanted[split])]
        # Threads, not processes: most of the work is in numpy and OpenCV, which release the GIL,
        # and a process would have to import everything again.
        done = map_in_threads(lambda scene: _write_scene(partial, wanted, *scene), scenes, workers)
        for _ in logging.progress(done, "drawing streets", len(scenes), shown=progress):
            pass
        (partial / PARAMETERS_FILE).write_text(json.dumps(wanted, indent=2) + "\n")
        if root.exists():
            root.rmdir()  # it is empty; only POSIX renames over an empty folder
        partial.rename(root)
    except OSError as error:
        raise UserError(f"can't write the Streets dataset to {root}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _parameters(train: int, val: int, size: tuple[int, int], seed: int) -> dict:
    width, height = (int(side) for side in size)
    if min(train, val) < 1 or seed < 0 or width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        raise UserError(
            f"Streets can't be made with train={train}, val={val}, size={width}x{height}, "
            f"seed={seed}: train and val must be at least 1, size (width x height) at least "
            f"{MIN_SIZE[0]}x{MIN_SIZE[1]}, and seed 0 or more"
        )
    parameters = {"train": train, "val": val, "size": [width, height], "seed": seed}
    return {"dataset": "liteseg Streets", "version": VERSION, **parameters}


def _is_generated(root: Path, wanted: dict) -> bool:
    """Whether `root` contains the wanted dataset; a UserError if it contains anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        found = f"no readable {PARAMETERS_FILE}"
    if found == wanted:
        return True
    raise UserError(
        f"{root} is not the requested Streets dataset: found {_format(found)}, expected "
        f"{_format(wanted)}; delete {root} or choose another folder"
    )


def _format(parameters) -> str:
    if not isinstance(parameters, dict):
        return str(parameters)
    return ", ".join(f"{key} {value}" for key, value in parameters.items() if key != "dataset")


def _write_scene(root: Path, wanted: dict, split: str, index: int) -> None:
    rng = np.random.default_rng((wanted["seed"], SPLITS.index(split), index))
    width, height = wanted["size"]
    image, label = render(width, height, rng)
    name = f"streets/streets_{index:06d}_000019"
    _write_png(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", image[..., ::-1])
    _write_png(root / "gtFine" / split / f"{name}_gtFine_labelIds.png", label)


def _write_png(path: Path, array: np.ndarray) -> None:
    """Write a gray or BGR array; unlike cv2.imwrite, raises OSError with the reason."""
    path.write_bytes(cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
