"""What the person detector learns: heat at people's middles, boxes, and which pixels show anyone."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SceneTruth", "detector_loss", "detector_targets"]

_SPREAD = 0.12  # standard deviation of a middle's heat, in sizes of the box: so far off a box still overlaps by 60 %
_BOXED = 0.5  # cells at least so hot learn the box
_IGNORED = 0.3
_MASK_WEIGHT = 0.5
_BOX_WEIGHT = 2.0


class SceneTruth(NamedTuple):
    """boxes (B, N, 4): left, top, right, bottom in pixels; real (B, N) bool: which rows are people; ignored (B, N)
    bool: people nobody is asked to find, or to deny; shown (B, h, w): share of a cell that shows a person."""

    boxes: Tensor
    real: Tensor
    ignored: Tensor
    shown: Tensor


def detector_targets(truth: SceneTruth, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of maps of `stride` pixels a cell.

    Returns:
        heat (B, h, w) in [0, 1], exactly 1 at the cell of each middle; weight (B, h, w), 0 where the heat is not
        scored; owner (B, h, w) int64, the row whose heat is the largest there.
    """
    boxes, real, ignored, (h, w) = truth.boxes, truth.real, truth.ignored, truth.shown.shape[1:]
    device = boxes.device
    x = (torch.arange(w, device=device) + 0.5) * stride
    y = (torch.arange(h, device=device) + 0.5) * stride
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)
    spread = (_SPREAD * size).clamp(min=0.6 * stride)
    # Heat falls from the middle of the cell that holds the middle, so that one cell has exactly 1.
    at = (torch.floor(centre / stride) + 0.5) * stride
    fall_x = torch.exp(-0.5 * ((x - at[..., :1]) / spread[..., :1]) ** 2)  # (B, N, w)
    fall_y = torch.exp(-0.5 * ((y - at[..., 1:]) / spread[..., 1:]) ** 2)
    each = fall_y[..., :, None] * fall_x[..., None, :]
    people = each * (real & ~ignored)[..., None, None]
    heat, owner = people.max(1)
    near = (each * ignored[..., None, None]).amax(1) > _IGNORED
    return heat, torch.where(near & (heat < 1), 0.0, 1.0), owner


def detector_loss(heat: Tensor, corners: Tensor, mask: Tensor, truth: SceneTruth, stride: int) -> dict[str, Tensor]:
    """Terms to add up.

    Args:
        heat: (B, h, w) logits. corners: (B, 4, h, w) predicted boxes, pixels. mask: (B, h, w) logits.
        truth: the scenes'. stride: pixels a cell.

    Returns:
        heat: focal loss a person (Law and Deng, CornerNet, ECCV 2018, equation 1, exponents 2 and 4), except that what
        is asked of a middle is shared out among the cells around it: nobody can tell the very cell that is the middle
        of someone who fills the picture; box: 1 - GIoU (Rezatofighi et al., CVPR 2019) weighted by heat; mask: binary
        cross entropy.
    """
    target, weight, owner = detector_targets(truth, stride)
    people = (truth.real & ~truth.ignored).sum().clamp(min=1)
    p = heat.sigmoid()
    on = -F.logsigmoid(heat) * (1 - p) ** 2 * _shares(target, owner, truth.boxes.shape[1])
    off = -F.logsigmoid(-heat) * p**2 * (1 - target) ** 4
    focal = ((on + off) * weight).sum() / people
    hot = torch.where(target >= _BOXED, target, 0.0)
    rows = owner.flatten(1)[..., None].expand(-1, -1, 4)
    wanted = torch.gather(truth.boxes, 1, rows).permute(0, 2, 1).reshape(corners.shape)
    box = ((1 - _giou(corners, wanted)) * hot).sum() / hot.sum().clamp(min=1)
    return {
        "heat": focal,
        "box": _BOX_WEIGHT * box,
        "mask": _MASK_WEIGHT * F.binary_cross_entropy_with_logits(mask, truth.shown),
    }


def _shares(target: Tensor, owner: Tensor, rows: int) -> Tensor:
    """(B, h, w) parts that sum to 1 for each person with a middle, the larger the hotter a cell is."""
    core = target**4
    total = torch.zeros(len(core), rows, device=core.device).scatter_add_(1, owner.flatten(1), core.flatten(1))
    return core / torch.gather(total, 1, owner.flatten(1)).view_as(core).clamp(min=1.0)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union of boxes (B, 4, h, w) of corners."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    both = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return shared / both.clamp(min=1e-6) - (hull - both) / hull.clamp(min=1e-6)
