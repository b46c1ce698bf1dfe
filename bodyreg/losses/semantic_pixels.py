"""Pixel losses of DSR (Dwivedi et al., ICCV 2021): how rendered label maps are compared with a parsed picture.

Every function takes a batch of pictures and returns one value a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["distance_loss", "image_iou_loss", "inside_loss", "label_cross_entropy", "row_iou_loss"]

_IOU_EPS = 1e-6
_LOG_EPS = 1e-3


def row_iou_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """(B,) one minus the mean over picture rows of the soft intersection over union, as DSR was trained.

    A row without mask counts a constant and has no gradient, so values near 0.9 are normal.

    Args:
        probability: (B, H, W) rendered probability. mask: (B, H, W) of 0 and 1.
    """
    overlap = probability * mask
    return 1 - (overlap.sum(-1) / ((probability + mask - overlap).sum(-1) + _IOU_EPS)).mean(-1)


def image_iou_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """(B,) one minus the soft intersection over union of the whole picture; arguments as in `row_iou_loss`."""
    overlap = probability * mask
    return 1 - overlap.sum((-2, -1)) / ((probability + mask - overlap).sum((-2, -1)) + _IOU_EPS)


def distance_loss(probability: Tensor, distance: Tensor) -> Tensor:
    """(B,) how far from the mask the probability lies, over its amount to the power 3/2 (a length times an area).

    Args:
        probability, distance: (B, C, H, W), distance in pixels to the mask. DSR renders one probability as three equal
            colour channels and takes C = 3; its values follow from that.
    """
    amount = probability.flatten(1).sum(1)
    # A power of zero has no derivative: nothing rendered costs nothing and pulls nowhere.
    root = torch.where(amount > 0, amount, torch.ones_like(amount)).sqrt()
    weighted = (probability * distance).flatten(1).sum(1)
    return weighted / (amount * root + _IOU_EPS)


def label_cross_entropy(maps: Tensor, labels: Tensor, class_weight: Tensor) -> Tensor:
    """(B,) weighted cross-entropy of rendered maps taken as logits; 0 where no pixel has a weight.

    Probabilities stand where logits should, as DSR was trained: a perfect pixel of eight classes costs ln(1 + 7 / e) =
    1.274, an empty one ln 8.

    Args:
        maps: (B, K, H, W). labels: (B, H, W) int64. class_weight: (B, K).
    """
    weight = class_weight.gather(1, labels.flatten(1)).view_as(labels)
    cost = torch.logsumexp(maps, 1) - maps.gather(1, labels[:, None])[:, 0]
    return _weighted_mean(cost, weight)


def inside_loss(alpha: Tensor, shares: Tensor, labels: Tensor, class_weight: Tensor) -> Tensor:
    """(B,) what DSR-C means: the body stays inside its clothes, and need not fill them.

    Where the body covers clothes or skin, -log of the label's share among the faces seen there, averaged with the
    classes' weights; the coverage takes no gradient, so clothes beyond the body pull nothing outwards. Where it covers
    background, -log(1 - what covers it), summed over the picture and divided by the pixels of the person and of what is
    covered beside: a body that leaves its clothes pays for the area, however large the background is, and one that
    fills the picture before a person of few pixels does not outweigh a whole batch. Pixels without a label (-1) cost
    nothing.

    Args:
        alpha: (B, H, W) coverage by the body.
        shares: (B, K, H, W) share of each label among the faces at a pixel, background first.
        labels: (B, H, W) int64, -1 where unknown. class_weight: (B, K).
    """
    person = labels > 0
    index = labels.clamp(min=0)
    weight = class_weight.gather(1, index.flatten(1)).view_as(index) * person * alpha.detach()
    worn = -torch.log(shares.gather(1, index[:, None])[:, 0].clamp(0, 1) * (1 - _LOG_EPS) + _LOG_EPS)
    free = -torch.log((1 - alpha * (1 - shares[:, 0])).clamp(0, 1) * (1 - _LOG_EPS) + _LOG_EPS)
    beside = labels == 0
    area = (person + beside * alpha.detach()).flatten(1).sum(1)
    return _weighted_mean(worn, weight) + (free * beside).flatten(1).sum(1) / area.clamp(min=1)


def _weighted_mean(cost: Tensor, weight: Tensor) -> Tensor:
    total = weight.flatten(1).sum(1)
    return (cost * weight).flatten(1).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
