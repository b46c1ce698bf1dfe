"""Painted outfits: what a synthetic person wears, as numbers, and which label a point of the rest body gets.

A garment is a set of thresholds on coordinates of the rest body (how far along the arm, the leg, the torso a point
lies), so clothes follow any shape and pose. Cloth also pushes the surface out a little (`inflate`), which gives hair,
shoes and loose trousers a silhouette of their own. Labels are the twenty of LIP (Gong et al., CVPR 2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.jit import kernel

__all__ = ["LIP", "OUTFIT", "body_atlas", "inflate", "label_at", "mirror_label", "sample_outfits"]

LIP = (
    "background", "hat", "hair", "gloves", "sunglasses", "upper_clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left_arm", "right_arm", "left_leg", "right_leg", "left_shoe", "right_shoe",
)  # fmt: skip


class OUTFIT(NamedTuple):
    """Fields of an outfit vector; lengths along arm, leg and torso in units of that limb, thicknesses in metres."""

    sleeve: int = 0  # where the sleeve ends: 0 shoulder, 1 wrist; below 0 sleeveless
    shirt_hem: int = 1  # where the upper garment ends on the leg axis: 0 hip joint, 1 ankle; negative is above the hip
    trouser_end: int = 2  # 0 hip, 1 ankle
    neckline: int = 3  # height of the neckline on the torso axis (1 = neck joint)
    sock_start: int = 4  # leg coordinate above which the sock begins; > 1 none
    shod: int = 5  # 1 shoes, 0 barefoot
    gloved: int = 6
    hair_tilt: int = 7  # radians; the hair line is a tilted plane through the head
    hair_offset: int = 8  # in head radii
    hat_offset: int = 9  # in head radii; > 2 no hat
    upper_kind: int = 10  # LIP label of the upper garment: 5 upper clothes, 6 dress, 7 coat
    lower_kind: int = 11  # LIP label of the lower garment: 9 pants, 12 skirt
    upper_thick: int = 12
    lower_thick: int = 13
    hair_thick: int = 14
    shoe_thick: int = 15
    fold: int = 16  # amplitude of folds, metres
    fold_phase: int = 17
    flare: int = 18  # extra thickness of the lower garment at its end


_O = OUTFIT()
_HEAD, _NECK = 15, 12
_LEFT_PARTS = (1, 4, 7, 10, 13, 16, 18, 20, 22)


def body_atlas(rest_joints: np.ndarray, rest_vertices: np.ndarray, landmarks: dict[str, int]) -> np.ndarray:
    """The measures that garment coordinates stand on, from a rest body.

    Args:
        rest_joints: (24, 3) SMPL joints of the rest body, metres.
        rest_vertices: (V, 3).
        landmarks: vertex index by name (nose, left_eye, ...).

    Returns:
        (16,) float32: shoulder x, wrist x, hip y, ankle y, pelvis y, neck y, head centre y and z, head radius,
        eye x, y, z, nose y, nose z, crown y, torso depth centre z.
    """
    j, v = np.asarray(rest_joints), np.asarray(rest_vertices)
    eye, nose = v[landmarks["left_eye"]], v[landmarks["nose"]]
    crown = v[:, 1].max()
    chin = j[_NECK, 1] + 0.35 * (nose[1] - j[_NECK, 1])
    centre_y, radius = (crown + chin) / 2, (crown - chin) / 2
    return np.array(
        [j[16, 0], j[20, 0], j[1, 1], j[7, 1], j[0, 1], j[12, 1], centre_y, nose[2] - 0.1, radius,
         abs(eye[0]), eye[1], eye[2], nose[1], nose[2], crown, j[9, 2]],
        np.float32,
    )  # fmt: skip


def sample_outfits(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 19) float32 random outfits, from swimwear to coats."""
    out = np.zeros((n, len(_O)), np.float32)
    u = rng.random
    short_sleeve = rng.normal(0.38, 0.1, n)
    out[:, _O.sleeve] = np.select(
        [u(n) < 0.15, u(n) < 0.45], [rng.uniform(-0.3, 0.1, n), short_sleeve], rng.normal(0.98, 0.06, n)
    )
    kind = u(n)
    dress, coat, skirt = kind < 0.10, (kind >= 0.10) & (kind < 0.25), (kind >= 0.25) & (kind < 0.33)
    out[:, _O.upper_kind] = np.select([dress, coat], [6, 7], 5)
    out[:, _O.lower_kind] = np.where(skirt, 12, 9)
    hem = np.where(u(n) < 0.1, rng.uniform(-0.6, -0.2, n), rng.normal(0.0, 0.07, n))
    hem = np.where(dress, rng.uniform(0.2, 0.8, n), np.where(coat, rng.uniform(0.0, 0.6, n), hem))
    out[:, _O.shirt_hem] = hem
    end = np.where(u(n) < 0.35, rng.uniform(0.1, 0.65, n), rng.normal(0.97, 0.05, n))
    out[:, _O.trouser_end] = np.where(dress, -1.0, np.where(skirt, rng.uniform(0.2, 0.8, n), end))
    out[:, _O.neckline] = rng.normal(1.0, 0.08, n)
    out[:, _O.sock_start] = np.where(u(n) < 0.4, rng.uniform(0.5, 1.0, n), 2.0)
    out[:, _O.shod] = u(n) < 0.88
    out[:, _O.gloved] = u(n) < 0.05
    out[:, _O.hair_tilt] = rng.normal(0.75, 0.25, n)
    out[:, _O.hair_offset] = np.where(u(n) < 0.12, 3.0, rng.normal(0.0, 0.25, n))  # 3: bald
    out[:, _O.hat_offset] = np.where(u(n) < 0.12, rng.uniform(0.2, 0.6, n), 3.0)
    loose = rng.beta(1.2, 3.0, n)
    out[:, _O.upper_thick] = 0.002 + 0.030 * loose
    out[:, _O.lower_thick] = 0.002 + 0.028 * np.clip(loose + rng.normal(0, 0.15, n), 0, 1)
    out[:, _O.hair_thick] = rng.uniform(0.0, 0.035, n)
    out[:, _O.shoe_thick] = rng.uniform(0.003, 0.014, n)
    out[:, _O.fold] = 0.006 * loose
    out[:, _O.fold_phase] = rng.uniform(0, 2 * np.pi, n)
    out[:, _O.flare] = np.where(u(n) < 0.3, rng.uniform(0, 0.03, n), 0.0)
    return out


