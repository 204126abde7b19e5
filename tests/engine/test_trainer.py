"""The training loop on a toy network: learning, accumulation, averaging, resuming, errors."""

from __future__ import annotations

import logging
import math
import weakref

import numpy as np
import paddle
import pytest
from toy_training import ToyImages, arrays, assert_same, cross_entropy, make_trainer, resume

from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.hooks import Checkpoint
from liteseg.engine.loader import TrainingOrder
from liteseg.engine.trainer import Hook
from liteseg.errors import UserError


class Losses(Hook):
    """The mean losses of each iteration."""

    def __init__(self):
        self.taken = []

    def after_iteration(self, trainer):
        self.taken.append(trainer.take_mean_losses())


def test_ten_iterations_reduce_the_loss():
    losses = Losses()
    trainer = make_trainer(10, [losses], batch_size=4, norm=True)
    trainer.run()
    assert trainer.iteration == 10
    assert trainer.stop_reason is None
    first, last = losses.taken[0], losses.taken[-1]
    assert last["loss"] < 0.7 * first["loss"]
    for taken in losses.taken:
        assert taken["loss"] == pytest.approx(taken["main"] + taken["aux"], rel=1e-6)


def test_an_iteration_equals_paddle_written_out():
    dataset, seed = ToyImages(), 4
    trainer = make_trainer(2, dataset=dataset, seed=seed, init_seed=1)
    twin = make_trainer(2, init_seed=1)  # never run: its parts are used by hand
    trainer.run()
    for keys in TrainingOrder(8, 2, 1, seed, 0, 2):
        samples = [dataset[key] for key in keys]
        images = np.stack([(s["img"] / 255 - 0.5) / 0.5 for s in samples]).astype(np.float32)
        label = paddle.to_tensor(np.stack([s["label"] for s in samples]).astype(np.int64))
        main, aux = twin.model(paddle.to_tensor(images.transpose(0, 3, 1, 2)))
        (cross_entropy(main, label) + 0.4 * cross_entropy(aux, label)).backward()
        twin.optimizer.step()
        twin.optimizer.clear_grad()
        twin.optimizer._learning_rate.step()
    expected = arrays(twin.model.state_dict())
    for key, value in arrays(trainer.model.state_dict()).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6, err_msg=key)
    assert trainer.optimizer.get_lr() == twin.optimizer.get_lr()


def test_memory_is_freed_early():
    """Each head's logits before the next loss, the gradients after the update."""
    seen = []

    def watching(logits, label):
        assert [one() for one in seen] == [None] * len(seen)
        seen.append(weakref.ref(logits))
        return logits.mean()

    trainer = make_trainer(2, losses=[("main", watching, 1.0), ("aux", watching, 0.4)])
    trainer.run()
    assert len(seen) == 4
    assert [parameter.grad for parameter in trainer.model.parameters()] == [None] * 6


def test_accumulating_is_a_larger_batch():
    whole, parts = Losses(), Losses()
    one = make_trainer(4, [whole], batch_size=4)
    two = make_trainer(4, [parts], batch_size=2, accumulate=2)
    assert one.options.total_batch_size == two.options.total_batch_size == 4
    one.run()
    two.run()
    expected = arrays(one.model.state_dict())
    for key, value in arrays(two.model.state_dict()).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6, err_msg=key)
    for mean, other in zip(parts.taken, whole.taken):
        assert mean == pytest.approx(other, rel=1e-5)


def test_workers_and_a_smaller_dataset_than_a_batch_change_nothing():
    def trained(workers):
        trainer = make_trainer(2, batch_size=5, dataset=ToyImages(3), num_workers=workers)
        trainer.run()
        return trainer.model.state_dict()

    assert_same(trained(1), trained(0))


def test_the_average_is_shipped_and_training_resumes_with_its_own_weights(tmp_path):
    trainer = make_trainer(3, [Checkpoint(Checkpointer(tmp_path), 100)], ema_decay=0.99)
    trainer.run()
    last = Checkpointer(tmp_path).load_last()
    assert_same(last.weights, trainer.ema.state_dict()["shadow"])
    assert_same(last.state["model"], trainer.model.state_dict())
    assert any((value != last.state["model"][key]).any() for key, value in last.weights.items())


