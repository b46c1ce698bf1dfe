"""Numba kernel of `renderers.backends.cpu_paint`: attributes of all faces blended tile by tile.

Faces come by the depth of their nearest corner, and what is too faint beside that which a pixel has already is left
out. Depth weights are relative to the nearest depth so far; what a pixel has is scaled down when a nearer face comes.
"""

from __future__ import annotations

import numpy as np

from renderers.backends.cpu_lanes import GROUPS, edges, exp, lane_centres, outline, window
from renderers.backends.cpu_pairs import (
    COVER,
    FAR,
    FIELDS,
    FRONT,
    SHRINK,
    TINY,
    W0,
    W1,
    W2,
    WEIGHT,
    X,
    Y,
    allow,
    colourless,
    depths,
    fill_up,
    place,
    places,
    surface,
)
from renderers.backends.cpu_silhouette import FULL, LOOK
from renderers.backends.jit import LANES, fast_inlined, fast_kernel, first_bit, positive_lanes, whole_log2
from renderers.backends.tiles import SIDE

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_FAINT = np.float32(18)  # what weighs less than e^-18 of a pixel gives it no colour
_LOG2 = np.float32(np.log(2))


@fast_inlined
def _cover(xs, ys, allowed, end_depth, product, line, e, closest, fainter, rules):
    # What a face does to the alpha of some pixels; line: its odds where it counts in the colour too, else 0.
    for p in range(len(xs)):
        d = outline(xs[p], ys[p], e)[0]
        odds = exp(-d * rules.scale)
        odds = odds if (d < rules.blur) & (allowed[p] > _ZERO) else _ZERO
        product[p] *= _ONE + odds
        line[p] = odds if closest + max(d, _ZERO) * fainter <= end_depth[p] else _ZERO


@fast_inlined
def _weigh(work, groups, e, z, rules, lanes):
    # Forward: what the pairs of one face weigh, beside the new nearest depth of their pixels.
    for g in range(groups):
        for c in range(lanes):
            found = surface(work[g, X + c], work[g, Y + c], e, z, rules)
            depth, front, odds = found[7], work[g, FRONT + c], work[g, COVER + c]
            gives = (depth >= rules.near) & (depth <= rules.far) & (odds > _ZERO)
            depth = depth if gives else FAR
            nearest = min(front, depth)
            weight = odds / (_ONE + odds) * exp((nearest - depth) * rules.sharp)
            weight = weight if gives else _ZERO
            work[g, SHRINK + c] = exp((nearest - front) * rules.sharp)
            work[g, FRONT + c] = nearest
            work[g, WEIGHT + c] = weight
            work[g, W0 + c] = weight * found[8]
            work[g, W1 + c] = weight * found[9]
            work[g, W2 + c] = weight * found[10]


@fast_inlined
def _add_colours(work, index, count, a, corners, width, front, mass, sums):
    for j in range(count):
        g, c, p = j // LANES, j % LANES, index[j]
        weight, shrink = work[g, WEIGHT + c], work[g, SHRINK + c]
        front[p] = work[g, FRONT + c]
        if shrink != _ONE:
            mass[p] *= shrink
            for d in range(width):
                sums[p, d] *= shrink
        if weight > _ZERO:
            mass[p] += weight
            if corners == 1:
                for d in range(width):
                    sums[p, d] += weight * a[0, d]
            else:
                w0, w1, w2 = work[g, W0 + c], work[g, W1 + c], work[g, W2 + c]
                for d in range(width):
                    sums[p, d] += w0 * a[0, d] + w1 * a[1, d] + w2 * a[2, d]


@fast_kernel
def _look(product, front, mass, per_sharp, full, end_depth, deepest):
    # For each pixel the depth beyond which no face gives it colour; for each group of lanes the last of these, and
    # whether it is covered throughout.
    for p in range(SIDE * SIDE):
        heavy = whole_log2(max(mass[p], TINY)) * _LOG2  # type: ignore[call-arg]
        end_depth[p] = front[p] + (_FAINT - heavy) * per_sharp
    for group in range(GROUPS):
        least, most = FAR, -FAR
        for p in range(group * LANES, (group + 1) * LANES):
            most, least = max(most, end_depth[p]), min(least, product[p])
        full[group], deepest[group] = least > FULL, most


