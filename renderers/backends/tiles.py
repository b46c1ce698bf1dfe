"""Numba kernels that the soft back ends share: which faces reach which tile of the image, and signed distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.geometry import edge, index_range
from renderers.backends.jit import kernel
from renderers.threads import map_threads

SIDE = 16
"""Tiles are 16 x 16 pixels."""
FACE = 24  # numbers per face, see `load`

_ZERO, _ONE = np.float32(0), np.float32(1)
_FAR = np.float32(1e30)
_NEAR_TIE, _TIE = np.float32(1e-4), np.float32(1e-9)


class Bins(NamedTuple):
    """The faces that reach each tile of one image, in their order. An entry is one face in one tile."""

    tile_begin: np.ndarray
    """(T + 1,) entries of tile t are tile_begin[t] to tile_begin[t + 1]."""
    entry_face: np.ndarray
    """(E,) packed face of each entry."""
    entry_slot: np.ndarray
    """(E,) place of each entry when entries are sorted by face: where its gradient goes."""
    slot_begin: np.ndarray
    """(F_mesh + 1,) slots of the mesh's face f are slot_begin[f] to slot_begin[f + 1]."""


def bin_faces(
    faces: np.ndarray,
    counts: list[int],
    xs: np.ndarray,
    ys: np.ndarray,
    blur: float,
    turn: int,
    threads: int,
    *,
    by_depth: bool = False,
) -> list[Bins]:
    """Sort the faces of each mesh into tiles, within a tile by index, or by the depth of their nearest corner.

    `turn` is 1 or -1 to keep only faces whose corners run counter-clockwise or clockwise as displayed, 0 for both.
    Faces without area and those with a corner at or behind the camera are left out.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def one(mesh: int) -> Bins:
        order = np.arange(starts[mesh], starts[mesh + 1])
        if by_depth:
            order = order[np.argsort(faces[order, :, 2].min(1), kind="stable")]
        return Bins(*_bin(faces, order, xs, ys, np.float32(blur), turn))

    return map_threads(one, range(len(counts)), threads)


@kernel
def _bin(faces, order, xs, ys, blur, keep_turn):
    across = (len(xs) + SIDE - 1) // SIDE
    down = (len(ys) + SIDE - 1) // SIDE
    box = np.zeros((len(order), 4), np.int32)
    slot_begin = np.zeros(len(order) + 1, np.int64)
    tile_begin = np.zeros(across * down + 1, np.int64)
    radius = np.sqrt(blur)
    for i in range(len(order)):
        v = faces[order[i]]
        slot_begin[i + 1] = slot_begin[i]
        turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
        if abs(np.float64(turn)) <= 1e-8 or np.float64(min(v[0, 2], v[1, 2], v[2, 2])) < 1e-8:
            continue
        if (keep_turn > 0 and turn < _ZERO) or (keep_turn < 0 and turn > _ZERO):
            continue
        top, bottom = index_range(ys, min(v[0, 1], v[1, 1], v[2, 1]) - radius, max(v[0, 1], v[1, 1], v[2, 1]) + radius)
        left, right = index_range(xs, min(v[0, 0], v[1, 0], v[2, 0]) - radius, max(v[0, 0], v[1, 0], v[2, 0]) + radius)
        if top >= bottom or left >= right:
            continue
        box[i, 0], box[i, 1], box[i, 2], box[i, 3] = top, bottom, left, right
        for ty in range(top // SIDE, (bottom - 1) // SIDE + 1):
            for tx in range(left // SIDE, (right - 1) // SIDE + 1):
                tile_begin[ty * across + tx + 1] += 1
                slot_begin[i + 1] += 1
    for t in range(across * down):
        tile_begin[t + 1] += tile_begin[t]
    entry_face = np.empty(slot_begin[len(order)], np.int64)
    entry_slot = np.empty(slot_begin[len(order)], np.int64)
    cursor = tile_begin[:-1].copy()
    for i in range(len(order)):
        slot = slot_begin[i]
        if slot_begin[i + 1] == slot:
            continue
        for ty in range(box[i, 0] // SIDE, (box[i, 1] - 1) // SIDE + 1):
            for tx in range(box[i, 2] // SIDE, (box[i, 3] - 1) // SIDE + 1):
                t = ty * across + tx
                entry_face[cursor[t]] = order[i]
                entry_slot[cursor[t]] = slot
                cursor[t] += 1
                slot += 1
    return tile_begin, entry_face, entry_slot, slot_begin


@kernel
def load(v, g):
    # What distances to one face need: for each edge start, direction, 1 / length^2, and the sign of the inner side.
    turn = edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1])
    sign = _ONE if turn > _ZERO else -_ONE
    for k in range(3):
        a, b = (0, 1) if k == 0 else ((2, 0) if k == 1 else (1, 2))
        dx, dy = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1]
        length2 = dx * dx + dy * dy
        g[8 * k], g[8 * k + 1], g[8 * k + 2], g[8 * k + 3] = v[a, 0], v[a, 1], dx, dy
        g[8 * k + 4] = _ONE / length2 if length2 > 1e-8 else _ZERO
        g[8 * k + 5] = sign
        g[8 * k + 6] = g[8 * k + 7] = _ZERO
        if length2 <= 1e-8:
            # An edge that short counts as its second end point, in the order of corners (0, 1), (0, 2), (1, 2).
            last = 1 if k == 0 else 2
            g[8 * k + 6], g[8 * k + 7] = v[last, 0] - v[a, 0], v[last, 1] - v[a, 1]


@kernel
def distance_row(g, xs, ys, r, blur, out):
    # Signed squared distance (negative inside) of the points (xs, ys[r]) to the outline; beyond the blur a huge number.
    # Pixel centres come as two numbers, value and remainder: sharp edges feel the rounding of the first.
    py, y_rest = ys[0, r], ys[1, r]
    for c in range(SIDE):
        px, x_rest = xs[0, c], xs[1, c]
        x, y = (px - g[0]) + x_rest, (py - g[1]) + y_rest
        cross0 = (x * g[3] - y * g[2]) * g[5]
        t = min(max((x * g[2] + y * g[3]) * g[4], _ZERO), _ONE)
        ex, ey = x - t * g[2] - g[6], y - t * g[3] - g[7]
        best = ex * ex + ey * ey
        x, y = (px - g[8]) + x_rest, (py - g[9]) + y_rest
        cross1 = (x * g[11] - y * g[10]) * g[5]
        t = min(max((x * g[10] + y * g[11]) * g[12], _ZERO), _ONE)
        ex, ey = x - t * g[10] - g[14], y - t * g[11] - g[15]
        best = min(best, ex * ex + ey * ey)
        x, y = (px - g[16]) + x_rest, (py - g[17]) + y_rest
        cross2 = (x * g[19] - y * g[18]) * g[5]
        t = min(max((x * g[18] + y * g[19]) * g[20], _ZERO), _ONE)
        ex, ey = x - t * g[18] - g[22], y - t * g[19] - g[23]
        best = min(best, ex * ex + ey * ey)
        inside = (cross0 > _ZERO) & (cross1 > _ZERO) & (cross2 > _ZERO)
        out[c] = -best if inside else (best if best < blur else _FAR)


@kernel
def exact(centres, i):
    # A pixel centre in double precision.
    return np.float64(centres[0, i]) + np.float64(centres[1, i])


@kernel
def drop_rival(own_is_first, v_other, xs, ys, r, blur, row, g, other_row):
    # Of two halves of a face that the near plane cut, the one counts that a point is deeper inside of, or nearer to.
    load(v_other, g)
    distance_row(g, xs, ys, r, blur, other_row)
    for c in range(len(row)):
        if other_row[c] < _FAR and row[c] < _FAR:
            margin = _NEAR_TIE * abs(row[c] if own_is_first else other_row[c]) + _TIE
            lost = other_row[c] < row[c] - margin if own_is_first else other_row[c] - margin <= row[c]
            if lost:
                row[c] = _FAR


@kernel
def add_distance_gradient(px, py, v, slope, out):
    # Gradient of slope * signed squared distance, to x and y of the corners: the nearest edge takes it all.
    best, first, second, part = 1e300, 0, 1, 0.0
    fx, fy = 0.0, 0.0
    for k in range(3):
        a, b = (0, 1) if k == 0 else ((0, 2) if k == 1 else (1, 2))
        ax, ay = np.float64(v[a, 0]), np.float64(v[a, 1])
        dx, dy = v[b, 0] - ax, v[b, 1] - ay
        length2 = dx * dx + dy * dy
        t = 1.0
        if length2 > 1e-8:
            t = min(max((dx * (px - ax) + dy * (py - ay)) / length2, 0.0), 1.0)
        ex, ey = ax + t * dx - px, ay + t * dy - py
        d = ex * ex + ey * ey
        if d < best:
            best, first, second, part, fx, fy = d, a, b, t, ex, ey
    gx, gy = 2.0 * slope * fx, 2.0 * slope * fy
    out[3 * first] += (1.0 - part) * gx
    out[3 * first + 1] += (1.0 - part) * gy
    out[3 * second] += part * gx
    out[3 * second + 1] += part * gy


@kernel
def add_slots(slot_begin, slots, f0, f1, offset, out):
    # Sum the tiles' shares of each face's gradient, in the order of the tiles.
    for f in range(f0, f1):
        for s in range(slot_begin[f], slot_begin[f + 1]):
            for i in range(slots.shape[1]):
                out[offset + f, i] += slots[s, i]


def tile_chunks(bins: list[Bins], threads: int) -> list[tuple[int, int, int]]:
    """Work items (mesh, first tile, last tile + 1) with about equal numbers of entries, four or more per thread."""
    total = sum(len(b.entry_face) for b in bins)
    share = max(1, total // (4 * threads)) if threads > 1 else max(1, total)
    chunks = []
    for mesh, b in enumerate(bins):
        tiles = len(b.tile_begin) - 1
        pieces = int(min(tiles, max(1, -(-len(b.entry_face) // share))))
        targets = np.linspace(0, len(b.entry_face), pieces + 1)[1:-1]
        cuts = [0, *np.searchsorted(b.tile_begin[1:], targets).tolist(), tiles]
        chunks += [(mesh, a, z) for a, z in zip(cuts[:-1], cuts[1:], strict=True) if z > a]
    return chunks
