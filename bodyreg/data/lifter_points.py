"""Key points of detectors as Human3.6M's 17, which most lifters take, and what is done about missing ones."""

from __future__ import annotations

import numpy as np

from bodyreg import skeletons

__all__ = ["coco_from", "fill_missing", "h36m_from_coco", "repaired_legs", "to_input_set"]

_COPIED = {9: 0, 11: 5, 14: 6, 12: 7, 15: 8, 13: 9, 16: 10, 4: 11, 1: 12, 5: 13, 2: 14, 6: 15, 3: 16}
_LEGS = (2, 3, 5, 6)
# Which leg joints take whose place, by the ones that are unsure.
_REPAIRS = {
    (2, 3, 5, 6): (1, 1, 4, 4), (2, 3, 6): (1, 1, 5), (3, 5, 6): (2, 4, 4), (3, 6): (2, 5), (3,): (2,), (6,): (5,),
}  # fmt: skip


def h36m_from_coco(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Human3.6M's joints from COCO's key points, as HoT's and MHFormer's demos guess them.

    Args:
        points: (..., 17, 2) pixels. scores: (..., 17).

    Returns:
        (..., 17, 2) pixels in the order of h36m-17, and their scores (..., 17).
    """
    p, s = np.asarray(points, np.float64), np.asarray(scores, np.float64)
    h, hs = np.zeros_like(p), np.zeros_like(s)
    shoulders = p[..., 5:7, :].mean(-2)
    h[..., 10, 0] = p[..., 1:5, 0].mean(-1)
    h[..., 10, 1] = p[..., 1, 1] + p[..., 2, 1] - p[..., 0, 1]
    h[..., 8, :] = shoulders + (p[..., 0, :] - shoulders) / 3
    h[..., 0, :] = p[..., 11:13, :].mean(-2)
    h[..., 7, :] = p[..., [5, 6, 11, 12], :].mean(-2)
    for ours, theirs in _COPIED.items():
        h[..., ours, :], hs[..., ours] = p[..., theirs, :], s[..., theirs]
    h[..., 9, :] -= (h[..., 9, :] - shoulders) / 4
    h[..., 7, 0] += 2 * (h[..., 7, 0] - h[..., [0, 8], 0].mean(-1))
    h[..., 8, 1] -= (p[..., 1:3, 1].mean(-1) - p[..., 0, 1]) * 2 / 3
    hs[..., 0], hs[..., 8] = s[..., 11:13].mean(-1), s[..., 5:7].mean(-1)
    hs[..., 7], hs[..., 10] = hs[..., [0, 8]].mean(-1), s[..., 1:5].mean(-1)
    return h, hs


def repaired_legs(points: np.ndarray, scores: np.ndarray, threshold: float = 0.3) -> np.ndarray:
    """Human3.6M points (..., 17, 2) whose unsure knees and ankles take the place of the joint above them. A copy."""
    fixed = np.array(points)
    flat, unsure = fixed.reshape(-1, 17, fixed.shape[-1]), np.asarray(scores).reshape(-1, 17) < threshold
    for frame, row in zip(flat, unsure, strict=True):
        wrong = tuple(j for j in _LEGS if row[j])
        if wrong in _REPAIRS:
            frame[list(wrong)] = frame[list(_REPAIRS[wrong])]
    return fixed


def coco_from(points: np.ndarray, joint_set: str) -> np.ndarray:
    """Key points (..., 17, C) in COCO's order, of COCO or OpenPose.

    Raises:
        ValueError: another joint set.
    """
    if joint_set not in ("coco-17", "openpose-25"):
        raise ValueError(f"COCO's key points cannot be made of {joint_set!r}. Give coco-17 or openpose-25.")
    return skeletons.convert(points, joint_set, "coco-17")


def to_input_set(points: np.ndarray, joint_set: str, wanted: str) -> np.ndarray:
    """Key points (..., J, 3), x, y and confidence, in the joint set a lifter takes.

    COCO's and OpenPose's become Human3.6M's by `h36m_from_coco`; other sets are converted by the joints' names.

    Raises:
        ValueError: the set lacks joints that the lifter needs; the message names them.
    """
    if joint_set == wanted:
        return np.array(points, np.float64)
    if wanted in ("h36m-17", "h36m-17-left") and joint_set in ("coco-17", "openpose-25"):
        coco = coco_from(points, joint_set)
        places, scores = h36m_from_coco(coco[..., :2], coco[..., 2])
        # Guessed from key points of which one is missing, a place is worth nothing.
        scores = np.where(_sources_seen(coco[..., 2]), scores, 0.0)
        found = np.concatenate([places, scores[..., None]], -1)
        return found if wanted == "h36m-17" else skeletons.convert(found, "h36m-17", wanted)
    return skeletons.convert(np.array(points, np.float64), joint_set, wanted)


def fill_missing(points: np.ndarray) -> np.ndarray:
    """Key points (T, J, 3) whose places of confidence 0 are interpolated between the frames before and after.

    At the ends the nearest known place is repeated; the confidence stays 0. A joint that is never seen takes the
    middle of those that are.

    Raises:
        ValueError: nothing is seen in the whole sequence.
    """
    filled = np.array(points, np.float64)
    seen = (filled[..., 2] > 0) & np.isfinite(filled).all(-1)
    if not seen.any():
        raise ValueError("No key point of the sequence has a confidence above 0. Give detections.")
    filled[~seen] = 0
    frames = np.arange(len(filled))
    for joint in range(filled.shape[1]):
        known = frames[seen[:, joint]]
        if len(known):
            for axis in range(2):
                filled[:, joint, axis] = np.interp(frames, known, filled[known, joint, axis])
    never = ~seen.any(0)
    if never.any():
        filled[:, never, :2] = filled[:, ~never, :2].mean(1, keepdims=True)
    return filled


def _sources_seen(scores: np.ndarray) -> np.ndarray:
    """(..., 17) Human3.6M joints all of whose COCO key points have a confidence above 0."""
    seen = np.asarray(scores) > 0
    found = np.zeros(seen.shape, bool)
    for ours, theirs in _COPIED.items():
        found[..., ours] = seen[..., theirs]
    shoulders, hips = seen[..., 5:7].all(-1), seen[..., 11:13].all(-1)
    face = seen[..., 0] & shoulders
    found[..., 0], found[..., 7] = hips, hips & shoulders
    found[..., 8], found[..., 9] = face & seen[..., 1:3].all(-1), face
    found[..., 10] = seen[..., 0:5].all(-1)
    return found