def test_averaging_may_start_at_a_resume(tmp_path):
    make_trainer(3, [Checkpoint(Checkpointer(tmp_path), 100)]).run()
    trainer = make_trainer(4, init_seed=7, ema_decay=0.99)
    resume(trainer, Checkpointer(tmp_path))
    shipped = Checkpointer(tmp_path).load_last().weights
    assert_same(trainer.ema.state_dict()["shadow"], shipped)


def test_another_batch_size_at_a_resume_is_reported(tmp_path, caplog):
    make_trainer(1, [Checkpoint(Checkpointer(tmp_path), 1)]).run()
    trainer = make_trainer(2, batch_size=4)
    with caplog.at_level(logging.WARNING):
        resume(trainer, Checkpointer(tmp_path))
    assert "4 images per iteration instead of 2" in caplog.text


def failing(call, value):
    """A loss that returns `value` in its call number `call`."""
    calls = iter(range(1, 100))

    def loss(logits, label):
        return cross_entropy(logits, label) * (value if next(calls) == call else 1.0)

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_iteration_losses_and_files(tmp_path, value):
    store = Checkpointer(tmp_path, keep=9)
    losses = [("main", cross_entropy, 1.0), ("aux", failing(3, value), 1.0)]
    trainer = make_trainer(9, [Checkpoint(store, 1)], losses=losses, seed=2)
    with pytest.raises(UserError) as error:
        trainer.run()
    message = str(error.value)
    assert "iteration 3:" in message
    assert "main 1" in message or "main 0" in message
    assert f"aux {value}" in message
    order = TrainingOrder(8, 2, 1, 2, 0, 9)
    named = {f"image_{i}.png" for i in range(8) if f"image_{i}.png" in message}
    assert named == {f"image_{order.sample_at(position)}.png" for position in (4, 5)}
    assert store.load_last().iteration == 2  # what came before is kept


def test_an_early_nan_is_found_later(tmp_path):
    """Losses are read only now and then; the error names the iteration that diverged."""
    losses = [("main", failing(2, math.nan), 1.0), ("aux", cross_entropy, 1.0)]
    store = Checkpointer(tmp_path)
    trainer = make_trainer(5, [Checkpoint(store, 100)], losses=losses, accumulate=2)
    with pytest.raises(UserError, match="iteration 1: main nan"):
        trainer.run()
    assert not (store.folder / "last").exists()


def test_hooks_are_called_in_order_and_closed_after_an_error():
    calls = []

    class Recorded(Hook):
        def __init__(self, name):
            self.name = name

        def before_training(self, trainer):
            calls.append(f"{self.name} before {trainer.iteration}")

        def after_iteration(self, trainer):
            calls.append(f"{self.name} iteration {trainer.iteration}")
            if trainer.iteration == 2:
                raise UserError("enough")

        def after_training(self, trainer):
            calls.append(f"{self.name} after")

    with pytest.raises(UserError, match="enough"):
        make_trainer(5, [Recorded("a"), Recorded("b")]).run()
    assert calls == [
        *("a before 0", "b before 0", "a iteration 1", "b iteration 1"),
        *("a iteration 2", "a after", "b after"),
    ]


def test_losses_and_outputs_must_agree_in_number():
    with pytest.raises(UserError, match="1 losses for 2 outputs"):
        make_trainer(1, losses=[("only", cross_entropy, 1.0)]).run()


def test_a_finished_training_may_be_resumed(tmp_path):
    make_trainer(2, [Checkpoint(Checkpointer(tmp_path), 1)]).run()
    trainer = make_trainer(2)
    resume(trainer, Checkpointer(tmp_path))
    trainer.run()
    assert trainer.iteration == 2


@pytest.mark.parametrize(
    ("batch_size", "advice"),
    [
        (2, "batch_size 2 of 32x32; give a smaller batch_size (total_batch_size: 2 keeps"),
        (1, "crop"),
    ],
)
def test_out_of_memory_names_batch_and_crop(monkeypatch, batch_size, advice):
    trainer = make_trainer(batch_size=batch_size)

    def exhaust(images):
        raise MemoryError("Out of memory error on GPU 0. Cannot allocate 2.0GB memory on GPU 0")

    monkeypatch.setattr(trainer, "_network", exhaust)
    with pytest.raises(UserError, match="iteration 1 trains on") as error:
        trainer.run()
    assert advice in str(error.value)
    assert ("smaller batch_size" in str(error.value)) == (batch_size > 1)
