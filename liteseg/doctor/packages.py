"""What `liteseg doctor` says of Python and the packages: versions, imports, Paddle's device.

Versions come from the metadata of the packages, and imports are tried in child processes, so that
a package that is missing, broken or crashes is a finding.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any, Optional

from liteseg.doctor.constraints import Constraints, read_constraints
from liteseg.doctor.findings import BAD, NOTE, OK, Finding, installed, pip, run_child

PADDLES = ("paddlepaddle", "paddlepaddle-gpu")
# All provide `cv2`; two of them overwrite each other's files.
OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
RUNTIME = ("numpy", "opencv-python", "pillow", "pyyaml", "tqdm", "visualdl", "protobuf")
# What breaks from which numpy on, by line of Paddle.
NUMPY_TRAPS = {
    "2.6": ((2, 0), "Paddle 2.6 was built for numpy 1 and does not import"),
    "3.3": ((2, 4), "float(tensor) raises TypeError on Paddle 3.3"),
}
_GPU_PAGE = "https://www.paddlepaddle.org.cn/en/install/quick"
_GIB = 2**30


def _numbers(version: str) -> tuple[int, int]:
    """(3, 3) of "3.3.1" or "3.3rc1"."""
    major, minor = re.findall(r"\d+", f"{version}.0")[:2]
    return int(major), int(minor)


def current_set() -> Constraints:
    """The tested set of the installed Paddle; the newest if there is none for it."""
    sets = read_constraints()
    lines = [_numbers(paddle) for paddle in installed(PADDLES).values()]
    return next((one for one in sets if _numbers(one.line) in lines), sets[0])


def check_python() -> Finding:
    """This Python against those that the set was tested on."""
    tested, (major, minor) = current_set(), sys.version_info[:2]
    found = f"{major}.{minor}.{sys.version_info[2]} ({sys.executable})"
    lowest, highest = tested.pythons
    if lowest <= minor <= highest:
        return Finding("Python", OK, found)
    mend = f"Paddle {tested.line} was tested on Python 3.{lowest} to 3.{highest}: use one of these"
    return Finding("Python", BAD if minor < lowest else NOTE, found, mend)


def check_paddle() -> Finding:
    """Which Paddle is installed, and whether its version was tested."""
    tested, found = current_set(), installed(PADDLES)
    wanted = tested.pins["paddlepaddle"]
    if not found:
        mend = pip(f"paddlepaddle=={wanted}", constraints=tested.path)
        return Finding("Paddle", BAD, "not installed", f"{mend}  (with a GPU: see {_GPU_PAGE})")
    shown = " and ".join(f"{name} {number}" for name, number in found.items())
    if len(found) > 1:
        remove = f"{sys.executable} -m pip uninstall -y {' '.join(PADDLES)}"
        again = pip(f"{PADDLES[has_gpu()]}=={list(found.values())[has_gpu()]}")
        problem = f"{shown} overwrite each other's files"
        return Finding("Paddle", BAD, problem, f"{remove} && {again}")
    ((name, number),) = found.items()
    if number.partition("+")[0] == wanted:  # "3.3.1+cu126"
        return Finding("Paddle", OK, f"{shown}, as tested")
    lines = ", ".join(one.pins["paddlepaddle"] for one in read_constraints())
    old = (0, 0) < _numbers(number) < (2, 6)  # nightly builds are 0.0.0
    mend = pip(f"paddlepaddle=={wanted}", constraints=tested.path)
    if name == "paddlepaddle-gpu":
        mend = f"take one of these versions from {_GPU_PAGE}"
    return Finding("Paddle", BAD if old else NOTE, f"{shown}; tested: {lines}", mend)


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA driver, whatever Paddle thinks."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def check_packages() -> list[Finding]:
    """The other packages against the tested set; the numpy trap is one of its own."""
    tested = current_set()
    found = installed([*RUNTIME, *OPENCVS])
    opencvs = [name for name in OPENCVS if name in found]
    present = {**({"opencv-python": found[opencvs[0]]} if opencvs else {}), **found}
    missing = [name for name in RUNTIME if name not in present]
    other = [n for n in RUNTIME if n in present and present[n] != tested.pins[n]]
    findings = []
    if missing:
        # Training goes on without its dashboard.
        state = NOTE if missing == ["visualdl"] else BAD
        mend = pip(*(f"{n}=={tested.pins[n]}" for n in missing), constraints=tested.path)
        findings.append(Finding("packages", state, f"missing: {', '.join(missing)}", mend))
    if other:
        shown = ", ".join(f"{n} {present[n]} (tested {tested.pins[n]})" for n in other)
        mend = pip(*(f"{n}=={tested.pins[n]}" for n in other), constraints=tested.path)
        findings.append(Finding("packages", NOTE, shown, mend))
    if len(opencvs) > 1:
        mend = f"{sys.executable} -m pip uninstall -y {' '.join(opencvs)} && " + pip(
            f"opencv-python=={tested.pins['opencv-python']}"
        )
        findings.append(
            Finding("packages", NOTE, f"{' and '.join(opencvs)} overwrite each other", mend)
        )
    if not findings:
        findings = [Finding("packages", OK, f"as tested with Paddle {tested.line}")]
    return [*_numpy_trap(tested, present.get("numpy")), *findings]


def _numpy_trap(tested: Constraints, numpy: Optional[str]) -> list[Finding]:
    limit, why = NUMPY_TRAPS.get(tested.line, (None, ""))
    if numpy is None or limit is None or _numbers(numpy) < limit:
        return []
    mend = pip(f"numpy=={tested.pins['numpy']}", constraints=tested.path)
    return [Finding("numpy", BAD, f"{numpy}: {why}", mend)]


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
}


def check_imports() -> Finding:
    """Whether the small packages import; Paddle and VisualDL have checks of their own."""
    said, problem = run_child(_IMPORT_EACH, *MODULES)
    trying = said.pop("trying", "")
    broken = {**said, **({trying: problem} if problem else {})}
    if not broken:
        return Finding("imports", OK, ", ".join(MODULES))
    found = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
    if "libGL" in found or "libgthread" in found:
        pin = installed(["opencv-python"]).get("opencv-python", "")
        build = f"opencv-python-headless=={pin}" if pin else "opencv-python-headless"
        return Finding("imports", BAD, found, pip("--no-deps", "--force-reinstall", build))
    tested = current_set()
    pins = [f"{MODULES[n]}=={tested.pins[MODULES[n]]}" for n in broken if n in MODULES]
    mend = pip("--force-reinstall", *pins, constraints=tested.path)
    return Finding("imports", BAD, found, mend)


_TRY_PADDLE = """
import json, time
def say(**facts): print(json.dumps(facts), flush=True)
say(step="import of Paddle")
begin = time.perf_counter()
import liteseg, paddle
say(version=paddle.__version__, seconds=time.perf_counter() - begin)
say(step="choice of the device")
from liteseg.ops.device import select_device
say(cuda_build=paddle.is_compiled_with_cuda(), device=select_device("auto"))
if paddle.is_compiled_with_cuda():
    cuda = paddle.device.cuda
    gpus = [cuda.get_device_properties(i) for i in range(cuda.device_count())]
    say(gpus=[[gpu.name, gpu.total_memory] for gpu in gpus], cuda=str(paddle.version.cuda()))
