"""Crowded scenes for finding people: nobody to many, of all sizes, in front of each other, cut by the frame.

People of geometry shards are cut out in fresh colours (`compose.cut_out_person`) and laid over backgrounds full of
things that are not people: furniture, poles, balls, and people cut to pieces and put together wrongly, which have the
cloth and the skin but not the shape.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bodyreg.data.synthetic.backgrounds import dead_leaves, procedural_background
from bodyreg.data.synthetic.compose import View, cut_out_person
from bodyreg.data.synthetic.shards import Shard
from bodyreg.data.synthetic.surroundings import background_window, camera_faults, occlude

__all__ = ["CELL", "Crowds", "Scene"]

CELL = 8
"""Pixels a cell of `Scene.shown` is wide."""
_NOBODY, _THRONG = 0.12, 0.1  # shares of scenes
_SMALLEST_PX = 14.0
_LEAST_SEEN = 0.25  # of a person; who shows less is neither asked for nor denied
_LEAVES = 0.5  # share of backgrounds with the statistics of photographs
_RENEWED = 0.15  # share of scenes before which one background is drawn anew


class Scene(NamedTuple):
    """image (S, S, 3) uint8 RGB; boxes (n, 4) float32 left, top, right, bottom in pixels, of whole people, hidden parts
    included, cut at the frame; ignored (n,) bool: too little is seen; shown (S / 8, S / 8) float32: share of a cell
    that shows a person."""

    image: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    shown: np.ndarray


class Crowds:
    """Draws scenes.

    Args:
        shard: people. atlas: see `outfits.body_atlas`. backgrounds: (n, S, S, 3) uint8 of the scenes' size, some of
            which are replaced by new procedural ones as scenes are drawn. renew: False keeps them all.
    """

    def __init__(self, shard: Shard, atlas: np.ndarray, backgrounds: np.ndarray, *, renew: bool = True) -> None:
        inside = np.unpackbits(shard.where, axis=2, count=shard.crop_size)
        edge = inside[:, 0].any(1) | inside[:, -1].any(1) | inside[:, :, 0].any(1) | inside[:, :, -1].any(1)
        filled = inside.reshape(len(inside), -1).any(1)
        self.whole = np.flatnonzero(~edge & filled)  # who leaves the stored crop would end in mid-air
        if not len(self.whole):
            raise ValueError("Nobody in these shards is whole. Render more with `bodyreg prepare synthetic`.")
        self.extent = np.array([_extent(inside[i]) for i in self.whole]) / shard.crop_size
        self.shard, self.atlas, self.backgrounds, self.renew = shard, atlas, backgrounds, renew
        self.size = backgrounds.shape[1]

    def draw(self, rng: np.random.Generator, *, augment: bool = True) -> Scene:
        """One scene; without `augment` sharp and noiseless."""
        if self.renew and rng.random() < _RENEWED:
            draw = dead_leaves if rng.random() < _LEAVES else procedural_background
            self.backgrounds[rng.integers(len(self.backgrounds))] = draw(rng, self.size)
        canvas = background_window(rng, self.backgrounds, self.size, least=0.6)
        owner = np.zeros((self.size, self.size), np.uint8)  # who is seen: 0 nobody, k + 1 person k
        for _ in range(rng.poisson(1.0)):
            _furniture(rng, canvas)
        for _ in range(rng.poisson(0.35)):
            self._pieces(rng, canvas)
        boxes, areas = self._people(rng, canvas, owner)
        if rng.random() < 0.3:
            occlude(rng, canvas, self.backgrounds, owner)
        if rng.random() < 0.15:
            _furniture(rng, canvas, owner)
        seen = np.bincount(owner.ravel(), minlength=len(boxes) + 1)[1:]
        corners = np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, self.size)
        size = corners[:, 2:] - corners[:, :2]
        there = (seen > 0) & (size > 0).all(1)
        ignored = (seen < _LEAST_SEEN * np.array(areas).reshape(-1)) | (size.max(1, initial=0) < _SMALLEST_PX)
        shown = cv2.resize((owner > 0).astype(np.float32), None, fx=1 / CELL, fy=1 / CELL, interpolation=cv2.INTER_AREA)
        image = camera_faults(rng, canvas, motion=True) if augment else np.clip(canvas, 0, 255).astype(np.uint8)
        return Scene(image, corners[there], ignored[there], shown)

    def _people(
        self, rng: np.random.Generator, canvas: np.ndarray, owner: np.ndarray
    ) -> tuple[list[np.ndarray], list[float]]:
        """Lay people over the picture, far ones first; their whole boxes and how many pixels each would cover."""
        heights, middles = self._places(rng)
        boxes: list[np.ndarray] = []
        areas: list[float] = []
        like = None
        for k in np.argsort(heights, kind="stable"):
            who = int(rng.integers(len(self.whole)))
            turn = rng.normal(0, 0.12) if rng.random() < 0.8 else rng.uniform(-np.pi, np.pi)
            view = View(1.0, float(turn), bool(rng.random() < 0.5))
            size = int(np.clip(heights[k] / self.extent[who], 8, 3 * self.size))
            rgb, covered, style = cut_out_person(
                self.shard, int(self.whole[who]), view, size, rng, self.atlas, like=like
            )
            like = style if like is None or rng.random() < 0.1 else like
            if covered.max() < 0.5:
                continue
            left, top, right, bottom = _box(covered > 0.5)
            at = np.round(middles[k] - [(left + right) / 2, (top + bottom) / 2]).astype(int)
            areas.append(float((covered > 0.5).sum()))
            boxes.append(np.array([left, top, right, bottom], np.float32) + np.tile(at, 2))
            _lay(canvas, rgb, covered, at, owner, len(boxes))
        return boxes, areas

    def _places(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Larger side (n,) and middle (n, 2) of the people of a scene, pixels: on a common floor, in a row, or
        anywhere."""
        S, kind = self.size, rng.random()
        if kind < _NOBODY:
            return np.zeros(0), np.zeros((0, 2))
        n = int(rng.integers(8, 20)) if kind > 1 - _THRONG else int(rng.integers(1, 9)) if kind > 0.4 else 1
        largest = 0.45 if n > 8 else 1.5 if n < 4 else 1.0
        heights = S * np.exp(rng.uniform(np.log(0.05 if n > 1 else 0.12), np.log(largest), n))
        if rng.random() < 0.35:  # about equally far
            heights = heights[0] * np.exp(rng.normal(0, 0.12, n))
        x, y = rng.uniform(0, S, n), rng.uniform(0.1 * S, 0.95 * S, n)
        if rng.random() < 0.4:  # the further the higher up stand the feet
            horizon, drop = rng.uniform(0.1, 0.6) * S, rng.uniform(0.5, 1.3)
            y = horizon + (drop - 0.5) * heights
        elif n > 1 and rng.random() < 0.4:  # beside each other
            step = heights.mean() * rng.uniform(0.2, 0.7)
            x = rng.uniform(0, S) + step * (np.arange(n) - n / 2) + rng.normal(0, 0.1, n) * step
            y = y[0] + rng.normal(0, 0.1, n) * heights
        if n == 1 and rng.random() < 0.6:
            x, y = rng.normal(0.5, 0.12, 1) * S, rng.normal(0.5, 0.1, 1) * S
        return heights, np.stack([x, y], 1)

    def _pieces(self, rng: np.random.Generator, canvas: np.ndarray) -> None:
        """A person cut into pieces that are strewn about: cloth and skin, and nobody."""
        who = int(rng.integers(len(self.whole)))
        size = int(self.size * np.exp(rng.uniform(np.log(0.1), np.log(0.9))))
        turn = View(1.0, float(rng.uniform(-np.pi, np.pi)), False)
        rgb, covered, _ = cut_out_person(self.shard, int(self.whole[who]), turn, size, rng, self.atlas)
        if covered.max() < 0.5:
            return
        left, top, right, bottom = _box(covered > 0.5)
        middle = rng.uniform(0, self.size, 2)
        rows, columns = rng.integers(2, 5), rng.integers(1, 4)
        ys, xs = np.linspace(top, bottom, rows + 1).astype(int), np.linspace(left, right, columns + 1).astype(int)
        for r in range(rows):
            for c in range(columns):
                part = np.s_[ys[r] : ys[r + 1], xs[c] : xs[c + 1]]
                quarter = int(rng.integers(1, 4))
                at = np.round(middle + rng.normal(0, 0.35, 2) * size).astype(int)
                _lay(canvas, np.rot90(rgb[part], quarter), np.rot90(covered[part], quarter), at)


