"""The 24-joint skeleton on the final mesh: targets, skinning weights, regressors, landmarks, vertex order."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls

from .source import Rig
from .topology import vertex_normals

PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
MIRROR_JOINTS = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
CENTRAL = (0, 3, 6, 9, 12, 15)
FLIP_X = np.array([-1.0, 1.0, 1.0])

# Vertex slots by which programs written for the SMPL topology pick points.
SLOTS = {
    "head_top": 411, "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583,
    "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
    "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    "left_thumb": 2746, "left_index": 2319, "left_middle": 2445, "left_ring": 2556, "left_pinky": 2673,
    "right_thumb": 6191, "right_index": 5782, "right_middle": 5905, "right_ring": 6016, "right_pinky": 6133,
}  # fmt: skip


def joint_targets(rig: Rig, heads: np.ndarray) -> np.ndarray:
    """(N, 24, 3) joint centres from T-posed bone heads (N, 163, 3)."""
    at = {name: heads[:, b] for b, name in enumerate(rig.names)}

    def mix(a: str, b: str, t: float) -> np.ndarray:
        return (1 - t) * at[a] + t * at[b]

    J = np.zeros((len(heads), 24, 3))
    J[:, 0] = mix("spine05", "spine04", 0.40)
    J[:, 3] = at["spine03"]
    J[:, 6], J[:, 9] = mix("spine02", "spine01", 0.30), mix("spine02", "spine01", 0.75)
    J[:, 12], J[:, 15] = at["neck01"], mix("neck02", "neck03", 0.80)
    for k, s in enumerate("LR"):
        hip = at[f"upperleg01.{s}"].copy()
        hip[:, 0] *= 0.82  # the rig's hips are wide: pulled towards the midline
        J[:, 1 + k], J[:, 4 + k], J[:, 7 + k] = hip, at[f"lowerleg01.{s}"], at[f"foot.{s}"]
        J[:, 10 + k] = mix(f"toe2-1.{s}", f"toe3-1.{s}", 0.5)
        J[:, 13 + k] = mix(f"clavicle.{s}", f"shoulder01.{s}", 0.60)
        J[:, 16 + k], J[:, 18 + k] = at[f"upperarm01.{s}"], at[f"lowerarm01.{s}"]
        J[:, 20 + k], J[:, 22 + k] = at[f"wrist.{s}"], mix(f"wrist.{s}", f"finger3-1.{s}", 0.95)
    return J


def _bone_shares(rig: Rig) -> np.ndarray:
    """(163, 24) how each bone's weight is given to the joints."""
    M = np.zeros((len(rig.names), 24))
    central = {
        "root": {0: 1.0}, "spine05": {0: 1.0}, "spine04": {0: 0.5, 3: 0.5}, "spine03": {3: 0.85, 6: 0.15},
        "spine02": {6: 0.6, 9: 0.4}, "spine01": {9: 0.9, 6: 0.1}, "neck01": {12: 1.0}, "neck02": {12: 1.0},
        "neck03": {12: 0.5, 15: 0.5},
    }  # fmt: skip
    sided = {
        "pelvis": 0, "breast": 9, "clavicle": 13, "shoulder01": 13, "upperarm01": 16, "upperarm02": 16,
        "lowerarm01": 18, "lowerarm02": 18, "wrist": 20, "upperleg01": 1, "upperleg02": 1, "lowerleg01": 4,
        "lowerleg02": 4, "foot": 7,
    }  # fmt: skip
    head = rig.subtree("head")
    for b, name in enumerate(rig.names):
        stem, _, side = name.partition(".")
        right = int(side == "R")
        if head[b]:
            M[b, 15] = 1
        elif name in central:
            for j, share in central[name].items():
                M[b, j] = share
        elif stem in sided:
            j = sided[stem]
            M[b, j + right * (j not in (0, 9))] = 1
        elif stem.startswith("finger"):  # the thumb stays with the wrist: on the hand joint it turns inside out
            M[b, (20 if stem.startswith("finger1") else 22) + right] = 1
        elif stem.startswith("metacarpal"):
            M[b, 20 + right] = 1
        elif stem.startswith("toe"):
            M[b, 10 + right] = 1
        else:
            raise ValueError(f"The bone {name!r} is not known. The wheel is probably another version than 0.6.2.")
    return M


def uniform_laplacian(faces: np.ndarray, n: int) -> sp.csr_matrix:
    """(V, V) averaging matrix over the one-ring."""
    e = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    A = sp.csr_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), (n, n))
    A = ((A + A.T) > 0).astype(float)
    return sp.csr_matrix(sp.diags(1 / np.asarray(A.sum(1)).ravel()) @ A)


def _prune(weights: np.ndarray) -> np.ndarray:
    fourth = np.sort(weights, 1)[:, -4][:, None]
    out = np.where((weights >= fourth) & (weights >= 0.005), weights, 0)
    for v in np.flatnonzero((out > 0).sum(1) > 4):  # equal weights: keep the first four
        out[v, np.flatnonzero(out[v] == fourth[v])[4 - (out[v] > fourth[v]).sum() :]] = 0
    return out / out.sum(1, keepdims=True)


