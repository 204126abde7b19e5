"""Does fine-tuning beat training from scratch? From Streets, the synthetic dataset, to CamVid.

PP-LiteSeg-T trains on Streets once. Each row of the table is then a short training on CamVid with
crops of 192x144, evaluated on a third of its validation images at 320x240, with seeds 0, 1 and 2;
then the second row with other learning rates. Finished trainings are kept in the file of results,
so that an interrupted experiment continues:

    python scripts/experiments/fine_tuning.py --data data/camvid --output output/fine_tuning
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
from pathlib import Path

import liteseg
from liteseg.tasks.data import make_streets
from liteseg.utils.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "fine_tuning.json"
STREETS = (
    "iters=200",
    "eval_interval=200",
    "batch_size=4",
    "train_dataset.transforms.1.crop_size=[256, 128]",
)
CAMVID = (
    "batch_size=4",
    "ema=false",
    "test_config={pad_multiple: 32}",
    "train_dataset.transforms.0.min_scale_factor=0.5",
    "train_dataset.transforms.0.max_scale_factor=0.75",
    "train_dataset.transforms.1.crop_size=[192, 144]",
    "val_dataset.transforms=[{type: Resize, target_size: [320, 240]}, {type: Normalize}]",
)
RECIPE = "configs/pp_liteseg/pp_liteseg_stdc1_camvid_480x360_scratch.yml"
# name: (starts from Streets, changes of the config)
ARMS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "from scratch": (False, ()),
    "from Streets, init_classes: by_name": (True, ("init_classes=by_name",)),
    "from Streets, freeze: [backbone]": (True, ("init_classes=by_name", "freeze=[backbone]")),
    "from Streets, backbone_lr_mult: 0.1": (
        True,
        ("init_classes=by_name", "optimizer.backbone_lr_mult=0.1"),
    ),
}
TUNED = list(ARMS)[1]
RATE, OTHER_RATES = 0.002, (0.0002, 0.02)


class Experiment:
    """The trainings and their results.

    Args:
        data: CamVid.
        output: folder of the run directories.
        iters: iterations on CamVid.
    """

    def __init__(self, data: Path, output: Path, iters: int):
        self.data, self.output, self.iters = data, output, iters
        self.results: dict[str, float] = read_json(RESULTS) if RESULTS.exists() else {}

    def train(self, name: str, run: Path, config: str, root: Path, *changes: str, **given) -> None:
        """Train to the end, perhaps from a checkpoint, and record the mIoU under `name`."""
        roots = [f"{split}_dataset.dataset_root={root}" for split in ("train", "val")]
        result = liteseg.train(
            config,
            overrides=[*roots, "num_workers=0", "keep_checkpoints=0", "num_pictures=0", *changes],
            output=run,
            resume=(run / "checkpoints" / "last").exists(),
            **given,
        )
        if result.best_miou is None:
            raise SystemExit(f"{result.stop_reason}; run again to continue")
        self.results[name] = round(result.best_miou, 4)
        write_json(RESULTS, dict(sorted(self.results.items())))

    def images(self) -> Path:
        """CamVid with every third of its validation images, for short evaluations."""
        root = self.output / "camvid"
        root.mkdir(parents=True, exist_ok=True)
        for path in self.data.iterdir():
            if not (root / path.name).exists() and path.name != "val.txt":
                (root / path.name).symlink_to(path)
        lines = (self.data / "val.txt").read_text().splitlines(keepends=True)
        (root / "val.txt").write_text("".join(lines[::3]))
        return root

    def streets(self) -> Path:
        """The run directory of the network to fine-tune."""
        data, run = self.output / "streets", self.output / "from"
        if not data.exists():
            make_streets(data, train=100, val=20, size=(384, 192))
        if not (run / "report.html").exists():
            self.train("Streets", run, "quickstart", data, *STREETS)
        return run

    def camvid(self, arm: str, rate: float, seed: int) -> float:
        """The mIoU of a training on CamVid."""
        name = f"{arm}, {self.iters} iterations, learning rate {rate:g}, seed {seed}"
        if name not in self.results:
            tuned, changes = ARMS[arm]
            run = self.output / re.sub(r"\W+", "_", name)
            weights = self.streets() if tuned else None
            lengths = [f"{key}={self.iters}" for key in ("iters", "eval_interval", "save_interval")]
            values = (*CAMVID, *lengths, f"lr_scheduler.learning_rate={rate}", f"seed={seed}")
            self.train(name, run, RECIPE, self.images(), *values, *changes, weights=weights)
            shutil.rmtree(run)
        return self.results[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CamVid at 480x360 (required)")
    parser.add_argument("--output", type=Path, required=True, help="folder of all (required)")
    parser.add_argument("--iters", type=int, default=60, help="on CamVid (default: 60)")
    args = parser.parse_args()
    experiment = Experiment(args.data.resolve(), args.output, args.iters)
    rows = []
    for arm in ARMS:
        found = [experiment.camvid(arm, RATE, seed) for seed in range(3)]
        mean, spread = statistics.mean(found), statistics.stdev(found)
        each = ", ".join(f"{miou:.3f}" for miou in found)
        rows.append(f"| {arm} | {mean:.3f} ± {spread:.3f} | {each} |")
        for rate in OTHER_RATES if arm == TUNED else ():
            print(f"{arm}, learning rate {rate:g}: {experiment.camvid(arm, rate, 0):.3f}")
    print("| training on CamVid | mIoU, 3 seeds | each |\n|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
