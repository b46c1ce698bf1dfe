"""Numba kernel of `renderers.backends.cpu_paint`: the gradient of `cpu_blend`, which works out anew what it needs."""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.cpu_lanes import GROUPS, edges, exp, lane_centres, outline, window
from renderers.backends.cpu_pairs import (
    ALPHA,
    COVER,
    D0,
    D1,
    D2,
    FAR,
    FIELDS,
    FRONT,
    MEAN,
    ODDS,
    SHARE_OF,
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
from renderers.backends.jit import LANES, fast_inlined, fast_kernel, first_bit, positive_lanes
from renderers.backends.tiles import SIDE

_ZERO, _ONE = np.float32(0), np.float32(1)
_FAINT = np.float32(16)  # what weighs less than e^-16 of a pixel gets no gradient from its colour
_TINTED = np.float32(2)  # a pair that counts in the colour, where 1 counts in alpha only


@fast_inlined
def _choose(xs, ys, allowed, end_depth, fades, line, chosen, e, closest, fainter, rules):
    # Backward: the squared distances of a face from some pixels, and how they count.
    for p in range(len(xs)):
        d = outline(xs[p], ys[p], e)[0]
        line[p] = d
        coloured = closest + max(d, _ZERO) * fainter <= end_depth[p]
        counts = (d < rules.blur) & (allowed[p] > _ZERO)
        chosen[p] = (_TINTED if coloured else fades[p]) if counts else _ZERO


@fast_inlined
def _shares(work, groups, e, z, rules, lanes):
    # Backward: each pair's share of its pixel's colour, and the weights of the corners' attributes in it.
    for g in range(groups):
        for c in range(lanes):
            found = surface(work[g, X + c], work[g, Y + c], e, z, rules)
            depth = found[7]
            odds = exp(work[g, COVER + c] * rules.scale)
            work[g, ODDS + c] = odds
            share = exp((work[g, FRONT + c] - depth) * rules.sharp) * work[g, SHARE_OF + c] / (_ONE + odds)
            gives = (depth >= rules.near) & (depth <= rules.far)
            work[g, WEIGHT + c] = share if gives else _ZERO
            work[g, W0 + c], work[g, W1 + c], work[g, W2 + c] = found[8], found[9], found[10]


@fast_kernel
def _dot(work, index, count, a, corners, width, wanted):
    # Products of the upstream gradient with the attributes of the corners.
    for j in range(count):
        g, c, p = j // LANES, j % LANES, index[j]
        s0, s1, s2 = _ZERO, _ZERO, _ZERO
        if work[g, WEIGHT + c] > _ZERO:
            if corners == 1:
                for d in range(width):
                    s0 += wanted[p, d] * a[0, d]
            else:
                for d in range(width):
                    u = wanted[p, d]
                    s0 += u * a[0, d]
                    s1 += u * a[1, d]
                    s2 += u * a[2, d]
        work[g, D0 + c], work[g, D1 + c], work[g, D2 + c] = s0, s1, s2


@fast_inlined
def _add_gradient(work, groups, e, z, rules, corners, lanes, total):
    # From alpha and colour to the corners of the face; total: a group of lanes for each of (3, 3) numbers.
    many = _ONE if corners == 3 else _ZERO
    to_depth = many if not rules.screen else _ZERO
    moves = _ZERO if rules.detach else _ONE
    for g in range(groups):
        for c in range(lanes):
            px, py = work[g, X + c], work[g, Y + c]
            w0, w1, w2, n0, n1, n2, per_sum, depth, c0, c1, c2 = surface(px, py, e, z, rules)
            share = work[g, WEIGHT + c]
            d0, d1, d2 = work[g, D0 + c], work[g, D1 + c], work[g, D2 + c]
            dot = c0 * d0 + c1 * d1 + c2 * d2 if corners == 3 else d0
            change = share * (dot - work[g, MEAN + c])  # d loss / d log weight
            signed = work[g, COVER + c]
            cover = _ONE / (_ONE + work[g, ODDS + c])
            slope = work[g, ALPHA + c] * cover - change * (_ONE - cover) * rules.scale
            # Depth and attributes, to the screen weights n and to the depths of the corners.
            h0, h1, h2 = many * share * d0, many * share * d1, many * share * d2
            grad_depth = to_depth * (h0 * n0 * z[3] + h1 * n1 * z[4] + h2 * n2 * z[5]) - change * rules.sharp
            q = depth * depth * grad_depth
            u0 = q * z[3] if rules.perspective else -grad_depth * z[0]
            u1 = q * z[4] if rules.perspective else -grad_depth * z[1]
            u2 = q * z[5] if rules.perspective else -grad_depth * z[2]
            k0 = h0 if rules.screen else h0 * z[3] * depth
            k1 = h1 if rules.screen else h1 * z[4] * depth
            k2 = h2 if rules.screen else h2 * z[5] * depth
            slant = z[3] if rules.perspective else -z[3]
            total[2 * LANES + c] += n0 * (u0 * slant - to_depth * k0 * z[3])
            slant = z[4] if rules.perspective else -z[4]
            total[5 * LANES + c] += n1 * (u1 * slant - to_depth * k1 * z[4])
            slant = z[5] if rules.perspective else -z[5]
            total[8 * LANES + c] += n2 * (u2 * slant - to_depth * k2 * z[5])
            k0, k1, k2 = k0 - u0, k1 - u1, k2 - u2
            mean = k0 * n0 + k1 * n1 + k2 * n2
            per_sum *= moves
            k0 = (k0 - mean) * per_sum if (w0 >= _ZERO) & (w0 <= rules.cap) else _ZERO
            k1 = (k1 - mean) * per_sum if (w1 >= _ZERO) & (w1 <= rules.cap) else _ZERO
            k2 = (k2 - mean) * per_sum if (w2 >= _ZERO) & (w2 <= rules.cap) else _ZERO
            # How the loss changes as the pixel moves; a corner that moves by its weight does the opposite. (Weights
            # are areas over the face's plus 1e-8, which matters on tiny faces: here they are over its own.)
            fx = -(k2 * e[9] + k1 * e[15] + k0 * e[21]) * e[23]
            fy = (k2 * e[8] + k1 * e[14] + k0 * e[20]) * e[23]
            _, ex, ey, share0, share2 = outline(px, py, e)
            slope = float32(2.0) * slope if signed < _ZERO else float32(-2.0) * slope
            ex, ey = ex * slope, ey * slope
            share1 = _ONE - share0 - share2
            total[c] += share0 * ex - w0 * fx
            total[LANES + c] += share0 * ey - w0 * fy
            total[3 * LANES + c] += share1 * ex - w1 * fx
            total[4 * LANES + c] += share1 * ey - w1 * fy
            total[6 * LANES + c] += share2 * ex - w2 * fx
            total[7 * LANES + c] += share2 * ey - w2 * fy


@fast_kernel
def _load_upstream(
    colour, total, nearest, missed, grad_colour, grad_alpha, rules, r0, c0, rows, columns,
    pixel, wanted, end_depth, fades, deepest,
):  # fmt: skip
    # pixel: of each pixel alpha's slope, mean of upstream times colour, 1 / total and nearest depth; end_depth: beyond
    # which no face gives it colour (-FAR: none is asked for); fades: 1 where alpha's slope is not 0; deepest: the last
    # face of a group of lanes (-2 FAR: none counts).
    pixel[:], fades[:] = _ZERO, _ZERO
    end_depth[:], deepest[:] = -FAR, float32(-2.0) * FAR
    for r in range(rows):
        for c in range(columns):
            p = place(r, c)
            size, dot = _ZERO, _ZERO
            for d in range(colour.shape[2]):
                u = grad_colour[r0 + r, c0 + c, d]
                wanted[p, d] = u
                size += abs(u)
                dot += u * colour[r0 + r, c0 + c, d]
            mass = total[r0 + r, c0 + c]
            pixel[p, 0] = -grad_alpha[r0 + r, c0 + c] * missed[r0 + r, c0 + c] * rules.scale
            pixel[p, 1], pixel[p, 2], pixel[p, 3] = dot, _ONE / mass, nearest[r0 + r, c0 + c]
            group = p // LANES
            if size != _ZERO:
                end_depth[p] = pixel[p, 3] + (_FAINT - np.log(mass)) / rules.sharp
                deepest[group] = max(deepest[group], end_depth[p])
            if pixel[p, 0] != _ZERO:
                fades[p] = _ONE
                deepest[group] = FAR


@fast_kernel
def paint_tiles_backward(
    faces, attributes, pairs, tile0, tile1, tile_begin, entry_face, entry_slot, rules, lanes,
    colour, missed, total, nearest, grad_colour, grad_alpha, want_attributes, slots, attribute_slots,
):  # fmt: skip
    height, width = missed.shape
    channels, corners = colour.shape[2], attributes.shape[1]
    padded = (channels + LANES - 1) // LANES * LANES
    across = (width + SIDE - 1) // SIDE
    step = 2.0 / min(height, width)
    radius = np.sqrt(np.float64(rules.blur))
    centres = lane_centres(step)
    fainter = rules.scale / rules.sharp
    xs, ys = places(centres)
    allowed, line, chosen = np.ones(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32), np.empty_like(xs)
    work = np.zeros((GROUPS, FIELDS * LANES), np.float32)
    index = np.empty(SIDE * SIDE, np.int64)
    a = np.zeros((corners, padded), np.float32)
    wanted = np.zeros((SIDE * SIDE, padded), np.float32)
    pixel, deepest = np.empty((SIDE * SIDE, 4), np.float32), np.empty(GROUPS, np.float32)
    end_depth, fades = np.empty(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    sums = np.empty(9 * LANES, np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        x, y = width * step / 2 - (c0 + SIDE // 2) * step, height * step / 2 - (r0 + SIDE // 2) * step
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        begin, end = tile_begin[tile], tile_begin[tile + 1]
        if begin < end:
            _load_upstream(
                colour, total, nearest, missed, grad_colour, grad_alpha, rules,
                r0, c0, rows, columns, pixel, wanted, end_depth, fades, deepest,
            )  # fmt: skip
        for entry in range(begin, end):
            f, slot = entry_face[entry], entry_slot[entry]
            v = faces[f]
            top, bottom, first, last = window(v, x, y, radius, step, rows)
            e, z = edges(v, x, y), depths(v)
            closest = float32(0.5) * FAR if colourless(v, rules) else min(z[0], z[1], z[2])
            count = 0
            for half in range(first, last):
                start, stop = half * SIDE + top, half * SIDE + bottom
                while start < stop and closest > deepest[start]:
                    start += 1
                while start < stop and closest > deepest[stop - 1]:
                    stop -= 1
                paired = len(pairs) > 0 and pairs[f] >= 0
                if paired:
                    allow(e, faces[pairs[f]], f < pairs[f], x, y, centres, half, top, bottom, rules.blur, allowed)
                some = slice(start * LANES, stop * LANES)
                _choose(
                    xs[some], ys[some], allowed[some], end_depth[some], fades[some], line[some], chosen[some],
                    e, closest, fainter, rules,
                )  # fmt: skip
                if paired:
                    allowed[:] = _ONE
                for group in range(start, stop):
                    left: int = positive_lanes(chosen, group * LANES)  # type: ignore[call-arg]
                    while left != 0:
                        p = group * LANES + first_bit(left)
                        left &= left - 1
                        g, k = count // LANES, count % LANES
                        work[g, X + k], work[g, Y + k], work[g, COVER + k] = xs[p], ys[p], line[p]
                        work[g, ALPHA + k], work[g, MEAN + k] = pixel[p, 0], pixel[p, 1]
                        work[g, SHARE_OF + k] = pixel[p, 2] if chosen[p] == _TINTED else _ZERO
                        work[g, FRONT + k] = pixel[p, 3]
                        index[count] = p
                        count += 1
            sums[:] = _ZERO
            if count > 0:
                groups = fill_up(work, count)
                for i in range(corners):
                    for d in range(channels):
                        a[i, d] = attributes[f, i, d]
                _shares(work, groups, e, z, rules, lanes)
                _dot(work, index, count, a, corners, padded, wanted)
                _add_gradient(work, groups, e, z, rules, corners, lanes, sums)
                if want_attributes:
                    _add_attributes(work, index, count, corners, channels, wanted, attribute_slots[slot])
            for i in range(9):
                value = _ZERO
                for c in range(LANES):
                    value += sums[i * LANES + c]
                slots[slot, i] = value


@fast_kernel
def _add_attributes(work, index, count, corners, channels, wanted, out):
    for j in range(count):
        g, c, p = j // LANES, j % LANES, index[j]
        share = work[g, WEIGHT + c]
        if share > _ZERO:
            for i in range(corners):
                w = share * work[g, W0 + i * LANES + c] if corners == 3 else share
                for d in range(channels):
                    out[i * channels + d] += w * wanted[p, d]
