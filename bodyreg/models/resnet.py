"""ResNet and its relatives without a classifier: the backbones of the SPIN/HMR regressor.

Residual networks (He et al., CVPR 2016) with the stride in the 3 x 3 convolution of a bottleneck, ResNeXt (Xie et al.,
CVPR 2017), Wide ResNet (Zagoruyko and Komodakis, BMVC 2016). Names of modules are those of the public weights, so that
ImageNet's and SPIN's load by name.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["RESNETS", "ResNet"]


class _Layout(NamedTuple):
    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    width: int = 64
    """Channels of a group in the first stage's bottlenecks, for one group of 64 planes."""


_DEEP, _DEEPER, _DEEPEST = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
RESNETS: dict[str, _Layout] = {
    "resnet18": _Layout((2, 2, 2, 2), bottleneck=False),
    "resnet34": _Layout(_DEEP, bottleneck=False),
    "resnet50": _Layout(_DEEP),
    "resnet101": _Layout(_DEEPER),
    "resnet152": _Layout(_DEEPEST),
    "resnext50_32x4d": _Layout(_DEEP, groups=32, width=4),
    "resnext101_32x8d": _Layout(_DEEPER, groups=32, width=8),
    "wide_resnet50_2": _Layout(_DEEP, width=128),
    "wide_resnet101_2": _Layout(_DEEPER, width=128),
}
"""Members by the names of their public weights."""


class _Basic(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inp: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inp, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    """1 x 1, (grouped) 3 x 3, 1 x 1 convolutions beside a shortcut; 4 `planes` channels come out."""

    def __init__(self, inp: int, planes: int, stride: int, layout: _Layout) -> None:
        super().__init__()
        inner, out = planes * layout.width // 64 * layout.groups, 4 * planes
        self.conv1 = nn.Conv2d(inp, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=layout.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inp, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inp: int, out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inp == out:
        return None
    return nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """(B, 3, h, w) normalised RGB to (B, C, h / 32, w / 32) features; `channels` is C.

    Args:
        name: one of `RESNETS`.

    Raises:
        ValueError: another name.
    """

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        if name not in RESNETS:
            raise ValueError(f"There is no backbone {name!r}. Choose one of {', '.join(RESNETS)}.")
        layout = RESNETS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inp = 64
        for number, blocks in enumerate(layout.blocks):
            stage = []
            for k in range(blocks):
                planes, stride = 64 << number, 2 if number and not k else 1
                out = 4 * planes if layout.bottleneck else planes
                stage.append(
                    _Bottleneck(inp, planes, stride, layout) if layout.bottleneck else _Basic(inp, planes, stride)
                )
                inp = out
            self.add_module(f"layer{number + 1}", nn.Sequential(*stage))
        self.channels = inp
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        return self.stages(image)[-1]

    def stages(self, image: Tensor) -> tuple[Tensor, ...]:
        """What the stem's convolution and the four stages give, at strides 2, 4, 8, 16 and 32."""
        stem = self.conv1(image)
        features = [stem]
        x = self.maxpool(self.relu(self.bn1(stem)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            features.append(x)
        return tuple(features)
