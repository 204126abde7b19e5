"""`liteseg train --devices N` on CPU: the same training as in one process, and its accidents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from liteseg.datasets.streets import generate
from liteseg.utils.weights import read_state

PLUGIN = '''
import os
import paddle.nn.functional as F
from paddle import nn
from liteseg.errors import UserError
from liteseg.registry import LOSSES, MODELS, TRANSFORMS

@MODELS.register
class PlainNet(nn.Layer):
    """Without batch norm, whose statistics are of each process's own images."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = nn.Conv2D(3, 8, 3, padding=1)
        self.heads = nn.LayerList([nn.Conv2D(8, num_classes, 1) for _ in range(2)])

    def forward(self, images):
        features = F.relu(self.body(images))
        return [head(features) for head in (self.heads if self.training else self.heads[:1])]

@LOSSES.register
class PerPixelLoss(nn.Layer):
    """The sum over the pixels by their number: a mean of means is the mean of the whole batch."""

    def forward(self, logits, label):
        return F.cross_entropy(
            logits, label, ignore_index=255, axis=1, reduction="sum"
        ) / label.numel().astype("float32")

@TRANSFORMS.register
class FailInProcess1:
    """Takes the 15th image of process 1 for broken."""

    calls = 0

    def __call__(self, sample, rng=None):
        FailInProcess1.calls += 1
        if os.environ.get("PADDLE_TRAINER_ID") == "1" and FailInProcess1.calls == 15:
            raise UserError("picture_x.png: the file is truncated")
        return sample
'''
CONFIG = """
plugins: [{plugin}]
model: {{type: PlainNet}}
batch_size: 4
total_batch_size: 4
iters: 6
num_workers: 0
log_interval: 1
eval_interval: 100
save_interval: 2
num_pictures: 0
train_dataset: &data
  type: Streets
  dataset_root: {data}
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [64, 32]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: FailInProcess1}}
    - {{type: Normalize}}
val_dataset: {{<<: *data, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 1.0e-3}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.05}}
loss: {{types: [{{type: PerPixelLoss}}], coef: [1, 0.5]}}
"""
TIMES = {"images_per_second", "seconds_per_step", "reader_share", "seconds", "timings"}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key in found if (found[key] != expected[key]).any()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images to train on and three to evaluate on: uneven for two and for four."""
    folder = tmp_path_factory.mktemp("processes")
    data = generate(folder / "streets", train=5, val=3, size=(128, 64), progress=False)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "plain.yml").write_text(CONFIG.format(plugin=folder / "plugin.py", data=data))
    return folder


def command(*arguments, **settings):
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "liteseg", "train", *map(str, arguments), *given]


def train(*arguments, **settings):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments, **settings), env=env, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def alone(folder):
    """The run directory of one process."""
    done = train("--config", folder / "plain.yml", "--output", folder / "alone")
    assert done.returncode == 0, done.stderr
    return folder / "alone"


# Going on so, the weights are the same in any number of processes.
STILL = {"iters": 7, "loss.coef": "[0, 0]"}


@pytest.fixture(scope="module")
def resumed_alone(alone, folder):
    """That run, resumed in one process."""
    run = Path(shutil.copytree(alone, folder / "resumed"))
    done = train("--resume", run, **STILL)
    assert done.returncode == 0, done.stderr
    return run


def lines(run, phase):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = [line for line in found if line.pop("phase") == phase]
    return [{key: line[key] for key in line.keys() - TIMES} for line in wanted]


def weights(run):
    return read_state(run / "checkpoints/last/model.pdparams")


@pytest.mark.parametrize("devices", [2, 4])
def test_the_same_curve_and_figures_as_in_one_process(
    alone, resumed_alone, folder, tmp_path, devices
):
    several = {"batch_size": 4 // devices}
    options = ("--devices", devices, "--compare-weights", 1)
    run = tmp_path / "run"
    done = train("--config", folder / "plain.yml", "--output", run, *options, **several)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"batch {devices} devices x {4 // devices} x 1 accumulated = 4 images" in done.stdout
    found, expected = lines(run, "train"), lines(alone, "train")
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for line, other in zip(found, expected):
        assert line == pytest.approx(other, rel=1e-5)
    assert (run / "train.log").read_text().count("finished at step 6") == 1

    run = Path(shutil.copytree(alone, tmp_path / "resumed"))
    done = train("--resume", run, *options, **several, **STILL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(weights(run), weights(resumed_alone))
    found, expected = lines(run, "eval")[-1], lines(resumed_alone, "eval")[-1]
    for key in ("loss", "losses"):  # sums of float32, in another order
        assert found.pop(key) == pytest.approx(expected.pop(key))
    assert found == expected
    assert found["images"] == 3


def test_a_user_error_in_one_process_ends_all_with_its_message(folder, tmp_path):
    run = tmp_path / "run"
    config = ("--config", folder / "plain.yml", "--devices", 2)
    done = train(*config, "--output", run, batch_size=1, total_batch_size=2, iters=1000)
    assert done.returncode == 2
    assert "process 1 of 2 ended with code 2" in done.stderr
    assert "liteseg train: picture_x.png: the file is truncated" in done.stderr
    assert "--resume" in done.stderr
    assert json.loads((run / "checkpoints/last/manifest.json").read_text())["iteration"] == 14


class Running:
    """A training in two processes that has begun."""

    def __init__(self, folder, run):
        self.run = run
        config = ("--config", folder / "plain.yml", "--devices", 2, "--output", run)
        settings = {"batch_size": 2, "iters": 100_000, "save_interval": 3}
        # The transform would fail one of them.
        settings["train_dataset.transforms.2.type"] = "RandomHorizontalFlip"
        self.process = subprocess.Popen(
            command(*config, **settings),
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (run / "checkpoints/last").exists():
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.1)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.ranks = list(map(int, children.read_text().split()))
        assert len(self.ranks) == 2

    def end(self):
        """(exit code, standard error), when all processes have ended."""
        _, told = self.process.communicate(timeout=120)
        while any(is_alive(pid) for pid in self.ranks):
            time.sleep(0.1)
        return self.process.returncode, told

    def last(self):
        return json.loads((self.run / "checkpoints/last/manifest.json").read_text())["iteration"]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_process_ends_all_and_the_run_can_go_on_alone(folder, tmp_path):
    running = Running(folder, tmp_path / "run")
    os.kill(running.ranks[1], signal.SIGKILL)
    code, told = running.end()
    assert code == 1
    assert "process 1 of 2 was killed by SIGKILL" in told
    assert "--resume" in told
    last = running.last()
    done = train("--resume", running.run, iters=last + 1, batch_size=4)
    assert done.returncode == 0, done.stderr
    assert running.last() == last + 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_command_stops_all_with_a_checkpoint(folder, tmp_path, how):
    running = Running(folder, tmp_path / "run")
    running.process.send_signal(how)
    code, told = running.end()
    assert code == (0 if how == signal.SIGTERM else -how), told
    assert running.last() == lines(running.run, "train")[-1]["step"]
    assert "stopped by SIGTERM" in (running.run / "train.log").read_text()
