"""MobileNetV2 without its classifier: the light backbone among those the SPIN/HMR regressor accepts.

"MobileNetV2: Inverted Residuals and Linear Bottlenecks" (Sandler et al., CVPR 2018), table 2 at width 1. Names of
modules are those of the public ImageNet weights, so that these load by name.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MOBILENETS", "MobileNetV2"]

MOBILENETS = ("mobilenet_v2",)
# Expansion t, channels c, repeats n, stride s of the first: the rows of the paper's table 2.
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


def _unit(inp: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out),
        nn.ReLU6(inplace=True),
    )  # fmt: skip


class _InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project without activation; a shortcut where shapes allow."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inp * expansion
        self.shortcut = stride == 1 and inp == out
        first = [] if expansion == 1 else [_unit(inp, inner, 1)]
        project = (nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.conv = nn.Sequential(*first, _unit(inner, inner, 3, stride, inner), *project)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """(B, 3, h, w) normalised RGB to (B, 1280, h / 32, w / 32) features; `channels` is 1280."""

    channels = _LAST

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_unit(3, _STEM, stride=2)]
        inp = _STEM
        for expansion, out, repeats, stride in _ROWS:
            for k in range(repeats):
                blocks.append(_InvertedResidual(inp, out, stride if k == 0 else 1, expansion))
                inp = out
        blocks.append(_unit(inp, _LAST, 1))
        self.features = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image)