@fast_kernel
def paint_tiles(
    faces,
    attributes,
    back,
    pairs,
    tile0,
    tile1,
    tile_begin,
    entry_face,
    rules,
    lanes,
    colour,
    alpha,
    missed,
    total,
    nearest,
):
    height, width = missed.shape
    channels, corners = len(back), attributes.shape[1]
    padded = (channels + LANES - 1) // LANES * LANES
    across = (width + SIDE - 1) // SIDE
    step = 2.0 / min(height, width)
    radius = np.sqrt(np.float64(rules.blur))
    per_sharp = _ONE / rules.sharp
    fainter = rules.scale * per_sharp  # what lies beside a face counts as if it lay behind it
    centres = lane_centres(step)
    xs, ys = places(centres)
    allowed, line = np.ones(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    work = np.zeros((GROUPS, FIELDS * LANES), np.float32)
    index = np.empty(SIDE * SIDE, np.int64)
    a = np.zeros((corners, padded), np.float32)
    product, end_depth = np.empty(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    front, mass = np.empty(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    sums = np.empty((SIDE * SIDE, padded), np.float32)
    full, deepest = np.empty(GROUPS, np.bool_), np.empty(GROUPS, np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        x, y = width * step / 2 - (c0 + SIDE // 2) * step, height * step / 2 - (r0 + SIDE // 2) * step
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        begin, end = tile_begin[tile], tile_begin[tile + 1]
        product[:], front[:], mass[:], sums[:] = _ONE, rules.limit, _ZERO, _ZERO
        full[:], deepest[:], end_depth[:] = False, _HALF * FAR, _HALF * FAR
        for entry in range(begin, end):
            if (entry - begin) % LOOK == LOOK - 1:
                _look(product, front, mass, per_sharp, full, end_depth, deepest)
            f = entry_face[entry]
            v = faces[f]
            top, bottom, first, last = window(v, x, y, radius, step, rows)
            e, z = edges(v, x, y), depths(v)
            closest = FAR if colourless(v, rules) else min(z[0], z[1], z[2])
            count = 0
            for half in range(first, last):
                start, stop = half * SIDE + top, half * SIDE + bottom
                while start < stop and full[start] and closest > deepest[start]:
                    start += 1
                while start < stop and full[stop - 1] and closest > deepest[stop - 1]:
                    stop -= 1
                paired = len(pairs) > 0 and pairs[f] >= 0
                if paired:
                    allow(e, faces[pairs[f]], f < pairs[f], x, y, centres, half, top, bottom, rules.blur, allowed)
                some = slice(start * LANES, stop * LANES)
                _cover(
                    xs[some], ys[some], allowed[some], end_depth[some], product[some], line[some],
                    e, closest, fainter, rules,
                )  # fmt: skip
                if paired:
                    allowed[:] = _ONE
                for group in range(start, stop):
                    left: int = positive_lanes(line, group * LANES)  # type: ignore[call-arg]
                    while left != 0:
                        p = group * LANES + first_bit(left)
                        left &= left - 1
                        g, k = count // LANES, count % LANES
                        work[g, X + k], work[g, Y + k] = xs[p], ys[p]
                        work[g, COVER + k], work[g, FRONT + k] = line[p], front[p]
                        index[count] = p
                        count += 1
            if count > 0:
                _weigh(work, fill_up(work, count), e, z, rules, lanes)
                for i in range(corners):
                    for d in range(channels):
                        a[i, d] = attributes[f, i, d]
                _add_colours(work, index, count, a, corners, padded, front, mass, sums)
        for r in range(rows):
            for c in range(columns):
                p = place(r, c)
                grown = product[p]
                rest = _ONE / grown if grown <= FULL else _ZERO
                missed[r0 + r, c0 + c], alpha[r0 + r, c0 + c] = rest, _ONE - rest
                behind = max(exp((front[p] - rules.limit) * rules.sharp), rules.least)
                whole = mass[p] + behind
                total[r0 + r, c0 + c], nearest[r0 + r, c0 + c] = whole, front[p]
                per_whole = _ONE / whole
                for d in range(channels):
                    colour[r0 + r, c0 + c, d] = (sums[p, d] + behind * back[d]) * per_whole
