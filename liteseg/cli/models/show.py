"""`liteseg models` and `liteseg models show`: the zoo as a table, and one model of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Optional

from liteseg.cli.arguments import complete
from liteseg.utils.text import joined, redacted
from liteseg.utils.weights.download import is_url, recorded_sha256
from liteseg.utils.weights.source import cached_file, missing, model_of, models
from liteseg.utils.weights.zoo import Model

_HEADS = ("name", "alias", "classes", "scale", "mIoU", "measured on", "MB", "downloaded")


def add_arguments(actions: Any) -> None:
    """Declare the actions and their options."""
    parser = actions.add_parser("list", help="list all models, and which ones are downloaded")
    complete(parser, "liteseg models list")
    parser = actions.add_parser("show", help="print config, classes, address and file of a model")
    parser.add_argument("name", metavar="NAME", help="name or alias of a model (required)")
    complete(parser, "liteseg models show pp_liteseg_t1_cityscapes")


def run(args: argparse.Namespace) -> int:
    """Print the table or the model."""
    if args.action == "list":
        print(joined(_table(models())))
        return 0
    model = model_of(args.name)
    if model is None:
        raise missing(args.name)
    print(joined(f"{key:8} {value}" for key, value in _about(model) if value))
    return 0


def _table(found: tuple[Model, ...]) -> Iterator[str]:
    rows = [
        (
            model.name,
            ", ".join(model.aliases),
            _text(model.classes),
            _text(model.scale),
            _text(model.miou and f"{100 * model.miou:.2f}"),
            model.data,
            _text(model.size and round(model.size / 1e6)),
            "yes" if cached_file(model).is_file() else "no",
        )
        for model in found
    ]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows)]
    for row in (_HEADS, *rows):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _about(model: Model) -> Iterator[tuple[str, Optional[str]]]:
    from liteseg.tasks.runs import class_names_of

    file = cached_file(model)
    is_here = file.is_file()
    names = class_names_of(model.name) if model.config or is_here else None
    yield "name", model.name
    yield "aliases", ", ".join(model.aliases)
    yield "config", "none: an encoder" if model.is_encoder else model.config or "in the pack"
    if model.classes is not None:
        yield "classes", ": ".join([str(model.classes), *([", ".join(names)] if names else [])])
    yield "input", None if model.scale is None else f"images resized by {model.scale}"
    measured = None if model.miou is None else f"{100 * model.miou:.2f} %, {model.data}"
    yield "mIoU", measured
    yield "size", None if model.size is None else f"{model.size / 1e6:.0f} MB"
    yield "address", redacted(model.url)
    yield "sha256", model.sha256 or _recorded(model)
    note = "downloaded" if is_here else "not downloaded; without a network, put the file there"
    yield "file", f"{file} ({note})"


def _recorded(model: Model) -> str:
    found = recorded_sha256(model.url) if is_url(model.url) else None
    if found is None:
        return "not published; that of the first download will be recorded"
    return f"{found} (of the first download)"
