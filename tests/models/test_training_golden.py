"""Three training iterations of PP-LiteSeg-T against the published implementation."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from golden_rule import fill, image, label

from liteseg.engine.optim import polynomial_decay
from liteseg.losses import OhemCrossEntropyLoss
from liteseg.models import STDC1, PPLiteSeg
from liteseg.ops import onednn
from liteseg.registry import OPTIMIZERS


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "onednn"])
def run(request):
    """Losses (iteration, head), learning rates, gradient norms of iteration 0, final norms."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(onednn, "supports", lambda x: False)
        yield train()


def train():
    model = fill(PPLiteSeg(19, STDC1(), arm_out_chs=[32, 64, 128], seg_head_inter_chs=[32, 64, 64]))
    model.train()
    criterion = OhemCrossEntropyLoss(thresh=0.7, min_kept=1500)
    schedule = polynomial_decay(
        iters=12, learning_rate=0.005, power=0.9, warmup_iters=2, warmup_start_lr=1e-5
    )
    optimizer = OPTIMIZERS["SGD"](model.parameters(), schedule, momentum=0.9, weight_decay=5e-4)
    losses, rates, grad_norms = [], [], {}
    for iteration in range(3):
        target = paddle.to_tensor(label(20 + iteration, (2, 96, 160), 19))
        images = image(10 + iteration, (2, 3, 96, 160))
        heads = [criterion(logits, target) for logits in model(images)]
        sum(heads).backward()
        losses.append([float(loss) for loss in heads])
        rates.append(optimizer.get_lr())
        if iteration == 0:
            grad_norms = {
                name: np.linalg.norm(p.grad.numpy().astype(np.float64))
                for name, p in model.named_parameters()
                if p.grad is not None
            }
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
    state = model.state_dict()
    norms = [np.linalg.norm(state[key].numpy().astype(np.float64)) for key in sorted(state)]
    return losses, rates, grad_norms, norms


@pytest.fixture(scope="module")
def expected(golden):
    return np.load(golden / "model_T.npz")


def test_learning_rates(run, expected):
    np.testing.assert_allclose(run[1], expected["train_lrs"], rtol=1e-7)


def test_losses_of_each_head(run, expected):
    np.testing.assert_allclose(run[0], expected["train_losses"], rtol=1e-4)


def test_gradients(run, expected, golden):
    names = json.loads((golden / "grad_names_T.json").read_text())
    assert sorted(run[2]) == sorted(names)
    actual = np.array([run[2][name] for name in names])
    # A bias that batch norm cancels has a gradient of rounding noise alone.
    noise = 1e-6 * expected["grad_norms"].max()
    np.testing.assert_allclose(actual, expected["grad_norms"], rtol=1e-3, atol=noise)


def test_state_after_three_iterations(run, expected):
    np.testing.assert_allclose(run[3], expected["state_norms_after_3_steps"], rtol=1e-4)
