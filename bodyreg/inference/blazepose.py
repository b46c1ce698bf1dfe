"""Finding people and 17 of their joints with MediaPipe's BlazePose (Bazarevsky et al., CVPRW 2020).

Two small networks under the Apache licence travel in the package (`bodyreg/assets/NOTICE`, made by
scripts/convert_blazepose.py) and run in OpenCV. The first says where the hips of people are, which way they stand and
how large they are. It was made for pictures of 224 pixels and takes others too: it sees the photograph at that size and
somewhat larger, and at up to 800 pixels where nobody large was found. The second sees each find upright in 256 pixels
and tells landmarks from what is nobody.
"""

from __future__ import annotations

import functools
import gzip
import math
import threading
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bodyreg.data.inputs import Keypoints, box_from_keypoints
from bodyreg.inference.detect import distinct

__all__ = ["Found", "find"]

_FOLDER = Path(__file__).parent.parent / "assets" / "people"
_SIDE, _CROP = 224, 256  # pixels that the two networks were made for
_ZOOMS = (1.0, 1.6, 2.4, 3.6)  # the picture's longer side when it is searched, in those of the first network
_COARSEST = 32  # pixels of that network's largest cells
_MOST_ENLARGED = 224 / 96  # pixels of a picture searched larger than this show nothing that was not seen
_LARGE = 0.35  # of the picture's longer side: whoever is larger than this ends the search for small people
_MOST = 40
_PRESENT = 0.5  # least probability of the second network that it sees a person
_SAME_PLACE, _SAME_SIZE = 0.5, 2.0
_INSIDE = 0.7  # of the smaller box: the second network makes whole people of limbs
_ROUND = 2.5  # side of the second network's view, in radii of a person about the hips
_HIPS, _TOP = 33, 34  # landmarks that say where the view of the same person lies
_MARGIN = 1.15  # of boxes around all landmarks, which reach from the toes to the eyes
_COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
_local = threading.local()


class Found(NamedTuple):
    """A person: box_xywh (4,) pixels, score in [0, 1], and COCO's key points with the probability to be seen."""

    box_xywh: np.ndarray
    score: float
    keypoints: Keypoints


class _Place(NamedTuple):
    """Where someone may be: hips and a point a radius above the head's side of them, (2,) pixels each."""

    score: float
    hips: np.ndarray
    top: np.ndarray

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.top - self.hips))


def find(rgb: np.ndarray, min_score: float) -> list[Found]:
    """People in a picture (H, W, 3) uint8, best first; min_score in [0, 1] is asked of the first network."""
    looked_at = [_look_at(rgb, place) for place in _apart(_places(rgb, min_score))]
    people = [person for person in looked_at if person is not None]
    boxes = np.array([person.box_xywh for person in people]).reshape(-1, 4)
    return [people[k] for k in distinct(boxes, inside=_INSIDE)]


def _places(rgb: np.ndarray, min_score: float) -> list[_Place]:
    places: list[_Place] = []
    longer = max(rgb.shape[:2])
    for zoom in _ZOOMS:
        scale = zoom * _SIDE / longer
        if zoom > 1 and scale > _MOST_ENLARGED:
            break
        if zoom > _ZOOMS[1] and any(2 * place.radius > _LARGE * longer for place in places):
            break
        picture, corner = _resized(rgb, scale)
        logits, points = _run("blazepose_detector", picture / np.float32(127.5) - 1)
        scores, anchors = _probability(logits[0, :, 0]), _anchors(*picture.shape[:2])
        for k in np.flatnonzero(scores >= min_score):
            near = points[0, k].reshape(6, 2).astype(np.float64) + anchors[k]
            places.append(_Place(float(scores[k]), *((near[2:4] - corner) / scale)))
    return places


