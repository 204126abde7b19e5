"""The training loop. Periodic work such as logging, evaluation and checkpoints is done by hooks."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import paddle

from liteseg.engine.checkpoint import load_optimizer_state, optimizer_state
from liteseg.engine.ema import Ema
from liteseg.engine.loader import TrainingOrder, training_batches
from liteseg.engine.timing import Clock
from liteseg.errors import UserError
from liteseg.ops.device import explained_out_of_memory
from liteseg.ops.exclusive import exclusive, give_way
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import gathered, rank, world_size

_DIVERGED = "Lower lr_scheduler.learning_rate, lengthen warmup_iters or set grad_clip"

Losses = Sequence[tuple[str, Callable, float]]


@dataclass(frozen=True)
class TrainOptions:
    """Length and batch arithmetic of a training.

    Attributes:
        iters: iterations, each with one update of the weights.
        batch_size: images per forward pass on one device.
        accumulate: forward passes per iteration on one device.
        seed: of shuffling, augmentation and dropout.
        num_workers: worker processes of this device; 0 loads the data in a thread.
        amp: {"level": "O1", "dtype": "float16" | "bfloat16"}, or None for float32.
        ema_decay: share of the old average kept per iteration, or None for no average.
        frozen: state keys that do not train.
    """

    iters: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    num_workers: int = 0
    amp: Optional[dict[str, Any]] = None
    ema_decay: Optional[float] = None
    frozen: frozenset[str] = frozenset()

    @property
    def total_batch_size(self) -> int:
        """Images per iteration over all devices."""
        return self.batch_size * self.accumulate * world_size()


class Hook:
    """Work to do around the iterations; every method is optional.

    Attributes:
        saved: names of the attributes that checkpoints contain and a resume restores.
    """

    saved: Sequence[str] = ()

    def before_training(self, trainer: Trainer) -> None:
        """Called once, before the first iteration (also after a resume)."""

    def after_iteration(self, trainer: Trainer) -> None:
        """Called after iteration number `trainer.iteration`; the first is 1."""

    def before_evaluation(self, trainer: Trainer) -> None:
        """Called before each evaluation of the hook `Evaluate` that is not a repetition."""

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Called after each evaluation of the hook `Evaluate` with the result of `evaluate`."""

    def after_training(self, trainer: Trainer) -> None:
        """Called once at the end, also when an error ended training."""

    def state_dict(self) -> dict[str, Any]:
        """The state to save in checkpoints."""
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. Not called if the checkpoint has no such hook."""
        for name in self.saved:
            setattr(self, name, state[name])


class Trainer:
    """Trains `model` on `dataset`.

    Args:
        model: (N, 3, H, W) float32 -> a list of logits, one for each of `losses`.
        dataset: with `samples`, `seed` and `transforms.normalize`; workers load its items.
        losses: (name, loss, coefficient), one for each output of the model.
        optimizer: over the model's parameters, with a learning-rate schedule.
        options: see `TrainOptions`.
        hooks: called in this order.

    Attributes:
        clock: seconds spent in `data` (waiting for it), `normalize`, `forward`, `losses`,
            `backward` (with the exchange of gradients) and `update`.
        stop_reason: set by a hook to end training after the current iteration.
        saved_iteration: of the newest checkpoint; None before the first.
    """

    def __init__(
        self,
        model: paddle.nn.Layer,
        dataset: Any,
        losses: Losses,
        optimizer: paddle.optimizer.Optimizer,
        options: TrainOptions,
        hooks: Sequence[Hook] = (),
    ):
        if dataset.transforms.normalize is None:
            raise UserError("the transforms of the dataset to train on must end in Normalize")
        self.model, self.optimizer = model, optimizer
        self.dataset, self.losses = dataset, losses
        self.options, self.hooks = options, list(hooks)
        self.iteration = 0
        self.stop_reason: Optional[str] = None
        self.saved_iteration: Optional[int] = None
        self.iteration_began = 0.0
        self.clock = Clock()
        # First: it copies the weights of the main process to the others.
        self._network = paddle.DataParallel(model) if world_size() > 1 else model
        self.ema = Ema(model, options.ema_decay, options.frozen) if options.ema_decay else None
        self._amp = _MixedPrecision(options.amp)
        # Losses stay on the device until they are needed: reading one waits for all queued kernels.
        self._unread: list[tuple[int, paddle.Tensor, paddle.Tensor]] = []
        self._read: list[np.ndarray] = []
        dataset.seed = options.seed

    @exclusive
    def run(self) -> None:
        """Train from `iteration` to `options.iters`, or until `stop_reason` is set.

        Other threads may compute between iterations; see `liteseg.ops.exclusive`.

        Raises:
            UserError: bad data, or a loss that is NaN or infinite.
        """
        options = self.options
        order = TrainingOrder(
            len(self.dataset),
            options.batch_size,
            options.accumulate,
            options.seed,
            self.iteration,
            options.iters,
        )
        batches = training_batches(self.dataset, order, options.num_workers)
        self.model.train()
        try:
            for hook in self.hooks:
                hook.before_training(self)
            while self.iteration < options.iters and not self.stop_reason:
                self.iteration_began = time.perf_counter()
                self.run_iteration(batches)
                self.iteration += 1
                for hook in self.hooks:
                    hook.after_iteration(self)
                give_way()
        finally:
            batches.close()  # ends the workers, which may be ahead of a training that stops early
            for hook in self.hooks:
                hook.after_training(self)

    def run_iteration(self, batches: Iterator[dict]) -> None:
        """`accumulate` forward and backward passes, then one update of the weights."""
        # Load all of them before the first pass: an unreadable file must not leave a model whose
        # batch norm has seen half an iteration.
        with self.clock("data"):
            parts = [next(batches) for _ in range(self.options.accumulate)]
        # Dropout and the like depend on the seed, iteration and process only.
        entropy = np.random.SeedSequence((self.options.seed, self.iteration, rank()))
        paddle.seed(int(entropy.generate_state(1)[0]))
        with explained_out_of_memory(functools.partial(self._memory_advice, parts[0])):
            self._train_on(parts)

    def _train_on(self, parts: Sequence[dict]) -> None:
        for batch in parts:
            last = batch is parts[-1]  # exchanges the gradients of them all
            with contextlib.nullcontext() if last else self.no_sync():
                losses = self._forward(batch)
                with self.clock("backward"):
                    self._amp.backward(losses.sum() / self.options.accumulate)
            self._unread.append((self.iteration + 1, batch["index"], losses.detach()))
        with self.clock("update"):
            self._amp.update(self.optimizer)
            self.optimizer.clear_grad(set_to_zero=False)  # frees memory for the next iteration
            self.optimizer._learning_rate.step()
            if self.ema:
                self.ema.update()

    def _forward(self, batch: dict) -> paddle.Tensor:
        """The weighted loss of each output, (outputs,) float32."""
        with self.clock("normalize"):
            images = self.dataset.transforms.normalize.planes(batch["img"])
        with self.clock("forward"), self._amp.casts():
            outputs = self._network(images)
        if len(outputs) != len(self.losses):
            raise UserError(f"{len(self.losses)} losses for {len(outputs)} outputs of the model")
        with self.clock("losses"):
            label = batch["label"].astype("int64")
            # Logits are the largest tensors: free each head's before computing the next loss.
            outputs, terms = list(outputs), []
            for _, loss, coef in self.losses:
                terms.append(coef * loss(outputs.pop(0).astype("float32"), label))
            return paddle.stack(terms)

    def _memory_advice(self, batch: dict) -> str:
        size, (height, width) = self.options.batch_size, batch["img"].shape[-2:]
        accumulated = (
            f"a smaller batch_size (total_batch_size: {self.options.total_batch_size} keeps the "
            "images per iteration by accumulating gradients), "
            if size > 1
            else ""
        )
        return (
            f"iteration {self.iteration + 1} trains on batch_size {size} of {width}x{height}; give "
            f"{accumulated}a smaller crop_size, or amp: true on a GPU"
        )

    def no_sync(self) -> contextlib.AbstractContextManager:
        """A context in which backward passes exchange no gradients between processes."""
        return contextlib.nullcontext() if self._network is self.model else self._network.no_sync()

    def read_losses(self) -> None:
        """Copy the losses of the latest iterations to the host; waits for the device once.

        Raises:
            UserError: a loss is NaN or infinite (the message names iteration, losses and files),
                or a weight is: an activation such as ReLU may hide a bad gradient from the loss.
        """
        if not self._unread:
            return
        # (processes, passes, outputs) and (processes, passes, images), the same in every process:
        # all report the mean, and all stop if one of them diverged.
        values = gathered(paddle.stack([losses for _, _, losses in self._unread]))
        index = gathered(paddle.stack([index for _, index, _ in self._unread]))
        for place, (iteration, _, _) in enumerate(self._unread):
            for terms, images in zip(values[:, place], index[:, place]):
                if not np.isfinite(terms).all():
                    raise UserError(self._divergence(iteration, images, terms))
        self._require_finite_weights()
        self._read.extend(values[0] if len(values) == 1 else values.mean(axis=0))
        self._unread.clear()

    def take_mean_losses(self) -> dict[str, float]:
        """Means since the last call: `loss` and each head's under its name.

        Raises:
            UserError: as `read_losses`.
        """
        self.read_losses()
        means: list[float] = np.array(self._read, np.float64).mean(axis=0).tolist()
        self._read.clear()
        heads = {name: mean for (name, _, _), mean in zip(self.losses, means)}
        return {"loss": float(np.sum(means)), **heads}

    def _divergence(self, iteration: int, index: Sequence[int], terms: np.ndarray) -> str:
        values = ", ".join(f"{name} {term:g}" for (name, _, _), term in zip(self.losses, terms))
        files = "\n  ".join(str(self.dataset.samples[int(i)].image) for i in index)
        return (
            f"the loss is not finite at iteration {iteration}: {values}. "
            f"{self._divergence_advice()}, and look at the images of that iteration:\n  {files}"
        )

    def _require_finite_weights(self) -> None:
        weights = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        finite = paddle.stack([weight.isfinite().all() for weight in weights.values()]).numpy()
        bad = [key for key, good in zip(weights, finite) if not good]
        if bad:
            raise UserError(
                f"{len(bad)} of {len(weights)} weights are not finite after iteration "
                f"{self.iteration}, including {bad[0]}: a gradient was not finite in iteration "
                f"{self._unread[0][0]} or later, though the losses were. "
                f"{self._divergence_advice()}"
            )

    def _divergence_advice(self) -> str:
        saved = self.saved_iteration
        state = (
            "There is no checkpoint yet"
            if saved is None
            else f"The checkpoint of iteration {saved} is intact"
        )
        return f"{state}. {_DIVERGED}"

    @contextlib.contextmanager
    def shipped_weights(self) -> Iterator[None]:
        """Inside, the model has the weights to evaluate and ship: the averaged ones under EMA."""
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            yield

    def share_statistics(self) -> None:
        """Copy the main process's batch-norm statistics, which checkpoints hold, to all processes.

        Without SyncBatchNorm each process has statistics of its own images. Training does not use
        them, but evaluation must use the same ones in every process.
        """
        if world_size() > 1:
            # Paddle's batch norm keeps them as parameters with `stop_gradient`.
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                if tensor.stop_gradient:
                    paddle.distributed.broadcast(tensor, 0)

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(weights, state) to save: a copy of the shipped weights, and `state_dict`.

        Raises:
            UserError: as `read_losses`: NaN weights must not replace good ones.
        """
        self.read_losses()
        with self.shipped_weights():
            weights = {k: v.astype("float32").clone() for k, v in self.model.state_dict().items()}
        return weights, self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, besides the shipped weights, for an exact resume."""
        return {
            "iteration": self.iteration,
            "total_batch_size": self.options.total_batch_size,
            # Without EMA these are the shipped weights, which are saved separately.
            "model": self.model.state_dict() if self.ema else {},
            "optimizer": optimizer_state(self.optimizer, self.model),
            "amp": self._amp.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "losses": np.array(self._read),  # of the iterations since the last log line
            "hooks": {type(hook).__name__: hook.state_dict() for hook in self.hooks},
        }

    def load_state_dict(self, weights: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Resume from the weights and state of a checkpoint, perhaps on more or fewer devices.

        The order of the data continues exactly if the total batch size is the same.
        """
        self.iteration = self.saved_iteration = state["iteration"]
        for key, value in self.model.state_dict().items():
            value.set_value(paddle.to_tensor((state["model"] or weights)[key], value.dtype))
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        self._amp.load_state_dict(state["amp"])
        if self.ema:  # may be new in this run: then the average starts here
            self.ema.load_state_dict(state["ema"] or {"steps": 0, "shadow": weights})
        pending = state.get("losses", [])
        self._read = [terms for terms in pending if len(terms) == len(self.losses)]
        for hook in self.hooks:
            saved = state["hooks"].get(type(hook).__name__)
            if saved is not None:
                hook.load_state_dict(saved)
        before, now = state["total_batch_size"], self.options.total_batch_size
        if before != now:
            get_logger().warning(
                f"resuming with {now} images per iteration instead of {before}: the schedule "
                "counts iterations, so the rest of the training differs"
            )


class _MixedPrecision:
    """Casts, loss scaling and update under mixed precision; plain ones without it."""

    def __init__(self, amp: Optional[dict[str, Any]]):
        self._casts: dict[str, Any] = {"enable": amp is not None, **(amp or {})}
        # Only float16 underflows; a disabled scaler changes nothing.
        scaled = amp is not None and amp["dtype"] == "float16"
        self._scaler = paddle.amp.GradScaler(enable=scaled, init_loss_scaling=2.0**15)

    def casts(self) -> contextlib.AbstractContextManager:
        return paddle.amp.auto_cast(**self._casts)

    def backward(self, loss: paddle.Tensor) -> None:
        self._scaler.scale(loss).backward()

    def update(self, optimizer: paddle.optimizer.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> Any:
        return self._scaler.state_dict()

    def load_state_dict(self, state: Any) -> None:
        if state:
            self._scaler.load_state_dict(state)
