"""How well boxes are found: which detections are right, average precision, recall."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bodyreg.inference.detect import overlap


class Found(NamedTuple):
    """Detections of one picture, best first: scores (n,), right (n,) bool, counted (n,) bool; people: how many there
    were to find."""

    scores: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    people: int


def judge(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, ignored: np.ndarray, least: float = 0.5) -> Found:
    """Give each person to the best detection that overlaps by `least`; who finds an ignored person is not counted.

    Args:
        boxes: (n, 4) x, y, w, h, best first; scores: (n,). truth: (m, 4) likewise. ignored: (m,) bool.
    """
    right, counted = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    free = np.ones(len(truth), bool)
    for k, box in enumerate(boxes):
        if not len(truth):
            break
        iou, _ = overlap(box, truth)
        best = int(np.argmax(np.where(free & ~ignored, iou, -1)))
        if free[best] and not ignored[best] and iou[best] >= least:
            right[k], free[best] = True, False
        elif ignored.any() and iou[ignored].max() >= least:
            counted[k] = False
    return Found(scores, right, counted, int((~ignored).sum()))


def summary(pictures: list[Found], min_score: float) -> dict[str, float]:
    """ap: area under precision over recall, all scores. recall, false_a_picture: at `min_score`."""
    scores = np.concatenate([f.scores[f.counted] for f in pictures])
    right = np.concatenate([f.right[f.counted] for f in pictures])
    people = sum(f.people for f in pictures)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
    confident = scores >= min_score
    return {
        "ap": float((precision * right[order]).sum() / max(people, 1)),
        "recall": float((right & confident).sum() / max(people, 1)),
        "false_a_picture": float((~right & confident).sum() / max(len(pictures), 1)),
    }
