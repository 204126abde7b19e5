"""The training loop. What happens every so often (logs, evaluation, checkpoints) is a hook's."""

from __future__ import annotations

import contextlib
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
from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import gathered, rank, world_size

_DIVERGED = (
    "The last checkpoint is intact. Lower lr_scheduler.learning_rate, lengthen warmup_iters or set "
    "grad_clip"
)

Losses = Sequence[tuple[str, Callable, float]]


@dataclass(frozen=True)
class TrainOptions:
    """How long and how to train.

    Attributes:
        iters: optimizer steps.
        batch_size: images of a forward pass on one device.
        accumulate: forward passes of an optimizer step on one device.
        seed: of the order and augmentation of the data.
        num_workers: reader processes of this device; 0 reads in a thread.
        amp: {"level": "O1" | "O2", "dtype": "float16" | "bfloat16"}, or None for float32.
        ema_decay: share of the old average kept in each step, or None for no average.
    """

    iters: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    num_workers: int = 0
    amp: Optional[dict[str, str]] = None
    ema_decay: Optional[float] = None

    @property
    def total_batch_size(self) -> int:
        """Images of an optimizer step over all devices."""
        return self.batch_size * self.accumulate * world_size()


class Hook:
    """Something to do besides the steps; every method may be left out."""

    def before_training(self, trainer: Trainer) -> None:
        """Called once, before the first step (also after a resume)."""

    def after_iteration(self, trainer: Trainer) -> None:
        """Called after iteration number `trainer.iteration`; the first is 1."""

    def after_evaluation(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Called after each evaluation of the hook `Evaluate` with what `evaluate` returned."""

    def after_training(self, trainer: Trainer) -> None:
        """Called once at the end, also when training stopped by an error."""

    def state_dict(self) -> dict[str, Any]:
        """What a resume must know."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""


class Trainer:
    """Trains `model` on `dataset`.

    Args:
        model: (N, 3, H, W) float32 -> a list of logits, one for each of `losses`.
        dataset: with `samples`, `seed` and `transforms.normalize`; its items are made by workers.
        losses: (name, loss, coefficient), one for each output of the model.
        optimizer: over the model's parameters, with its learning-rate schedule inside.
        options: see `TrainOptions`.
        hooks: called in this order.

    Attributes:
        clock: seconds spent in `data` (waiting for it), `normalize`, `forward`, `losses`,
            `backward` (with the exchange of gradients) and `update`.
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
        if options.amp and options.amp["level"] == "O2":
            model, optimizer = paddle.amp.decorate(model, optimizer, **options.amp)
        self.model, self.optimizer = model, optimizer
        self.dataset, self.losses = dataset, losses
        self.options, self.hooks = options, list(hooks)
        self.iteration = 0
        self.stop_reason: Optional[str] = None
        self.iteration_began = 0.0
        self.clock = Clock()
        self.ema = Ema(model, options.ema_decay) if options.ema_decay else None
        self._amp = _AmpStep(options.amp)
        self._network = paddle.DataParallel(model) if world_size() > 1 else model
        # Losses stay on the device until somebody asks: reading one waits for all queued kernels.
        self._unread: list[tuple[int, list[Any], paddle.Tensor]] = []
        self._read: list[np.ndarray] = []
        dataset.seed = options.seed

    def run(self) -> None:
        """Train from `iteration` to `options.iters`, or until a hook or signal asks to stop.

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
        finally:
            batches.close()  # ends the workers, who may be ahead of a training that stopped early
            for hook in self.hooks:
                hook.after_training(self)

    def run_iteration(self, batches: Iterator[dict]) -> None:
        """One optimizer step: `accumulate` forward and backward passes, then the update."""
        # All of them before the first pass: a file that can't be read must not leave a model whose
        # batch norm has seen half a step.
        with self.clock("data"):
            parts = [next(batches) for _ in range(self.options.accumulate)]
        self._seed_layers()
        for batch in parts:
            last = batch is parts[-1]  # exchanges the gradients of them all
            with contextlib.nullcontext() if last else self.gradients_stay_local():
                losses = self._forward(batch)
                with self.clock("backward"):
                    self._amp.backward(losses.sum() / self.options.accumulate)
            self._unread.append((self.iteration + 1, batch["index"], losses.detach()))
        with self.clock("update"):
            self._amp.update(self.optimizer)
            self.optimizer.clear_grad(set_to_zero=False)  # freed: the next step needs the memory
            self.optimizer._learning_rate.step()
            if self.ema:
                self.ema.update()

    def _seed_layers(self) -> None:
        """Let what the layers of a step draw (dropout) follow from the seed, step and process."""
        entropy = np.random.SeedSequence((self.options.seed, self.iteration, rank()))
        paddle.seed(int(entropy.generate_state(1)[0]))

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
            # Each head's logits, the largest tensors there are, go before the next loss is made.
            outputs, terms = list(outputs), []
            for _, loss, coef in self.losses:
                terms.append(coef * loss(outputs.pop(0).astype("float32"), label))
            return paddle.stack(terms)

    def gradients_stay_local(self) -> contextlib.AbstractContextManager:
        """Inside, backward passes exchange no gradients between processes."""
        return contextlib.nullcontext() if self._network is self.model else self._network.no_sync()

    def read_losses(self) -> None:
        """Bring the losses of the latest steps to the host (one wait for the device).

        Raises:
            UserError: one of them is NaN or infinite; names step, losses and files. Or a weight is:
                an activation such as ReLU may hide from the loss what a gradient has done.
        """
        if not self._unread:
            return
        # (processes, passes, outputs) and (processes, passes, images), the same in every process:
        # all of them report the mean, and all stop at what one of them met.
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
        means = np.mean(self._read, axis=0, dtype=np.float64)
        self._read.clear()
        heads = {name: float(mean) for (name, _, _), mean in zip(self.losses, means)}
        return {"loss": float(means.sum()), **heads}

    def _divergence(self, iteration: int, index: Sequence[int], terms: np.ndarray) -> str:
        named = ", ".join(f"{name} {term:g}" for (name, _, _), term in zip(self.losses, terms))
        files = "\n  ".join(str(self.dataset.samples[int(i)].image) for i in index)
        return (
            f"the loss is not finite at step {iteration}: {named}. {_DIVERGED}, and look at the "
            f"images of that step:\n  {files}"
        )

    def _require_finite_weights(self) -> None:
        weights = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        finite = paddle.stack([weight.isfinite().all() for weight in weights.values()]).numpy()
        bad = [key for key, fine in zip(weights, finite) if not fine]
        if bad:
            raise UserError(
                f"{len(bad)} of {len(weights)} weights are not finite after step {self.iteration}, "
                f"{bad[0]} among them: a gradient was not in step {self._unread[0][0]} or later, "
                f"though the losses were. {_DIVERGED}"
            )

    @contextlib.contextmanager
    def shipped_weights(self) -> Iterator[None]:
        """Inside, the model has the weights to evaluate and ship: the averaged ones under EMA."""
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            yield

    def share_statistics(self) -> None:
        """Give every process the main one's batch-norm statistics, which checkpoints hold.

        Without SyncBatchNorm each process has those of its own images. They play no part in
        training, but evaluation must use the same in every process.
        """
        if world_size() > 1:
            for statistic in self.model.buffers():
                paddle.distributed.broadcast(statistic, 0)

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(weights, state) to save: a copy of the weights to ship, and `state_dict`.

        Raises:
            UserError: as `read_losses`: what follows a NaN must not take the place of good weights.
        """
        self.read_losses()
        with self.shipped_weights():
            weights = {k: v.astype("float32").clone() for k, v in self.model.state_dict().items()}
        return weights, self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, besides the shipped weights, to go on as before."""
        return {
            "iteration": self.iteration,
            "total_batch_size": self.options.total_batch_size,
            # Without EMA these are the weights of `shipped_weights`, which lie beside the state.
            "model": self.model.state_dict() if self.ema else {},
            "optimizer": optimizer_state(self.optimizer, self.model),
            "amp": self._amp.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "losses": np.array(self._read),  # of the steps that no log line tells yet
            "hooks": {type(hook).__name__: hook.state_dict() for hook in self.hooks},
        }

    def load_state_dict(self, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Continue from a checkpoint's weights and state, perhaps on another number of devices.

        The order of the data goes on where it stopped if the total batch size is the same.
        """
        self.iteration = state["iteration"]
        for key, value in self.model.state_dict().items():
            value.set_value(paddle.to_tensor((state["model"] or weights)[key], value.dtype))
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        self._amp.load_state_dict(state["amp"])
        if self.ema:  # it may be new in this run: then the average begins here
            self.ema.load_state_dict(state["ema"] or {"steps": 0, "shadow": weights})
        pending = state.get("losses", [])
        self._read = [terms for terms in pending if len(terms) == len(self.losses)]
        for hook in self.hooks:
            saved = state["hooks"].get(type(hook).__name__)
            if saved is not None:  # None: the hook is new in this run
                hook.load_state_dict(saved)
        before, now = state["total_batch_size"], self.options.total_batch_size
        if before != now:
            get_logger().warning(
                f"resuming with {now} images a step instead of {before}: the schedule counts "
                "steps, so the rest of the training is another one"
            )


class _AmpStep:
    """Casts, loss scaling and update under mixed precision; plain ones without it."""

    def __init__(self, amp: Optional[dict[str, str]]):
        self._casts = {"enable": amp is not None, **(amp or {})}
        # Only float16 underflows; a disabled scaler passes everything through.
        scaled = amp is not None and amp["dtype"] == "float16"
        self._scaler = paddle.amp.GradScaler(enable=scaled, init_loss_scaling=2.0**15)

    def casts(self) -> contextlib.AbstractContextManager:
        return paddle.amp.auto_cast(**self._casts)

    def backward(self, loss: paddle.Tensor) -> None:
        self._scaler.scale(loss).backward()

    def update(self, optimizer: paddle.optimizer.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict:
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if state:
            self._scaler.load_state_dict(state)
