"""What the fused Numba kernels share: one point against one face, written so that loops over points vectorise.

Faces and pixels are taken relative to the centre of their tile. Numbers stay small there, so that float32 resolves
edges far sharper than those of whole-image coordinates.
"""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.jit import LANES, fast_inlined, inlined, kernel, power_of_two
from renderers.backends.tiles import SIDE

HALVES = SIDE // LANES  # groups of lanes in a row of a tile
GROUPS = SIDE * HALVES
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_NEAR_TIE, _TIE = np.float32(1e-4), np.float32(1e-9)
STEEP = np.float32(60.0)


@inlined
def exp(x):
    """e^x to 2e-7 of its value for x from -STEEP to STEEP, and held at its value there (Cephes' polynomial)."""
    x = min(max(x, -STEEP), STEEP)
    k = np.floor(x * float32(1.44269504) + _HALF)
    r = x - k * float32(0.693359375) + k * float32(2.12194440e-4)
    y = float32(1.9875691500e-4) * r + float32(1.3981999507e-3)
    y = y * r + float32(8.3334519073e-3)
    y = y * r + float32(4.1665795894e-2)
    y = y * r + float32(1.6666665459e-1)
    y = y * r + float32(5.0000001201e-1)
    return (y * r * r + r + _ONE) * power_of_two(k)  # type: ignore[call-arg]


@inlined
def edges(v, x, y):
    """Numbers of a face relative to the point (x, y): corners 1 and 2, then of each edge 1-0, 2-0, 2-1 its direction,
    the direction over its squared length (0 for an edge so short that it counts as its first point here), and the
    direction turned so that cross products are positive inside; last, 1 / twice the area: with the usual 1e-8, and
    without."""
    x0, y0 = np.float64(v[0, 0]) - x, np.float64(v[0, 1]) - y
    x1, y1 = np.float64(v[1, 0]) - x, np.float64(v[1, 1]) - y
    x2, y2 = np.float64(v[2, 0]) - x, np.float64(v[2, 1]) - y
    area = (y0 - y2) * (x1 - x2) - (x0 - x2) * (y1 - y2)
    sign = 1.0 if area > 0.0 else -1.0
    ax, ay = x0 - x1, y0 - y1
    bx, by = x0 - x2, y0 - y2
    cx, cy = x1 - x2, y1 - y2
    a, b, c = ax * ax + ay * ay, bx * bx + by * by, cx * cx + cy * cy
    a = 1.0 / a if float32(a) > 1e-8 else 0.0
    b = 1.0 / b if float32(b) > 1e-8 else 0.0
    c = 1.0 / c if float32(c) > 1e-8 else 0.0
    return (
        float32(x1), float32(y1), float32(x2), float32(y2),
        float32(ax), float32(ay), float32(ax * a), float32(ay * a), float32(sign * ax), float32(sign * ay),
        float32(bx), float32(by), float32(bx * b), float32(by * b), float32(-sign * bx), float32(-sign * by),
        float32(cx), float32(cy), float32(cx * c), float32(cy * c), float32(sign * cx), float32(sign * cy),
        float32(sign / (area + 1e-8)), float32(sign / area),
    )  # fmt: skip


@fast_inlined
def crosses(px, py, e):
    """Cross products with the edges opposite of corners 0, 1 and 2: twice the areas, positive inside."""
    x1, y1, x2, y2 = px - e[0], py - e[1], px - e[2], py - e[3]
    return y2 * e[20] - x2 * e[21], y2 * e[14] - x2 * e[15], y1 * e[8] - x1 * e[9]


@fast_inlined
def outline(px, py, e):
    """The nearest point of the outline: squared distance (negative inside), the way from there to (px, py), and the
    shares of corners 0 and 2 in that point."""
    x1, y1, x2, y2 = px - e[0], py - e[1], px - e[2], py - e[3]
    t = min(max(x1 * e[6] + y1 * e[7], _ZERO), _ONE)
    ex, ey = x1 - t * e[4], y1 - t * e[5]
    d = ex * ex + ey * ey
    share0, share2 = t, _ZERO
    t = min(max(x2 * e[12] + y2 * e[13], _ZERO), _ONE)
    fx, fy = x2 - t * e[10], y2 - t * e[11]
    f = fx * fx + fy * fy
    nearer = f < d
    d, ex, ey = f if nearer else d, fx if nearer else ex, fy if nearer else ey
    share0, share2 = t if nearer else share0, _ONE - t if nearer else share2
    t = min(max(x2 * e[18] + y2 * e[19], _ZERO), _ONE)
    fx, fy = x2 - t * e[16], y2 - t * e[17]
    f = fx * fx + fy * fy
    nearer = f < d
    d, ex, ey = f if nearer else d, fx if nearer else ex, fy if nearer else ey
    share0, share2 = _ZERO if nearer else share0, _ONE - t if nearer else share2
    c0, c1, c2 = y2 * e[20] - x2 * e[21], y2 * e[14] - x2 * e[15], y1 * e[8] - x1 * e[9]
    inside = (c0 > _ZERO) & (c1 > _ZERO) & (c2 > _ZERO)
    return -d if inside else d, ex, ey, share0, share2


@inlined
def reach(low, high, step, count):
    """First and last + 1 of the pixel centres (SIDE / 2 - 1/2 - i) step, i < count, that lie in [low, high]."""
    middle = SIDE / 2 - 0.5
    first = np.ceil(max(middle - high / step - 1e-3, 0.0))
    last = np.floor(min(middle - low / step + 1e-3, count - 1.0))
    return int(first), int(last) + 1


@inlined
def window(v, x, y, radius, step, rows):
    """Rows and groups of lanes of the tile centred at (x, y) that a face can reach: first and last + 1 of each."""
    low = np.float64(min(v[0, 1], v[1, 1], v[2, 1])) - radius - y
    high = np.float64(max(v[0, 1], v[1, 1], v[2, 1])) + radius - y
    top, bottom = reach(low, high, step, rows)
    low = np.float64(min(v[0, 0], v[1, 0], v[2, 0])) - radius - x
    high = np.float64(max(v[0, 0], v[1, 0], v[2, 0])) + radius - x
    left, right = reach(low, high, step, SIDE)
    return top, bottom, left // LANES, (right + LANES - 1) // LANES


@kernel
def rival_lanes(own_is_first, e, v_other, x, y, centres, half, py, blur, allowed):
    """Of two halves of a face that the near plane cut, the one counts that a point is deeper inside of, or nearer to:
    allowed[c] becomes 0 where that is the other."""
    e_other = edges(v_other, x, y)
    for c in range(LANES):
        own = outline(centres[half, c], py, e)[0]
        other = outline(centres[half, c], py, e_other)[0]
        allowed[c] = _ONE
        if other < blur and own < blur:
            margin = _NEAR_TIE * abs(own if own_is_first else other) + _TIE
            lost = other < own - margin if own_is_first else other - margin <= own
            if lost:
                allowed[c] = _ZERO


@kernel
def lane_centres(step):
    """(HALVES, LANES) x of the pixel centres of a tile's row, relative to the centre of the tile."""
    centres = np.empty((HALVES, LANES), np.float32)
    for i in range(SIDE):
        centres[i // LANES, i % LANES] = (SIDE / 2 - 0.5 - i) * step
    return centres
