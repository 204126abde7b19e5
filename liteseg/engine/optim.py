"""Paddle's optimizers and learning-rate schedules, under the names and defaults of the configs.

Optimizers also get the model's `parameters`, their `names` and the schedule. `iters` is the length
of the whole training; a schedule decays over the iterations after the warm-up.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Optional

import paddle
from paddle import nn, optimizer
from paddle.optimizer import lr
from paddle.regularizer import L2Decay

from liteseg.engine.parameter_groups import GroupSpec, parameter_groups
from liteseg.registry import LR_SCHEDULERS, OPTIMIZERS


def _extended(inner: Callable, outer: Callable, **added: tuple[Any, Any]) -> Callable:
    """`outer` under the name and with the arguments of `inner`, and with others: type, default."""
    functools.update_wrapper(outer, inner)
    own = inspect.signature(inner)
    new = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, (_, default) in added.items()
    ]
    kinds = {name: kind for name, (kind, _) in added.items()}
    outer.__annotations__ = {**inner.__annotations__, **kinds}
    outer.__signature__ = own.replace(parameters=[*own.parameters.values(), *new])  # type: ignore
    return outer


def _given(function: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call by name, with defaults."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _grouped(factory: Callable[..., optimizer.Optimizer]) -> Callable[..., optimizer.Optimizer]:
    """Add PaddleSeg's arguments `custom_cfg` and `backbone_lr_mult` to an optimizer.

    `grad_clip` is of the norm over all groups.
    """

    def grouped(*args: Any, **kwargs: Any) -> optimizer.Optimizer:
        given = _given(grouped, args, kwargs)
        names, *selection = (given.pop(key) for key in ("names", "custom_cfg", "backbone_lr_mult"))
        groups = parameter_groups(names, *selection)[:-1]
        made = factory(**given)
        by_name, decay = dict(zip(names, given["parameters"])), given["weight_decay"]
        for group in groups:
            for parameter in (by_name[name] for name in group.names):
                parameter.optimize_attr["learning_rate"] = group.lr_mult
                if decay is not None and isinstance(made, AdamW):
                    made.decays[parameter.name] = decay * group.weight_decay_mult
                elif decay is not None:
                    parameter.regularizer = L2Decay(decay * group.weight_decay_mult)
        if groups:
            made._use_multi_tensor = False
        return made

    rates = {"custom_cfg": Optional[Sequence[GroupSpec]], "backbone_lr_mult": Optional[float]}
    added = {name: (kind, None) for name, kind in rates.items()}
    return _extended(factory, grouped, **added, names=(Sequence[str], ()))


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


@_grouped
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


@_grouped
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


class AdamW(optimizer.AdamW):
    """Paddle's, with a weight decay of their own for some parameters."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.decays: dict[str, float] = {}  # by the parameter's name in Paddle

    def _append_optimize_op(self, block, param_and_grad):
        usual = self._default_dict["weight_decay"]
        # Paddle 2.6 has the first name, later versions the other.
        self._coeff = self._weight_decay = self.decays.get(param_and_grad[0].name, usual)
        return super()._append_optimize_op(block, param_and_grad)


@_grouped
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
    return AdamW(
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


def _warms_up(schedule: Callable[..., lr.LRScheduler]) -> Callable[..., lr.LRScheduler]:
    """Add the arguments `warmup_iters` and `warmup_start_lr` to a schedule.

    It is linear from `warmup_start_lr` to its first rate, then `schedule` over the iterations left:
    at least 1, because a trial run may end during the warm-up.
    """

    def warmed(*args: Any, **kwargs: Any) -> lr.LRScheduler:
        given = _given(warmed, args, kwargs)
        length, start = given.pop("warmup_iters"), given.pop("warmup_start_lr")
        after = schedule(**{**given, "iters": max(1, given["iters"] - length)})
        if not length:
            return after
        first = given["learning_rate"] if "learning_rate" in given else given["values"][0]
        return lr.LinearWarmup(after, length, start, first)

    return _extended(schedule, warmed, warmup_iters=(int, 0), warmup_start_lr=(float, 0.0))


@LR_SCHEDULERS.register(name="PolynomialDecay")
@_warms_up
def polynomial_decay(
    iters: int,
    learning_rate: float,
    end_lr: float = 0.0,
    power: float = 0.9,
    decay_steps: Optional[int] = None,
) -> lr.LRScheduler:
    """(learning_rate − end_lr)·(1 − t/T)^power + end_lr, with T = iters − warmup_iters."""
    return lr.PolynomialDecay(learning_rate, decay_steps or iters, end_lr, power)


@LR_SCHEDULERS.register(name="CosineAnnealingDecay")
@_warms_up
def cosine_annealing_decay(
    iters: int,
    learning_rate: float,
    T_max: Optional[int] = None,
    eta_min: float = 0.0,
) -> lr.LRScheduler:
    """Half a cosine from learning_rate to eta_min over T_max (iters − warmup_iters) iterations."""
    return lr.CosineAnnealingDecay(learning_rate, T_max or iters, eta_min)


@LR_SCHEDULERS.register(name="StepDecay")
@_warms_up
def step_decay(
    iters: int,
    learning_rate: float,
    step_size: int,
    gamma: float = 0.1,
) -> lr.LRScheduler:
    """Multiply the rate by gamma every step_size iterations."""
    return lr.StepDecay(learning_rate, step_size, gamma)


@LR_SCHEDULERS.register(name="MultiStepDecay")
@_warms_up
def multi_step_decay(
    iters: int,
    learning_rate: float,
    milestones: Sequence[int],
    gamma: float = 0.1,
) -> lr.LRScheduler:
    """Multiply the rate by gamma at each milestone."""
    return lr.MultiStepDecay(learning_rate, list(milestones), gamma)


@LR_SCHEDULERS.register(name="ExponentialDecay")
@_warms_up
def exponential_decay(
    iters: int,
    learning_rate: float,
    gamma: float,
) -> lr.LRScheduler:
    """Multiply the rate by gamma every iteration."""
    return lr.ExponentialDecay(learning_rate, gamma)


@LR_SCHEDULERS.register(name="PiecewiseDecay")
@_warms_up
def piecewise_decay(
    iters: int,
    boundaries: Sequence[int],
    values: Sequence[float],
) -> lr.LRScheduler:
    """values[i] until iteration boundaries[i], the last value after the last boundary."""
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"values: {len(values)} given for {len(boundaries)} boundaries; expected one more"
        )
    return lr.PiecewiseDecay(list(boundaries), list(values))


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
    if divide_factor <= 0:
        raise ValueError(f"divide_factor: {divide_factor}; expected a number above 0")
    # Paddle accepts no integer for `phase_pct`, and divides by the lengths of the rise and fall.
    share = float(phase_pct)
    if share == 1 or share * iters == 1:
        share += -1e-9 if share == 1 else 1e-9
    return lr.OneCycleLR(learning_rate, iters, divide_factor, end_lr, share)
