"""Rotations in numpy: axis-angle, matrices, swing and twist.

Plain arrays with any leading dimensions, computed in the dtype of the input (float32 stays float32).
"""

from __future__ import annotations

import numpy as np

__all__ = ["aa_from_matrix", "aa_from_quaternion", "cross", "matrix_from_aa", "quaternion_from_aa", "swing_twist"]


def matrix_from_aa(aa: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), radians (Rodrigues' formula)."""
    aa = np.asarray(aa)
    angle = np.linalg.norm(aa, axis=-1)
    small = angle < 1e-6
    safe = np.where(small, 1, angle)
    sinc = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    # (1 - cos a) / a^2 written with the half angle, which loses no digits for small angles
    cosc = np.where(small, 0.5 - angle**2 / 24, 2 * (np.sin(safe / 2) / safe) ** 2)
    x, y, z = aa[..., 0], aa[..., 1], aa[..., 2]
    R = np.empty((*aa.shape, 3), dtype=aa.dtype)
    cos = np.cos(angle)
    R[..., 0, 0], R[..., 1, 1], R[..., 2, 2] = cos + cosc * x * x, cos + cosc * y * y, cos + cosc * z * z
    xy, xz, yz = cosc * x * y, cosc * x * z, cosc * y * z
    R[..., 0, 1], R[..., 1, 0] = xy - sinc * z, xy + sinc * z
    R[..., 0, 2], R[..., 2, 0] = xz + sinc * y, xz - sinc * y
    R[..., 1, 2], R[..., 2, 1] = yz - sinc * x, yz + sinc * x
    return R


def quaternion_from_aa(aa: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), real part first, of axis-angle vectors (..., 3), radians."""
    aa = np.asarray(aa)
    angle = np.linalg.norm(aa, axis=-1, keepdims=True)
    safe = np.where(angle < 1e-6, 1, angle)
    half_sinc = np.where(angle < 1e-6, 0.5 - angle**2 / 48, np.sin(safe / 2) / safe)
    return np.concatenate([np.cos(angle / 2), aa * half_sinc], axis=-1)


def aa_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (..., 3) of angle at most pi from unit quaternions (..., 4), real part first."""
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    vector = quaternion[..., 1:]
    sin_half = np.linalg.norm(vector, axis=-1, keepdims=True)
    small = sin_half < 1e-6
    factor = np.where(small, 2.0, 2 * np.arctan2(sin_half, quaternion[..., :1]) / np.where(small, 1, sin_half))
    return (vector * factor).astype(quaternion.dtype)


def aa_from_matrix(R: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (..., 3) of angle at most pi from rotation matrices (..., 3, 3).

    Goes through the quaternion, taking of its four forms the one with the largest divisor: half turns are exact.
    """
    R = np.asarray(R)
    diagonal = np.stack([R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]], axis=-1)
    trace = diagonal.sum(-1)
    # Rows of the symmetric matrix 4 q q^T; each is the quaternion times four times one of its parts.
    a, b, c = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    d, e, f = R[..., 0, 1] + R[..., 1, 0], R[..., 0, 2] + R[..., 2, 0], R[..., 1, 2] + R[..., 2, 1]
    x, y, z = (1 - trace + 2 * diagonal[..., i] for i in range(3))
    outer = np.stack([1 + trace, a, b, c, a, x, d, e, b, d, y, f, c, e, f, z], axis=-1).reshape(*R.shape[:-2], 4, 4)
    best = np.argmax(np.stack([1 + trace, x, y, z], axis=-1), axis=-1)
    quaternion = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    return aa_from_quaternion(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True))


def swing_twist(aa: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split rotations as R = R_swing R_twist, the twist about `axis`, the swing about an axis at right angles to it.

    aa: (..., 3) axis-angle, radians. axis: (..., 3) unit vectors, broadcast against aa.
    Returns the swing as axis-angle (..., 3) and the twist as signed angle (...), in [-pi, pi).
    """
    quaternion = quaternion_from_aa(aa)
    w, vector = quaternion[..., 0], quaternion[..., 1:]
    along = (vector * axis).sum(-1)
    norm = np.hypot(w, along)
    # A half turn about an axis at right angles leaves the twist undefined: take none.
    undefined = norm < 1e-9
    cos = np.where(undefined, 1, w / np.where(undefined, 1, norm))
    sin = np.where(undefined, 0, along / np.where(undefined, 1, norm))
    # swing = q times the conjugate of the twist (cos, sin axis)
    twist_vector = sin[..., None] * axis
    swing_w = w * cos + (vector * twist_vector).sum(-1)
    swing_vector = vector * cos[..., None] - w[..., None] * twist_vector - cross(vector, twist_vector)
    swing = aa_from_quaternion(np.concatenate([swing_w[..., None], swing_vector], axis=-1))
    twist = 2 * np.arctan2(sin, cos)
    return swing, (twist + np.pi) % (2 * np.pi) - np.pi


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis of (..., 3) arrays; several times faster than numpy's for many short vectors."""
    x = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    y = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    z = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return np.stack([x, y, z], axis=-1)
