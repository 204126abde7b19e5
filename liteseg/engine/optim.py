"""Paddle's optimizers and learning-rate schedules, under the names and defaults of the configs.

Optimizers also get the model's `parameters` and the schedule. `iters` is the length of the whole
training; a schedule decays over the iterations after the warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import nn, optimizer
from paddle.optimizer import lr

from liteseg.registry import LR_SCHEDULERS, OPTIMIZERS


def _clip(grad_clip: Optional[float]) -> Optional[nn.ClipGradByGlobalNorm]:
    return None if grad_clip is None else nn.ClipGradByGlobalNorm(grad_clip)


class Momentum(optimizer.Momentum):  # Paddle requires this name for `use_multi_tensor`
    """Paddle's, safe with `use_multi_tensor`: one kernel updates all parameters.

    Paddle pairs the parameters that had a gradient in the first iteration with later gradients by
    position. Here they are listed anew where other parameters have a gradient.
    """

    def _append_optimize_multi_tensor_op(self, target_block, parameters_and_grads, param_group_idx):
        updated = [p for p, grad in parameters_and_grads if grad is not None]
        key = next(key for key in self._param_dict if key.startswith("FP32"))
        listed = self._param_dict[key][param_group_idx]
        if [id(p) for p in updated] != [id(p) for p in listed]:
            for lists in (
                self._param_dict,
                self._velocity_dict,
                self._regularization_method_dict,
                self._regularization_coeff_dict,
            ):
                lists[key][param_group_idx] = []
            self._multi_tensor_init(target_block, updated, param_group_idx)
        super()._append_optimize_multi_tensor_op(
            target_block, parameters_and_grads, param_group_idx
        )


def _sgd(
    parameters: Sequence,
    learning_rate: lr.LRScheduler,
    momentum: float = 0.9,
    weight_decay: Optional[float] = None,
    use_nesterov: bool = False,
    grad_clip: Optional[float] = None,
) -> optimizer.Optimizer:
    """SGD with momentum; `weight_decay` is L2, added to the gradient."""
    return Momentum(
        learning_rate,
        momentum,
        parameters,
        use_nesterov=use_nesterov,
        weight_decay=weight_decay,
        grad_clip=_clip(grad_clip),
        use_multi_tensor=all(p.dtype == paddle.float32 for p in parameters),
    )


def _adam(
    parameters: Sequence,
    learning_rate: lr.LRScheduler,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: Optional[float] = None,
    grad_clip: Optional[float] = None,
) -> optimizer.Optimizer:
    """Adam; `weight_decay` is L2, added to the gradient."""
    return optimizer.Adam(
        learning_rate,
        beta1,
        beta2,
        epsilon,
        parameters,
        weight_decay=weight_decay,
        grad_clip=_clip(grad_clip),
    )


def _adamw(
    parameters: Sequence,
    learning_rate: lr.LRScheduler,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    grad_clip: Optional[float] = None,
) -> optimizer.Optimizer:
    """AdamW; `weight_decay` is decoupled and not applied to batch-norm scales and biases.

    It applies to every parameter with two dimensions or more.
    """
    decayed = {p.name for p in parameters if p.ndim > 1}
    return optimizer.AdamW(
        learning_rate,
        beta1,
        beta2,
        epsilon,
        parameters,
        weight_decay=weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=_clip(grad_clip),
    )


for _factory, *_names in (
    (_sgd, "SGD", "sgd", "Momentum", "momentum"),  # PaddleSeg's `sgd` has momentum as well
    (_adam, "Adam", "adam"),
    (_adamw, "AdamW", "adamw"),
):
    for _name in _names:
        OPTIMIZERS.register(_factory, name=_name)


def _after_warmup(iters: int, warmup_iters: int) -> int:
    """Iterations after the warm-up, at least 1: a trial run may end during the warm-up."""
    return max(1, iters - warmup_iters)


def _warm_up(
    after: lr.LRScheduler, learning_rate: float, warmup_iters: int, warmup_start_lr: float
) -> lr.LRScheduler:
    """Linear from `warmup_start_lr` to `learning_rate` over `warmup_iters`, then `after`."""
    if not warmup_iters:
        return after
    return lr.LinearWarmup(after, warmup_iters, warmup_start_lr, learning_rate)


@LR_SCHEDULERS.register(name="PolynomialDecay")
def polynomial_decay(
    iters: int,
    learning_rate: float,
    end_lr: float = 0.0,
    power: float = 0.9,
    decay_steps: Optional[int] = None,
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """(learning_rate − end_lr)·(1 − t/T)^power + end_lr, with T = iters − warmup_iters."""
    length = decay_steps or _after_warmup(iters, warmup_iters)
    after = lr.PolynomialDecay(learning_rate, length, end_lr, power)
    return _warm_up(after, learning_rate, warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="CosineAnnealingDecay")
def cosine_annealing_decay(
    iters: int,
    learning_rate: float,
    T_max: Optional[int] = None,
    eta_min: float = 0.0,
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """Half a cosine from learning_rate to eta_min over T_max (iters − warmup_iters) iterations."""
    length = T_max or _after_warmup(iters, warmup_iters)
    after = lr.CosineAnnealingDecay(learning_rate, length, eta_min)
    return _warm_up(after, learning_rate, warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="StepDecay")
def step_decay(
    iters: int,
    learning_rate: float,
    step_size: int,
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """Multiply the rate by gamma every step_size iterations."""
    after = lr.StepDecay(learning_rate, step_size, gamma)
    return _warm_up(after, learning_rate, warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="MultiStepDecay")
def multi_step_decay(
    iters: int,
    learning_rate: float,
    milestones: Sequence[int],
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """Multiply the rate by gamma at each milestone."""
    after = lr.MultiStepDecay(learning_rate, list(milestones), gamma)
    return _warm_up(after, learning_rate, warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="ExponentialDecay")
def exponential_decay(
    iters: int,
    learning_rate: float,
    gamma: float,
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """Multiply the rate by gamma every iteration."""
    after = lr.ExponentialDecay(learning_rate, gamma)
    return _warm_up(after, learning_rate, warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="PiecewiseDecay")
def piecewise_decay(
    iters: int,
    boundaries: Sequence[int],
    values: Sequence[float],
    warmup_iters: int = 0,
    warmup_start_lr: float = 0.0,
) -> lr.LRScheduler:
    """values[i] until iteration boundaries[i], the last value after the last boundary."""
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"values: {len(values)} given for {len(boundaries)} boundaries; expected one more"
        )
    after = lr.PiecewiseDecay(list(boundaries), list(values))
    return _warm_up(after, values[0], warmup_iters, warmup_start_lr)


@LR_SCHEDULERS.register(name="OneCycleLR")
def one_cycle(
    iters: int,
    learning_rate: float,
    divide_factor: float = 25.0,
    end_lr: float = 0.0,
    phase_pct: float = 0.3,
) -> lr.LRScheduler:
    """Cosine from learning_rate/divide_factor up to learning_rate over phase_pct of iters, down
    to end_lr over the rest (arXiv 1708.07120).
    """
    # Paddle does not accept an integer for `phase_pct`.
    try:
        return lr.OneCycleLR(learning_rate, iters, divide_factor, end_lr, float(phase_pct))
    except ZeroDivisionError:
        raise ValueError(
            f"phase_pct: {phase_pct} of {iters} iterations is too short for a rise; give more"
        ) from None
