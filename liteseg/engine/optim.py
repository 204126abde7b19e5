"""Optimizers and learning-rate schedules: Paddle's own, under the names and defaults of the YAMLs.

The trainer supplies `parameters`, the schedule and `grad_clip`; `iters` is the whole training, and
a schedule decays over what the warm-up leaves of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle import nn, optimizer
from paddle.optimizer import lr

from liteseg.registry import LR_SCHEDULERS, OPTIMIZERS


def _clip(grad_clip: Optional[float]) -> Optional[nn.ClipGradByGlobalNorm]:
    return None if grad_clip is None else nn.ClipGradByGlobalNorm(grad_clip)


def _sgd(
    parameters: Sequence,
    learning_rate: lr.LRScheduler,
    momentum: float = 0.9,
    weight_decay: Optional[float] = None,
    use_nesterov: bool = False,
    grad_clip: Optional[float] = None,
) -> optimizer.Optimizer:
    """SGD with momentum; `weight_decay` is L2, added to the gradient."""
    return optimizer.Momentum(
        learning_rate,
        momentum,
        parameters,
        use_nesterov=use_nesterov,
        weight_decay=weight_decay,
        grad_clip=_clip(grad_clip),
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
    """AdamW; `weight_decay` is decoupled, on every parameter of two dimensions or more.

    Batch-norm scales and biases are left out, as is usual.
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


def _rest(iters: int, warmup_iters: int) -> int:
    """Iterations after the warm-up; a trial run may end within it, and then sees nothing else."""
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
    """(learning_rate − end_lr)·(1 − t/steps)^power + end_lr; steps are iters − warmup_iters."""
    steps = decay_steps or _rest(iters, warmup_iters)
    after = lr.PolynomialDecay(learning_rate, steps, end_lr, power)
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
    steps = T_max or _rest(iters, warmup_iters)
    after = lr.CosineAnnealingDecay(learning_rate, steps, eta_min)
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
    """Times gamma every step_size iterations."""
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
    """Times gamma at each of the milestones."""
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
    """Times gamma every iteration."""
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
    # Paddle takes no whole number for a fraction.
    return lr.OneCycleLR(learning_rate, iters, divide_factor, end_lr, float(phase_pct))
