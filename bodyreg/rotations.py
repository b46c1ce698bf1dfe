"""Rotations: axis-angle, matrices, quaternions, 6D vectors, and the swing that takes one direction to another.

Every function takes any number of leading batch axes, keeps device and dtype of its input and is differentiable; where
the plain formula has no finite derivative the docstring says what is used instead. Public conversions are exact (they
stand on `roma`); `rodrigues` and `swing` keep the rounding of PersPose (Hao and Li, ICCV 2025), because published
weights and reference values were made with it.
"""

from __future__ import annotations

import math

import numpy as np
import roma
import torch
from torch import Tensor

# PersPose adds this to every component of an axis-angle vector before taking its length, so that a zero vector has one.
_RODRIGUES_EPS = 1e-8
# Cosines this close to +-1 are replaced by the largest single-precision value below one (PersPose, angle between
# vectors).
_COSINE_LIMIT = 1 - 1e-7
_COSINE_CAP = float(np.float32(_COSINE_LIMIT))

SMALLEST_SWING = math.acos(_COSINE_CAP)
"""Smallest non-zero angle `swing` turns by, radians (0.028 degrees): smaller tilts are rounded up to it."""


def matrix_from_aa(aa: Tensor) -> Tensor:
    """Exact rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), radians."""
    _check_last(aa, "aa", 3)
    return roma.rotvec_to_rotmat(aa)


def aa_from_matrix(R: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3), radians, at most pi long, of rotation matrices (..., 3, 3)."""
    _check_matrix(R)
    return roma.rotmat_to_rotvec(R)


def matrix_from_6d(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Rotation matrices (..., 3, 3) of 6D vectors (..., 6) by Gram-Schmidt (Zhou et al., CVPR 2019).

    The six numbers are a 3 x 2 matrix in row-major order, so the two columns are interleaved: a1 = (x0, x2, x4),
    a2 = (x1, x3, x5). Norms below `eps` are replaced by it (SPIN: 1e-12; PersPose's leaf rotations: 1e-6).
    """
    _check_last(x, "x", 6)
    columns = x.unflatten(-1, (3, 2))
    a1, a2 = columns[..., 0], columns[..., 1]
    b1 = unit(a1, eps)
    b2 = unit(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, eps)
    return torch.stack([b1, b2, torch.linalg.cross(b1, b2, dim=-1)], dim=-1)


def sixd_from_matrix(R: Tensor) -> Tensor:
    """6D vectors (..., 6), interleaved columns, of rotation matrices (..., 3, 3): the inverse of `matrix_from_6d`."""
    _check_matrix(R)
    return R[..., :2].flatten(-2)


def quaternion_from_matrix(R: Tensor) -> Tensor:
    """Unit quaternions (..., 4), real part first and never negative, of rotation matrices (..., 3, 3)."""
    _check_matrix(R)
    q = roma.rotmat_to_unitquat(R).roll(1, dims=-1)
    return torch.where(q[..., :1] < 0, -q, q)


def matrix_from_quaternion(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), real part first; they are normalised first."""
    _check_last(q, "q", 4)
    w, x, y, z = unit(q).unbind(-1)
    return torch.stack(
        [
            w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (w * y + x * z),
            2 * (w * z + x * y), w * w - x * x + y * y - z * z, 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (w * x + y * z), w * w - x * x - y * y + z * z,
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))  # fmt: skip


def aa_from_quaternion(q: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3), radians, at most pi long, of unit quaternions (..., 4), real part first."""
    _check_last(q, "q", 4)
    return roma.unitquat_to_rotvec(q.roll(-1, dims=-1))


