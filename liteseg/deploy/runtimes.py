"""Runtimes of exported models: Paddle Inference, ONNX Runtime and OpenVINO with one interface.

ONNX Runtime and OpenVINO compute only the operations that the requested output needs.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Optional, Protocol, Union

import numpy as np

from liteseg.deploy.manifest import COARSE, INPUT, Manifest
from liteseg.deploy.operators import require_known_operators
from liteseg.deploy.packages import require
from liteseg.errors import UserError
from liteseg.ops.exclusive import exclusive
from liteseg.utils.runtime import DEVICES, cpu_threads

PRECISIONS = ("fp32", "bf16")
# A model compiled for one image size is faster, but compiling takes seconds.
_SIZES_COMPILED = 4
_BROKEN_PASS = "onednn_placement_pass"


class Runtime(Protocol):
    """A loaded model; several threads may call it. Those of Paddle and OpenVINO take turns."""

    package: str  # that runs it

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """Compute one output of the model.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            output: its name; see `Manifest.output`.
        """
        ...


class PaddleInference:
    """Paddle Inference, for the paddle format.

    Paddle 3 runs as much as it can with oneDNN and fails at bilinear interpolation. Without the
    pass that does so, oneDNN still runs the convolutions, in half the time of Paddle's own. Paddle
    2.6.2 computes wrong logits with its graph optimizations, with or without oneDNN; on a GPU they
    stay off too, until measured.
    """

    package, formats = "paddle", ("paddle",)

    @exclusive
    def __init__(self, path: Path, device: str, threads: int, precision: str):
        paddle = require(self.package, "Paddle Inference")
        from paddle import inference

        _only_fp32("Paddle Inference", precision)
        require_known_operators(path)
        config = inference.Config(str(path), str(path.with_suffix(".pdiparams")))
        config.disable_glog_info()
        if path.suffix == ".pdmodel":
            config.switch_ir_optim(False)
        if device == "gpu" or (device == "auto" and paddle.device.cuda.device_count()):
            config.enable_use_gpu(256, 0)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads)
            if path.suffix != ".pdmodel":
                config.enable_mkldnn()
                config.delete_pass(_BROKEN_PASS)
        self._predictor = inference.create_predictor(config)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])

    @exclusive
    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """See `Runtime.run`."""
        self._input.copy_from_cpu(np.ascontiguousarray(images))
        self._predictor.run()
        # Paddle renames the outputs, but keeps their order.
        names = self._predictor.get_output_names()
        name = names[1] if output == COARSE else names[0]
        return self._predictor.get_output_handle(name).copy_to_cpu()


class OnnxRuntime:
    """ONNX Runtime, for the onnx format."""

    package, formats = "onnxruntime", ("onnx",)

    def __init__(self, path: Path, device: str, threads: int, precision: str):
        ort = require(self.package, "ONNX Runtime")
        _only_fp32("ONNX Runtime", precision)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers, gpu = ["CPUExecutionProvider"], "CUDAExecutionProvider"
        if device != "cpu" and gpu in ort.get_available_providers():
            providers.insert(0, gpu)
        elif device == "gpu":
            raise UserError(
                f"device: 'gpu' was requested, but ONNX Runtime {ort.__version__} has only "
                f"{', '.join(ort.get_available_providers())}; install onnxruntime-gpu, or use cpu"
            )
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._only_requested = ort.RunOptions()
        self._only_requested.only_execute_path_to_fetches = True

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """See `Runtime.run`."""
        images = np.ascontiguousarray(images)
        return self._session.run([output], {INPUT: images}, self._only_requested)[0]


class OpenVino:
    """OpenVINO, for the openvino and onnx formats: the fastest on CPU, and with bfloat16."""

    package, formats = "openvino", ("openvino", "onnx")

    def __init__(self, path: Path, device: str, threads: int, precision: str):
        self._openvino = require(self.package, "OpenVINO")
        self._core = self._openvino.Core()
        if device == "gpu" and "GPU" not in self._core.available_devices:
            raise UserError(
                "device: 'gpu' was requested, but OpenVINO sees "
                f"{', '.join(self._core.available_devices)} (its GPUs are Intel's); use cpu"
            )
        self._device = "GPU" if device == "gpu" else "CPU"
        if precision == "bf16" and self._device == "CPU":
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if "BF16" not in capabilities:
                raise UserError(
                    "precision: 'bf16' was requested, but this processor has no bfloat16 "
                    f"instructions (OpenVINO lists {', '.join(capabilities)}); use fp32 or int8"
                )
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        }
        if self._device == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = threads
            # Of the default 5000 kernels, hundreds of MB are of sizes seen once; fewer than a few
            # hundred would not hold those of one size.
            self._options["CPU_RUNTIME_CACHE_CAPACITY"] = "512"
        self._model = self._core.read_model(path)
        self._compiled: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()  # a second request would wait for the cores as well

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """See `Runtime.run`."""
        tensor = self._openvino.Tensor(np.ascontiguousarray(images), shared_memory=True)
        with self._lock:
            request = self._request(output, images.shape)
            request.infer([tensor], share_inputs=True)
            return request.get_output_tensor(0).data.copy()

    def _request(self, output: str, shape: tuple[int, ...]) -> Any:
        """A request for `output` and images of `shape`, or of any size after several shapes."""
        key: tuple[str, Optional[tuple[int, ...]]] = (output, shape)
        if key not in self._compiled and len(self._compiled) >= _SIZES_COMPILED:
            key = (output, None)
        if key not in self._compiled:
            model = self._model.clone()
            model = self._openvino.Model([model.output(output)], model.get_parameters())
            if key[1] is not None:
                model.reshape(list(shape))
            compiled = self._core.compile_model(model, self._device, self._options)
            self._compiled[key] = compiled.create_infer_request()
        return self._compiled[key]


RUNTIMES: dict[str, type[Union[PaddleInference, OnnxRuntime, OpenVino]]] = {
    "paddle": PaddleInference,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def open_runtime(
    folder: Path,
    manifest: Manifest,
    *,
    runtime: Optional[str] = None,
    device: Optional[str] = None,
    threads: Optional[int] = None,
    precision: Optional[str] = None,
) -> Runtime:
    """Load an exported model.

    Args:
        folder: the directory of the exported model.
        manifest: its description.
        runtime: paddle, onnxruntime or openvino; None: the first installed one for the format.
        device: auto, cpu or gpu; None: auto.
        threads: CPU threads; None: all cores this process may use.
        precision: fp32 or bf16 for floating-point layers; None: fp32.

    Raises:
        UserError: an unknown value, a missing package, or an option the runtime does not support.
    """
    suitable = [name for name, kind in RUNTIMES.items() if manifest.format in kind.formats]
    if runtime is None:
        found = [name for name in suitable if importlib.util.find_spec(RUNTIMES[name].package)]
        runtime = (found or suitable)[0]
    if runtime not in suitable:
        raise UserError(
            f"runtime: {runtime!r} can't run the {manifest.format} format; expected "
            f"{' or '.join(suitable)}"
        )
    device, precision = device or "auto", precision or "fp32"
    for name, value, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise UserError(f"{name}: {value!r} is unknown; expected one of {', '.join(known)}")
    return RUNTIMES[runtime](folder / manifest.file, device, threads or cpu_threads(), precision)


def _only_fp32(runtime: str, precision: str) -> None:
    if precision != "fp32":
        raise UserError(
            f"precision: {runtime} computes in fp32 here, not {precision}; use the openvino "
            "runtime (formats openvino and onnx)"
        )