@kernel
def label_at(part: int, x: float, y: float, z: float, atlas: np.ndarray, outfit: np.ndarray) -> int:
    """LIP label of a point of the rest body (metres) that belongs to SMPL part `part`."""
    left = x > 0
    if part == 15 or (part == 12 and y > atlas[6] - atlas[8]):
        up, back = (y - atlas[6]) / atlas[8], (atlas[7] - z) / atlas[8]
        if up > outfit[9] + 0.2 * back:
            return 1
        if np.sin(outfit[7]) * back + np.cos(outfit[7]) * up > 0.35 + outfit[8]:
            return 2
        return 13
    if part >= 16:
        along = (abs(x) - atlas[0]) / (atlas[1] - atlas[0])
        if along < outfit[0]:
            return int(outfit[10])
        if along > 1.0 and outfit[6] > 0.5:
            return 3
        return 14 if left else 15
    along = (atlas[2] - y) / (atlas[2] - atlas[3])
    if part == 7 or part == 8 or part == 10 or part == 11:
        if outfit[5] > 0.5 and along > 0.93:
            return 18 if left else 19
    if along < outfit[1]:
        height = (y - atlas[4]) / (atlas[5] - atlas[4])
        dip = 0.12 if z > atlas[15] else 0.0
        wide = abs(x) / atlas[0]
        if height > outfit[3] - dip * max(0.0, 1.0 - 1.8 * wide):
            return 13
        if part == 12:
            return 13
        if outfit[0] < 0.0 and wide > 0.85 + outfit[0] * 0.3 and height > 0.55:
            return 14 if left else 15
        return int(outfit[10])
    if part == 12:
        return 13
    if along < outfit[2]:
        return int(outfit[11])
    if along < 0.02:  # a bare midriff, or a person without trousers: briefs below the navel
        return 13 if along < -0.3 else 9
    if along > outfit[4]:
        return 8
    return 16 if left else 17


@kernel
def _offsets(part, rest, atlas, outfit, out):  # noqa: ANN001, ANN202
    for i in range(rest.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        label = label_at(part[i], x, y, z, atlas, outfit)
        thick = 0.0
        if label == 5 or label == 6 or label == 7:
            thick = outfit[12] * (1.6 if label == 7 else 1.0)
        elif label == 9 or label == 12:
            along = max(0.0, (atlas[2] - y) / (atlas[2] - atlas[3]))
            thick = outfit[13] + outfit[18] * along
        elif label == 2 or label == 1:
            thick = outfit[14]
        elif label == 18 or label == 19:
            thick = outfit[15]
        elif label == 8:
            thick = 0.002
        if label == 5 or label == 6 or label == 7 or label == 9 or label == 12:
            phase = outfit[17]
            thick += outfit[16] * (
                np.sin(31.0 * y + 17.0 * x + phase) + np.sin(23.0 * z - 19.0 * y + 2.0 * phase) * 0.7
            )
        out[i] = max(thick, 0.0)


def inflate(vertices: np.ndarray, normals: np.ndarray, part: np.ndarray, rest: np.ndarray, atlas, outfit):
    """Posed vertices pushed out along their normals by what the outfit is thick there.

    Args:
        vertices, normals: (V, 3) posed body, metres, and its unit normals.
        part: (V,) int SMPL part of each vertex. rest: (V, 3) rest body. atlas: see `body_atlas`. outfit: (19,).

    Returns:
        (V, 3) float32.
    """
    offsets = np.empty(len(vertices), np.float32)
    _offsets(part, rest, atlas, outfit, offsets)
    return (vertices + normals * offsets[:, None]).astype(np.float32)


def mirror_label(label: np.ndarray) -> np.ndarray:
    """LIP labels of the mirrored person: left and right arms, legs and shoes change places."""
    table = np.arange(256, dtype=np.uint8)
    for a, b in ((14, 15), (16, 17), (18, 19)):
        table[a], table[b] = b, a
    return table[label]