def rodrigues_quaternion(aa: Tensor) -> Tensor:
    """Quaternions (..., 4), real part first, of axis-angle vectors (..., 3) with PersPose's rounding.

    angle = |aa + 1e-8| with 1e-8 added to each component; axis = aa / angle; q = (cos(angle/2), sin(angle/2) axis).
    """
    _check_last(aa, "aa", 3)
    # A component of exactly -1e-8 may leave a length of zero; the floor keeps value and derivative finite.
    angle = torch.linalg.vector_norm(aa + _RODRIGUES_EPS, dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.cat([torch.cos(angle / 2), torch.sin(angle / 2) * (aa / angle)], dim=-1)


def rodrigues(aa: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) with PersPose's rounding (off by about 1e-8 rad).

    Use `matrix_from_aa` unless reference values must be met.
    """
    return matrix_from_quaternion(rodrigues_quaternion(aa))


def swing_angle(v1: Tensor, v2: Tensor) -> Tensor:
    """Angles (...,) in radians between vectors (..., 3), as PersPose rounds them.

    cos = v1.v2 / (|v1||v2| + 1e-8); within 1e-7 of +-1 it is capped, so the result lies in [4.88e-4, pi - 4.88e-4].
    The derivative is zero where the cap acts.
    """
    lengths = torch.linalg.vector_norm(v1, dim=-1) * torch.linalg.vector_norm(v2, dim=-1)
    cosine = (v1 * v2).sum(-1) / (lengths + 1e-8)
    cosine = torch.where(cosine >= _COSINE_LIMIT, torch.full_like(cosine, _COSINE_CAP), cosine)
    cosine = torch.where(cosine <= -_COSINE_LIMIT, torch.full_like(cosine, -_COSINE_CAP), cosine)
    return torch.acos(cosine)


def swing(v1: Tensor, v2: Tensor) -> Tensor:
    """Rotations (..., 3, 3) about v1 x v2 that take directions v1 (..., 3) to v2 (..., 3), as PersPose rounds them.

    The axis is v1 x v2 divided by max(norm, 1e-12), the angle `swing_angle`. Hence exactly parallel and exactly
    antiparallel vectors give the identity, and any other tilt below `SMALLEST_SWING` is rounded up to it.
    The derivative is that of the unrounded rotation I + [a] + [a]^2 / (1 + cos), which is finite at parallel vectors
    too; close to antiparallel ones, where the rotation is not continuous, its denominator is kept above 1e-4.
    """
    _check_last(v1, "v1", 3)
    _check_last(v2, "v2", 3)
    v1, v2 = torch.broadcast_tensors(v1, v2)
    with torch.no_grad():
        axis = unit(torch.linalg.cross(v1, v2, dim=-1))
        R = rodrigues(axis * swing_angle(v1, v2).unsqueeze(-1))
    if not (torch.is_grad_enabled() and (v1.requires_grad or v2.requires_grad)):
        return R
    smooth = _smooth_swing(v1, v2)
    return R + (smooth - smooth.detach())


def _smooth_swing(v1: Tensor, v2: Tensor) -> Tensor:
    """The rotation of `swing` without rounding, differentiable except at antiparallel vectors."""
    u1, u2 = unit(v1, 1e-8), unit(v2, 1e-8)
    A = skew(torch.linalg.cross(u1, u2, dim=-1))
    denominator = (1 + (u1 * u2).sum(-1)).clamp_min(1e-4)[..., None, None]
    return torch.eye(3, dtype=v1.dtype, device=v1.device) + A + A @ A / denominator


def skew(v: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of the cross product with vectors (..., 3): skew(a) b = a x b."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def unit(v: Tensor, eps: float = 1e-12) -> Tensor:
    """Vectors (..., D) divided by max(norm, eps); one shorter than eps gets a zero derivative instead of a huge one."""
    norm = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    long_enough = norm > eps
    # The inner `where` keeps the division away from zero: the derivative of the branch not taken must stay finite.
    inverse = 1 / torch.where(long_enough, norm, torch.ones_like(norm))
    return torch.where(long_enough, v * inverse, v.detach() / eps)


def mirror_aa(aa: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) after mirroring the world at the plane x = 0: (x, -y, -z)."""
    _check_last(aa, "aa", 3)
    return aa * aa.new_tensor([1.0, -1.0, -1.0])


def mirror_matrix(R: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) after mirroring the world at the plane x = 0: D R D with D = diag(-1, 1, 1)."""
    _check_matrix(R)
    signs = R.new_tensor([-1.0, 1.0, 1.0])
    return R * signs * signs[:, None]


def kabsch(source: Tensor, target: Tensor) -> Tensor:
    """Rotations (..., 3, 3) that best take vectors `source` (..., N, 3) to `target` (..., N, 3), least squares.

    No centring. Where the best orthogonal matrix would be a reflection, the weakest direction is flipped. A covariance
    whose entries sum to exactly zero gives the identity, as in PersPose.
    Coplanar vectors (rank two) are fine, also for the derivative; collinear ones leave the rotation undetermined.
    """
    covariance = target.mT @ source
    total = covariance.sum((-2, -1))
    nothing = (total == 0) | ~torch.isfinite(total)
    eye = torch.eye(3, dtype=covariance.dtype, device=covariance.device)
    R = roma.special_procrustes(torch.where(nothing[..., None, None], eye, covariance))
    # NaN would make the decomposition fail for the whole batch: it is kept out of it and given back.
    return torch.where(nothing[..., None, None], eye + 0 * total[..., None, None], R)


def _check_last(x: Tensor, name: str, size: int) -> None:
    if x.shape[-1:] != (size,):
        raise ValueError(f"{name} has shape {tuple(x.shape)}. Pass an array whose last axis has {size} entries.")


def _check_matrix(R: Tensor) -> None:
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"R has shape {tuple(R.shape)}. Pass rotation matrices of shape (..., 3, 3).")
