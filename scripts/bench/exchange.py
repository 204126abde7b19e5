"""The exchange of gradients: measured here over loopback, computed for GPUs and their links.

    python scripts/bench/exchange.py

Prints two tables. The first has measurements of this machine: gradients of a training iteration,
batch-norm layers, multiply-adds, and the time in which 1, 2 and 4 processes sum the gradients with
gloo. The second is computed from those counts and from published numbers (`LINKS`, `FLOPS`):
nothing in it was measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from liteseg.tasks.launch import connect, launch

MODELS = {
    "T": "pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k",
    "B": "pp_liteseg/pp_liteseg_stdc2_cityscapes_1024x512_scale0.5_160k",
}
CROP = (1024, 512)  # of the recipe, (w, h)

# Published bandwidth of one GPU or machine in one direction, GB/s.
LINKS = {
    "NVLink 3 (A100: 600 GB/s in both directions)": 300.0,
    "PCIe 4.0 x16": 31.5,
    "InfiniBand HDR, 200 Gbit/s": 25.0,
    "Ethernet, 25 Gbit/s": 3.1,
}
# Published float32 operations per second of an A100 without tensor cores, and the share of them
# that a training is assumed to reach.
FLOPS, REACHED = 19.5e12, 0.35
# Assumed time of a small all-reduce, which SyncBatchNorm needs twice per layer: in a machine, and
# between machines.
LATENCY_INSIDE, LATENCY_BETWEEN = 30e-6, 60e-6
FORWARD_AND_BACKWARD = 3  # in forward passes


class Counts(NamedTuple):
    """Cost of an iteration of a network; `macs` are the multiply-adds of an image, forward."""

    gradient_bytes: int
    batch_norms: int
    macs: float


def count(config: str) -> Counts:
    """Count the gradients, batch-norm layers and multiply-adds of a config."""
    import paddle

    from liteseg.config.build import build_model
    from liteseg.config.check import load_checked
    from liteseg.tasks.benchmark.model import benchmark_model

    cfg = load_checked(config)
    model = build_model(cfg, pretrained=False)
    trained = [p for p in model.parameters() if not p.stop_gradient]
    norms = [one for one in model.sublayers() if isinstance(one, paddle.nn.BatchNorm2D)]
    macs = benchmark_model(cfg, size=CROP).total.multiply_adds
    return Counts(sum(4 * int(p.size) for p in trained), len(norms), macs)


def exchange(sizes: Sequence[int], repeat: int) -> list[float]:
    """In each process: median seconds in which all sum `bytes` of float32, for each of `sizes`."""
    import paddle

    connect()
    medians = []
    for size in sizes:
        # DataParallel sends groups of about 25 MB, as soon as their gradients are there.
        groups = [paddle.ones([min(25 << 20, size - at) // 4]) for at in range(0, size, 25 << 20)]
        seconds = []
        for _ in range(repeat + 1):
            paddle.distributed.barrier()
            begin = time.perf_counter()
            for group in groups:
                paddle.distributed.all_reduce(group)
            seconds.append(time.perf_counter() - begin)
        medians.append(statistics.median(seconds[1:]))
    return medians


def measure(sizes: Sequence[int], processes: int, repeat: int) -> list[float]:
    """`exchange` in several processes of this machine."""
    if processes == 1:
        return [0.0] * len(sizes)  # DataParallel is not used
    # The processes import this module.
    folder = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    import exchange as module

    arguments = {"sizes": list(sizes), "repeat": repeat}
    options = {"devices": processes, "device": "cpu", "name": "exchange.py"}
    with tempfile.TemporaryDirectory() as logs:
        return launch(module.exchange, arguments, logs=Path(logs), **options)


def ring_seconds(size: int, members: int, gigabytes: float) -> float:
    """Seconds of a ring all-reduce: each member sends 2 (n - 1) / n of the data."""
    return 2 * (members - 1) / members * size / (gigabytes * 1e9)


def efficiency(
    counts: Counts,
    images: int,
    machines: int,
    gpus: int,
    inside: float,
    between: float,
    overlap: float = 0.0,
) -> tuple[float, float, float]:
    """Milliseconds to compute and to exchange in an iteration, and the share spent computing.

    Args:
        counts: of the network.
        images: of each GPU in an iteration.
        machines: number of them.
        gpus: of each machine.
        inside: bandwidth of the link between the GPUs of a machine, GB/s in one direction.
        between: the same between machines.
        overlap: share of the exchange of gradients that is hidden behind the backward pass.
    """
    compute = images * counts.macs * 2 * FORWARD_AND_BACKWARD / (FLOPS * REACHED)
    # In each machine first, then between them.
    gradients = ring_seconds(counts.gradient_bytes, gpus, inside)
    gradients += ring_seconds(counts.gradient_bytes, machines, between)
    latency = LATENCY_BETWEEN if machines > 1 else LATENCY_INSIDE
    exchanged = (1 - overlap) * gradients + 2 * counts.batch_norms * latency
    return 1000 * compute, 1000 * exchanged, compute / (compute + exchanged)


def computed_rows(name: str, counts: Counts) -> list[str]:
    """Rows of the second table."""
    nvlink, pcie, infiniband, ethernet = LINKS.values()
    setups = [
        ("1 x 8, NVLink", 2, 1, 8, nvlink, nvlink),
        ("1 x 8, PCIe", 2, 1, 8, pcie, pcie),
        ("4 x 4, NVLink, InfiniBand", 1, 4, 4, nvlink, infiniband),
        ("4 x 4, NVLink, 25 Gbit/s", 1, 4, 4, nvlink, ethernet),
        ("4 x 8, NVLink, InfiniBand", 4, 4, 8, nvlink, infiniband),
    ]
    rows = []
    for setup, *numbers in setups:
        compute, exchanged, share = efficiency(counts, *numbers)
        hidden = efficiency(counts, *numbers, overlap=1.0)[2]
        images, machines, gpus = numbers[:3]
        total = int(images * machines * gpus)
        rows.append(
            f"| {name} | {setup} | {images} ({total}) | {compute:.1f} | {exchanged:.1f} "
            f"| {share:.0%} to {hidden:.0%} |"
        )
    return rows


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure, compute, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument(
        "--repeat", type=int, default=10, metavar="N", help="exchanges to time (default: 10)"
    )
    args = parser.parse_args(argv)
    counts = {name: count(config) for name, config in MODELS.items()}
    sizes = [one.gradient_bytes for one in counts.values()]
    times = [measure(sizes, processes, args.repeat) for processes in args.processes]
    columns = " | ".join(f"exchange, {processes} processes" for processes in args.processes)
    print(f"| network | gradients | batch norms | multiply-adds per image | {columns} |")
    print("|---" * (4 + len(times)) + "|")
    for index, (name, one) in enumerate(counts.items()):
        cells = " | ".join(f"{1000 * row[index]:.0f} ms" for row in times)
        size = f"{one.gradient_bytes / 1e6:.1f} MB"
        print(f"| {name} | {size} | {one.batch_norms} | {one.macs / 1e9:.1f} G | {cells} |")
    columns = "machines x GPUs | images per GPU (total) | compute, ms | exchange, ms | efficiency"
    print(f"\n| network | {columns} |\n{'|---' * 6}|")
    for name, one in counts.items():
        print("\n".join(computed_rows(name, one)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
