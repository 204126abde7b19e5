"""`liteseg train --devices N` on CPU: equal to one process, and stopped as a whole."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from plain_run import last_checkpoint, lines, prepare, start, train

from liteseg.utils.weights.load import read_state

# Seconds within which all processes end, once one has ended.
GONE_WITHIN = 30


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key in found if (found[key] != expected[key]).any()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def alone(folder):
    """The run directory of one process."""
    done = train("--config", folder / "plain.yml", "--output", folder / "alone")
    assert done.returncode == 0, done.stderr
    return folder / "alone"


# Resumed like this, the weights are the same in any number of processes.
FROZEN = {"iters": 7, "loss.coef": "[0, 0]", "num_pictures": 1}


@pytest.fixture(scope="module")
def resumed_alone(alone, folder):
    """That run, resumed in one process."""
    run = Path(shutil.copytree(alone, folder / "resumed"))
    done = train("--trust-plugins", "--resume", run, **FROZEN)
    assert done.returncode == 0, done.stderr
    return run


def weights(run):
    return read_state(run / "checkpoints/last/model.pdparams")


def captions(run):
    """Names and mIoU of the worst and the best image in the report."""
    found = re.findall("<figcaption>(.*?)</figcaption>", (run / "report.html").read_text())
    assert len(found) == 2
    return found


@pytest.mark.parametrize("devices", [2, 4])
def test_several_processes_compute_what_one_does(alone, resumed_alone, folder, tmp_path, devices):
    several = {"batch_size": 4 // devices}
    options = ("--devices", devices, "--compare-weights", 1)
    run = tmp_path / "run"
    done = train("--config", folder / "plain.yml", "--output", run, *options, **several)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"batch {devices} devices x {4 // devices} x 1 accumulated = 4 images" in done.stdout
    assert "stays open" not in done.stdout  # the port of Paddle's store
    assert "FLAGS" not in done.stdout + done.stderr
    found, expected = lines(run, "train"), lines(alone, "train")
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for line, other in zip(found, expected):
        assert line == pytest.approx(other, rel=1e-5)
    assert (run / "train.log").read_text().count("finished at iteration 6") == 1

    run = Path(shutil.copytree(alone, tmp_path / "resumed"))
    done = train("--trust-plugins", "--resume", run, *options, **several, **FROZEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(weights(run), weights(resumed_alone))
    found, expected = lines(run, "eval")[-1], lines(resumed_alone, "eval")[-1]
    for key in ("loss", "losses"):  # sums of float32, in another order
        assert found.pop(key) == pytest.approx(expected.pop(key))
    assert found == expected
    assert found["images"] == 3
    assert captions(run) == captions(resumed_alone)


def test_a_user_error_in_one_process_stops_all_with_its_message(folder, tmp_path):
    run = tmp_path / "run"
    config = ("--config", folder / "plain.yml", "--devices", 2)
    done = train(*config, "--output", run, batch_size=1, total_batch_size=2, iters=1000)
    assert done.returncode == 2
    assert "process 1 of 2 ended with code 2" in done.stderr
    assert "liteseg train: image_x.png: the file is truncated" in done.stderr
    assert "--resume" in done.stderr
    assert last_checkpoint(run) == 14


class Running:
    """A training in two processes."""

    def __init__(self, folder, run):
        self.run = run
        config = ("--config", folder / "plain.yml", "--devices", 2, "--output", run)
        settings = {"batch_size": 2, "iters": 100_000, "save_interval": 3}
        # The transform would fail one of them.
        settings["train_dataset.transforms.2.type"] = "RandomHorizontalFlip"
        self.process = start(*config, **settings)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.ranks = list(map(int, children.read_text().split()))
        assert len(self.ranks) == 2

    def end(self):
        """Wait until all processes have ended; (exit code, standard error)."""
        _, errors = self.process.communicate(timeout=GONE_WITHIN)
        while any(is_alive(pid) for pid in self.ranks):
            time.sleep(0.1)
        return self.process.returncode, errors


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_process_stops_all_and_one_process_can_resume(folder, tmp_path):
    running = Running(folder, tmp_path / "run")
    os.kill(running.ranks[1], signal.SIGKILL)
    code, errors = running.end()
    assert code == 1
    assert "process 1 of 2 was killed by SIGKILL" in errors
    assert "--resume" in errors
    last = last_checkpoint(running.run)
    done = train("--trust-plugins", "--resume", running.run, iters=last + 1, batch_size=4)
    assert done.returncode == 0, done.stderr
    assert last_checkpoint(running.run) == last + 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_command_stops_all_with_a_checkpoint(folder, tmp_path, how):
    running = Running(folder, tmp_path / "run")
    running.process.send_signal(how)
    code, errors = running.end()
    assert code == (0 if how == signal.SIGTERM else -how), errors
    assert last_checkpoint(running.run) == lines(running.run, "train")[-1]["step"]
    assert "stopped by SIGTERM" in (running.run / "train.log").read_text()
