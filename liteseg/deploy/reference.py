"""PaddleSeg's inference path, as the reference of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle import inference, nn


class PaddleSegPath:
    """Normalization in numpy, Paddle Inference on float images, arg-max inside the graph.

    These are the defaults of its `export.py` and `infer.py`: NCHW float32 images of any size, int32
    labels, batch norm not folded. oneDNN is off, because Paddle 3.3.1 fails with it.

    Args:
        model: maps (N, 3, H, W) to a list whose first item is (N, C, H, W) logits.
        mean: of R, G, B in units of 255.
        std: of R, G, B in units of 255.
        folder: an empty directory for the exported model.
        threads: CPU threads.
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
        """(N, H, W, 3) uint8 RGB -> (N, H, W) int32, pre- and postprocessing included.

        With a scale other than 1 the images are resized, and the labels are resized back (nearest).
        """
        height, width = images.shape[1:3]
        if scale != 1:
            size = int(width * scale + 0.5), int(height * scale + 0.5)
            images = np.stack([cv2.resize(image, size) for image in images])
        labels = self.run(self.prepare(images))
        if scale != 1:
            back = (width, height)
            labels = np.stack(
                [cv2.resize(x, back, interpolation=cv2.INTER_NEAREST) for x in labels]
            )
        return labels

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> normalized (N, 3, H, W) float32."""
        normalized = (images.astype(np.float32) / 255.0 - self.mean) / self.std
        return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Labels of prepared images; the part that PaddleSeg's script times."""
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
