"""Checks of Python and the packages: versions, imports and Paddle's device.

Versions come from package metadata, and imports run in child processes, so that a package that is
missing, broken or crashes is a finding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from liteseg.doctor.constraints import Constraints, read_constraints
from liteseg.doctor.findings import BAD, NOTE, OK, Finding, installed, pip, run_child
from liteseg.utils import nvidia

PADDLES = ("paddlepaddle", "paddlepaddle-gpu")
# All provide `cv2`: two of them overwrite each other's files.
OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
RUNTIME = (
    *("numpy", "opencv-python", "pillow", "pyyaml", "tqdm", "visualdl", "protobuf"),
    *("filelock", "jinja2"),
)
# Paddle line -> first numpy version that breaks it, and the symptom.
NUMPY_LIMITS = {
    "2.6": ((2, 0), "Paddle 2.6 was built for numpy 1 and does not import"),
    "3.3": ((2, 4), "float(tensor) raises TypeError on Paddle 3.3"),
}
_GIB = 2**30


def _numbers(version: str) -> tuple[int, int]:
    """(3, 3) for "3.3.1" or "3.3rc1"."""
    major, minor = re.findall(r"\d+", f"{version}.0")[:2]
    return int(major), int(minor)


def current_set() -> Constraints:
    """The tested set for the installed Paddle, or else the newest set."""
    sets = read_constraints()
    lines = [_numbers(paddle) for paddle in installed(PADDLES).values()]
    return next((one for one in sets if _numbers(one.line) in lines), sets[0])


def check_python() -> list[Finding]:
    """Whether the set was tested on this Python."""
    tested, (major, minor) = current_set(), sys.version_info[:2]
    found = f"{major}.{minor}.{sys.version_info[2]} ({sys.executable})"
    lowest, highest = tested.pythons
    if lowest <= minor <= highest:
        return [Finding("Python", OK, found)]
    fix = f"Paddle {tested.line} was tested on Python 3.{lowest} to 3.{highest}: use one of these"
    return [Finding("Python", BAD if minor < lowest else NOTE, found, fix)]


def check_paddle() -> list[Finding]:
    """Whether one Paddle is installed, of a tested version."""
    tested, found = current_set(), installed(PADDLES)
    wanted = tested.pins["paddlepaddle"]
    install = pip(f"paddlepaddle=={wanted}", constraints=tested.path)
    if not found:
        gpus = nvidia.read_gpus()
        fix = nvidia.install_command(gpus, replace=False) if gpus else install
        return [Finding("Paddle", BAD, "not installed", fix)]
    shown = " and ".join(f"{name} {number}" for name, number in found.items())
    if len(found) > 1:
        remove = f"{sys.executable} -m pip uninstall -y {' '.join(PADDLES)}"
        gpus = nvidia.read_gpus()
        again = f"{remove} && {pip('paddlepaddle==' + found['paddlepaddle'])}"
        problem = f"{shown} overwrite each other's files"
        fix = nvidia.install_command(gpus) if gpus else again
        return [Finding("Paddle", BAD, problem, fix)]
    ((name, number),) = found.items()
    if number.partition("+")[0] == wanted:  # "3.3.1+cu126"
        return [Finding("Paddle", OK, f"{shown}, as tested")]
    lines = ", ".join(one.pins["paddlepaddle"] for one in read_constraints())
    old = (0, 0) < _numbers(number) < (2, 6)  # nightly builds are 0.0.0
    gpus = nvidia.read_gpus() if name == "paddlepaddle-gpu" else ()
    fix = nvidia.install_command(gpus) if gpus else install
    return [Finding("Paddle", BAD if old else NOTE, f"{shown}; tested: {lines}", fix)]


def check_packages() -> list[Finding]:
    """Versions of the other packages compared with the tested set."""
    tested = current_set()
    found = installed([*RUNTIME, *OPENCVS])
    opencvs = [name for name in OPENCVS if name in found]
    present = {**({"opencv-python": found[opencvs[0]]} if opencvs else {}), **found}
    missing = [name for name in RUNTIME if name not in present]
    other = [n for n in RUNTIME if n in present and present[n] != tested.pins[n]]
    findings = []
    if missing:
        # Training works without its dashboard.
        state = NOTE if missing == ["visualdl"] else BAD
        text = f"missing: {', '.join(missing)}"
        findings.append(Finding("packages", state, text, _install(tested, missing)))
    if other:
        shown = ", ".join(f"{n} {present[n]} (tested {tested.pins[n]})" for n in other)
        findings.append(Finding("packages", NOTE, shown, _install(tested, other)))
    if len(opencvs) > 1:
        text = f"{' and '.join(opencvs)} overwrite each other"
        again = pip(f"opencv-python=={tested.pins['opencv-python']}")
        fix = f"{sys.executable} -m pip uninstall -y {' '.join(opencvs)} && {again}"
        findings.append(Finding("packages", NOTE, text, fix))
    if not findings:
        findings = [Finding("packages", OK, f"as tested with Paddle {tested.line}")]
    return [*_check_numpy(tested, present.get("numpy")), *findings]


def _install(tested: Constraints, names: Iterable[str], *options: str) -> str:
    """The command that installs the tested versions of `names`."""
    return pip(*options, *(f"{n}=={tested.pins[n]}" for n in names), constraints=tested.path)


def _check_numpy(tested: Constraints, numpy: Optional[str]) -> list[Finding]:
    limit, problem = NUMPY_LIMITS.get(tested.line, (None, ""))
    if numpy is None or limit is None or _numbers(numpy) < limit:
        return []
    return [Finding("numpy", BAD, f"{numpy}: {problem}", _install(tested, ["numpy"]))]


_IMPORT_EACH = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps({"trying": name}), flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        print(json.dumps({name: f"{type(error).__name__}: {lines[-1]}"}), flush=True)
"""
MODULES = {
    "numpy": "numpy",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
    "filelock": "filelock",
    "jinja2": "jinja2",
}


