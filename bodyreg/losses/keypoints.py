"""Losses on joints in the picture: cross-entropy of heat maps and distances of soft-argmax positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["heatmap_cross_entropy", "masked_mean", "uv_distance"]


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """sum(x mask) / (sum(mask) + 1e-7), the mask broadcast to x and possibly a weight; 0 for an empty mask."""
    mask = mask.to(x.dtype).expand_as(x)
    return (x * mask).sum() / (mask.sum() + 1e-7)


def heatmap_cross_entropy(
    logits: torch.Tensor, uv_cells: torch.Tensor, mask: torch.Tensor, sigma: float = 0.8
) -> torch.Tensor:
    """Cross-entropy between the softmax over all cells and a Gaussian around the true position.

    Args:
        logits: (B, J, h, w). uv_cells: (B, J, 2) true positions, x then y, in cells (centres at + 0.5).
        mask: (B, J) joints that count; they should lie inside the map.
        sigma: of the target, cells.

    Returns:
        Scalar mean over the joints that count, nats. The target's own entropy is part of it: a perfect map does not
        score 0 but log(2 pi e sigma^2), less where the Gaussian is narrow against a cell.
    """
    height, width = logits.shape[-2:]
    x = torch.arange(width, device=logits.device, dtype=logits.dtype) + 0.5
    y = torch.arange(height, device=logits.device, dtype=logits.dtype) + 0.5
    along_x = torch.softmax(-((x - uv_cells[..., :1]) ** 2) / (2 * sigma**2), -1)
    along_y = torch.softmax(-((y - uv_cells[..., 1:]) ** 2) / (2 * sigma**2), -1)
    target = along_y[..., :, None] * along_x[..., None, :]
    log_share = F.log_softmax(logits.flatten(2), -1).view_as(logits)
    return masked_mean(-(target * log_share).sum((-1, -2)), mask)


def uv_distance(uv: torch.Tensor, uv_true: torch.Tensor, mask: torch.Tensor, dead_zone: float = 0.0) -> torch.Tensor:
    """Mean Euclidean pixel distance (B, J, 2) above a dead zone, over joints of the mask (B, J)."""
    return masked_mean(F.relu(torch.linalg.vector_norm(uv - uv_true, dim=-1) - dead_zone), mask)
