"""Bones of the sixteen joints: vectors, lengths, directions, and the way back to joints."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "BONES", "PARTS", "RATIOS", "bone_vectors", "joints_from_bones", "kcs", "matrix_from_rotvec", "scale_bones",
    "swap_lengths", "unit_pose",
]  # fmt: skip

BONES = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (8, 10), (10, 11), (11, 12), (8, 13),
    (13, 14), (14, 15),
)  # fmt: skip
"""(parent, child) of the fifteen bones of h36m-16."""
RATIOS = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8)
"""Which of nine length ratios each bone follows: left and right share theirs."""
PARTS = ((7, 9, 10, 11), (7, 12, 13, 14), (0, 1, 2, 3, 6), (0, 3, 4, 5, 6), (0, 3, 6, 7, 8, 9, 12))
"""Bones of the parts a critic sees: two arms, two legs, trunk and head."""
_PARENTS, _CHILDREN = ([bone[i] for bone in BONES] for i in (0, 1))


def bone_vectors(joints: Tensor) -> Tensor:
    """(..., 15, 3) parent minus child, of (..., 16, 3) joints."""
    return joints[..., _PARENTS, :] - joints[..., _CHILDREN, :]


def joints_from_bones(bones: Tensor) -> Tensor:
    """(..., 16, 3) joints with the root at zero, of (..., 15, 3) bone vectors."""
    joints = [torch.zeros_like(bones[..., 0, :])] * 16
    for bone, (parent, child) in enumerate(BONES):
        joints[child] = joints[parent] - bones[..., bone, :]
    return torch.stack(joints, -2)


def unit_pose(joints: Tensor) -> Tensor:
    """The same directions with every bone of length one, the root at zero."""
    return joints_from_bones(torch.nn.functional.normalize(bone_vectors(joints), dim=-1))


def kcs(bones: Tensor, part: tuple[int, ...]) -> Tensor:
    """(..., 15, 15) inner products of a part's bones (..., 15, 3), zero elsewhere (Wandt and Rosenhahn, CVPR 2019)."""
    mask = torch.zeros(len(BONES), 1, dtype=bones.dtype, device=bones.device)
    mask[list(part)] = 1
    kept = bones * mask
    return kept @ kept.mT


def scale_bones(joints: Tensor, ratios: Tensor) -> Tensor:
    """Joints whose bones are (1 + ratio) times as long; root and directions stay.

    Args:
        joints: (N, 16, 3). ratios: (N, 9) or (N, 9, 1), one for each entry of `RATIOS`.
    """
    factors = 1 + ratios.reshape(len(joints), 9)[:, list(RATIOS), None]
    return joints_from_bones(bone_vectors(joints) * factors) + joints[:, :1]


def swap_lengths(joints: Tensor, lengths: Tensor) -> Tensor:
    """Joints (N, 16, 3) with the bone lengths (N, 15) of somebody else; root and directions stay."""
    directions = torch.nn.functional.normalize(bone_vectors(joints), dim=-1)
    return joints_from_bones(directions * lengths[..., None]) + joints[:, :1]


def matrix_from_rotvec(rotvec: Tensor, eps: float = 1e-6) -> Tensor:
    """(N, 3, 3) of rotation vectors (N, 3), by the parent's own rule near zero (elsewhere see `bodyreg.rotations`)."""
    square = rotvec.square().sum(-1)
    small = square <= eps
    theta = torch.where(small, torch.ones_like(square), square).sqrt()
    x, y, z = (rotvec / (theta + eps)[..., None]).unbind(-1)
    c, s = theta.cos(), theta.sin()
    d = 1 - c
    rows = [
        c + x * x * d, x * y * d - z * s, x * z * d + y * s,
        x * y * d + z * s, c + y * y * d, y * z * d - x * s,
        x * z * d - y * s, y * z * d + x * s, c + z * z * d,
    ]  # fmt: skip
    turned = torch.stack(rows, -1).unflatten(-1, (3, 3))
    a, b, c_ = rotvec.unbind(-1)
    one = torch.ones_like(a)
    near = torch.stack([one, -c_, b, c_, one, -a, -b, a, one], -1).unflatten(-1, (3, 3))
    return torch.where(small[..., None, None], near, turned)
