"""From a config to a trainer, for the commands that train: `train` and `bench train`."""

from __future__ import annotations

from typing import Any, Optional

from liteseg.errors import UserError


def build_trainer(cfg: Any, train_set: Any, device: str, weights: Optional[str] = None) -> Any:
    """The `Trainer` of a config, without hooks.

    Args:
        cfg: checked.
        train_set: the dataset to train on.
        device: `cpu` or `gpu`, selected already.
        weights: file, run or URL to start from.
    """
    from liteseg.config.build import build_losses, build_model, build_optimizer
    from liteseg.datasets import count_label_pixels
    from liteseg.engine.trainer import Trainer
    from liteseg.utils.weights.load import load_weights

    options = training_options(cfg, device)
    model = build_model(cfg)
    if weights:
        load_weights(model, weights, fine_tune=True)
    losses = build_losses(cfg, _outputs(model), lambda: count_label_pixels(train_set))
    model = _for_device(model, device)
    optimizer, _ = build_optimizer(cfg, model.parameters())
    return Trainer(model, train_set, losses, optimizer, options)


def training_options(cfg: Any, device: str) -> Any:
    """Batch arithmetic, workers, AMP and EMA of a config on this machine."""
    from liteseg.engine.trainer import TrainOptions
    from liteseg.utils.logging import get_logger
    from liteseg.utils.runtime import cpu_threads, world_size

    batch, devices = cfg.batch_size, world_size()
    total = cfg.total_batch_size or batch * devices
    if total % (batch * devices):
        raise UserError(
            f"total_batch_size: {total} is not a multiple of {devices} devices x batch_size {batch}"
            f" = {batch * devices}; change batch_size or --devices"
        )
    amp, ema = cfg.amp, cfg.ema
    if amp and ema and amp.level == "O2":
        raise UserError("ema: can't average the low-precision weights of amp.level O2; use O1")
    if amp and device == "cpu":
        get_logger().warning("amp: Paddle has no mixed precision on CPU; training in float32")
        amp = None
    workers = cfg.num_workers
    if workers == "auto":
        # Beside a GPU the cores are free to read; on CPU one reader keeps up with the network.
        workers = min(8, max(1, cpu_threads() // devices)) if device == "gpu" else 1
    return TrainOptions(
        iters=cfg.iters,
        batch_size=batch,
        accumulate=total // (batch * devices),
        seed=cfg.seed or 0,
        num_workers=workers,
        amp=vars(amp) if amp else None,
        ema_decay=ema.decay if ema else None,
    )


def _for_device(model: Any, device: str) -> Any:
    """On GPUs batch norm over all devices, on a CPU the fast convolutions."""
    import paddle

    from liteseg.utils.runtime import world_size

    if world_size() > 1 and device == "gpu":
        model = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _outputs(model: Any) -> int:
    """How many logits the model returns in training."""
    import paddle

    model.eval()
    with paddle.no_grad():
        # The heads all run in training mode only; eval-mode batch norm leaves the statistics alone.
        model.training = True
        count = len(model(paddle.zeros([1, 3, 64, 64])))
    model.train()
    return count
