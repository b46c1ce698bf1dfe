"""Pose correctives: what plain skinning gets wrong at each joint, as a linear function of the joint's R - I.

The target surface of a rotated joint is delta mush (Mancewicz et al. 2014) of the average of linear blend skinning and
dual quaternion skinning (Kavan et al. 2007): the first dents, the second bulges, the mean of the two does little of
either. The difference is pulled back through each vertex's blended matrix and fitted by ridge regression. It makes the
skin stretch less; the enclosed volume is not preserved.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .skeleton import FLIP_X, MIRROR_JOINTS, PARENTS, uniform_laplacian
from .topology import vertex_normals

_SAMPLES = 48
_SMOOTHING = 12
_RIDGE = 0.02
_KEEP, _FULL = 0.0015, 0.0035  # metres: correctives below the first are dropped, from the second on kept whole

# Left and central joints: lowest and highest rotation vector, radians, in the T-pose frame.
_RANGES: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    1: ((-2.0, -0.6, -0.3), (0.5, 0.6, 0.8)),
    3: ((-0.3, -0.5, -0.4), (0.7, 0.5, 0.4)),
    4: ((0.0, -0.2, -0.1), (2.3, 0.2, 0.1)),
    6: ((-0.3, -0.5, -0.4), (0.6, 0.5, 0.4)),
    7: ((-0.6, -0.4, -0.4), (0.8, 0.4, 0.4)),
    9: ((-0.3, -0.5, -0.4), (0.6, 0.5, 0.4)),
    10: ((-0.9, -0.1, -0.1), (0.5, 0.1, 0.1)),
    12: ((-0.6, -0.8, -0.4), (0.6, 0.8, 0.4)),
    13: ((-0.2, -0.4, -0.2), (0.2, 0.3, 0.6)),
    15: ((-0.6, -0.8, -0.4), (0.6, 0.8, 0.4)),
    16: ((-1.0, -1.6, -1.5), (1.0, 0.6, 1.5)),
    18: ((-1.2, -2.4, -0.2), (1.2, 0.1, 0.2)),
    20: ((-0.9, -0.5, -1.2), (0.9, 0.5, 1.2)),
    22: ((-0.1, -0.2, -1.5), (0.1, 0.2, 0.4)),
}


def _quaternions(rotvec: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), np.sin(angle / 2) * rotvec / np.maximum(angle, 1e-12)], -1)


def _matrices(q: np.ndarray) -> np.ndarray:
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return np.stack(rows, -1).reshape(*q.shape[:-1], 3, 3)


def _smooth(average: sp.csr_matrix, surfaces: np.ndarray) -> np.ndarray:
    """Half-strength smoothing of N surfaces (N, V, 3)."""
    flat = surfaces.transpose(1, 0, 2).reshape(surfaces.shape[1], -1)
    for _ in range(_SMOOTHING):
        flat = 0.5 * flat + 0.5 * (average @ flat)
    return flat.reshape(surfaces.shape[1], len(surfaces), 3).transpose(1, 0, 2)


def _frames(surface: np.ndarray, faces: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """(V, 3, 3) orthonormal frames with columns normal, tangent towards a fixed neighbour, and their product."""
    n = vertex_normals(surface, faces)
    t = surface[neighbour] - surface
    t -= (t * n).sum(1, keepdims=True) * n
    t /= np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-12)
    return np.stack([n, t, np.cross(n, t)], -1)


def mirror_posedirs(posedirs: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mirror image of correctives (V, 3, 207): what they are for the mirrored pose on the mirrored mesh."""
    blocks = posedirs.reshape(len(posedirs), 3, 23, 9)
    blocks = blocks[mirror][:, :, MIRROR_JOINTS[1:] - 1] * np.outer(FLIP_X, FLIP_X).ravel()
    return (blocks * FLIP_X[:, None, None]).reshape(posedirs.shape)


def pose_correctives(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, faces: np.ndarray, mirror: np.ndarray
) -> tuple[np.ndarray, dict[int, tuple[float, float]]]:
    """Correctives (V, 3, 207) in metres, and per joint the root mean square of the wanted offset and of what is left.

    template: (V, 3); joints: (24, 3) at rest; weights: (V, 24).
    """
    rng = np.random.default_rng(8)
    average = uniform_laplacian(faces, len(template))
    neighbour = average.indices[average.indptr[:-1]]
    smooth_rest = _smooth(average, template[None])[0]
    detail = np.einsum("vji,vj->vi", _frames(smooth_rest, faces, neighbour), template - smooth_rest)
    out = np.zeros((len(template), 3, 23, 9))
    report: dict[int, tuple[float, float]] = {}
    for joint, (low, high) in _RANGES.items():
        moved = np.zeros(24, bool)
        moved[joint] = True
        for j in range(joint + 1, 24):
            moved[j] = moved[PARENTS[j]]
        w = weights[:, moved].sum(1)
        q = _quaternions(rng.uniform(low, high, (_SAMPLES, 3)))
        R = _matrices(q)
        # Only this joint turns, so every blend is between standing still and turning about the joint.
        arm = template - joints[joint]
        blended = (1 - w)[:, None, None] * np.eye(3) + w[:, None, None] * R[:, None]
        linear = np.einsum("nvij,vj->nvi", blended, arm)
        mixed = (1 - w)[:, None] * np.array([1.0, 0, 0, 0]) + w[:, None] * q[:, None]
        mixed /= np.linalg.norm(mixed, axis=-1, keepdims=True)
        dual = np.einsum("nvij,vj->nvi", _matrices(mixed), arm)
        surface = (linear + dual) / 2 + joints[joint]
        smooth = _smooth(average, surface)
        frames = np.stack([_frames(s, faces, neighbour) for s in smooth])
        target = smooth + np.einsum("nvij,vj->nvi", frames, detail)
        offset = np.linalg.solve(blended, (target - joints[joint])[..., None])[..., 0] - arm
        X = (R - np.eye(3)).reshape(_SAMPLES, 9)
        ridge = _RIDGE * np.mean(X**2) * _SAMPLES
        fit = np.linalg.solve(X.T @ X + ridge * np.eye(9), X.T @ offset.reshape(_SAMPLES, -1))
        reached = (X @ fit).reshape(offset.shape)
        size = np.linalg.norm(reached, axis=-1).max(0)
        fade = np.clip((size - _KEEP) / (_FULL - _KEEP), 0, 1)
        out[:, :, joint - 1] = fit.reshape(9, -1, 3).transpose(1, 2, 0) * fade[:, None, None]
        area = size > _FULL
        report[joint] = tuple(float(np.sqrt((x[:, area] ** 2).sum(-1).mean())) for x in (offset, offset - reached))
    posedirs = out.reshape(len(template), 3, 207)
    other = mirror_posedirs(posedirs, mirror)
    for joint in range(1, 24):
        block = slice(9 * joint - 9, 9 * joint)
        if MIRROR_JOINTS[joint] < joint:
            posedirs[:, :, block] = other[:, :, block]
    return (posedirs + mirror_posedirs(posedirs, mirror)) / 2, report
