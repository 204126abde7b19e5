"""A 2-D convolution that selects its implementation."""

from __future__ import annotations

import contextlib

import paddle
from paddle import nn

from liteseg.ops import device, onednn


class Conv2D(nn.Conv2D):
    """`nn.Conv2D`, computed by oneDNN where that is supported and faster.

    Arguments, parameters and their names are those of `nn.Conv2D`. The first call on a CPU also
    applies the process settings of `device.configure_cpu`.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        if device.is_eager_cpu(x):
            device.configure_cpu_once()
        if self._gains_from_onednn() and onednn.supports(x):
            geometry = (self._stride, self._padding, self._dilation, self._groups)
            return onednn.conv2d(x, self.weight, self.bias, *geometry)
        return nn.Conv2D.forward(self, x)

    def _gains_from_onednn(self) -> bool:
        """Whether oneDNN is faster: for kernels above 1x1 and channels that fill its blocks."""
        enough_channels = min(self._in_channels, self._out_channels) >= 16
        return enough_channels and max(self._kernel_size) > 1 and self._padding_mode == "zeros"


with contextlib.suppress(ImportError):  # `paddle.flops` selects its counters by exact type
    from paddle.hapi.dynamic_flops import register_hooks

    register_hooks[Conv2D] = register_hooks[nn.Conv2D]
