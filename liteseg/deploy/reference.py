"""Inference as PaddleSeg's deployment script does it, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle import inference, nn


class PaddleSegPath:
    """Normalise in numpy, run Paddle Inference on float images, arg-max inside the graph.

    As its `export.py` and `infer.py` do by default: NCHW float32 input of any size, int32 labels
    out; oneDNN off, without which Paddle 3.3.1 can't run the network at all. The network is the
    one given, in PaddleSeg's form (batch norm not folded beforehand).

    Args:
        model: maps (N, 3, H, W) to a list whose first item is (N, C, H, W) logits.
        mean: of R, G, B in units of 255.
        std: likewise.
        folder: empty, to write the exported model into.
        threads: on CPU.
    """

    def __init__(
        self,
        model: nn.Layer,
        mean: Sequence[float],
        std: Sequence[float],
        folder: Path,
        threads: int,
    ):
        self.mean = np.asarray(mean, np.float32)
        self.std = np.asarray(std, np.float32)
        spec = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
        graph = paddle.jit.to_static(_Labels(model), input_spec=[spec], full_graph=True)
        paddle.jit.save(graph, str(folder / "model"))
        file = next(folder.glob("model.json"), folder / "model.pdmodel")
        config = inference.Config(str(file), str(folder / "model.pdiparams"))
        config.disable_glog_info()
        config.disable_gpu()
        config.disable_mkldnn()
        config.set_cpu_math_library_num_threads(threads)
        self._predictor = inference.create_predictor(config)

    def labels(self, images: np.ndarray, scale: float) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB -> (N, H, W) int32, pre- and post-processing included.

        With a scale other than 1 the images are resized before, and the labels after (nearest).
        """
        height, width = images.shape[1:3]
        if scale != 1:
            size = int(width * scale + 0.5), int(height * scale + 0.5)
            images = np.stack([cv2.resize(image, size) for image in images])
        found = self.run(self.prepare(images))
        if scale != 1:
            nearest = {"interpolation": cv2.INTER_NEAREST}
            found = np.stack([cv2.resize(one, (width, height), **nearest) for one in found])
        return found

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Normalised (N, 3, H, W) float32."""
        normal = (images.astype(np.float32) / 255.0 - self.mean) / self.std
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Labels of prepared images; what PaddleSeg's script times."""
        handle = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        handle.copy_from_cpu(images)
        self._predictor.run()
        name = self._predictor.get_output_names()[0]
        return self._predictor.get_output_handle(name).copy_to_cpu()


class _Labels(nn.Layer):
    def __init__(self, model: nn.Layer):
        super().__init__()
        self.model = model

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.argmax(self.model(x)[0], axis=1, dtype="int32")
