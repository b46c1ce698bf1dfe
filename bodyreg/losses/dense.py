"""Auxiliary dense supervision: where the person is, how its surface faces, and which point of the rest body shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bodyreg.losses.keypoints import masked_mean

__all__ = ["dense_loss"]


def dense_loss(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the mask plus L1 of normals and of rest positions (metres, times 3) inside it.

    Args:
        predicted: (B, 7, h, w): mask logit, normal (3), rest position (3). true: the same with a mask of 0 and 1.
    """
    mask = true[:, :1]
    silhouette = F.binary_cross_entropy_with_logits(predicted[:, :1], mask)
    normal = masked_mean((predicted[:, 1:4] - true[:, 1:4]).abs(), mask)
    position = masked_mean((predicted[:, 4:7] - true[:, 4:7]).abs(), mask)
    return silhouette + normal + 3 * position
