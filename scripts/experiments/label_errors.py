"""Does `liteseg data suspects` find label errors? Corrupts labels of CamVid in known ways.

Of the training images, 5 % get one wrong label map: shifted, one class swapped for another, or one
object missing. A small network trains on these labels for a few hundred iterations, ranks them, and
the result is the share of the corrupted images among the first 10 % of the list. Existing parts of
`--output` are kept, so that an interrupted experiment continues:

    python scripts/experiments/label_errors.py --data data/camvid --output output/label_errors
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from liteseg.utils.files import write_json
from liteseg.utils.images import read_label

CONFIG = "configs/pp_liteseg/pp_liteseg_stdc1_camvid_480x360_scratch.yml"
VOID = 11
OBJECTS = (6, 8, 9, 10)  # SignSymbol, Car, Pedestrian, Bicyclist
SHARE, FIRST = 0.05, 0.10
Damage = Callable[[np.ndarray, np.random.Generator], Optional[tuple[np.ndarray, str]]]


def shifted(label: np.ndarray, rng: np.random.Generator) -> Optional[tuple[np.ndarray, str]]:
    """The label map moved by 5 to 10 % of the width and of the height; the rest is void."""
    sizes = np.array(label.shape)
    dy, dx = (rng.uniform(0.05, 0.1, 2) * sizes * rng.choice([-1, 1], 2)).round().astype(int)
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    size = label.shape[::-1]
    moved = cv2.warpAffine(label, move, size, flags=cv2.INTER_NEAREST, borderValue=VOID)
    return moved, f"by {dx}, {dy} pixels"


def swapped(label: np.ndarray, rng: np.random.Generator) -> Optional[tuple[np.ndarray, str]]:
    """All pixels of a class with 2 to 40 % of the image get another class."""
    share = np.bincount(label.ravel(), minlength=256)[:VOID] / label.size
    candidates = np.flatnonzero((share >= 0.02) & (share <= 0.4))
    if not candidates.size:
        return None
    old = rng.choice(candidates)
    new = rng.choice(np.delete(np.arange(VOID), old))
    return np.where(label == old, new, label).astype(np.uint8), f"class {old} to {new}"


def missing(label: np.ndarray, rng: np.random.Generator) -> Optional[tuple[np.ndarray, str]]:
    """An object of 0.5 % of the image or more is gone; its surroundings take its place."""
    objects = []
    for number in OBJECTS:
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (label == number).astype(np.uint8)
        )
        areas = stats[1:count, cv2.CC_STAT_AREA]
        objects += [
            (number, parts == part) for part in 1 + np.flatnonzero(areas > label.size / 200)
        ]
    if not objects:
        return None
    number, mask = objects[rng.integers(len(objects))]
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    hidden = (grown > 0) & (mask | (label == VOID) | (label == number))
    _, nearest = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(nearest.max() + 1, np.uint8)
    values[nearest[~hidden]] = label[~hidden]
    return values[nearest], f"class {number}, {np.count_nonzero(mask)} pixels"


KINDS: dict[str, Damage] = {"shifted": shifted, "swapped": swapped, "missing": missing}


def corrupt(data: Path, output: Path, seed: int) -> dict[str, dict[str, str]]:
    """A copy of CamVid with 5 % of wrong training labels: {image name: its damage}."""
    record = output / "corrupted.json"
    if record.exists():
        return json.loads(record.read_text())
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name in ("train", "val", "valannot"):
        (output / name).symlink_to((data / name).resolve())
    for name in ("train.txt", "val.txt"):
        shutil.copy(data / name, output / name)
    shutil.copytree(data / "trainannot", output / "trainannot")
    names = sorted(path.name for path in (output / "trainannot").glob("*.png"))
    rng = np.random.default_rng(seed)
    order = rng.permutation(names).tolist()
    damaged: dict[str, dict[str, str]] = {}
    while len(damaged) < round(SHARE * len(names)):
        kind = list(KINDS)[len(damaged) % len(KINDS)]
        path = output / "trainannot" / order.pop()
        if (result := KINDS[kind](read_label(path), rng)) is not None:
            cv2.imwrite(str(path), result[0])
            damaged[path.stem] = {"kind": kind, "detail": result[1]}
    write_json(record, damaged)
    return damaged


def train_network(root: Path, run: Path, iters: int) -> None:
    """Train PP-LiteSeg-T from random weights on the corrupted labels."""
    import liteseg

    liteseg.train(
        CONFIG,
        overrides=[
            f"train_dataset.dataset_root={root}",
            f"val_dataset.dataset_root={root}",
            f"iters={iters}",
            f"eval_interval={iters}",
            "save_interval=100",
            "train_dataset.transforms.0.max_scale_factor=1.5",
            "train_dataset.transforms.1.crop_size=[288, 224]",
            "test_config.aug_eval=false",
            "ema.decay=0.99",
            "num_workers=1",
        ],
        output=run,
        resume=(run / "checkpoints" / "last").exists(),
    )


def score(order: list[str], damaged: dict[str, dict[str, str]], total: int) -> dict[str, Any]:
    """The corrupted images among the first 10 % of the list, by kind, and the rank of each."""
    first = round(FIRST * total)
    ranks = {name: rank for rank, name in enumerate(order, 1)}
    kinds = {kind: {"corrupted": 0, "found": 0} for kind in KINDS}
    details = {}
    for name, damage in damaged.items():
        rank = ranks.get(name)  # None: no region of it is suspicious
        kinds[damage["kind"]]["corrupted"] += 1
        kinds[damage["kind"]]["found"] += rank is not None and rank <= first
        details[name] = {**damage, "rank": rank}
    found = sum(kind["found"] for kind in kinds.values())
    return {
        "images": total,
        "corrupted": len(damaged),
        "first": first,
        "found": found,
        "share": round(found / len(damaged), 4),
        "by_chance": FIRST,
        "kinds": kinds,
        "details": details,
    }


def main() -> None:
    from liteseg.tasks.suspects import IMAGES, find_suspects

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CamVid, 11 classes (required)")
    parser.add_argument("--output", type=Path, required=True, help="folder of all (required)")
    parser.add_argument("--iters", type=int, default=400, help="of the training (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: 0)")
    parser.add_argument("--json", type=Path, help="write the result as JSON (default: no file)")
    args = parser.parse_args()
    damaged = corrupt(args.data, args.output / "camvid", args.seed)
    run, suspects = args.output / "run", args.output / "suspects"
    if not (run / "report.html").exists():
        train_network(args.output / "camvid", run, args.iters)
    if not (suspects / IMAGES).exists():
        find_suspects(run / "checkpoints" / "last", suspects)
    with open(suspects / IMAGES, encoding="utf-8") as file:
        order = [Path(row["label_file"]).stem for row in csv.DictReader(file)]
    total = len(list((args.output / "camvid" / "trainannot").glob("*.png")))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line["phase"] == "eval"][-1]
    result = {
        "iterations": last["step"],
        "val_miou": round(last["miou"], 4),
        "seed": args.seed,
        **score(order, damaged, total),
    }
    print(
        f"{result['found']} of {result['corrupted']} corrupted images are among the first "
        f"{result['first']} of {total}: {result['kinds']}"
    )
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
