"""Values, errors and setups that processes exchange before they train together."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from liteseg.config.load import load_config
from liteseg.errors import UserError
from liteseg.ops.device import operator_threads
from liteseg.tasks import agreement
from liteseg.tasks.agreement import fingerprint, require_same_setup, shared_errors
from liteseg.tasks.launch import launch
from liteseg.tasks.train import training_options
from liteseg.utils.runtime import from_main, rank

VALUE = {
    "arrays": [np.arange(6).reshape(2, 3).astype("float32"), np.zeros((0, 3)), np.array(3.5)],
    "strided": np.asfortranarray(np.arange(6.0).reshape(2, 3))[:, ::2],
    "other": (np.float32(2), True, "text", None),
}


def exchange():
    """In each process: the errors that it sees; an exception if a value differs."""
    errors = []
    with shared_errors():
        pass
    received = from_main(lambda: VALUE if rank() == 0 else 1 / 0)
    np.testing.assert_equal(received, VALUE)
    received["arrays"][0][0, 0] = 5  # writable
    received["arrays"][0][0, 0] = 0
    for process in (0, 1, None):
        try:
            with shared_errors():
                if process in (rank(), None):
                    raise UserError("no such file")
        except UserError as error:
            errors.append(str(error))
    try:
        from_main(lambda: fail("disk full"))
    except UserError as error:
        errors.append(str(error))
    return errors


def fail(text):
    raise UserError(text)


def test_values_and_errors_reach_every_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    errors = launch(exchange, {}, devices=2, device="cpu", logs=tmp_path, name="test")
    host = os.uname().nodename
    assert errors == [
        f"{host}, rank 0: no such file",
        f"{host}, rank 1: no such file",
        "no such file",
        "disk full",
    ]


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """Compares the setup of this process with that of another one, whose facts are changed."""
    monkeypatch.setattr(agreement, "world_size", lambda: 2)
    monkeypatch.setattr(agreement, "local_rank", lambda: 0)
    monkeypatch.setattr(agreement, "connect", lambda: None)
    config = load_config("quickstart", ["batch_size=2"])
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.write_bytes(b"12345")
    dataset = SimpleNamespace(samples=[(files[0], files[1], "a"), (files[1], None, "b")])

    def run(**changes):
        def gathered(own):
            return [
                ("a, rank 0", own[1]),
                ("a, rank 1", None),
                ("b, rank 2", {**own[1], **changes}),
            ]

        monkeypatch.setattr(agreement, "gathered_objects", gathered)
        require_same_setup(SimpleNamespace(source=config), train_dataset=dataset)

    run.dataset = dataset
    return run


def test_the_same_setup(compare):
    compare()
    compare(**dict(agreement._leaves("", {"num_workers": 3})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"liteseg": "0.0"}, r"b, rank 2: liteseg is 0.0, and \S+ on a, rank 0; give every"),
        ({"batch_size": 4}, "b, rank 2: batch_size is 4, and 2 on a, rank 0"),
        ({"ema.decay": 0.9}, "b, rank 2: ema.decay is 0.9, and absent on a, rank 0"),
        ({"train_dataset": "3 files"}, "train_dataset is 3 files, and 3 files of 15 bytes"),
    ],
)
def test_what_differs_is_named_with_its_machine(changes, words, compare):
    with pytest.raises(UserError, match=words):
        compare(**changes)


def test_a_fingerprint_has_names_and_sizes(compare, tmp_path):
    before = fingerprint(compare.dataset)
    moved = [tmp_path / "copy" / tmp_path.name / name for name in ("a.png", "b.png")]
    moved[0].parent.mkdir(parents=True)
    for file in moved:
        file.write_bytes(b"54321")
    compare.dataset.samples = [(moved[0], moved[1], "a"), (moved[1], None, "b")]
    assert fingerprint(compare.dataset) == before  # the folder and the content do not matter
    moved[0].write_bytes(b"123456")
    assert fingerprint(compare.dataset) != before


def test_processes_divide_the_cores_of_their_own_machine(monkeypatch):
    for name, value in {"TRAINERS_NUM": 16, "TRAINER_ID": 9, "LOCAL_SIZE": 8}.items():
        monkeypatch.setenv(f"PADDLE_{name}", str(value))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("liteseg.ops.device.cpu_threads", lambda: 64)
    monkeypatch.setattr("liteseg.tasks.train.cpu_threads", lambda: 32)
    assert operator_threads() == 8
    cfg = SimpleNamespace(
        batch_size=1, total_batch_size=16, amp=None, ema=None, iters=1, seed=0, num_workers="auto"
    )
    assert training_options(cfg, "gpu").num_workers == 4
