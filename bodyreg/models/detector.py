"""A small network that finds people: a map of their middles, and a box at every middle.

Trained on synthetic crowds (`bodyreg.data.synthetic.crowds`) from nothing. Objects as points after Zhou et al.,
"Objects as Points", 2019; distances to the four sides of the box after Tian et al., FCOS, ICCV 2019; blocks after
Sandler et al., MobileNetV2, CVPR 2018, with 5 x 5 depthwise kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MULTIPLE", "STRIDE", "DetectorOutput", "PersonDetector", "boxes_from_sides", "cell_centres", "find_peaks"]

STRIDE = 4
"""Pixels of the picture a cell of the maps is wide."""
MULTIPLE = 32
"""Height and width of pictures are multiples of this."""
_EXPANSION = 3
_RARE = -4.0  # a person's middle is in one cell of some hundred: the first guess of the heat map, a logit


class DetectorOutput(NamedTuple):
    """Maps over the cells of a picture.

    heat (B, h, w): logit of being a person's middle; sides (B, 4, h, w): distance from the cell's centre to the left,
    upper, right and lower side of the box, pixels, positive; mask (B, h, w): logit of showing a person, which only
    teaches.
    """

    heat: Tensor
    sides: Tensor
    mask: Tensor


def _conv(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1, *, relu: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class _Block(nn.Module):
    """Widen, look around channel by channel, narrow; beside the identity where the size stays."""

    def __init__(self, inp: int, out: int, stride: int = 1) -> None:
        super().__init__()
        wide = inp * _EXPANSION
        self.body = nn.Sequential(
            _conv(inp, wide, 1), _conv(wide, wide, 5, stride, wide), _conv(wide, out, 1, relu=False)
        )
        self.same = stride == 1 and inp == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(_conv(width, width, 5, groups=width, relu=False), _conv(width, width, 1))


class PersonDetector(nn.Module):
    """Stages at strides 4, 8, 16 and 32 and a top-down path back to stride 4.

    Args:
        widths: channels of the four stages. depths: blocks of the four stages. map_channels: of the path back.
    """

    def __init__(
        self, widths: Sequence[int] = (24, 48, 96, 192), depths: Sequence[int] = (1, 2, 4, 3), map_channels: int = 48
    ) -> None:
        super().__init__()
        self.stem = _conv(3, widths[0], 7, STRIDE)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _Block(widths[max(i - 1, 0)], widths[i], 1 if i == 0 else 2),
                *[_Block(widths[i], widths[i]) for _ in range(depths[i] - 1)],
            )
            for i in range(4)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, map_channels, 1) for width in widths)
        self.smooth = nn.ModuleList(_separable(map_channels) for _ in range(3))
        rare = nn.Conv2d(map_channels, 1, 1)
        nn.init.constant_(rare.bias, _RARE)  # type: ignore[arg-type]
        self.heat = nn.Sequential(_separable(map_channels), rare)
        self.sides = nn.Sequential(_separable(map_channels), nn.Conv2d(map_channels, 4, 1))
        self.mask = nn.Conv2d(map_channels, 1, 1)

    def forward(self, image: Tensor) -> DetectorOutput:
        """Maps of pictures (B, 3, H, W), normalised RGB; H and W are multiples of 32."""
        x = self.stem(image)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        y = self.lateral[3](levels[3])
        for i in (2, 1, 0):
            y = F.interpolate(y, scale_factor=2.0, mode="nearest") + self.lateral[i](levels[i])
            y = self.smooth[i](y)
        # Sides are told in octaves around 32 pixels: half precision and one weight decay serve all sizes.
        sides = 32.0 * torch.exp2(self.sides(y).float().clamp(-6, 6))
        return DetectorOutput(self.heat(y).float()[:, 0], sides, self.mask(y).float()[:, 0])


def cell_centres(height: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """x (width) and y (height) of the centres of a map's cells, pixels of the picture."""
    x = (torch.arange(width, device=device) + 0.5) * STRIDE
    y = (torch.arange(height, device=device) + 0.5) * STRIDE
    return x, y


def boxes_from_sides(sides: Tensor) -> Tensor:
    """Corners (B, 4, h, w) left, top, right, bottom in pixels from distances (B, 4, h, w) to the sides."""
    x, y = cell_centres(sides.shape[2], sides.shape[3], sides.device)
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y[:, None] - top, x + right, y[:, None] + bottom], 1)


def find_peaks(output: DetectorOutput, *, min_score: float, most: int = 100) -> list[tuple[Tensor, Tensor]]:
    """Boxes (n, 4) as left, top, right, bottom in pixels and scores (n) of each picture, best first.

    A person is a cell whose heat is the largest among its eight neighbours'; boxes may still overlap.
    """
    heat = output.heat.sigmoid()
    peak = heat * (F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0] == heat)
    corners = boxes_from_sides(output.sides).flatten(2)
    scores, cells = peak.flatten(1).topk(min(most, peak[0].numel()))
    return [
        (corners[b][:, cells[b][keep]].T, scores[b][keep])
        for b in range(len(scores))
        for keep in [scores[b] >= min_score]
    ]
