"""Several processes (gloo, on the CPU) whose batch norm has seen different images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from toy_training import ToyImages, evaluation_hooks, make_trainer

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import evaluate
from liteseg.tasks.launch import launch
from liteseg.utils.runtime import gathered_objects, rank


def train_and_evaluate(folder: Path, ema_decay=None):
    """In every process: (mIoU during training, mIoU and class IoU of the saved best weights)."""
    paddle.distributed.init_parallel_env()
    validation, seen = ToyImages(6, flip=False), []
    store = Checkpointer(folder / "checkpoints")
    hooks = evaluation_hooks(4, validation, store)
    hooks[0].evaluators = ()
    images = ToyImages(8)
    load = images.load  # very different statistics in each process
    images.load = lambda index: {
        **load(index),
        "img": (load(index)["img"] // (1 + 4 * rank())).astype(np.uint8),
    }
    trainer = make_trainer(4, hooks, dataset=images, norm=True, batch_size=2, ema_decay=ema_decay)
    share = trainer.share_statistics

    def share_and_record():
        share()
        state = {key: value.numpy() for key, value in trainer.model.state_dict().items()}
        seen.append(gathered_objects(state))

    trainer.share_statistics = share_and_record
    trainer.run()
    paddle.distributed.barrier()
    best = store.folder / "best" / "model.pdparams"
    trainer.model.set_state_dict(paddle.load(str(best)))
    saved = evaluate(trainer.model, validation, hooks[0].test_config)
    return seen, hooks[2].best, saved["miou"]


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_all_processes_evaluate_the_weights_that_are_saved(tmp_path, monkeypatch, ema_decay):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent)]))
    arguments = {"folder": tmp_path, "ema_decay": ema_decay}
    options = {"devices": 2, "device": "cpu", "logs": tmp_path, "name": "test"}
    seen, evaluated, saved = launch(train_and_evaluate, arguments, **options)
    ((first, second),) = seen
    assert any("_mean" in key for key in first)
    for key in first:
        np.testing.assert_array_equal(second[key], first[key], err_msg=key)
    assert evaluated == pytest.approx(saved, abs=1e-12)
