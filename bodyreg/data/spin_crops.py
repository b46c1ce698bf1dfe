"""Crops and augmentation as SPIN and DSR train with (Kolotouros et al., ICCV 2019; Dwivedi et al., ICCV 2021).

A person is given by centre and scale, a box of 200 scale pixels. Pictures are warped about the rounded centre, key
points about the exact one and then cut to whole pixels, so labels lie up to about a pixel off what they name; published
weights were trained so.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.data.parsing import labels_from_rgb, mirror_labels, rgb_from_labels
from bodyreg.rotations import aa_from_matrix, matrix_from_aa, mirror_aa

__all__ = [
    "CROP_PX",
    "SpinAugmentation",
    "crop_joints24",
    "crop_keypoints",
    "crop_labels",
    "crop_picture",
    "crop_pose",
    "draw_spin_augmentation",
    "keep_person",
    "person_from_box",
    "person_from_keypoints",
    "px_from_full",
    "transform_points",
    "warp_bilinear",
    "warp_from_full",
]

CROP_PX = 224
_BOX_PX = 200.0
_NOISE, _TURN_DEG, _SCALE, _UPRIGHT = 0.4, 30.0, 0.25, 0.6
MIRROR_49 = np.array(skeletons.get("spin-49").mirror)
MIRROR_24 = MIRROR_49[25:] - 25


class SpinAugmentation(NamedTuple):
    """mirrored; factors (3,) on the colour channels; turn of the picture, degrees; factor on the person's scale."""

    mirrored: bool = False
    channels: tuple[float, float, float] = (1.0, 1.0, 1.0)
    turn_deg: float = 0.0
    scale: float = 1.0


def draw_spin_augmentation(rng: np.random.RandomState) -> SpinAugmentation:
    """One sample's augmentation, drawn in the released code's order."""
    mirrored = bool(rng.uniform() <= 0.5)
    red, green, blue = rng.uniform(1 - _NOISE, 1 + _NOISE, 3).tolist()
    turn = float(np.clip(rng.randn() * _TURN_DEG, -2 * _TURN_DEG, 2 * _TURN_DEG))
    scale = float(np.clip(rng.randn() * _SCALE + 1, 1 - _SCALE, 1 + _SCALE))
    if rng.uniform() <= _UPRIGHT:
        turn = 0.0
    return SpinAugmentation(mirrored, (red, green, blue), turn, scale)


