"""A light residual backbone for CPUs, with the same two outputs as HRNet has in PersPose.

The stem is a pixel-unshuffle (space to depth) instead of a 7 x 7 convolution: on three channels the large stem costs
a quarter of a training step and earns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["CompactBackbone"]


class _Block(nn.Module):
    """Basic residual block: two 3 x 3 convolutions with batch norm (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inp: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inp != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


def _stage(inp: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(inp, out, stride), *[_Block(out, out) for _ in range(blocks - 1)])


class CompactBackbone(nn.Module):
    """Residual stages at strides 4, 8, 16, 32 and a top-down path back to stride 4.

    Args:
        widths: channels of the four stages; the Perspective Encoding is added to the first.
        depths: residual blocks of the four stages.
        map_channels: channels of the stride-4 output map.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 192, 320),
        depths: Sequence[int] = (2, 2, 3, 2),
        map_channels: int = 64,
    ) -> None:
        super().__init__()
        self.encoding_channels = widths[0]
        self.map_channels = map_channels
        self.vector_channels = widths[3]
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList(
            _stage(widths[max(i - 1, 0)], widths[i], depths[i], 1 if i == 0 else 2) for i in range(4)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(w, map_channels, 1) for w in widths)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(map_channels, map_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(map_channels), nn.ReLU(True)
            )
            for _ in range(3)
        )

    def forward(self, image: torch.Tensor, encoding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a crop.

        Args:
            image: (B, 3, h, w) normalised RGB; h and w are multiples of 32.
            encoding: (B, widths[0], h/4, w/4) embedded Perspective Encoding, added to the first stage's output.

        Returns:
            (B, map_channels, h/4, w/4) map and (B, widths[3]) globally pooled vector.
        """
        maps, last = self.pyramid(image, encoding)
        return maps[-1], last.mean(dim=(2, 3))

    def pyramid(
        self, image: torch.Tensor, encoding: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The maps of the path back, (B, map_channels, ., .) at strides 32, 16, 8 and 4, and the last stage's output
        (B, widths[3], h/32, w/32); without an encoding the camera is unknown."""
        x = self.stages[0](self.stem(image))
        if encoding is not None:
            x = x + encoding
        levels = [x]
        for stage in list(self.stages)[1:]:
            x = stage(x)
            levels.append(x)
        maps = [self.lateral[3](levels[3])]
        for i in (2, 1, 0):
            y = F.interpolate(maps[-1], scale_factor=2.0, mode="nearest") + self.lateral[i](levels[i])
            maps.append(self.smooth[i](y))
        return maps, levels[3]
