"""Operators with one implementation for a CPU and another for a GPU or an exported graph.

Every choice between the two is made here, by `device.is_eager_cpu` or `onednn.supports`:

- `conv`: `Conv2D`, a layer.
- `resize`: bilinear resizing, and the arg-max of resized scores (`labels` for the CPU).
- `pooling`: average pooling and the maximum over channels.
- `cross_entropy`: softmax cross-entropy per pixel.
- `selection`: the k-th smallest and the k largest of many values.
- `pointwise`: linear interpolation of two features.
- `device`: device selection, threads, malloc, deterministic mode.
- `environment`: settings before Paddle is imported.
- `onednn`, `onednn_cache`: oneDNN kernels in eager mode.

Nothing is imported here: `environment` and `labels` run without Paddle.
"""