def check_imports() -> list[Finding]:
    """Whether the small packages can be imported; Paddle and VisualDL have their own checks."""
    reported, problem = run_child(_IMPORT_EACH, *MODULES)
    trying = reported.pop("trying", "")
    broken = {**reported, **({trying: problem} if problem else {})}
    if not broken:
        return [Finding("imports", OK, ", ".join(MODULES))]
    found = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
    if _LIBRARY_OF_OPENCV.search(found):
        return [Finding("imports", BAD, found, _install_libraries_of_opencv())]
    names = [MODULES[n] for n in broken if n in MODULES]
    return [Finding("imports", BAD, found, _install(current_set(), names, "--force-reinstall"))]


# System libraries that opencv-python needs and opencv-python-headless does not.
_LIBRARY_OF_OPENCV = re.compile(r"lib(GL|EGL|gthread|glib|SM|ICE|X11|Xext|Xrender|xcb)\b[-.]")


_TRY_PADDLE = """
import json, time
def report(**facts): print(json.dumps(facts), flush=True)
report(stage="import of Paddle")
begin = time.perf_counter()
import liteseg, paddle
report(version=paddle.__version__, seconds=time.perf_counter() - begin)
report(stage="device selection")
from liteseg.ops.device import select_device
report(cuda_build=paddle.is_compiled_with_cuda(), device=select_device("auto"))
if paddle.is_compiled_with_cuda():
    cuda = paddle.device.cuda
    gpus = [cuda.get_device_properties(i) for i in range(cuda.device_count())]
    report(gpus=[[gpu.name, gpu.total_memory] for gpu in gpus], cuda=str(paddle.version.cuda()))
    if gpus:
        report(stage="search for cuDNN", cudnn=paddle.device.get_cudnn_version() or 0)
report(stage="convolution")
image, kernel = paddle.ones([1, 3, 8, 8]), paddle.ones([2, 3, 3, 3])
assert float(paddle.nn.functional.conv2d(image, kernel).sum()) == 1944
report(stage="float() of a tensor")
assert float(paddle.ones([1])) == 1
report(stage="import of liteseg's components")
from liteseg.config.plugins import load_components
load_components()
"""


def check_device() -> list[Finding]:
    """Import Paddle after liteseg, select the device and compute on it, in a child process."""
    if not installed(PADDLES):
        return []
    reported, problem = run_child(_TRY_PADDLE)
    findings = []
    if "version" in reported:
        found = f"{reported['version']} in {reported['seconds']:.1f} s"
        findings.append(Finding("import paddle", OK, found))
    gpus = nvidia.read_gpus()
    findings += _check_gpu_build(reported, gpus)
    if problem:
        stage = reported.get("stage", "import of Paddle")
        return [*findings, _paddle_failure(stage, problem, gpus if "cuda" in reported else ())]
    return [*findings, _device(reported, gpus)]


