"""liteseg: PP-LiteSeg (arXiv 2204.02681) for PaddlePaddle, trained and deployed from YAML."""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from liteseg.ops import environment as _environment

__version__ = "0.1.0"
__all__ = [
    "ConfusionMatrix",
    "Hook",
    "Segmenter",
    "TestConfig",
    "Trainer",
    "UserError",
    "__version__",
    "build_dataset",
    "build_model",
    "build_trainer",
    "check",
    "compare",
    "evaluate",
    "evaluate_predictions",
    "export",
    "load_checked",
    "load_config",
    "load_weights",
    "predict",
    "train",
]

_environment.prepare()

if TYPE_CHECKING:
    from liteseg.config.build import build_dataset, build_model
    from liteseg.config.check import check, load_checked
    from liteseg.config.load import load_config
    from liteseg.config.test_config import TestConfig
    from liteseg.engine.trainer import Hook, Trainer
    from liteseg.errors import UserError
    from liteseg.metrics import ConfusionMatrix
    from liteseg.tasks.compare import compare
    from liteseg.tasks.evaluate import evaluate
    from liteseg.tasks.export import export
    from liteseg.tasks.predict import predict
    from liteseg.tasks.prediction_folder import evaluate_predictions
    from liteseg.tasks.segmenter import Segmenter
    from liteseg.tasks.train import build_trainer, train
    from liteseg.utils.weights.load import load_weights
else:
    # The same names, imported on first use: `import liteseg` must not wait for Paddle.
    _MODULES = {
        "ConfusionMatrix": "liteseg.metrics",
        "Hook": "liteseg.engine.trainer",
        "Segmenter": "liteseg.tasks.segmenter",
        "TestConfig": "liteseg.config.test_config",
        "Trainer": "liteseg.engine.trainer",
        "UserError": "liteseg.errors",
        "build_dataset": "liteseg.config.build",
        "build_model": "liteseg.config.build",
        "build_trainer": "liteseg.tasks.train",
        "check": "liteseg.config.check",
        "compare": "liteseg.tasks.compare",
        "evaluate": "liteseg.tasks.evaluate",
        "evaluate_predictions": "liteseg.tasks.prediction_folder",
        "export": "liteseg.tasks.export",
        "load_checked": "liteseg.config.check",
        "load_config": "liteseg.config.load",
        "load_weights": "liteseg.utils.weights.load",
        "predict": "liteseg.tasks.predict",
        "train": "liteseg.tasks.train",
    }

    def __getattr__(name: str):
        if name in _MODULES:
            return getattr(_import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'liteseg' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__