def _extent(inside: np.ndarray) -> float:
    left, top, right, bottom = _box(inside > 0)
    return max(right - left, bottom - top)


def _box(inside: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of where a picture is true, which is somewhere."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _lay(
    canvas: np.ndarray, rgb: np.ndarray, covered: np.ndarray, at: np.ndarray, owner: np.ndarray | None = None,
    number: int = 0,
) -> None:  # fmt: skip
    """Lay a cut-out over a picture with its upper left corner at x, y, in place."""
    h, w = covered.shape
    x0, y0 = max(int(at[0]), 0), max(int(at[1]), 0)
    x1, y1 = min(int(at[0]) + w, canvas.shape[1]), min(int(at[1]) + h, canvas.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = np.s_[y0 - int(at[1]) : y1 - int(at[1]), x0 - int(at[0]) : x1 - int(at[0])]
    there = np.s_[y0:y1, x0:x1]
    canvas[there] = canvas[there] * (1 - covered[part][..., None]) + rgb[part]
    if owner is not None:
        owner[there][covered[part] > 0.5] = number


def _furniture(rng: np.random.Generator, canvas: np.ndarray, owner: np.ndarray | None = None) -> None:
    """One shaded thing of `_OUTLINES`, in place; nobody is seen where it stands."""
    S = len(canvas)
    size = float(S * np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
    mask = np.zeros((S, S), np.uint8)
    x, y = (float(v) for v in rng.uniform(0, S, 2))
    _OUTLINES[rng.integers(len(_OUTLINES))](rng, mask, x, y, size)
    left, top, w, h = cv2.boundingRect(mask)
    if not w or not h:
        return
    there = np.s_[top : top + h, left : left + w]
    colour = rng.uniform(10, 245) + rng.normal(0, rng.choice([6.0, 40.0]), 3)
    across = rng.random() < 0.5
    slope = np.linspace(rng.uniform(0.4, 1.0), rng.uniform(0.8, 1.5), w if across else h, dtype=np.float32)
    shade = slope[None, :, None] if across else slope[:, None, None]
    # Round: darker towards the outline.
    rim = cv2.GaussianBlur(mask[there], (0, 0), float(np.clip(0.03 * size, 0.6, 5))).astype(np.float32)[..., None] / 255
    covered = mask[there].astype(np.float32)[..., None] / 255
    lit = np.clip(colour, 5, 250).astype(np.float32) * shade * (0.35 + 0.65 * rim)
    canvas[there] = canvas[there] * (1 - covered) + covered * lit
    if owner is not None:
        owner[mask > 127] = 0


def _bar(mask: np.ndarray, x0: float, y0: float, x1: float, y1: float, width: float) -> None:
    cv2.line(mask, (int(x0), int(y0)), (int(x1), int(y1)), 255, max(1, int(width)), cv2.LINE_AA)


def _ring(mask: np.ndarray, x: float, y: float, across: float, up: float, width: float = -1) -> None:
    thick = -1 if width < 0 else max(1, int(width))
    cv2.ellipse(mask, (int(x), int(y)), (int(across) + 1, int(up) + 1), 0, 0, 360, 255, thick, cv2.LINE_AA)


def _table(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    """A table, or a chair."""
    width, leg = size * rng.uniform(0.5, 1.2), size * rng.uniform(0.03, 0.1)
    _bar(mask, x - width / 2, y, x + width / 2, y, leg * rng.uniform(1, 3))
    for share in (-0.45, -0.3, 0.3, 0.45):
        _bar(mask, x + share * width, y, x + share * width, y + size * rng.uniform(0.4, 0.6), leg)
    if rng.random() < 0.5:
        _bar(mask, x - 0.45 * width, y, x - 0.45 * width, y - size * 0.5, leg * 2)


def _shelf(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    for share in np.linspace(-0.5, 0.5, int(rng.integers(3, 7))):
        _bar(mask, x - size * 0.3, y + share * size, x + size * 0.3, y + share * size, size * 0.04)
    for side in (-0.3, 0.3):
        _bar(mask, x + side * size, y - size / 2, x + side * size, y + size / 2, size * 0.05)


def _lamp(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    """A lamp, sign or tree: a stem and a head, nearly as people are."""
    _bar(mask, x, y, x + rng.normal(0, 0.03) * size, y + size * 0.8, size * rng.uniform(0.03, 0.12))
    _ring(mask, x, y, size * rng.uniform(0.06, 0.3), size * rng.uniform(0.06, 0.3))


def _ball(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    _ring(mask, x, y, size * 0.3, size * rng.uniform(0.2, 0.35))


def _limbs(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    """Branches, or limbs that belong to nobody."""
    point = np.array([x, y])
    for _ in range(rng.integers(2, 7)):
        onwards = point + rng.normal(0, 0.3, 2) * size
        _bar(mask, point[0], point[1], onwards[0], onwards[1], size * rng.uniform(0.05, 0.15))
        point = onwards if rng.random() < 0.6 else point


def _bicycle(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    across = size * rng.uniform(0.1, 0.3)
    for share in (0.0, rng.uniform(0.6, 1.2)):
        _ring(mask, x + share * size, y, across, size * 0.3, 0.03 * size)
    _bar(mask, x, y, x + size * 0.5, y - size * 0.3, size * 0.03)
    _bar(mask, x + size * 0.4, y, x + size * 0.8, y - size * 0.3, size * 0.03)


def _column(rng: np.random.Generator, mask: np.ndarray, x: float, y: float, size: float) -> None:
    S = len(mask)
    _bar(mask, x, -10, x + rng.normal(0, 0.03) * S, S * rng.uniform(0.5, 1.1), S * np.exp(rng.uniform(-4, -1.6)))


_OUTLINES = (_table, _shelf, _lamp, _ball, _limbs, _bicycle, _column)
