"""Where the people in a photograph are, without any download: found by BlazePose (`blazepose`), by a network of ours
(`detect`) or by OpenCV's HOG detector, the whole picture, or given.

Boxes are x, y, w, h in pixels of the upright picture, origin at the outer corner of its upper left pixel, person 0
being the largest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from bodyreg.data.inputs import Keypoints, box_from_keypoints, check_box
from bodyreg.inference import blazepose
from bodyreg.inference.detect import boxes_of, load_detector, overlap

MODES = ("auto", "pose", "net", "hog", "whole")

MIN_SCORE = 0.75
"""HOG score (distance from the support vector machine's plane) of a confident detection. People who stand upright
score 0.8 to 2, most lamps, helmets and bicycles up to 0.75, some upright bags more: give boxes where it matters."""

MIN_HEAT = 0.4
"""Score, in [0, 1], of a confident detection of the network."""

MIN_POSE = 0.5
"""Score, in [0, 1], of a place at which BlazePose looks for landmarks."""

_DETECTION_PX = 640  # long side at which people are searched; about 0.1 s a picture and core
_WINDOW = (64, 128)  # width and height of the detector's window, pixels
_SCALE_STEP = 1.1
_SEED_SCORE = -0.25  # of windows around which is looked more closely
_AROUND = np.array([(x, y) for x in (-4, 0, 4) for y in (-4, 0, 4)])
_BORDER = 0.12  # of the long side, added around: the window has margins, and people touch the border
_MARGIN_X, _MARGIN_Y = 0.2, 0.1  # of the window that surround the people it was trained on, on each side
_SAME_PERSON_IOU = 0.35
_INSIDE = 0.75
_local = threading.local()


@dataclass(frozen=True, eq=False)
class PersonBox:
    """One person to be posed.

    Attributes:
        box_xywh: (4,) float64 pixels.
        score: detector's score; 1 for whole pictures and given boxes; mean confidence for key points.
        how: "whole", "pose", "net", "hog", "box" or "keypoints", with "+refined" once the box was drawn anew from
            predicted joints.
        keypoints: given, or found with the person.
    """

    box_xywh: np.ndarray
    score: float
    how: str
    keypoints: Keypoints | None = None


def check_mode(mode: str, detector: str | Path | None = None) -> None:
    """Refuse ways to find people that do not exist, or that lack their weights.

    Raises:
        ValueError: with what to do instead.
    """
    if mode not in MODES:
        raise ValueError(f"There is no way to find people called {mode!r}. Choose one of {', '.join(MODES)}.")
    if mode == "net" and detector is None:
        raise ValueError(
            "People are looked for by a network of yours, and no weights are given. Train it with "
            "scripts/train_detector.py and name its file as the detector."
        )


def find_people(
    rgb: np.ndarray, mode: str = "auto", *, min_score: float | None = None, detector: str | Path | None = None
) -> list[PersonBox]:
    """People in an upright picture (H, W, 3) uint8, largest box first.

    Args:
        rgb: the picture.
        mode: "whole" gives the whole picture as one person. "pose" gives whom BlazePose finds, with key points, "net"
            whom our network finds, "hog" whom the HOG detector (Dalal and Triggs, CVPR 2005) finds, maybe nobody.
            "auto" gives those found by the network where its weights are given, else by BlazePose, and the whole
            picture where nobody is found.
        min_score: detections below are dropped; by default `MIN_POSE`, `MIN_HEAT` and `MIN_SCORE` of the three.
        detector: weights of the network.

    Raises:
        ValueError: as `check_mode`, or an array that is not a picture.
    """
    check_mode(mode, detector)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ValueError(f"The picture has shape {rgb.shape} and type {rgb.dtype}. Give (H, W, 3) uint8.")
    h, w = rgb.shape[:2]
    if mode == "whole":
        return [whole_picture((h, w))]
    if mode == "auto":
        mode = "pose" if detector is None else "net"
        return _largest_first(_found(rgb, mode, min_score, detector)) or [whole_picture((h, w))]
    return _largest_first(_found(rgb, mode, min_score, detector))


def _found(rgb: np.ndarray, mode: str, min_score: float | None, detector: str | Path | None) -> list[PersonBox]:
    if mode == "hog":
        return _detect(rgb, MIN_SCORE if min_score is None else min_score)
    if mode == "net" and detector is not None:
        least = MIN_HEAT if min_score is None else min_score
        boxes, scores = boxes_of(load_detector(Path(detector)), rgb, min_score=least)
        people = [PersonBox(box, float(score), "net") for box, score in zip(boxes, scores, strict=True)]
    else:
        found = blazepose.find(rgb, MIN_POSE if min_score is None else min_score)
        people = [PersonBox(person.box_xywh, person.score, "pose", person.keypoints) for person in found]
    return [person for person in people if check_box(person.box_xywh, rgb.shape[:2]) is None]


def whole_picture(size_hw: tuple[int, int]) -> PersonBox:
    """The whole picture of this size (height, width) as one person's box."""
    return PersonBox(np.array([0.0, 0.0, size_hw[1], size_hw[0]]), 1.0, "whole")


def given_people(
    size_hw: tuple[int, int], boxes: Iterable[np.ndarray] = (), keypoints: Iterable[Keypoints] = ()
) -> tuple[list[PersonBox], list[str]]:
    """People from given boxes (4,) and key points, largest first, and a reason for every one of no use.

    Boxes are taken literally, those of key points are 1.2 times their extent.
    """
    people: list[PersonBox] = []
    reasons: list[str] = []
    for box in boxes:
        reason = check_box(box, size_hw)
        if reason:
            reasons.append(reason)
        else:
            people.append(PersonBox(np.asarray(box, dtype=np.float64), 1.0, "box"))
    for person in keypoints:
        around = box_from_keypoints(person.points)
        if around is None:
            reasons.append("The key points show fewer than three joints. Give a person with more.")
        elif reason := check_box(around, size_hw):
            reasons.append(reason)
        else:
            seen = np.nan_to_num(person.points[:, 2])
            people.append(PersonBox(around, float(seen[seen > 0].mean()), "keypoints", person))
    return _largest_first(people), reasons


def refine_box(
    joints_px: np.ndarray, size_hw: tuple[int, int], margin: float = 1.2, *, beyond: float = 0.25
) -> np.ndarray | None:
    """Box (4,) around a person's predicted joints (J, 2) in pixels, `margin` times their extent.

    Joints may lie outside the picture; the box follows them at most `beyond` times the picture's size. None if a joint
    is not finite or the box would be of no use: then the old box is the better one.
    """
    joints = np.asarray(joints_px, dtype=np.float64)
    if joints.ndim != 2 or joints.shape[1] != 2 or len(joints) == 0 or not np.isfinite(joints).all():
        return None
    low, high = joints.min(0), joints.max(0)
    centre, half = (low + high) / 2, (high - low) / 2 * margin
    size = np.array([size_hw[1], size_hw[0]], dtype=np.float64)
    low = np.maximum(centre - half, -beyond * size)
    high = np.minimum(centre + half, (1 + beyond) * size)
    box = np.concatenate([low, high - low])
    return None if check_box(box, size_hw) else box


def refined(person: PersonBox, joints_px: np.ndarray, size_hw: tuple[int, int], margin: float = 1.2) -> PersonBox:
    """The person with the box drawn anew from predicted joints (J, 2) and `how` saying so; unchanged if that fails."""
    box = refine_box(joints_px, size_hw, margin)
    return person if box is None else replace(person, box_xywh=box, how=f"{person.how}+refined")


def _largest_first(people: list[PersonBox]) -> list[PersonBox]:
    return sorted(people, key=lambda person: -float(person.box_xywh[2] * person.box_xywh[3]))


def _detect(rgb: np.ndarray, min_score: float) -> list[PersonBox]:
    h, w = rgb.shape[:2]
    scale = min(_DETECTION_PX / max(h, w), 2.0)
    small = cv2.resize(
        rgb,
        (max(1, round(w * scale)), max(1, round(h * scale))),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    border = int(_BORDER * max(small.shape))
    pad_y = max(border, 128 - small.shape[0])  # never smaller than the detector's window
    pad_x = max(border, 64 - small.shape[1])
    small = cv2.copyMakeBorder(small, pad_y, pad_y, pad_x, pad_x, cv2.BORDER_REPLICATE)
    found, scores = _windows(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    windows = (found - [pad_x, pad_y, 0, 0]) / scale
    people = []
    for box, score in _suppress(windows, scores, min_score):
        x, y, bw, bh = box
        body = np.array([x + _MARGIN_X * bw, y + _MARGIN_Y * bh, bw * (1 - 2 * _MARGIN_X), bh * (1 - 2 * _MARGIN_Y)])
        if check_box(body, (h, w)) is None:
            people.append(PersonBox(body, score, "hog"))
    return people


def _windows(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, 4) and scores (N,) of the detector on all scales of a BGR picture.

    It looks at every second scale, every eight pixels (its cells' own step), and around what nearly is a person there
    at all scales, every four: the same people as by looking everywhere, in a fraction of the time.
    """
    h, w = picture.shape[:2]
    count = 1
    while all(round(side / _SCALE_STEP**count) >= least for side, least in zip((w, h), _WINDOW, strict=True)):
        count += 1
    levels = [_resized(picture, _SCALE_STEP**k) for k in range(count)]
    seeds = [_look(level)[0] if k % 2 == 0 else np.zeros((0, 2)) for k, level in enumerate(levels)]
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    for k, level in enumerate(levels):
        near = [seeds[k]]
        for other in (k - 1, k + 1):
            if 0 <= other < count:  # windows about the same middle; the two steps of four pixels differ
                middle = (seeds[other] + np.array(_WINDOW) / 2) * _SCALE_STEP ** (other - k)
                near.append(np.round((middle - np.array(_WINDOW) / 2) / 4) * 4)
        places = np.unique((np.concatenate(near).astype(np.int64)[:, None] + _AROUND).reshape(-1, 2), axis=0)
        places = places[((places >= 0) & (places <= np.subtract(level.shape[1::-1], _WINDOW))).all(1)]
        if len(places) == 0:
            continue
        low = (places.min(0) - 8).clip(0)  # a cell more around, so that gradients at the border are the picture's
        high = places.max(0) + np.add(_WINDOW, 8)
        found, its_scores = _look(np.ascontiguousarray(level[low[1] : high[1], low[0] : high[0]]), places - low)
        likely = its_scores > 0
        corners = found[likely] + low
        boxes.append(np.concatenate([corners, np.broadcast_to(_WINDOW, corners.shape)], 1) * _SCALE_STEP**k)
        scores.append(its_scores[likely])
    return np.concatenate(boxes), np.concatenate(scores)


def _resized(picture: np.ndarray, scale: float) -> np.ndarray:
    size = round(picture.shape[1] / scale), round(picture.shape[0] / scale)
    return picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR_EXACT)


def _look(level: np.ndarray, places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners (N, 2) and scores (N,) of windows: likely ones every eight pixels, or all of some places."""
    if places is None:
        found, scores = _detector().detect(level, hitThreshold=_SEED_SCORE, winStride=(8, 8), padding=(0, 0))
    else:
        found, scores = _detector().detect(level, winStride=(4, 4), padding=(0, 0), searchLocations=places.tolist())
    return np.asarray(found, dtype=np.int64).reshape(-1, 2), np.asarray(scores, dtype=np.float64).ravel()


def _detector() -> cv2.HOGDescriptor:
    """One detector a thread: OpenCV does not promise that one may be shared."""
    if not hasattr(_local, "hog"):
        _local.hog = cv2.HOGDescriptor()
        _local.hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    return _local.hog


def _suppress(boxes: np.ndarray, scores: np.ndarray, min_score: float) -> list[tuple[np.ndarray, float]]:
    """Best box and score of each person: greedy non-maximum suppression, the box averaged over those it beats."""
    left = np.argsort(-scores, kind="stable")
    kept: list[tuple[np.ndarray, float]] = []
    best_boxes: list[np.ndarray] = []
    while len(left) and scores[left[0]] >= min_score:
        best = left[0]
        iou, _ = overlap(boxes[best], boxes[left])
        same = left[iou > _SAME_PERSON_IOU]
        weight = np.maximum(scores[same], 1e-6)[:, None]
        # nested in, or wrapped around, a better one: a limb or a group, not another person
        nested = any(overlap(other, boxes[best][None])[1][0] > _INSIDE for other in best_boxes)
        if not nested:
            kept.append(((boxes[same] * weight).sum(0) / weight.sum(), float(scores[best])))
            best_boxes.append(boxes[best])
        left = left[(iou <= _SAME_PERSON_IOU) & (left != best)]
    return kept
