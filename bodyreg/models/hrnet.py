"""HRNet with its classification head (Sun et al., CVPR 2019; Wang et al., TPAMI 2020): the backbone of PersPose.

Branches at strides 4, 8, 16 and 32 run side by side and exchange what they know after every module. The head gathers
all branches, finest first, into one global vector. Module names are those of the public HRNet code, so that its
weights, and PersPose's, load by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["HRNet"]

_INIT_STD = 0.001


def _conv_bn(
    inp: int, out: int, kernel: int, stride: int = 1, *, relu: bool = False, bias: bool = False
) -> nn.Sequential:
    layers = [nn.Conv2d(inp, out, kernel, stride, kernel // 2, bias=bias), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity (He et al., CVPR 2016, figure 5 left)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions beside a shortcut (He et al., figure 5 right); 4 `planes` channels come out."""

    expansion = 4

    def __init__(self, inp: int, planes: int) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(inp, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _conv_bn(inp, out, 1) if inp != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class _Module(nn.Module):
    """Residual blocks on every branch, then every branch becomes the sum of all, resampled."""

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*[_BasicBlock(w) for _ in range(blocks)]) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_resample(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(feature) for branch, feature in zip(self.branches, x, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            resampled = [layer(feature) for layer, feature in zip(layers.children(), x, strict=True)]
            fused.append(torch.relu(sum(resampled[1:], resampled[0])))
        return fused


def _resample(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch's resolution and width to another's."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*_conv_bn(widths[source], widths[target], 1), up)
    steps = target - source
    halvings = [_conv_bn(widths[source], widths[source], 3, 2, relu=True) for _ in range(steps - 1)]
    return nn.Sequential(*halvings, _conv_bn(widths[source], widths[target], 3, 2))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """To a stage with one more branch, which starts from the last one at half its resolution."""
    layers: list[nn.Module] = []
    for k, width in enumerate(after):
        if k >= len(before):
            layers.append(nn.Sequential(_conv_bn(before[-1], width, 3, 2, relu=True)))
        elif before[k] != width:
            layers.append(_conv_bn(before[k], width, 3, relu=True))
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


class HRNet(nn.Module):
    """HRNet of any width; the default is HRNet-W48 with the published classification head.

    Args:
        widths: channels of the branches at strides 4, 8, 16, 32.
        modules: modules of stages 2, 3, 4. blocks: residual blocks a branch in each module of these stages.
        head_widths: planes of the head's bottlenecks, a quarter of their output channels.
        vector_channels: of the global vector.
        stem_width, layer1_width, layer1_blocks: of the layers before the branches; `layer1_width` counts planes.

    Raises:
        ValueError: not four widths or head widths, or not three counts of modules or blocks.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192, 384),
        modules: Sequence[int] = (1, 4, 3),
        blocks: Sequence[int] = (4, 4, 4),
        head_widths: Sequence[int] = (32, 64, 128, 256),
        vector_channels: int = 2048,
        stem_width: int = 64,
        layer1_width: int = 64,
        layer1_blocks: int = 4,
    ) -> None:
        super().__init__()
        for name, value, count in (
            ("widths", widths, 4), ("modules", modules, 3), ("blocks", blocks, 3), ("head_widths", head_widths, 4)
        ):  # fmt: skip
            if len(value) != count:
                raise ValueError(f"HRNet's {name} are {len(value)} numbers. Give {count}.")
        self.encoding_channels = layer1_width * _Bottleneck.expansion
        self.map_channels = widths[0]
        self.vector_channels = vector_channels

        self.conv1 = nn.Conv2d(3, stem_width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(
            _Bottleneck(stem_width, layer1_width),
            *[_Bottleneck(self.encoding_channels, layer1_width) for _ in range(layer1_blocks - 1)],
        )
        self.transition1 = _transition([self.encoding_channels], widths[:2])
        self.stage2 = nn.Sequential(*[_Module(widths[:2], blocks[0]) for _ in range(modules[0])])
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = nn.Sequential(*[_Module(widths[:3], blocks[1]) for _ in range(modules[1])])
        self.transition3 = _transition(widths[:3], widths)
        self.stage4 = nn.Sequential(*[_Module(widths, blocks[2]) for _ in range(modules[2])])

        gathered = [_Bottleneck.expansion * w for w in head_widths]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(_Bottleneck(w, planes)) for w, planes in zip(widths, head_widths, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            _conv_bn(gathered[k], gathered[k + 1], 3, 2, relu=True, bias=True) for k in range(3)
        )
        self.final_feat_layer = _conv_bn(gathered[3], vector_channels, 1, relu=True, bias=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, encoding: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a crop.

        Args:
            image: (B, 3, h, w) normalised RGB; h and w are multiples of 32.
            encoding: (B, encoding_channels, h/4, w/4) embedded Perspective Encoding, added to the output of layer 1.

        Returns:
            (B, map_channels, h/4, w/4) finest map and (B, vector_channels) global vector.

        Raises:
            ValueError: h or w is not a multiple of 32.
        """
        if image.shape[-2] % 32 or image.shape[-1] % 32:
            raise ValueError(
                f"The crop is {image.shape[-1]} x {image.shape[-2]} pixels. HRNet needs multiples of 32 on both sides."
            )
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x) + encoding
        branches = self.stage2([layer(x) for layer in self.transition1])
        branches = self.stage3(_widen(self.transition2, branches))
        branches = self.stage4(_widen(self.transition3, branches))
        y = self.incre_modules[0](branches[0])
        for k, down in enumerate(self.downsamp_modules, start=1):
            y = self.incre_modules[k](branches[k]) + down(y)
        return branches[0], self.final_feat_layer(y).mean(dim=(2, 3))


def _widen(transition: nn.ModuleList, branches: list[Tensor]) -> list[Tensor]:
    return [layer(x) for layer, x in zip(transition, [*branches, branches[-1]], strict=True)]
