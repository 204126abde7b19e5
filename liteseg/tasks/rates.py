"""Which parameters of a config train, and at which rates."""

from __future__ import annotations

from collections.abc import Collection

from paddle import nn

from liteseg.config.build import build_model
from liteseg.config.check import checked
from liteseg.config.component import parameters
from liteseg.config.load import Config
from liteseg.config.schema import CheckedConfig
from liteseg.engine.parameter_groups import freeze, parameter_groups
from liteseg.errors import UserError
from liteseg.registry import OPTIMIZERS


def rate_table(cfg: Config) -> list[str]:
    """The lines of a table: parameters, their number, learning rate and weight decay.

    Raises:
        UserError: the config has errors, or selects parameters that its network does not have.
    """
    valid = checked(cfg)
    model = build_model(valid, pretrained=False)
    return rates_of(valid, model, freeze(model, valid.freeze or ()))


def rates_of(cfg: CheckedConfig, model: nn.Layer, frozen: Collection[str]) -> list[str]:
    """`rate_table` of a network that is built, with the state-dict keys that do not train."""
    sizes = {name: p.size for name, p in model.named_parameters() if not p.stop_gradient}
    still = {
        name: p.size
        for name, p in model.named_parameters()
        if name in frozen and not name.endswith(("._mean", "._variance"))
    }
    settings, rate = cfg.optimizer, cfg.lr_scheduler.get("learning_rate")
    known = parameters(OPTIMIZERS[settings["type"]])  # those of a plugin may mean something else
    selection = [
        settings.get(key) for key in ("custom_cfg", "backbone_lr_mult") if "names" in known
    ]
    try:
        groups = parameter_groups(list(sizes), *selection)
    except ValueError as error:
        raise UserError(f"optimizer.{error}") from error
    rows = [("parameters", "arrays", "weights", "lr_mult", "learning rate", "weight decay")]
    for group in groups:
        highest = "of the schedule" if rate is None else f"{rate * group.lr_mult:g}"
        decay = (settings.get("weight_decay") or 0.0) * group.weight_decay_mult
        count = f"{len(group.names):,}", f"{sum(sizes[name] for name in group.names):,}"
        rows.append((group.title, *count, f"{group.lr_mult:g}", highest, f"{decay:g}"))
    if still:
        title, weights = ", ".join(cfg.freeze or ()), f"{sum(still.values()):,}"
        rows.append((title, f"{len(still):,}", weights, "frozen", "-", "-"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