def skinning_weights(rig: Rig, bone_weights: np.ndarray, faces: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(V, 24) weights, at most four a vertex, mirror-symmetric, rows sum to 1. bone_weights: (V, 163)."""
    W = bone_weights @ _bone_shares(rig)
    A = uniform_laplacian(faces, len(W))
    for _ in range(3):
        W = 0.5 * W + 0.5 * (A @ W)
    W = _prune(W)
    W = (W + W[mirror][:, MIRROR_JOINTS]) / 2
    out = _prune(W)
    # Ties between a left and a right joint on the midline would break the symmetry: keep such vertices' average.
    lopsided = np.abs(out - out[mirror][:, MIRROR_JOINTS]).max(1) > 1e-12
    for v in np.flatnonzero(lopsided):
        pair = {v, mirror[v]}
        w = W[v].copy()
        order = np.argsort(w)
        for j in order[w[order] > 0]:
            if (w > 0).sum() <= 4:
                break
            w[[j, MIRROR_JOINTS[j]] if len(pair) == 1 else [j]] = 0
        out[v] = w / w.sum()
        if mirror[v] != v:
            out[mirror[v]] = out[v][MIRROR_JOINTS]
    return out


def _farthest(points: np.ndarray, count: int) -> np.ndarray:
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def fit_regressor_row(target: np.ndarray, vertices: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """(V,) non-negative weights, sum 1, that reproduce a point on N persons.

    target: (N, 3) metres; vertices: (N, V, 3); allowed: (V,) mask of candidates. Non-negative least squares with a
    heavy sum-to-one row over a farthest-point sample of 220 candidates within .08-.28 m.
    """
    mean = vertices.mean(0)
    distance = np.linalg.norm(mean - target.mean(0), axis=1)
    candidates = np.flatnonzero(allowed & (distance < 0.28))
    near = candidates[distance[candidates] < 0.08]
    if len(near) >= 220:
        candidates = near
    else:
        order = candidates[np.argsort(distance[candidates])]
        candidates = order[: max(700, len(near))]
    candidates = candidates[_farthest(mean[candidates], 220)]
    A = vertices[:, candidates].transpose(0, 2, 1).reshape(-1, len(candidates))
    heavy = 100.0 * len(vertices)
    x, _ = nnls(np.vstack([A, np.full(len(candidates), heavy)]), np.append(target.ravel(), heavy), maxiter=20000)
    row = np.zeros(vertices.shape[1])
    row[candidates] = np.where(x / x.sum() < 0.002, 0, x)
    return row / row.sum()


def joint_regressor(J: np.ndarray, vertices: np.ndarray, weights: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(24, V) regressor fitted to joint targets J (N, 24, 3) over vertices (N, V, 3); mirror-symmetric rows."""
    out = np.zeros((24, vertices.shape[1]))
    torso = weights[:, [0, 1, 2, 3, 6, 9, 12, 13, 14]].sum(1) > 0.5
    for j in range(24):
        if j not in CENTRAL and MIRROR_JOINTS[j] < j:
            out[j] = out[MIRROR_JOINTS[j]][mirror]
            continue
        family = [j, *([PARENTS[j]] if j else []), *np.flatnonzero(PARENTS == j)]
        allowed = torso if j in (0, 3, 6, 9) else weights[:, family].sum(1) > 0.5
        out[j] = fit_regressor_row(J[:, j], vertices, allowed)
        if j in CENTRAL:
            out[j] = (out[j] + out[j][mirror]) / 2
    return out


def landmarks(
    rig: Rig, bone_weights: np.ndarray, heads: np.ndarray, tails: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> dict[str, int]:
    """Vertex of every slot name, found on the left side or midline of the mean T-posed body.

    heads, tails: (163, 3) T-posed bone ends; vertices: (V, 3).
    """
    dominant = bone_weights.argmax(1)
    head_mask = rig.subtree("head")[dominant]
    normals = vertex_normals(vertices, faces)
    middle = np.abs(vertices[:, 0]) < 1e-6
    left = vertices[:, 0] > 1e-6

    def best(score: np.ndarray, mask: np.ndarray) -> int:
        return int(np.where(mask, score, -np.inf).argmax())

    def tip(bone: str) -> int:
        b = rig.index(bone)
        return best(vertices @ (tails[b] - heads[b]), dominant == b)

    eye = heads[rig.index("eye.L")]
    on_face = head_mask & left & (normals[:, 2] > 0.3)
    band = head_mask & left & (np.abs(vertices[:, 1] - eye[1] + 0.02) < 0.04)
    foot = left & (rig.subtree("foot.L")[dominant])
    sole = vertices[:, 1] < vertices[foot, 1].min() + 0.035
    found = {
        "head_top": best(vertices[:, 1], head_mask & middle),
        "nose": best(vertices[:, 2], head_mask & middle),
        "left_eye": best(-np.linalg.norm(vertices - eye - [0, 0, 0.018], axis=1), on_face),
        "left_ear": best(vertices[:, 0], band),
        "left_big_toe": tip("toe1-2.L"),
        "left_small_toe": tip("toe5-3.L"),
        "left_heel": best(-vertices[:, 2], foot & sole),
    }
    for k, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1):
        found[f"left_{finger}"] = tip(f"finger{k}-3.L")
    return found


def vertex_order(vertices: np.ndarray, mirror: np.ndarray, found: dict[str, int]) -> np.ndarray:
    """(V,) old ids in the new order: left, midline, right, then the landmarks swapped into their slots."""
    left = np.flatnonzero(vertices[:, 0] > 1e-6)
    middle = np.flatnonzero(mirror == np.arange(len(mirror)))
    order = np.concatenate([left, middle, mirror[left]])
    wanted = dict(found) | {n.replace("left", "right"): int(mirror[v]) for n, v in found.items() if "left" in n}
    for name, slot in SLOTS.items():
        at = int(np.flatnonzero(order == wanted[name])[0])
        order[[at, slot]] = order[[slot, at]]
    return order
