"""From label maps of parsed pictures to what DSR compares renderings with: masks, groups, weights, distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from priors.clothing_labels import C_GROUP_MATRIX, LABELS, MC_COLUMNS

__all__ = ["MIN_PIXELS", "NO_LABEL", "SemanticTargets", "class_weights", "mask_distance",
           "semantic_targets"]

NO_LABEL = 255
"""A pixel of no label: the mixed colours at the borders of a resampled palette picture."""
MIN_PIXELS = 60
"""A label or group counts above this many pixels of a picture 224 wide; with the area for other sizes."""
_SIZE = 224
_GROUP_OF_LABEL = torch.from_numpy(C_GROUP_MATRIX.argmax(1))


class SemanticTargets(NamedTuple):
    """What is known of a batch of pictures, at the size of its label maps."""

    mc_valid: Tensor
    """(B, 5) bool, the labels of `MC_LABELS` that enough pixels show."""
    mc_counts: Tensor
    """(B, 5) int64, their pixels."""
    mc_mask: Tensor
    """(B, H, W) float, 1 where a valid one is."""
    groups: Tensor
    """(B, H, W) int64 group of `C_GROUPS`, -1 where the picture has no label."""
    class_weight: Tensor
    """(B, 8) weight of each group: rare ones count 1, others less, those too small 0."""
    person: Tensor
    """(B, H, W) float, 1 where any label but the background is."""


def semantic_targets(labels: Tensor, *, min_pixels: float = MIN_PIXELS) -> SemanticTargets:
    """Targets of label maps (DSR's released rules).

    Args:
        labels: (B, H, W) uint8 of LIP's labels; `NO_LABEL` where there is none.
        min_pixels: in a picture 224 wide.

    Raises:
        ValueError: another shape or type, or a number that is no label.
    """
    if labels.ndim != 3 or labels.dtype != torch.uint8:
        raise ValueError(f"The labels are {tuple(labels.shape)} {labels.dtype}. Give (B, H, W) uint8.")
    unknown = labels == NO_LABEL
    if bool(((labels >= len(LABELS)) & ~unknown).any()):
        worst = int(labels[~unknown].max())
        raise ValueError(f"The label {worst} is none of the {len(LABELS)}. Give 0 to {len(LABELS) - 1}, or 255.")
    index = torch.where(unknown, 0, labels.long())
    limit = min_pixels * (labels.shape[1] * labels.shape[2]) / _SIZE**2
    parts = torch.stack([labels == number for number in MC_COLUMNS], 1)
    counts = parts.flatten(2).sum(2)
    valid = counts > limit
    mask = (parts & valid[:, :, None, None]).any(1).float()
    of_label = _GROUP_OF_LABEL.to(labels.device)
    groups = torch.where(unknown, -1, of_label[index])
    share = torch.stack([(groups == g).flatten(1).sum(1) for g in range(C_GROUP_MATRIX.shape[1])], 1)
    person = ((index > 0) & ~unknown).float()
    return SemanticTargets(valid, counts, mask, groups, class_weights(share, limit), person)


def class_weights(counts: Tensor, limit: float = MIN_PIXELS) -> Tensor:
    """(B, K) float weights of classes with (B, K) pixels: the least count of at least `limit` over each count above it.

    Classes of `limit` pixels or fewer weigh nothing.
    """
    counts = counts.float()
    least = torch.where(counts >= limit, counts, torch.inf).amin(1, keepdim=True)
    weight = least / counts.clamp(min=1e-9)
    return torch.where((counts > limit) & least.isfinite(), weight, torch.zeros_like(weight))


def mask_distance(mask: Tensor) -> Tensor:
    """(B, H, W) Euclidean distance of each pixel to the nearest one of the mask (B, H, W), pixels.

    Without a mask it is measured from one row above the upper left pixel, where DSR's transform puts it; such samples
    do not count.
    """
    from scipy.ndimage import distance_transform_edt

    out = np.empty(mask.shape, np.float32)
    for k, one in enumerate(mask.cpu().numpy() > 0):
        if one.any():
            out[k] = distance_transform_edt(~one)
        else:
            rows, columns = np.ogrid[1 : one.shape[0] + 1, 0 : one.shape[1]]
            out[k] = np.hypot(rows, columns)
    return torch.from_numpy(out).to(mask.device)
