"""Benchmarks of data loading, training and evaluation on a few tiny images."""

from __future__ import annotations

import pytest

import liteseg
from liteseg.tasks.benchmark.data import benchmark_data
from liteseg.tasks.benchmark.evaluate import benchmark_evaluation
from liteseg.tasks.benchmark.train import benchmark_training

PHASES = {"data", "normalize", "forward", "losses", "backward", "update"}


@pytest.fixture(scope="module")
def cfg(streets):
    changes = {
        "train_dataset.dataset_root": streets,
        "val_dataset.dataset_root": streets,
        "train_dataset.transforms.1.crop_size": [64, 64],
        "batch_size": 2,
        "num_workers": 0,
    }
    return liteseg.load_config("quickstart", [f"{key}={value}" for key, value in changes.items()])


@pytest.mark.parametrize("workers", [0, 2])
def test_data(cfg, workers):
    found = benchmark_data(cfg, samples=5, num_workers=workers)
    assert list(found.milliseconds) == [
        "read",
        "ResizeStepScaling + RandomPaddingCrop",
        "RandomHorizontalFlip",
        "RandomDistort",
        "collate",
    ]
    assert all(ms > 0 for ms in found.milliseconds.values())
    total = sum(found.milliseconds.values())
    assert found.samples_per_second_and_core == pytest.approx(1000 / total)
    assert found.samples_per_second > 0
    assert found.num_workers == workers


def test_training(cfg):
    found = benchmark_training(cfg, iterations=2, warm_up=1)
    assert set(found.phases) == PHASES
    assert found.fastest <= found.seconds_per_step <= found.slowest
    both = found.fastest + found.slowest
    assert 0 < 2 * sum(found.phases.values()) <= both
    assert found.reader_share == pytest.approx(2 * found.phases["data"] / both)
    assert found.images_per_second == pytest.approx(2 / found.seconds_per_step)
    assert (found.device, found.processes, found.communication_share) == ("cpu", 1, None)
    assert found.peak_mib > 100


def test_training_in_two_processes(cfg):
    """The result of the first process comes back; it includes the cost of communication."""
    found = benchmark_training(cfg, iterations=1, warm_up=1, devices=2)
    assert (found.processes, found.total_batch_size) == (2, 4)
    assert 0 <= found.communication_share < 1


@pytest.mark.parametrize("images", [None, 3])
def test_evaluation(cfg, images):
    """There are two images; they are repeated up to the requested number."""
    found = benchmark_evaluation(cfg, images=images)
    assert found.images == (images or 2)
    assert set(found.phases) == {"data", "network", "counting"}
    assert 0 < sum(found.phases.values()) <= found.seconds
    assert found.images_per_second == pytest.approx(found.images / found.seconds)
    assert found.peak_mib > 50
    assert found.images_ratio is None


def test_the_cost_of_the_metrics_of_every_image(cfg):
    found = benchmark_evaluation(cfg, per_image=True).images_ratio
    assert set(found) == {"seconds", "cpu_seconds"}
    assert min(found.values()) > 0
