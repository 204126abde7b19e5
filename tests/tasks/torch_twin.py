"""STDC and super-gradients' PP-LiteSeg in the order of their PyTorch modules, by their key names.

A first forward pass creates the weights. Layers are functions of the state dict, so nothing here
depends on the networks of liteseg.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F


class Twin:
    """`state` has PyTorch's keys; the methods are modules of the networks."""

    def __init__(self, modules: tuple[int, int, int], classes: int = 5):
        self.modules, self.classes = modules, classes
        self.state: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(len(modules) + classes)

    def weight(self, key: str, shape: tuple[int, ...], draw) -> paddle.Tensor:
        if key not in self.state:
            self.state[key] = np.asarray(draw(self._rng, shape), np.float32)
        return paddle.to_tensor(self.state[key])

    def conv(self, name, x, out, kernel=3, stride=1, groups=1):
        shape = (out, x.shape[1] // groups, kernel, kernel)
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weight = self.weight(f"{name}.weight", shape, lambda r, s: scale * r.normal(size=s))
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2, groups=groups)

    def norm(self, name, x):
        shape = (x.shape[1],)
        near_one = lambda r, s: 1 + 0.2 * r.normal(size=s)  # noqa: E731
        near_zero = lambda r, s: 0.2 * r.normal(size=s)  # noqa: E731
        scale = self.weight(f"{name}.weight", shape, near_one)
        shift = self.weight(f"{name}.bias", shape, near_zero)
        mean = self.weight(f"{name}.running_mean", shape, near_zero)
        variance = self.weight(f"{name}.running_var", shape, lambda r, s: 1 + r.uniform(size=s))
        self.state.setdefault(f"{name}.num_batches_tracked", np.array(1000))
        column = lambda v: v.reshape([1, -1, 1, 1])  # noqa: E731
        return (x - column(mean)) / (column(variance) + 1e-5).sqrt() * column(scale) + column(shift)

    # The official STDC.

    def conv_x(self, name, x, out, kernel=3, stride=1):
        return F.relu(self.norm(f"{name}.bn", self.conv(f"{name}.conv", x, out, kernel, stride)))

    def cat_bottleneck(self, name, x, out, stride):
        first = x = self.conv_x(f"{name}.conv_list.0", x, out // 2, 1)
        if stride == 2:
            x = self.conv(f"{name}.avd_layer.0", first, out // 2, 3, 2, groups=out // 2)
            x = self.norm(f"{name}.avd_layer.1", x)
            first = average_pool(first)
        outputs = [first]
        for index, divisor in ((1, 4), (2, 8), (3, 8)):
            x = self.conv_x(f"{name}.conv_list.{index}", x, out // divisor)
            outputs.append(x)
        return paddle.concat(outputs, axis=1)

    def stdc(self, x, prefix=""):
        """The features at 1/2 to 1/32 of `STDCNet813` or `STDCNet1446`."""
        x = self.conv_x(f"{prefix}features.0", x, 32, 3, 2)
        outputs = [x]
        x = self.conv_x(f"{prefix}features.1", x, 64, 3, 2)
        outputs.append(x)
        index = 2
        for count, out in zip(self.modules, (256, 512, 1024)):
            for place in range(count):
                stride = 1 if place else 2
                x = self.cat_bottleneck(f"{prefix}features.{index}", x, out, stride)
                index += 1
            outputs.append(x)
        return outputs

    # super-gradients.

    def conv_bn_relu(self, name, x, out, kernel=3, stride=1, groups=1, activation=True):
        x = self.conv(f"{name}.seq.conv", x, out, kernel, stride, groups)
        x = self.norm(f"{name}.seq.bn", x)
        return F.relu(x) if activation else x

    def stdc_block(self, name, x, out, stride):
        x = self.conv_bn_relu(f"{name}.conv_list.0", x, out // 2, 1)
        outputs = [average_pool(x) if stride == 2 else x]
        second = f"{name}.conv_list.1"
        if stride == 2:
            options = {"stride": 2, "groups": out // 2, "activation": False}
            x = self.conv_bn_relu(f"{second}.0", x, out // 2, **options)
            second = f"{second}.1"
        for layer, divisor in ((second, 4), (f"{name}.conv_list.2", 8), (f"{name}.conv_list.3", 8)):
            x = self.conv_bn_relu(layer, x, out // divisor)
            outputs.append(x)
        return paddle.concat(outputs, axis=1)

    def stages(self, x, prefix):
        x = self.conv_bn_relu(f"{prefix}stages.block_s2.0", x, 32, 3, 2)
        outputs = [x]
        x = self.conv_bn_relu(f"{prefix}stages.block_s4.0", x, 64, 3, 2)
        outputs.append(x)
        for count, out, ratio in zip(self.modules, (256, 512, 1024), (8, 16, 32)):
            for place in range(count):
                block = f"{prefix}stages.block_s{ratio}.{place}"
                x = self.stdc_block(block, x, out, 1 if place else 2)
            outputs.append(x)
        return outputs

    def sppm(self, x):
        size, total = x.shape[2:], 0
        for index, bins in enumerate((1, 2, 4)):
            name = f"encoder.context_module.branches.{index}.1"
            pooled = self.conv_bn_relu(name, F.adaptive_avg_pool2d(x, bins), 128, 1)
            total = total + F.interpolate(pooled, size, mode="bilinear", align_corners=False)
        return self.conv_bn_relu("encoder.context_module.conv_out", total, 128)

    def uafm(self, name, x, skip, out, factor):
        if factor > 1:
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        maps = [f(t) for t in (x, skip) for f in (_mean, _max)]
        attention = self.conv_bn_relu(f"{name}.conv_atten.0", paddle.concat(maps, axis=1), 2)
        attention = self.conv_bn_relu(f"{name}.conv_atten.1", attention, 1, activation=False)
        attention = F.sigmoid(attention)
        return self.conv_bn_relu(f"{name}.conv_out", x * attention + skip * (1 - attention), out)

    def head(self, name, x, inner):
        x = self.conv_bn_relu(f"{name}.seg_head.0", x, inner)
        return self.conv(f"{name}.seg_head.2", x, self.classes, 1)

    def pp_liteseg(self, x, projected, decoded, inner, auxiliary=False):
        """The logits of the main head; `auxiliary` also creates the weights of the others."""
        features = self.stages(x, "encoder.backbone.")[2:]
        y = self.sppm(features[-1])
        skips = [
            self.conv_bn_relu(f"encoder.proj_convs.{i}", feature, channels)
            for i, (feature, channels) in enumerate(zip(features, projected))
        ]
        for stage, (out, factor, skip) in enumerate(zip(decoded, (1, 2, 2), reversed(skips))):
            y = self.uafm(f"decoder.up_stages.{stage}", y, skip, out, factor)
        y = self.head("seg_head.0", y, inner)
        if auxiliary:
            for index, skip in enumerate(skips):
                self.head(f"aux_heads.{index}.0", skip, 32)
        return F.interpolate(y, scale_factor=8, mode="bilinear", align_corners=False)


def average_pool(x):
    """PyTorch's default: zeros outside of the image count."""
    return F.avg_pool2d(F.pad(x, [1, 1, 1, 1]), 3, stride=2)


def _mean(x):
    return x.mean(1, keepdim=True)


def _max(x):
    return x.max(1, keepdim=True)
