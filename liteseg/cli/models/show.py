"""`liteseg models` and `liteseg models show`: the zoo as a table, and one model of it."""

from __future__ import annotations

import argparse
from typing import Any

from liteseg.cli.arguments import complete
from liteseg.errors import UserError
from liteseg.utils.weights import zoo


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
        for model in zoo.PUBLISHED:
            print(model.name, *model.aliases)
        return 0
    model = zoo.find(args.name)
    if model is None:
        raise UserError(f"no model {args.name!r}; did you mean {zoo.nearest(args.name)}")
    print(model)
    return 0
