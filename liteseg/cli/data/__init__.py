"""`liteseg data`: check a dataset before training on it, pack it, or make the synthetic Streets."""

from __future__ import annotations

import argparse
from pathlib import Path

from liteseg.cli.data import pack as data_pack
from liteseg.cli.arguments import changes_of_config, complete, positive

SPLITS = ("train", "val", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = actions.add_parser(
        "check", help="read every image and label and say what would break or spoil training"
    )
    check.add_argument("--config", required=True, help="YAML file with the datasets")
    check.add_argument("--split", choices=(*SPLITS, "all"), default="all")
    changes_of_config(check)
    check.add_argument("--json", metavar="FILE", help="write the whole report as JSON")
    check.add_argument("--sample", type=positive, metavar="N", help="check N images a split only")
    check.add_argument("--workers", type=positive, metavar="N", help="threads (default: cores)")
    complete(check, "liteseg data check --config quickstart")

    data_pack.add_arguments(actions)

    streets = actions.add_parser("streets", help="write the synthetic Streets dataset")
    streets.add_argument("--output", required=True, metavar="DIR")
    streets.add_argument("--train", type=positive, default=200, metavar="N", help="images")
    streets.add_argument("--val", type=positive, default=50, metavar="N", help="images")
    streets.add_argument(
        "--size", type=positive, nargs=2, default=(512, 256), metavar=("W", "H"), help="pixels"
    )
    streets.add_argument("--seed", type=int, default=0)
    complete(streets, "liteseg data streets --output data/streets")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; 0 when done, 2 when the check found errors."""
    return {"check": _check, "pack": data_pack.run, "streets": _streets}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from liteseg.config.build import build_dataset
    from liteseg.config.resolve import load_checked
    from liteseg.datasets import check_dataset, find_duplicates, format_report
    from liteseg.errors import UserError
    from liteseg.utils.files import check_writable, write_json

    if args.json:
        check_writable(Path(args.json).parent)
    cfg = load_checked(args.config, args.set)
    splits = [s for s in SPLITS if getattr(cfg, f"{s}_dataset")] if args.split == "all" else [args.split]
    if not splits:
        raise UserError(f"{args.config}: no train_dataset, val_dataset or test_dataset to check")
    report = {"splits": {}, "errors": []}
    datasets = {}
    for split in splits:
        try:
            datasets[split] = build_dataset(cfg, split)
        except UserError as error:  # the other splits are still worth checking
            report["errors"].append({"file": split, "problem": str(error)})
            print(f"{split}: error: {error}")
            continue
        datasets[split].pack = None  # it is the files that are checked
        found = check_dataset(
            datasets[split],
            args.workers,
            args.sample,
            needs_labels=split != "test",
            needs_one_size=split == "train" and cfg.batch_size > 1,
        )
        report["splits"][split] = found
        print(format_report(found, split))
    report["duplicates"] = find_duplicates(datasets, args.workers, progress=True)
    _print_duplicates(report["duplicates"])
    if args.json:
        write_json(args.json, report)
    bad = report["errors"] or any(found["errors"] for found in report["splits"].values())
    return 2 if bad else 0


def _print_duplicates(groups: list[list[str]]) -> None:
    """A warning on images that are in several splits, and one on those twice in one split."""
    across = [group for group in groups if len({entry.partition(": ")[0] for entry in group}) > 1]
    within = [group for group in groups if group not in across]
    for found, where in ((across, "are in more than one split"), (within, "are twice in a split")):
        if found:
            first = "\n    ".join(found[0])
            print(f"warning: {len(found)} images (by content) {where}, the first:\n    {first}")


def _streets(args: argparse.Namespace) -> int:
    from liteseg.datasets.streets.generate import generate

    size = tuple(args.size)
    root = generate(Path(args.output), train=args.train, val=args.val, size=size, seed=args.seed)
    print(f"Streets: {args.train} train and {args.val} val images in {root}")
    return 0
