"""A network that finds people: a map of their middles, and a box at every middle.

It looks through the compact backbone that a regressor has learned people with, so that little is left to learn: heads
on the maps of its path back, taught on synthetic crowds (`bodyreg.data.synthetic.crowds`). Objects as points after Zhou
et al., "Objects as Points", 2019; distances to the four sides of the box after Tian et al., FCOS, ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bodyreg.models.compact import CompactBackbone

__all__ = ["MULTIPLE", "STRIDE", "DetectorOutput", "PersonDetector", "boxes_from_sides", "cell_centres", "find_peaks"]

STRIDE = 8
"""Pixels of the picture a cell of the maps is wide."""
MULTIPLE = 32
"""Height and width of pictures are multiples of this."""
_HEAD_CHANNELS = 96
_USUAL_SIDE_PX = 48.0
_RARE = -3.5  # a person's middle is in one cell of some hundred: the first guess of the heat map, a logit


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


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(_conv(width, width, 5, groups=width, relu=False), _conv(width, width, 1))


class PersonDetector(nn.Module):
    """Heads at stride 8 on all maps of a compact backbone.

    Args:
        widths, depths, map_channels: of the backbone.
    """

    def __init__(
        self, widths: Sequence[int] = (48, 96, 192, 320), depths: Sequence[int] = (2, 2, 3, 2), map_channels: int = 64
    ) -> None:
        super().__init__()
        self.backbone = CompactBackbone(widths, depths, map_channels)
        channels = _HEAD_CHANNELS
        self.norm = nn.BatchNorm2d(4 * map_channels)
        self.narrow = _conv(4 * map_channels, channels, 1)
        self.drop = nn.Dropout2d(0.1)
        self.look = nn.ModuleList(_separable(channels) for _ in range(3))
        self.heat = nn.Conv2d(channels, 1, 1)
        self.sides = nn.Conv2d(channels, 4, 1)
        self.mask = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.heat.bias, _RARE)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> DetectorOutput:
        """Maps of pictures (B, 3, H, W), normalised RGB; H and W are multiples of 32."""
        return self.heads(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """(B, 4 map_channels, H / 8, W / 8): what the backbone sees at strides 32, 16, 8 and 4."""
        (coarse, middle, own, fine), _ = self.backbone.pyramid(image)
        size = (own.shape[2], own.shape[3])
        parts = [F.interpolate(coarse, size=size), F.interpolate(middle, size=size), own, F.avg_pool2d(fine, 2)]
        return torch.cat(parts, 1)

    def heads(self, features: Tensor) -> DetectorOutput:
        """Maps from features."""
        x = self.drop(self.narrow(self.norm(features)))
        for layer in self.look:
            x = x + layer(x)
        # Sides are told in octaves around a usual one: half precision and one weight decay serve all sizes.
        sides = _USUAL_SIDE_PX * torch.exp2(6 * torch.tanh(self.sides(x).float() / 6))
        return DetectorOutput(self.heat(x).float()[:, 0], sides, self.mask(x).float()[:, 0])


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