say(step="a convolution")
image, kernel = paddle.ones([1, 3, 8, 8]), paddle.ones([2, 3, 3, 3])
assert float(paddle.nn.functional.conv2d(image, kernel).sum()) == 1944
say(step="float() of a tensor")
assert float(paddle.ones([1])) == 1
say(step="import of liteseg's components")
from liteseg.config.plugins import load_components
load_components()
"""


def check_device() -> list[Finding]:
    """Import Paddle after liteseg, choose the device and compute on it, in a child process."""
    if not installed(PADDLES):
        return []
    said, problem = run_child(_TRY_PADDLE)
    findings = []
    if "version" in said:
        found = f"{said['version']} in {said['seconds']:.1f} s"
        findings.append(Finding("import paddle", OK, found))
    if problem:
        return [*findings, _paddle_fails(said.get("step", "import of Paddle"), problem)]
    return [*findings, _device(said)]


def _paddle_fails(step: str, problem: str) -> Finding:
    tested = current_set()
    mend = pip(
        "--force-reinstall", f"paddlepaddle=={tested.pins['paddlepaddle']}", constraints=tested.path
    )
    if "libgomp" in problem:
        mend = "sudo apt-get update && sudo apt-get install -y libgomp1"
    elif "setuptools" in problem or "pkg_resources" in problem:
        mend = pip("setuptools", constraints=tested.path)
    elif "TypeError" in problem or "numpy" in problem:
        mend = pip(f"numpy=={tested.pins['numpy']}", constraints=tested.path)
    return Finding("Paddle", BAD, f"{step} fails: {problem}", mend)


def _device(said: dict[str, Any]) -> Finding:
    if said["device"] == "gpu":
        gpus = ", ".join(f"{name} {memory / _GIB:.0f} GiB" for name, memory in said["gpus"])
        return Finding("device", OK, f"{gpus}; CUDA {said['cuda']}")
    if said["cuda_build"]:
        found = "paddlepaddle-gpu sees no GPU: training runs on the CPU"
        mend = (
            "see that `nvidia-smi` lists a GPU, and what CUDA_VISIBLE_DEVICES says"
            if has_gpu()
            else "no NVIDIA driver on this machine; nothing to do if a CPU is what you want"
        )
        return Finding("device", NOTE, found, mend)
    if has_gpu():
        found = "this Paddle is the CPU build, but the machine has an NVIDIA driver"
        mend = f"{pip('paddlepaddle-gpu==2.6.2')}  (other versions: {_GPU_PAGE})"
        return Finding("device", NOTE, found, f"pip uninstall paddlepaddle; {mend}")
    return Finding("device", OK, "CPU")


_PADDLE_FIRST = """
import paddle, zlib
assert zlib.decompress(zlib.compress(b"liteseg" * 1000)) == b"liteseg" * 1000
import cv2, numpy
assert cv2.imencode(".png", numpy.zeros((64, 64), "uint8"))[0]
"""


def check_import_order() -> list[Finding]:
    """Whether scripts may import Paddle before OpenCV; 2.6 brings its own zlib and crashes."""
    if not installed(PADDLES):
        return []
    problem = run_child(_PADDLE_FIRST).problem
    if problem is None:
        return [Finding("import order", OK, "paddle and cv2 in any order")]
    mend = "in your own scripts, `import liteseg` (or cv2) above `import paddle`; liteseg does"
    return [Finding("import order", NOTE, f"paddle before cv2: {problem}", mend)]
