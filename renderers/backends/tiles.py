"""Numba kernels that tiled back ends share: which faces reach which tile of the image, and sums over tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.geometry import edge
from renderers.backends.jit import inlined, kernel
from renderers.threads import map_threads

SIDE = 16
"""Tiles are 16 x 16 pixels."""

_ZERO = np.float32(0)
_MARGIN = 0.01  # pixels


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
            order = order[_by_depth(faces[starts[mesh] : starts[mesh + 1]])]
        return Bins(*_bin(faces, starts[mesh], order, xs, ys, np.float32(blur), turn))

    return map_threads(one, range(len(counts)), threads)


def _by_depth(faces: np.ndarray) -> np.ndarray:
    # A stable order of the depths of the nearest corners. The bits of positive float32 numbers sort as the numbers do
    # (faces behind the camera are left out later), and whole numbers are sorted much faster than by an argsort.
    z = np.minimum(np.minimum(faces[:, 0, 2], faces[:, 1, 2]), faces[:, 2, 2])
    keys = np.ascontiguousarray(z).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(z), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


@inlined
def _tiles(low, high, radius, start, per_step, count):
    # First and last + 1 of the tiles of `count` pixel centres, which fall from `start` on, that low - radius to
    # high + radius may reach: the kernels look at the pixels themselves.
    first = np.ceil(max((start - high - radius) * per_step - _MARGIN, 0.0))
    last = np.floor(min((start - low + radius) * per_step + _MARGIN, count - 1.0))
    if not first <= last:
        return 0, 0
    return int(first) // SIDE, int(last) // SIDE + 1


@kernel
def _bin(faces, base, order, xs, ys, blur, keep_turn):
    across = (len(xs) + SIDE - 1) // SIDE
    down = (len(ys) + SIDE - 1) // SIDE
    box = np.zeros((len(order), 4), np.int32)
    slot_begin = np.zeros(len(order) + 1, np.int64)
    tile_begin = np.zeros(across * down + 1, np.int64)
    radius = np.float64(np.sqrt(blur))
    x0, y0 = np.float64(xs[0]), np.float64(ys[0])
    per_x = (len(xs) - 1) / (x0 - xs[-1]) if len(xs) > 1 else 1.0
    per_y = (len(ys) - 1) / (y0 - ys[-1]) if len(ys) > 1 else 1.0
    for i in range(len(order)):
        v, own = faces[order[i]], order[i] - base
        turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
        if abs(np.float64(turn)) <= 1e-8 or np.float64(min(v[0, 2], v[1, 2], v[2, 2])) < 1e-8:
            continue
        if (keep_turn > 0 and turn < _ZERO) or (keep_turn < 0 and turn > _ZERO):
            continue
        top, bottom = _tiles(min(v[0, 1], v[1, 1], v[2, 1]), max(v[0, 1], v[1, 1], v[2, 1]), radius, y0, per_y, len(ys))
        left, right = _tiles(min(v[0, 0], v[1, 0], v[2, 0]), max(v[0, 0], v[1, 0], v[2, 0]), radius, x0, per_x, len(xs))
        box[i, 0], box[i, 1], box[i, 2], box[i, 3] = top, bottom, left, right
        slot_begin[own + 1] = max(bottom - top, 0) * max(right - left, 0)
        for ty in range(top, bottom):
            for tx in range(left, right):
                tile_begin[ty * across + tx + 1] += 1
    for f in range(len(order)):
        slot_begin[f + 1] += slot_begin[f]
    for t in range(across * down):
        tile_begin[t + 1] += tile_begin[t]
    entry_face = np.empty(slot_begin[len(order)], np.int64)
    entry_slot = np.empty(slot_begin[len(order)], np.int64)
    cursor = tile_begin[:-1].copy()
    for i in range(len(order)):
        slot = slot_begin[order[i] - base]
        if slot_begin[order[i] - base + 1] == slot:
            continue
        for ty in range(box[i, 0], box[i, 1]):
            for tx in range(box[i, 2], box[i, 3]):
                t = ty * across + tx
                entry_face[cursor[t]] = order[i]
                entry_slot[cursor[t]] = slot
                cursor[t] += 1
                slot += 1
    return tile_begin, entry_face, entry_slot, slot_begin


@kernel
def add_slots(slot_begin, slots, f0, f1, offset, out):
    # Sum the tiles' shares of each face's gradient, in the order of the tiles.
    for f in range(f0, f1):
        out[offset + f] = _ZERO
        for s in range(slot_begin[f], slot_begin[f + 1]):
            for i in range(slots.shape[1]):
                out[offset + f, i] += slots[s, i]


def tile_chunks(bins: list[Bins], threads: int) -> list[tuple[int, int, int]]:
    """Work items (mesh, first tile, last tile + 1): large ones first, since threads wait for each other between calls,
    then ever smaller ones, so that all threads end together."""
    left = sum(len(b.entry_face) for b in bins)
    least = max(1, left // (32 * threads))
    chunks = []
    for mesh, b in enumerate(bins):
        tiles, first = len(b.tile_begin) - 1, 0
        while first < tiles:
            share = max(least, left // (2 * threads)) if threads > 1 else left
            last = int(np.searchsorted(b.tile_begin[1:tiles], b.tile_begin[first] + share)) + 1
            last = tiles if threads == 1 else max(last, first + 1)
            chunks.append((mesh, first, last))
            left -= int(b.tile_begin[last] - b.tile_begin[first])
            first = last
    return chunks
