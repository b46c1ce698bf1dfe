"""Numba kernels: one point against one face, in the operations and the order that decide what a pixel shows.

float32 without fused multiply-add: results agree with the reference to the bit.
"""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.jit import inlined, kernel

_ZERO, _ONE = np.float32(0), np.float32(1)
_DEN, _SUM = np.float32(1e-8), np.float32(1e-5)


@inlined
def edge(px, py, ax, ay, bx, by):
    return (px - ax) * (by - ay) - (py - ay) * (bx - ax)


@kernel
def segment(px, py, ax, ay, bx, by):
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    if length2 <= 1e-8:
        ex, ey = px - bx, py - by
        return ex * ex + ey * ey
    t = (dx * (px - ax) + dy * (py - ay)) / length2
    t = min(max(t, _ZERO), _ONE)
    ex, ey = px - (ax + t * dx), py - (ay + t * dy)
    return ex * ex + ey * ey


@inlined
def segment_lanes(px, py, ax, ay, bx, by):
    # As `segment`, to the bit, without a branch: for loops over points.
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    t = (dx * (px - ax) + dy * (py - ay)) / length2
    t = min(max(t, _ZERO), _ONE)
    short = length2 <= 1e-8
    ex = px - bx if short else px - (ax + t * dx)
    ey = py - by if short else py - (ay + t * dy)
    return ex * ex + ey * ey


@inlined
def fragment_lanes(px, py, v, area, perspective, clip):
    # As `barycentric` and `distance`, to the bit, without branches: inside, depth, coordinates, squared distance.
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = v
    b0 = edge(px, py, x1, y1, x2, y2) / area
    b1 = edge(px, py, x2, y2, x0, y0) / area
    b2 = edge(px, py, x0, y0, x1, y1) / area
    if perspective:
        t0, t1, t2 = b0 * z1 * z2, b1 * z0 * z2, b2 * z0 * z1
        den = max(t0 + t1 + t2, _DEN)
        b0, b1, b2 = t0 / den, t1 / den, t2 / den
    inside = (b0 > _ZERO) & (b1 > _ZERO) & (b2 > _ZERO)
    if clip:
        b0, b1, b2 = max(b0, _ZERO), max(b1, _ZERO), max(b2, _ZERO)
        total = max(b0 + b1 + b2, _SUM)
        b0, b1, b2 = b0 / total, b1 / total, b2 / total
    d = segment_lanes(px, py, x0, y0, x1, y1)
    d = min(d, segment_lanes(px, py, x0, y0, x2, y2))
    d = min(d, segment_lanes(px, py, x1, y1, x2, y2))
    return inside, b0 * z0 + b1 * z1 + b2 * z2, b0, b1, b2, d


@kernel
def distance(px, py, v):
    d = segment(px, py, v[0, 0], v[0, 1], v[1, 0], v[1, 1])
    d = min(d, segment(px, py, v[0, 0], v[0, 1], v[2, 0], v[2, 1]))
    return min(d, segment(px, py, v[1, 0], v[1, 1], v[2, 0], v[2, 1]))


@kernel
def barycentric(px, py, v, perspective, clip):
    # Whether the point is inside, its depth, and its barycentric coordinates after correction and clipping.
    x0, y0, z0 = v[0, 0], v[0, 1], v[0, 2]
    x1, y1, z1 = v[1, 0], v[1, 1], v[1, 2]
    x2, y2, z2 = v[2, 0], v[2, 1], v[2, 2]
    area = float32(np.float64(edge(x2, y2, x0, y0, x1, y1)) + 1e-8)
    b0 = edge(px, py, x1, y1, x2, y2) / area
    b1 = edge(px, py, x2, y2, x0, y0) / area
    b2 = edge(px, py, x0, y0, x1, y1) / area
    if perspective:
        t0, t1, t2 = b0 * z1 * z2, b1 * z0 * z2, b2 * z0 * z1
        den = max(t0 + t1 + t2, _DEN)
        b0, b1, b2 = t0 / den, t1 / den, t2 / den
    inside = b0 > _ZERO and b1 > _ZERO and b2 > _ZERO
    if clip:
        b0, b1, b2 = max(b0, _ZERO), max(b1, _ZERO), max(b2, _ZERO)
        total = max(b0 + b1 + b2, _SUM)
        b0, b1, b2 = b0 / total, b1 / total, b2 / total
    return inside, b0 * z0 + b1 * z1 + b2 * z2, b0, b1, b2


@kernel
def _first_at_most(values, limit, guess):
    # First index of falling `values` that is <= limit, starting from a guess.
    i = min(max(guess, 0), len(values))
    while i > 0 and values[i - 1] <= limit:
        i -= 1
    while i < len(values) and values[i] > limit:
        i += 1
    return i


@kernel
def index_range(values, low, high):
    # Indices [first, last) of falling, equally spaced `values` within [low, high].
    n = len(values)
    per_step = (n - 1) / np.float64(values[0] - values[n - 1]) if n > 1 else 1.0
    room = np.float64(n) + 2.0
    first = min(max((np.float64(values[0]) - high) * per_step, -1.0), room)
    last = min(max((np.float64(values[0]) - low) * per_step + 1.0, -1.0), room)
    begin = _first_at_most(values, high, int(first))
    end = min(max(int(last), 0), n)
    while end > 0 and values[end - 1] < low:
        end -= 1
    while end < n and values[end] >= low:
        end += 1
    return begin, end
