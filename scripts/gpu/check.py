"""The first fifteen minutes with a GPU: everything that was never run on one, in one command.

Each job runs in a process of its own, so a crash or a timeout costs one row. Prints a table, and
writes JSON after every row. `scripts/gpu_check.sh` calls this.

    python scripts/gpu/check.py [--json gpu.json] [--only step resume]
    python scripts/gpu/check.py --device cpu --quick     # tries the check itself without a GPU
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_RECIPES = "pp_liteseg/pp_liteseg_stdc{}_{}"
_CITYSCAPES, _CAMVID = "cityscapes_1024x512_scale1.0_160k", "camvid_960x720_10k"
_T, _B = _RECIPES.format(1, _CITYSCAPES), _RECIPES.format(2, _CITYSCAPES)
_O1 = "amp={level: O1, dtype: float16}"


class Job(NamedTuple):
    """A part with its options, and the environment of its process."""

    name: str
    part: str
    options: dict[str, Any] = {}
    environment: dict[str, str] = {}


JOBS = (
    Job("doctor", "doctor"),
    Job("step, CPU and device", "step", environment={"NVIDIA_TF32_OVERRIDE": "0"}),
    Job("curve float32", "curve"),
    Job("curve O1 float16", "curve", {"amp": "float16"}),
    Job("curve O1 bfloat16", "curve", {"amp": "bfloat16"}),
    Job("resume", "resume"),
    Job("sort and kthvalue", "selection"),
    Job("T float32", "speed", {"config": _T}),
    Job("T float32 without TF32", "speed", {"config": _T}, {"NVIDIA_TF32_OVERRIDE": "0"}),
    Job("T cuDNN search", "speed", {"config": _T, "changes": ["cudnn_exhaustive_search=true"]}),
    Job("T O1 float16", "speed", {"config": _T, "changes": [_O1]}),
    Job("B float32", "speed", {"config": _B}),
    Job("B O1 float16", "speed", {"config": _B, "changes": [_O1]}),
    Job("T CamVid", "speed", {"config": _RECIPES.format(1, _CAMVID)}),
    Job("loading data", "workers"),
    Job("evaluation", "evaluation"),
    Job("export", "export"),
    Job("two processes", "processes"),
)


def run_job(job: Job, arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """The values of a job, or its `error`."""
    command = [sys.executable, __file__, "--part", job.part, "--options", json.dumps(job.options)]
    # Not a pipe: processes that the job has left could keep it open.
    with tempfile.NamedTemporaryFile("r+") as output, tempfile.TemporaryFile("w+") as log:
        try:
            done = subprocess.run(
                [*command, "--json", output.name, *arguments],
                env={**os.environ, **job.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, timeout),
            )
        except subprocess.TimeoutExpired:
            return {"passed": False, "error": f"no result within {timeout:.0f} s"}
        if text := output.read():
            return json.loads(text)
        log.seek(0)
        lines = log.read().strip().splitlines()[-30:] or [""]
    return {"passed": False, "error": f"exit code {done.returncode}: {lines[-1]}", "log": lines}


def run_part(args: argparse.Namespace) -> None:
    """Run one part in this process and write its values."""
    from parts import PARTS, Setup

    setup = Setup(args.device, args.quick, args.folder)
    try:
        values = PARTS[args.part](setup, **json.loads(args.options))
    except Exception as error:
        traceback.print_exc()
        values = {"passed": False, "error": f"{type(error).__name__}: {error}"}
    args.json.write_text(json.dumps(values))


def machine(device: str) -> dict[str, Any]:
    """Versions and GPUs.

    Raises:
        UserError: there is no such device.
    """
    import liteseg
    import paddle  # isort: skip
    from liteseg.ops.device import select_device
    from liteseg.utils.nvidia import read_gpus

    selected = select_device(device)
    return {
        "date": datetime.date.today().isoformat(),
        "device": selected,
        "gpus": [str(gpu) for gpu in read_gpus()],
        "paddle": paddle.__version__,
        "cuda": str(paddle.version.cuda()),
        "liteseg": liteseg.__version__,
    }


def make_data(folder: Path, quick: bool) -> None:
    """Streets in the size of Cityscapes."""
    from liteseg.tasks.data import make_streets

    train, val, size = (4, 2, (128, 64)) if quick else (16, 6, (2048, 1024))
    make_streets(folder / "streets", train=train, val=val, size=size)


def check(args: argparse.Namespace) -> int:
    """Run the jobs; 1 if one has failed, 2 without the device."""
    from liteseg.errors import UserError

    jobs = [job for job in JOBS if not args.only or job.part in args.only]
    try:
        result: dict[str, Any] = {**machine(args.device), "quick": args.quick, "jobs": {}}
    except UserError as error:
        print(f"gpu_check: {error}\n(--device cpu --quick tries the check itself)", file=sys.stderr)
        return 2
    print(", ".join([*result["gpus"], *(f"{key} {result[key]}" for key in ("device", "paddle"))]))
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        make_data(folder, args.quick)
        arguments = ["--device", args.device, "--folder", str(folder)]
        arguments += ["--quick"] if args.quick else []
        for job in jobs:
            begin = time.monotonic()
            values = run_job(job, arguments, deadline - begin)
            values["seconds"] = round(time.monotonic() - begin, 1)
            result["jobs"][job.name] = values
            state = {None: "", True: "ok", False: "FAILED"}[values.get("passed")]
            text = values.get("error") or values["summary"]
            print(f"{job.name:24} {state:6} {values['seconds']:6.1f} s  {text[:300]}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(result, indent=1) + "\n")
    failed = [name for name, values in result["jobs"].items() if values.get("passed") is False]
    print(f"failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few iterations")
    parser.add_argument("--json", type=Path, help="file for all values")
    parser.add_argument("--only", nargs="+", choices=sorted({job.part for job in JOBS}))
    parser.add_argument("--minutes", type=float, default=14, help="time for all jobs (default: 14)")
    parser.add_argument("--folder", type=Path, help="new folder to keep the data and runs in")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        run_part(args)
    else:
        sys.exit(check(args))


if __name__ == "__main__":
    main()
