"""Bring persons from MakeHuman's rest pose into the T-pose of the SMPL format by skinning with the full rig.

World rotations are prescribed bone by bone (no roll bookkeeping); every other bone inherits its parent's rotation.
"""

from __future__ import annotations

import numpy as np

from .source import Rig


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def smallest_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 3, 3) smallest rotations that take the directions a (N, 3) to b (N, 3)."""
    a, b = np.broadcast_arrays(_unit(a), _unit(b))
    v = np.cross(a, b)
    c = (a * b).sum(-1)[:, None, None]
    K = np.zeros((len(v), 3, 3))
    K[:, 0, 1], K[:, 0, 2], K[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    K = K - K.transpose(0, 2, 1)
    return np.eye(3) + K + K @ K / (1 + c)


def _about(axis: int, angle: np.ndarray | float, n: int) -> np.ndarray:
    R = np.zeros((n, 3, 3))
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R[:, axis, axis] = 1
    R[:, i, i], R[:, j, j], R[:, i, j], R[:, j, i] = c, c, -s, s
    return R


def _frame(x: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(N, 3, 3) right-handed frames with columns x, the part of `normal` across x, and their cross product."""
    x = _unit(x)
    y = _unit(normal - (normal * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], -1)


def bone_transforms(rig: Rig, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 163, 3, 3) and translations (N, 163, 3) that bring the rest pose to the T-pose.

    heads: (N, 163, 3) bone heads in the rest pose, metres.
    """
    n = len(heads)
    at = {name: heads[:, b] for b, name in enumerate(rig.names)}
    R: dict[str, np.ndarray] = {}
    posed: dict[str, np.ndarray] = {}
    todo: dict[str, np.ndarray] = {}

    def aim(name: str, parent_R: np.ndarray, tip: str, direction: tuple[float, float, float]) -> np.ndarray:
        bone = np.einsum("nij,nj->ni", parent_R, at[tip] - at[name])
        return smallest_rotation(bone, np.array([direction])) @ parent_R

    for b, name in enumerate(rig.names):
        parent = rig.names[rig.parents[b]] if rig.parents[b] >= 0 else None
        R_parent = R[parent] if parent else np.broadcast_to(np.eye(3), (n, 3, 3))
        posed[name] = posed[parent] + np.einsum("nij,nj->ni", R_parent, at[name] - at[parent]) if parent else at[name]
        stem, _, side = name.partition(".")
        s = 1.0 if side == "L" else -1.0
        if name in todo:
            R[name] = todo[name]
        elif stem in ("clavicle", "shoulder01"):
            R[name] = _about(2, s * np.radians(8), n) @ R_parent
        elif stem == "upperarm01":
            R[name] = aim(name, R_parent, f"lowerarm01.{side}", (s, -0.04, -0.06))
        elif stem == "lowerarm01":
            R[name] = aim(name, R_parent, f"wrist.{side}", (s, 0, 0))
            across = np.cross(
                at[f"finger2-1.{side}"] - at[f"wrist.{side}"], at[f"finger5-1.{side}"] - at[f"wrist.{side}"]
            )
            rest = _frame(at[f"finger3-1.{side}"] - at[f"wrist.{side}"], s * across)
            wanted = _frame(np.tile([s, 0.0, 0.0], (n, 1)), np.tile([0.0, 1.0, 0.0], (n, 1)))
            R_hand = wanted @ rest.transpose(0, 2, 1)
            todo[f"wrist.{side}"] = R_hand
            twist = R_hand @ R[name].transpose(0, 2, 1)
            roll = np.arctan2(twist[:, 2, 1] - twist[:, 1, 2], twist[:, 1, 1] + twist[:, 2, 2])
            todo[f"lowerarm02.{side}"] = _about(0, roll / 2, n) @ R[name]
        elif stem == "upperleg01":
            R[name] = aim(name, R_parent, f"lowerleg01.{side}", (0.05 * s, -1, 0))
        elif stem == "lowerleg01":
            R[name] = aim(name, R_parent, f"foot.{side}", (0, -1, -0.05))
        elif stem == "foot":
            toe = at[f"toe2-1.{side}"] - at[name]
            R[name] = _about(1, s * np.radians(9) - np.arctan2(toe[:, 0], toe[:, 2]), n)
        else:
            R[name] = R_parent
    rotations = np.stack([R[name] for name in rig.names], 1)
    translations = np.stack([posed[name] for name in rig.names], 1) - np.einsum("nbij,nbj->nbi", rotations, heads)
    return rotations, translations


def skin(weights: np.ndarray, rotations: np.ndarray, translations: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(N, V, 3) linear blend skinning of vertices (N, V, 3) with weights (V, B)."""
    T = np.concatenate([rotations, translations[..., None]], -1).reshape(*rotations.shape[:2], 12)
    blended = np.matmul(weights, T).reshape(len(vertices), -1, 3, 4)
    return np.einsum("nvij,nvj->nvi", blended[..., :3], vertices) + blended[..., 3]
