"""The files for batch systems: parsed, and their commands run in two processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT
from plain_run import ENVIRONMENT, last_checkpoint, lines, prepare

CLUSTER = ROOT / "scripts" / "cluster"
SMALL = ("--set", "batch_size=2", "--set", "iters=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("cluster"))
    (folder / "my.yml").write_text((folder / "plain.yml").read_text())
    return folder


def pods(file, port):
    """(command line, environment) of each pod of a Kubernetes file, and its volume mounts."""
    job = list(yaml.safe_load_all((CLUSTER / file).read_text()))[-1]
    spec, ranks = job["spec"], {}
    if job["kind"] == "PaddleJob":
        spec = spec["paddleReplicaSpecs"]["Worker"]
        count = spec["replicas"]
        ranks = {"PADDLE_NNODES": str(count), "PADDLE_MASTER": f"127.0.0.1:{port}"}
    else:
        count = spec["completions"]
        assert spec["parallelism"] == count
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for index in range(count):
        environment = dict(ranks)
        for variable in container.get("env", ()):
            field = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            environment[variable["name"]] = str(index)
        filled = lambda text: re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], text)  # noqa: E731, B023
        yield [*container["command"], *map(filled, container["args"])], environment


@pytest.mark.parametrize("file", ["job.yml", "paddlejob.yml"])
def test_kubernetes(file, folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for index, (words, environment) in enumerate(pods(file, port)):
        assert words[0] == "liteseg"
        local = {"/configs/": f"{folder}/", "/output/": f"{tmp_path}/{index}/"}
        local |= {"liteseg-0.liteseg:6170": f"127.0.0.1:{port}", "--devices=8": "--devices=1"}
        for name, here in local.items():
            assert "PADDLE" in str(environment) or any(name in word for word in words), name
            words = [word.replace(name, here) for word in words]
        command = [sys.executable, "-m", *words, *SMALL]
        processes.append(
            subprocess.Popen(
                command,
                env={**ENVIRONMENT, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    # One pod writes; without --node-rank that is the one which has the master's address first.
    (writer,) = (run for run in tmp_path.glob("*/my") if (run / "checkpoints").exists())
    assert last_checkpoint(writer) == 3
    assert file == "paddlejob.yml" or writer.parent.name == "0"


def test_kubernetes_names_the_pods():
    service, job = yaml.safe_load_all((CLUSTER / "job.yml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    master = f"--master={job['metadata']['name']}-0.{pod['subdomain']}:6170"
    assert master in container["args"]
    assert f"--nodes={job['spec']['completions']}" in container["args"]


FAKE_SRUN = """\
#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & done
wait %1 && wait %2
"""


@pytest.fixture
def slurm(folder, tmp_path):
    """The command and the environment of a batch script with two tasks."""
    for name, text in (("srun", FAKE_SRUN), ("scontrol", "#!/bin/sh\necho 127.0.0.1\necho b\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **ENVIRONMENT,
        "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node-[0-1]",
        "SLURM_NNODES": "2",
    }
    command = ["bash", CLUSTER / "slurm.sh", "--config", folder / "my.yml"]
    return [*map(str, command), "--output", str(tmp_path / "run"), *SMALL], environment


def test_slurm_stops_with_a_checkpoint_before_the_time_limit(slurm, tmp_path):
    (*command, _), environment = slurm
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "iters=100000"], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not (run / "checkpoints/last").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # to the batch script alone
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "stopped by SIGTERM" in (run / "train.log").read_text()
    assert last_checkpoint(run) == lines(run, "train")[-1]["step"]


def test_slurm_with_a_shared_file_system(slurm, tmp_path):
    command, environment = slurm
    run = tmp_path / "run"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in lines(run, "train")] == [1, 2, 3]
    assert len(list((run / "launch").iterdir())) == 2


def test_slurm_syntax():
    text = (CLUSTER / "slurm.sh").read_text()
    assert subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"]).returncode == 0
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    assert len(options) == len(set(options)) == text.count("#SBATCH")
    # Slurm ignores options after the first command.
    assert text.rindex("#SBATCH") < text.index("\nset -euo pipefail\n")
