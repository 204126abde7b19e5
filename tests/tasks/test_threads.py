"""Threads that share models get the labels, and write the runs, that they would alone."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from filled_run import draw

import liteseg
from liteseg.ops.exclusive import exclusive, give_way

IMAGES = [draw(seed, (64 + 8 * (seed % 3), 96)) for seed in range(8)]

# In a process of their own, because Paddle's failures end it: 4 threads, then one per image.
SERVICE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
import numpy as np
import test_threads
import liteseg
segmenter = liteseg.Segmenter.from_pretrained(sys.argv[1])
images = test_threads.IMAGES
expected = [segmenter.predict(image) for image in images]
def check(number):
    wrong[number] = not np.array_equal(segmenter.predict(images[number % 8]), expected[number % 8])
wrong = [True] * 72
with ThreadPoolExecutor(4) as pool:
    list(pool.map(check, range(48)))
for start in range(48, 72, 4):
    threads = [Thread(target=check, args=(start + i,)) for i in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
assert not any(wrong), sum(wrong)
"""
# A segmenter that is built, a training and an evaluation in one thread each.
TASKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import test_threads
import liteseg
def predict(): return liteseg.Segmenter.from_pretrained(run).predict(test_threads.IMAGES[0])
def evaluate(): return liteseg.evaluate(None, run).miou
def train(place):
    options = ["iters=3", "num_workers=0"]
    return liteseg.train(f"{run}/config.yml", overrides=options, output=f"{out}/{place}").best_miou
run, out = sys.argv[1:]
with ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(train, "thread"), *map(pool.submit, [predict, evaluate, predict] * 2)]
    found = [job.result() for job in jobs]
assert found[0] == train("alone"), found[0]
for result, function in zip(found[1:], [predict, evaluate, predict] * 2):
    assert np.array_equal(result, function()), function
"""


def run_script(script: str, *arguments) -> None:
    """Run it in a child process; it must succeed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def child_environment() -> dict[str, str]:
    """An environment in which the modules of the tests can be imported."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.mark.parametrize("kind", ["weights", "paddle", "onnx", "openvino"])
def test_threads_share_a_segmenter(filled_run, exported, kind):
    run_script(SERVICE, filled_run if kind == "weights" else exported(kind))


def test_tasks_in_threads(filled_run, tmp_path):
    run_script(TASKS, filled_run, tmp_path)


def test_errors_reach_the_thread_that_called(filled_run):
    segmenter = liteseg.Segmenter.from_pretrained(filled_run)
    found: list[BaseException] = []

    def call() -> None:
        try:
            segmenter.predict(np.zeros((8, 8), np.uint8))
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(found) == 1


def test_others_run_where_a_long_function_gives_way():
    order = []
    short = exclusive(order.append)

    @exclusive
    def long() -> None:
        thread = threading.Thread(target=short, args=("short",))
        thread.start()
        while thread.is_alive():
            give_way()
        thread.join()
        order.append("long")

    long()
    threads = [threading.Thread(target=long) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[0] == "short"
    assert order.count("short") == order.count("long") == 3