def person_from_box(box_xywh: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and scale of a box x, y, w, h in pixels: its longer side, not enlarged."""
    box = np.asarray(box_xywh, np.float64)
    return box[:2] + box[2:] / 2, float(max(box[2:])) / _BOX_PX


def person_from_keypoints(
    keypoints: np.ndarray, *, least: float = 0.2, enlarge: float = 1.2
) -> tuple[np.ndarray, float]:
    """Centre (2,) and scale of a person from key points (J, 3): the mean of those more confident than `least`.

    Raises:
        ValueError: none is.
    """
    seen = np.asarray(keypoints, np.float64)
    seen = seen[seen[:, 2] > least, :2]
    if not len(seen):
        raise ValueError(f"No key point is more confident than {least:g}. Give a box for this person.")
    return seen.mean(0), float((seen.max(0) - seen.min(0)).max()) * enlarge / _BOX_PX


def warp_from_full(centre: np.ndarray, scale: float, turn_deg: float = 0.0) -> np.ndarray:
    """(2, 3) affine map of the photograph's pixels to the crop's, pixel centres at whole numbers as OpenCV has them."""
    middle = np.round(np.asarray(centre, np.float64)).astype(np.float32)
    half = int(np.round(_BOX_PX * scale)) / 2
    turn = np.deg2rad(turn_deg)
    down = half * np.array([-np.sin(turn), np.cos(turn)], np.float32)
    right = half * np.array([np.cos(turn), np.sin(turn)], np.float32)
    m = CROP_PX / 2
    source = np.stack([middle, middle + down, middle + right]).astype(np.float32)
    target = np.array([[m, m], [m, 2 * m], [2 * m, m]], np.float32)
    return cv2.getAffineTransform(source, target)


def crop_picture(image: np.ndarray, centre: np.ndarray, scale: float, a: SpinAugmentation) -> np.ndarray:
    """(224, 224, 3) uint8 crop of an RGB picture (H, W, 3) uint8, turned, mirrored and recoloured."""
    warp = warp_from_full(centre, scale * a.scale, a.turn_deg)
    crop = warp_bilinear(image, warp)
    if a.mirrored:
        crop = crop[:, ::-1]
    return np.rint(np.clip(crop * np.array(a.channels, np.float32), 0, 255)).astype(np.uint8)


def warp_bilinear(image: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """(224, 224, C) float32 samples of a picture (H, W, C) under a (2, 3) map to the crop, black outside.

    Exact bilinear weights: OpenCV 4 rounds them to 1 / 32 pixel, which changes a level by up to 5 and, at the borders
    of a palette picture, which pixels keep a label's colour.
    """
    inverse = np.linalg.inv(np.vstack([np.asarray(warp, np.float64), [0, 0, 1]]))
    at = np.arange(CROP_PX, dtype=np.float64)
    x = (inverse[0, 0] * at + inverse[0, 1] * at[:, None] + inverse[0, 2]).astype(np.float32)
    y = (inverse[1, 0] * at + inverse[1, 1] * at[:, None] + inverse[1, 2]).astype(np.float32)
    h, w = image.shape[:2]
    x, y = np.clip(x, -1, w), np.clip(y, -1, h)
    left, top = np.floor(x), np.floor(y)
    along, down = (x - left)[..., None], (y - top)[..., None]
    padded = np.pad(image, ((1, 2), (1, 2), (0, 0))).astype(np.float32)
    i, j = top.astype(np.int64) + 1, left.astype(np.int64) + 1
    upper = padded[i, j] + along * (padded[i, j + 1] - padded[i, j])
    lower = padded[i + 1, j] + along * (padded[i + 1, j + 1] - padded[i + 1, j])
    return upper + down * (lower - upper)


def crop_labels(
    labels: np.ndarray, centre: np.ndarray, scale: float, a: SpinAugmentation, *, reference: bool = False
) -> np.ndarray:
    """(224, 224) uint8 labels of a crop, 255 where there is none, from those (H, W) of the photograph.

    Labels are sampled at the nearest pixel, and a mirrored crop exchanges left and right. `reference` does what DSR's
    released code does: the palette picture is resampled linearly and cut to whole levels, mixed colours are no label,
    and left stays left.
    """
    warp = warp_from_full(centre, scale * a.scale, a.turn_deg)
    if reference:
        colours = warp_bilinear(rgb_from_labels(labels), warp).astype(np.uint8)
        found = labels_from_rgb(np.ascontiguousarray(colours))
        return np.ascontiguousarray(found[:, ::-1]) if a.mirrored else found
    found = cv2.warpAffine(np.asarray(labels, np.uint8), warp, (CROP_PX, CROP_PX), flags=cv2.INTER_NEAREST)
    return mirror_labels(found) if a.mirrored else found


def keep_person(labels: np.ndarray, keypoints_px: np.ndarray, *, least: float = 0.3, margin: int = 30) -> np.ndarray:
    """Labels (H, W) with everything outside the person's box made background: other people are not this one.

    Args:
        keypoints_px: (J, 3) pixels of the crop and confidence; those above `least` span the box, wider by `margin`.

    Without any such key point nothing is known, and every pixel has no label (255).
    """
    seen = np.asarray(keypoints_px)
    seen = seen[seen[:, 2] > least, :2]
    if not len(seen):
        return np.full_like(labels, 255)
    h, w = labels.shape
    x0, y0 = (int(max(v - margin, 0)) for v in seen.min(0))
    x1, y1 = int(min(seen[:, 0].max() + margin, w)), int(min(seen[:, 1].max() + margin, h))
    kept = np.zeros_like(labels)
    kept[y0 : max(y1, 0), x0 : max(x1, 0)] = labels[y0 : max(y1, 0), x0 : max(x1, 0)]
    return kept


def px_from_full(centre: np.ndarray, scale: float, turn_deg: float = 0.0) -> np.ndarray:
    """(3, 3) affine map of the photograph's points to the crop's, before they are cut to whole pixels."""
    side, c = _BOX_PX * scale, np.asarray(centre, np.float64)
    T = np.array([
        [CROP_PX / side, 0, CROP_PX * (0.5 - c[0] / side)],
        [0, CROP_PX / side, CROP_PX * (0.5 - c[1] / side)],
        [0, 0, 1],
    ])  # fmt: skip
    if turn_deg:
        about = np.eye(3)
        about[:2, 2] = CROP_PX / 2
        turn = np.deg2rad(-turn_deg)
        R = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        T = about @ R @ np.linalg.inv(about) @ T
    return T


def transform_points(
    points: np.ndarray, centre: np.ndarray, scale: float, turn_deg: float = 0.0, *, inverse: bool = False
) -> np.ndarray:
    """(N, 2) int64 points counted from 1, in the crop (or, with `inverse`, back), cut toward zero to whole pixels."""
    T = px_from_full(centre, scale, turn_deg)
    if inverse:
        T = np.linalg.inv(T)
    moved = (np.asarray(points, np.float64) - 1) @ T[:2, :2].T + T[:2, 2]
    return moved.astype(np.int64) + 1


def crop_keypoints(keypoints: np.ndarray, centre: np.ndarray, scale: float, a: SpinAugmentation) -> np.ndarray:
    """(49, 3) float32 key points x, y, confidence in the crop, which spans [-1, 1], from pixels (49, 3)."""
    out = np.array(keypoints, np.float64)
    out[:, :2] = transform_points(out[:, :2] + 1, centre, scale * a.scale, a.turn_deg)
    out[:, :2] = 2 * out[:, :2] / CROP_PX - 1
    if a.mirrored:
        out = out[MIRROR_49]
        out[:, 0] *= -1
    return out.astype(np.float32)


def crop_joints24(joints: np.ndarray, a: SpinAugmentation) -> np.ndarray:
    """(24, 4) float32 joints in metres and confidence, turned with the picture about the viewing direction."""
    out = np.array(joints, np.float64)
    turn = np.deg2rad(-a.turn_deg)
    R = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    out[:, :2] = out[:, :2] @ R.T
    if a.mirrored:
        out = out[MIRROR_24]
        out[:, 0] *= -1
    return out.astype(np.float32)


def crop_pose(theta: np.ndarray, a: SpinAugmentation) -> np.ndarray:
    """(24, 3) float32 SMPL pose, its global orientation turned with the picture."""
    pose = torch.from_numpy(np.array(theta, np.float64).reshape(24, 3))
    turn = torch.tensor([0.0, 0.0, np.deg2rad(-a.turn_deg)], dtype=torch.float64)
    if a.turn_deg:
        pose[0] = aa_from_matrix(matrix_from_aa(turn) @ matrix_from_aa(pose[0]))
    if a.mirrored:
        pose = mirror_aa(pose[list(skeletons.get("smpl-24").mirror)])
    return pose.numpy().astype(np.float32)
