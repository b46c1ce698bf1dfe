"""What the Numba kernels of label maps share: pairs of a face and a pixel, packed side by side.

One face at a time, the pixels of a tile that it reaches are packed into `work`, so that geometry and weights are worked
out for LANES of them at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.cpu_lanes import crosses, rival_lanes
from renderers.backends.geometry import edge
from renderers.backends.jit import LANES, fast_inlined, inlined, kernel
from renderers.backends.tiles import SIDE

_ZERO, _ONE = np.float32(0), np.float32(1)
FAR, TINY = np.float32(1e30), np.float32(1e-20)
# Fields of `work`, a group of lanes each.
X, Y, COVER, FRONT, ALPHA, MEAN, SHARE_OF = (LANES * k for k in range(7))
W0, W1, W2, WEIGHT, SHRINK, D0, D1, D2 = (LANES * k for k in range(7, 15))
ODDS = SHRINK  # backward: e^(distance / sigma)
FIELDS = 15


class Rules(NamedTuple):
    """`renderers.soft.Blend` as numbers for the kernels."""

    blur: np.float32
    scale: np.float32  # 1 / sigma
    sharp: np.float32  # 1 / (gamma (zfar - znear))
    limit: np.float32  # depth of the background
    least: np.float32  # least weight of the background
    near: np.float32  # depths that give colour
    far: np.float32
    front: int  # 1 or -1: turn of the faces that give colour; 0 for all
    perspective: bool
    screen: bool
    cap: np.float32  # screen weights are held below this
    detach: bool


@fast_inlined
def depths(v):
    z0, z1, z2 = v[0, 2], v[1, 2], v[2, 2]
    return z0, z1, z2, _ONE / z0, _ONE / z1, _ONE / z2


@fast_inlined
def surface(px, py, e, z, rules):
    # Weights on the screen before and after clipping and scaling to sum 1, the sum, depth, weights of the attributes.
    w0, w1, w2 = crosses(px, py, e)
    w0, w1, w2 = w0 * e[22], w1 * e[22], w2 * e[22]
    n0 = min(max(w0, _ZERO), rules.cap)
    n1 = min(max(w1, _ZERO), rules.cap)
    n2 = min(max(w2, _ZERO), rules.cap)
    per_sum = _ONE / max(n0 + n1 + n2, TINY)
    n0, n1, n2 = n0 * per_sum, n1 * per_sum, n2 * per_sum
    flat = n0 * z[0] + n1 * z[1] + n2 * z[2]
    bent = _ONE / (n0 * z[3] + n1 * z[4] + n2 * z[5])
    depth = bent if rules.perspective else flat
    c0 = n0 if rules.screen else n0 * z[3] * depth
    c1 = n1 if rules.screen else n1 * z[4] * depth
    c2 = n2 if rules.screen else n2 * z[5] * depth
    return w0, w1, w2, n0, n1, n2, per_sum, depth, c0, c1, c2


@fast_inlined
def colourless(v, rules):
    turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
    return (rules.front > 0 and turn < _ZERO) or (rules.front < 0 and turn > _ZERO)


@fast_inlined
def fill_up(work, count):
    # Lanes behind the last pair repeat the first one, without weight.
    while count % LANES != 0:
        for field in range(7):
            work[count // LANES, field * LANES + count % LANES] = work[0, field * LANES]
        for field in (COVER, ALPHA, SHARE_OF):
            work[count // LANES, field + count % LANES] = _ZERO
        count += 1
    return count // LANES


@kernel
def places(centres):
    # x and y of a tile's pixels in the order in which the kernels keep them: eight columns from top to bottom, then the
    # other eight, so that the rows that a face reaches lie side by side.
    x, y = np.empty(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    for r in range(SIDE):
        for c in range(SIDE):
            p = place(r, c)
            x[p], y[p] = centres[c // LANES, c % LANES], centres[r // LANES, r % LANES]
    return x, y


@inlined
def place(r, c):
    return (c // LANES * SIDE + r) * LANES + c % LANES


@inlined
def allow(e, v_other, own_is_first, x, y, centres, half, top, bottom, blur, allowed):
    for r in range(top, bottom):
        g = half * SIDE + r
        py = centres[r // LANES, r % LANES]
        rival_lanes(own_is_first, e, v_other, x, y, centres, half, py, blur, allowed[g * LANES : (g + 1) * LANES])
