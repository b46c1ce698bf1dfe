"""From the fragments of `renderers.rasterize` to pictures: attributes, silhouettes, colours, depth.

The formulas are those of PyTorch3D (Ravi et al., 2020), which follow Soft Rasterizer (Liu et al., ICCV 2019). All are
differentiable with respect to attributes and to whatever the fragments depend on. Only the faces in the fragments
contribute; `renderers.soft` blends all faces without that limit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from renderers.rasterize import Fragments

TINY = 1e-10  # depth weight of the background in the softmax, and the least weight it may have


class Picture(NamedTuple):
    """Blended values and coverage."""

    colour: Tensor
    """(N, H, W, D) blended attributes: colours, label probabilities, normals, ..."""
    alpha: Tensor
    """(N, H, W) coverage in [0, 1]."""


def blur_for(sigma: float, least: float = 1e-4) -> float:
    """The blur radius (squared NDC) at which a face's coverage has fallen to `least`: sigma ln(1 / least - 1)."""
    return math.log(1 / least - 1) * sigma


def interpolate_corners(fragments: Fragments, corners: Tensor) -> Tensor:
    """Attributes at the fragments: the barycentric mean of each face's corners, 0 in empty slots.

    Args:
        corners: (F, 3, D) attributes of the packed faces' corners, `attributes[faces]`.

    Returns:
        (N, H, W, K, D).
    """
    hit = fragments.pix_to_face >= 0
    values = (fragments.bary[hit][..., None] * corners[fragments.pix_to_face[hit]]).sum(1)
    return _spread(hit, values)


def interpolate_faces(fragments: Fragments, values: Tensor) -> Tensor:
    """One value per face, (F, D), at the fragments: (N, H, W, K, D), 0 in empty slots."""
    hit = fragments.pix_to_face >= 0
    return _spread(hit, values[fragments.pix_to_face[hit]])


def _spread(hit: Tensor, values: Tensor) -> Tensor:
    blank = values.new_zeros(*hit.shape, values.shape[-1])
    return blank.masked_scatter(hit[..., None], values)


def coverage(fragments: Fragments, sigma: float) -> Tensor:
    """(N, H, W, K) probability sigmoid(-dists / sigma) that each face covers the pixel, 0 in empty slots."""
    p = torch.sigmoid(-fragments.dists / sigma)
    return torch.where(fragments.pix_to_face >= 0, p, torch.zeros_like(p))


def blend_silhouette(fragments: Fragments, sigma: float) -> Tensor:
    """(N, H, W) probability that any of the faces covers the pixel: 1 - prod(1 - p_k)."""
    missed = torch.sigmoid(fragments.dists / sigma)
    return 1 - torch.where(fragments.pix_to_face >= 0, missed, torch.ones_like(missed)).prod(-1)


def blend_hard(fragments: Fragments, values: Tensor, background: Tensor) -> Picture:
    """The nearest face's value where there is one, the background elsewhere; alpha 1 or 0.

    Args:
        values: (N, H, W, K, D) at the fragments.
        background: (D,).
    """
    hit = fragments.pix_to_face[..., 0] >= 0
    return Picture(torch.where(hit[..., None], values[..., 0, :], background), hit.to(values.dtype))


def labels_hard(fragments: Fragments, probabilities: Tensor) -> Tensor:
    """(N, H, W) int64 most probable label of the nearest face, -1 where there is none. Takes no gradient.

    Args:
        probabilities: (N, H, W, K, D) at the fragments, by `interpolate_corners` or `interpolate_faces`.
    """
    nearest = fragments.pix_to_face[..., 0]
    return torch.where(nearest >= 0, probabilities[..., 0, :].argmax(-1), torch.full_like(nearest, -1))


def blend_sigmoid(fragments: Fragments, values: Tensor, sigma: float) -> Picture:
    """The nearest face's value (0 where there is none) with the soft silhouette as alpha."""
    return Picture(values[..., 0, :], blend_silhouette(fragments, sigma))


def blend_softmax(
    fragments: Fragments,
    values: Tensor,
    background: Tensor,
    *,
    sigma: float = 1e-4,
    gamma: float = 1e-4,
    znear: float = 1.0,
    zfar: float = 100.0,
) -> Picture:
    """Blend all slots, weighted by coverage times exp(zeta / gamma), zeta = (zfar - z) / (zfar - znear).

    The background has the weight of zeta = 1e-10, and never less than 1e-10 of the nearest face's depth weight. Faces
    beyond `zfar` fade into it.

    Args:
        values: (N, H, W, K, D) at the fragments.
        background: (D,).
    """
    hit = fragments.pix_to_face >= 0
    span = zfar - znear
    z = fragments.zbuf
    # Differences of depths instead of differences of zeta: float32 zeta near 1 is too coarse to divide by gamma.
    nearest = torch.where(hit, z, torch.full_like(z, torch.inf)).amin(-1, keepdim=True)
    limit = zfar - TINY * span  # here zeta = 1e-10
    nearest = nearest.clamp(max=limit)
    weight = coverage(fragments, sigma) * torch.exp(torch.where(hit, nearest - z, torch.zeros_like(z)) / (gamma * span))
    rest = torch.exp((nearest - limit) / (gamma * span)).clamp(min=TINY)
    total = weight.sum(-1, keepdim=True) + rest
    colour = ((weight[..., None] * values).sum(-2) + rest * background) / total
    return Picture(colour, blend_silhouette(fragments, sigma))


def depth_hard(fragments: Fragments, zfar: float = 100.0) -> Tensor:
    """(N, H, W) depth of the nearest face, `zfar` where there is none."""
    z = fragments.zbuf[..., 0]
    return torch.where(fragments.pix_to_face[..., 0] >= 0, z, torch.full_like(z, zfar))


def depth_soft(fragments: Fragments, sigma: float, zfar: float = 100.0) -> Tensor:
    """(N, H, W) mean depth, where each face takes its coverage of what the nearer ones left, and `zfar` the rest."""
    taken = coverage(fragments, sigma).cumsum(-1).clamp(max=1)
    share = torch.diff(taken, dim=-1, prepend=torch.zeros_like(taken[..., :1]))
    return (share * fragments.zbuf).sum(-1) + (1 - taken[..., -1]) * zfar
