"""The network that finds people, at work on a photograph."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from bodyreg.checkpoints import load_model
from bodyreg.models.detector import MULTIPLE, find_peaks
from bodyreg.models.perspose import normalise_image

__all__ = ["boxes_of", "distinct", "load_detector", "overlap"]

_SIDES_PX = (256, 512)  # large people are seen best in the smaller picture, small ones in the larger
_SAME_PERSON_IOU = 0.45
_INSIDE = 0.9  # a part of someone, or a group around: of the smaller box, as `overlap` says
_SMALLEST_PX = 24.0  # larger side in the searched picture: below, people and patterns look alike


@functools.lru_cache(maxsize=2)
def load_detector(weights: Path) -> nn.Module:
    """The network of a weights file, on the CPU, ready to run; kept for the next call.

    Raises:
        ValueError: no weights file, or of another network.
    """
    loaded = load_model(weights)
    if loaded.settings.name != "person_detector":
        raise ValueError(
            f"{weights} holds the network {loaded.settings.name!r}, which finds nobody. "
            "Pass weights of scripts/train_detector.py."
        )
    return loaded.model


def boxes_of(
    model: nn.Module, rgb: np.ndarray, *, min_score: float, sides_px: Sequence[int] = _SIDES_PX
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) x, y, w, h in pixels within the picture (H, W, 3) uint8, and scores (n,), best first.

    Args:
        model: a `PersonDetector` in evaluation mode, on any device. min_score: in [0, 1].
        sides_px: the picture is searched at about each of these long sides, both sides multiples of 32.
    """
    found = [_search(model, rgb, min_score, side) for side in sides_px]
    boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    kept = order[distinct(boxes[order])]
    return boxes[kept], scores[kept]


def _search(model: nn.Module, rgb: np.ndarray, min_score: float, long_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) in the picture's pixels and scores (n,) of all peaks at one size of the picture."""
    size_hw = np.array(rgb.shape[:2])
    h, w = np.maximum(np.round(size_hw * long_px / size_hw.max() / MULTIPLE), 1).astype(int) * MULTIPLE
    how = cv2.INTER_AREA if size_hw.max() > long_px else cv2.INTER_LINEAR
    small = cv2.resize(rgb, (int(w), int(h)), interpolation=how)
    device = next(model.parameters()).device
    with torch.inference_mode():
        image = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float() / 255
        image = normalise_image(image).contiguous(memory_format=torch.channels_last)
        corners, scores = (part.cpu().numpy() for part in find_peaks(model(image), min_score=min_score)[0])
    limit = np.array([w, h, w, h], np.float64)
    corners = np.clip(corners.astype(np.float64), 0, limit)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    large = boxes[:, 2:].max(1, initial=0) >= _SMALLEST_PX
    return boxes[large] * (np.tile(size_hw[::-1], 2) / limit), scores[large].astype(np.float64)


def distinct(boxes: np.ndarray, *, inside: float = _INSIDE) -> list[int]:
    """Which boxes (N, 4), best first, are not the same person as a better one, nor a part of one or a group around.

    Args:
        inside: share of the smaller box, as `overlap` says, from which it is a part.
    """
    kept: list[int] = []
    for k, box in enumerate(boxes):
        union, smaller = overlap(box, boxes[kept]) if kept else (np.zeros(1), np.zeros(1))
        if union.max() <= _SAME_PERSON_IOU and smaller.max() <= inside:
            kept.append(k)
    return kept


def overlap(box: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the smaller of the two, of a box (4,) with boxes (N, 4)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area, areas = box[2] * box[3], boxes[:, 2] * boxes[:, 3]
    return shared / (area + areas - shared), shared / np.minimum(area, areas)
