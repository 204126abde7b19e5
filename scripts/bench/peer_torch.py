"""A PyTorch twin of PP-LiteSeg, channels last: how fast a training step can be.

The network is not part of this repository: `TWIN` names a folder with `torch_twin.py`, whose
`PPLiteSeg(classes)` has PaddleSeg's parameter names.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import protocol
import torch
import torch.nn.functional as F

sys.path.insert(0, os.environ["TWIN"])
from torch_twin import PPLiteSeg

_NAMES = {"_mean": "running_mean", "_variance": "running_var"}


def _ohem(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    losses = F.cross_entropy(logits, label, ignore_index=protocol.IGNORE, reduction="none")
    valid = label != protocol.IGNORE
    ranked = torch.where(valid, losses.detach(), -1.0).flatten()
    kth = ranked.topk(int(label.numel() * protocol.KEPT), sorted=False).values.min()
    kept = valid & (losses.detach() > kth.clamp(max=-math.log(0.7)))
    return losses[kept].mean()


def _step(work: Path) -> protocol.Case:
    images, label = protocol.step_batch()
    images = torch.from_numpy(((images / 255 - 0.5) / 0.5).astype(np.float32))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    label = torch.from_numpy(label.astype(np.int64))

    def training():
        model = PPLiteSeg(protocol.STEP_CLASSES).to(memory_format=torch.channels_last)
        model.load_state_dict(_weights(work / "step.npz"), strict=False)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), protocol.STEP_RATE, 0.9, weight_decay=5e-4)

        def step():
            losses = [_ohem(logits, label) for logits in model(images)]
            sum(losses).backward()
            optimizer.step()
            optimizer.zero_grad()
            return [float(loss) for loss in losses]

        return step

    return protocol.Case(training(), lambda: {"losses": np.array(training()())})


def _weights(file: Path) -> dict[str, torch.Tensor]:
    """The weights under PyTorch's names."""
    found = {}
    with np.load(file) as arrays:
        for key, array in arrays.items():
            head, _, tail = key.rpartition(".")
            found[f"{head}.{_NAMES.get(tail, tail)}"] = torch.from_numpy(array)
    return found


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    protocol.serve(f"PyTorch {torch.__version__}", {"training step": _step})