def _check_gpu_build(reported: dict[str, Any], gpus: Sequence[nvidia.Gpu]) -> list[Finding]:
    """Whether Paddle has code for the GPUs, and cuDNN."""
    findings = []
    without = [gpu for gpu in gpus if nvidia.lacks_code(reported.get("cuda", ""), gpu)]
    if without:
        found = f"this Paddle (CUDA {reported['cuda']}) has no code for {without[0]}"
        findings.append(Finding("GPU", BAD, found, nvidia.install_command(gpus)))
    cudnn = reported.get("cudnn")
    if cudnn:
        major, rest = divmod(cudnn, 10_000 if cudnn >= 90_000 else 1000)
        findings.append(Finding("cuDNN", OK, f"{major}.{rest // 100}.{rest % 100}"))
    elif cudnn is not None:
        found = "not found: the PyPI package does not contain it, Paddle's own packages do"
        fix = nvidia.install_command(gpus) if gpus else "install cuDNN"
        findings.append(Finding("cuDNN", BAD, found, fix))
    return findings


def _install_libraries_of_opencv() -> str:
    """The command that installs them, or without root an OpenCV that does not need them."""
    present = [name for name in OPENCVS if name in installed(OPENCVS)]
    pin = next(iter(installed(OPENCVS).values()), current_set().pins["opencv-python"])
    remove = f"{sys.executable} -m pip uninstall -y {' '.join(present or OPENCVS[:1])}"
    headless = pip("--no-deps", f"opencv-python-headless=={pin}")
    return (
        "sudo apt-get update && sudo apt-get install -y libgl1 libglib2.0-0  (without root: "
        f"{remove} && {headless})"
    )


def _paddle_failure(stage: str, problem: str, gpus: Sequence[nvidia.Gpu]) -> Finding:
    tested = current_set()
    missing = re.search(r"No module named '(\w+)", problem)
    if _LIBRARY_OF_OPENCV.search(problem):
        return Finding("OpenCV", BAD, f"{stage} fails: {problem}", _install_libraries_of_opencv())
    if missing and missing[1] in MODULES:
        fix = _install(tested, [MODULES[missing[1]]])
        return Finding(MODULES[missing[1]], BAD, f"{stage} fails: {problem}", fix)
    if gpus:
        fix = nvidia.install_command(gpus)
    elif "libgomp" in problem:
        fix = "sudo apt-get update && sudo apt-get install -y libgomp1"
    elif "setuptools" in problem or "pkg_resources" in problem:
        fix = pip("setuptools", constraints=tested.path)
    elif "TypeError" in problem or "numpy" in problem:
        fix = _install(tested, ["numpy"])
    else:
        fix = _install(tested, ["paddlepaddle"], "--force-reinstall")
    return Finding("Paddle", BAD, f"{stage} fails: {problem}", fix)


def _device(reported: dict[str, Any], gpus: Sequence[nvidia.Gpu]) -> Finding:
    if reported["device"] == "gpu":
        used = ", ".join(f"{name} {memory / _GIB:.0f} GiB" for name, memory in reported["gpus"])
        return Finding("device", OK, f"{used}; CUDA {reported['cuda']}")
    if reported["cuda_build"]:
        found = "paddlepaddle-gpu finds no GPU: training runs on the CPU"
        fix = (
            "check that `nvidia-smi` lists a GPU, and the value of CUDA_VISIBLE_DEVICES"
            if nvidia.has_driver()
            else "no NVIDIA driver on this machine; nothing to do if you want to use the CPU"
        )
        if gpus and nvidia.suitable_build(gpus)[0] is None:
            fix = nvidia.install_command(gpus)
        return Finding("device", NOTE, found, fix)
    if gpus:
        found = f"this Paddle is the CPU build, but the machine has {gpus[0]}"
        return Finding("device", NOTE, found, nvidia.install_command(gpus))
    if nvidia.has_driver():
        found = "CPU; the machine has an NVIDIA driver, but `nvidia-smi` lists no GPU"
        return Finding(
            "device", NOTE, found, "run nvidia-smi; in a container, docker run --gpus all"
        )
    return Finding("device", OK, "CPU")


_PADDLE_FIRST = """
import paddle, zlib
assert zlib.decompress(zlib.compress(b"liteseg" * 1000)) == b"liteseg" * 1000
import cv2, numpy
assert cv2.imencode(".png", numpy.zeros((64, 64), "uint8"))[0]
"""


def check_import_order() -> list[Finding]:
    """Whether scripts may import Paddle before OpenCV; 2.6 crashes, as it exports its own zlib."""
    if not installed(PADDLES):
        return []
    problem = run_child(_PADDLE_FIRST).problem
    if problem is None:
        return [Finding("import order", OK, "paddle and cv2 in any order")]
    fix = "in your own scripts, `import liteseg` (or cv2) before `import paddle`, as liteseg does"
    return [Finding("import order", NOTE, f"paddle before cv2: {problem}", fix)]
