"""The peer that trains PP-LiteSeg-T with PyTorch, channels last."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import protocol
import torch
import torch.nn.functional as F
from torch_twin import PPLiteSeg


def _ohem(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    losses = F.cross_entropy(logits, label, ignore_index=protocol.IGNORE, reduction="none")
    valid = label != protocol.IGNORE
    ranked = torch.where(valid, losses.detach(), -1.0).flatten()
    kth = ranked.topk(int(label.numel() * protocol.KEPT), sorted=False).values.min()
    kept = valid & (losses.detach() > kth.clamp(max=-math.log(0.7)))
    return losses[kept].mean()


def _training_iteration(work: Path) -> protocol.Case:
    images, label = protocol.train_batch()
    images = torch.from_numpy(((images / 255 - 0.5) / 0.5).astype(np.float32))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    label = torch.from_numpy(label.astype(np.int64))

    def training():
        model = PPLiteSeg(protocol.TRAIN_CLASSES).to(memory_format=torch.channels_last)
        with np.load(work / "train.npz") as arrays:
            model.load_arrays(arrays)
        model.train()
        optimizer = torch.optim.SGD(
            model.parameters(), protocol.LEARNING_RATE, 0.9, weight_decay=5e-4
        )

        def iterate():
            losses = [_ohem(logits, label) for logits in model(images)]
            sum(losses).backward()
            optimizer.step()
            optimizer.zero_grad()
            return [loss.item() for loss in losses]

        return iterate

    return protocol.Case(training(), lambda: {"losses": np.array(training()())})


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    protocol.serve(f"PyTorch {torch.__version__}", {"training iteration": _training_iteration})