def _resized(rgb: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture at a scale amid black, in whole cells, and where its upper left corner (2,) lies there."""
    h, w = rgb.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    right, down = (max(_SIDE, math.ceil(side / _COARSEST) * _COARSEST) - side for side in size)
    pads = down // 2, down - down // 2, right // 2, right - right // 2
    return cv2.copyMakeBorder(picture, *pads, cv2.BORDER_CONSTANT), np.array([pads[2], pads[0]], np.float64)


def _apart(places: list[_Place]) -> list[_Place]:
    kept: list[_Place] = []
    for place in sorted(places, key=lambda place: -place.score):
        for other in kept:
            small, large = sorted((place.radius, other.radius))
            apart = np.linalg.norm(place.hips - other.hips)
            if apart < _SAME_PLACE * small and large < _SAME_SIZE * small:
                break
        else:
            kept.append(place)
        if len(kept) == _MOST:
            break
    return kept


def _look_at(rgb: np.ndarray, place: _Place) -> Found | None:
    """What the second network makes of a place, looking again from where it says the person is; None: nobody."""
    for _ in range(2):
        if not 4 < place.radius < 4 * max(rgb.shape[:2]):
            return None
        present, points, seen = _landmarks(rgb, place)
        if not present >= _PRESENT:
            return None
        place = place._replace(hips=points[_HIPS], top=points[_TOP])
    everything = np.concatenate([points[:33], np.ones((33, 1))], 1)
    box = box_from_keypoints(everything, margin=_MARGIN)
    joints = np.concatenate([points[_COCO], seen[_COCO, None]], 1)
    return None if box is None else Found(box, place.score, Keypoints(joints, "coco-17"))


def _landmarks(rgb: np.ndarray, place: _Place) -> tuple[float, np.ndarray, np.ndarray]:
    """Whether there is a person, and landmarks (39, 2) in the picture's pixels with the probability to be seen."""
    side = _ROUND * place.radius
    shrink = max(1, int(side / _CROP / 1.5))  # a linear warp alone would skip pixels
    h, w = rgb.shape[:2]
    picture = rgb if shrink == 1 else cv2.resize(rgb, (-(-w // shrink), -(-h // shrink)), interpolation=cv2.INTER_AREA)
    ratio = np.array([picture.shape[1] / w, picture.shape[0] / h])
    up = (place.top - place.hips) / place.radius
    turn = np.array([[-up[1], -up[0]], [up[0], -up[1]]])  # columns: right and down of the upright person
    full_from_crop = turn * (side / _CROP)
    origin = place.hips - full_from_crop @ np.full(2, _CROP / 2)
    sampled = np.concatenate([full_from_crop * ratio[:, None], (origin * ratio)[:, None]], 1)
    sampled[:, 2] += sampled[:, :2] @ np.full(2, 0.5) - 0.5  # from pixel indices to indices
    crop = cv2.warpAffine(picture, sampled, (_CROP, _CROP), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    present, points = _run("blazepose_landmarks", crop.astype(np.float32) / 255)
    rows = points.reshape(39, 5).astype(np.float64)
    return float(present.item()), rows[:, :2] @ full_from_crop.T + origin, _probability(rows[:, 3])


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -80, 80)))


def _run(name: str, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two outputs of a network, the smaller first. Each thread has networks of its own: OpenCV's keep state."""
    if not hasattr(_local, "networks"):
        _local.networks = {}
    if name not in _local.networks:
        content = gzip.decompress((_FOLDER / f"{name}.onnx.gz").read_bytes())
        _local.networks[name] = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    network = _local.networks[name]
    network.setInput(np.ascontiguousarray(picture[None]))
    small, large = sorted(network.forward(network.getUnconnectedOutLayersNames()), key=lambda output: output.size)
    return small, large


@functools.lru_cache(maxsize=32)
def _anchors(height: int, width: int) -> np.ndarray:
    """(A, 2) pixels: middles of the cells that the first network answers for, two or six answers a cell."""
    parts = []
    for cell, answers in ((8, 2), (16, 2), (_COARSEST, 6)):
        x, y = np.meshgrid(*((np.arange(side // cell) + 0.5) * cell for side in (width, height)))
        parts.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), answers, 0))
    return np.concatenate(parts)
