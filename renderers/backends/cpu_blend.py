"""Numba kernels of `renderers.backends.cpu_paint`: attributes of all faces blended tile by tile, and the gradient.

One face at a time, the pixels of the tile that it reaches are packed side by side into `work`, so that geometry and
weights are worked out for LANES of them at once; then each pixel adds the channels. Depth weights are relative to the
nearest depth so far, and what a pixel has is scaled down when a nearer face comes. Faces come by the depth of their
nearest corner, so that those too faint beside what a pixel has already are left out early.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32

from renderers.backends.cpu_lanes import (
    GROUPS,
    crosses,
    edges,
    exp,
    lane_centres,
    outline,
    rival_lanes,
    window,
)
from renderers.backends.cpu_silhouette import FULL, LOOK
from renderers.backends.geometry import edge
from renderers.backends.jit import (
    LANES,
    fast_inlined,
    fast_kernel,
    first_bit,
    inlined,
    kernel,
    positive_lanes,
    whole_log2,
)
from renderers.backends.tiles import SIDE

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_FAINT = np.float32(18)  # what weighs less than e^-18 of a pixel gives it no colour,
_FAINT_SLOPE = np.float32(16)  # and less than e^-16 of it no gradient
_FAR, _TINY = np.float32(1e30), np.float32(1e-20)
_LOG2 = np.float32(np.log(2))
_TINTED = np.float32(2)  # a pair that counts in the colour, where 1 counts in alpha only
# Fields of `work`, a group of lanes each.
_X, _Y, _COVER, _FRONT, _ALPHA, _MEAN, _SHARE_OF = (LANES * k for k in range(7))
_W0, _W1, _W2, _WEIGHT, _SHRINK, _D0, _D1, _D2 = (LANES * k for k in range(7, 15))
_ODDS = _SHRINK  # backward: e^(distance / sigma)
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
def _depths(v):
    z0, z1, z2 = v[0, 2], v[1, 2], v[2, 2]
    return z0, z1, z2, _ONE / z0, _ONE / z1, _ONE / z2


@fast_inlined
def _surface(px, py, e, z, rules):
    # Weights on the screen before and after clipping and scaling to sum 1, the sum, depth, weights of the attributes.
    w0, w1, w2 = crosses(px, py, e)
    w0, w1, w2 = w0 * e[22], w1 * e[22], w2 * e[22]
    n0 = min(max(w0, _ZERO), rules.cap)
    n1 = min(max(w1, _ZERO), rules.cap)
    n2 = min(max(w2, _ZERO), rules.cap)
    per_sum = _ONE / max(n0 + n1 + n2, _TINY)
    n0, n1, n2 = n0 * per_sum, n1 * per_sum, n2 * per_sum
    flat = n0 * z[0] + n1 * z[1] + n2 * z[2]
    bent = _ONE / (n0 * z[3] + n1 * z[4] + n2 * z[5])
    depth = bent if rules.perspective else flat
    c0 = n0 if rules.screen else n0 * z[3] * depth
    c1 = n1 if rules.screen else n1 * z[4] * depth
    c2 = n2 if rules.screen else n2 * z[5] * depth
    return w0, w1, w2, n0, n1, n2, per_sum, depth, c0, c1, c2


@fast_inlined
def _colourless(v, rules):
    turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
    return (rules.front > 0 and turn < _ZERO) or (rules.front < 0 and turn > _ZERO)


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
def _choose(xs, ys, allowed, end_depth, fades, line, chosen, e, closest, fainter, rules):
    # Backward: the squared distances of a face from some pixels, and how they count.
    for p in range(len(xs)):
        d = outline(xs[p], ys[p], e)[0]
        line[p] = d
        coloured = closest + max(d, _ZERO) * fainter <= end_depth[p]
        counts = (d < rules.blur) & (allowed[p] > _ZERO)
        chosen[p] = (_TINTED if coloured else fades[p]) if counts else _ZERO


@fast_inlined
def _fill_up(work, count):
    # Lanes behind the last pair repeat the first one, without weight.
    while count % LANES != 0:
        for field in range(7):
            work[count // LANES, field * LANES + count % LANES] = work[0, field * LANES]
        for field in (_COVER, _ALPHA, _SHARE_OF):
            work[count // LANES, field + count % LANES] = _ZERO
        count += 1
    return count // LANES


@fast_inlined
def _weigh(work, groups, e, z, rules, lanes):
    # Forward: what the pairs of one face weigh, beside the new nearest depth of their pixels.
    for g in range(groups):
        for c in range(lanes):
            surface = _surface(work[g, _X + c], work[g, _Y + c], e, z, rules)
            depth, front, odds = surface[7], work[g, _FRONT + c], work[g, _COVER + c]
            gives = (depth >= rules.near) & (depth <= rules.far) & (odds > _ZERO)
            depth = depth if gives else _FAR
            nearest = min(front, depth)
            weight = odds / (_ONE + odds) * exp((nearest - depth) * rules.sharp)
            weight = weight if gives else _ZERO
            work[g, _SHRINK + c] = exp((nearest - front) * rules.sharp)
            work[g, _FRONT + c] = nearest
            work[g, _WEIGHT + c] = weight
            work[g, _W0 + c] = weight * surface[8]
            work[g, _W1 + c] = weight * surface[9]
            work[g, _W2 + c] = weight * surface[10]


@fast_inlined
def _add_colours(work, index, count, a, corners, width, front, mass, sums):
    for j in range(count):
        g, c, p = j // LANES, j % LANES, index[j]
        weight, shrink = work[g, _WEIGHT + c], work[g, _SHRINK + c]
        front[p] = work[g, _FRONT + c]
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
                w0, w1, w2 = work[g, _W0 + c], work[g, _W1 + c], work[g, _W2 + c]
                for d in range(width):
                    sums[p, d] += w0 * a[0, d] + w1 * a[1, d] + w2 * a[2, d]


@kernel
def _places(centres):
    # x and y of a tile's pixels in the order in which the kernels keep them: eight columns from top to bottom, then the
    # other eight, so that the rows that a face reaches lie side by side.
    x, y = np.empty(SIDE * SIDE, np.float32), np.empty(SIDE * SIDE, np.float32)
    for r in range(SIDE):
        for c in range(SIDE):
            p = _place(r, c)
            x[p], y[p] = centres[c // LANES, c % LANES], centres[r // LANES, r % LANES]
    return x, y


@inlined
def _place(r, c):
    return (c // LANES * SIDE + r) * LANES + c % LANES


@fast_kernel
def _look(product, front, mass, per_sharp, full, end_depth, deepest):
    # For each pixel the depth beyond which no face gives it colour; for each group of lanes the last of these, and
    # whether it is covered throughout.
    for p in range(SIDE * SIDE):
        heavy = whole_log2(max(mass[p], _TINY)) * _LOG2
        end_depth[p] = front[p] + (_FAINT - heavy) * per_sharp
    for group in range(GROUPS):
        least, most = _FAR, -_FAR
        for p in range(group * LANES, (group + 1) * LANES):
            most, least = max(most, end_depth[p]), min(least, product[p])
        full[group], deepest[group] = least > FULL, most


@inlined
def _allow(e, v_other, own_is_first, x, y, centres, half, top, bottom, blur, allowed):
    for r in range(top, bottom):
        g = half * SIDE + r
        py = centres[r // LANES, r % LANES]
        rival_lanes(own_is_first, e, v_other, x, y, centres, half, py, blur, allowed[g * LANES : (g + 1) * LANES])


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
    xs, ys = _places(centres)
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
        full[:], deepest[:], end_depth[:] = False, _HALF * _FAR, _HALF * _FAR
        for entry in range(begin, end):
            if (entry - begin) % LOOK == LOOK - 1:
                _look(product, front, mass, per_sharp, full, end_depth, deepest)
            f = entry_face[entry]
            v = faces[f]
            top, bottom, first, last = window(v, x, y, radius, step, rows)
            e, z = edges(v, x, y), _depths(v)
            closest = _FAR if _colourless(v, rules) else min(z[0], z[1], z[2])
            count = 0
            for half in range(first, last):
                start, stop = half * SIDE + top, half * SIDE + bottom
                while start < stop and full[start] and closest > deepest[start]:
                    start += 1
                while start < stop and full[stop - 1] and closest > deepest[stop - 1]:
                    stop -= 1
                paired = len(pairs) > 0 and pairs[f] >= 0
                if paired:
                    _allow(e, faces[pairs[f]], f < pairs[f], x, y, centres, half, top, bottom, rules.blur, allowed)
                some = slice(start * LANES, stop * LANES)
                _cover(
                    xs[some], ys[some], allowed[some], end_depth[some], product[some], line[some],
                    e, closest, fainter, rules,
                )  # fmt: skip
                if paired:
                    allowed[:] = _ONE
                for group in range(start, stop):
                    left = positive_lanes(line, group * LANES)
                    while left != 0:
                        p = group * LANES + first_bit(left)
                        left &= left - 1
                        g, k = count // LANES, count % LANES
                        work[g, _X + k], work[g, _Y + k] = xs[p], ys[p]
                        work[g, _COVER + k], work[g, _FRONT + k] = line[p], front[p]
                        index[count] = p
                        count += 1
            if count > 0:
                _weigh(work, _fill_up(work, count), e, z, rules, lanes)
                for i in range(corners):
                    for d in range(channels):
                        a[i, d] = attributes[f, i, d]
                _add_colours(work, index, count, a, corners, padded, front, mass, sums)
        for r in range(rows):
            for c in range(columns):
                p = _place(r, c)
                grown = product[p]
                rest = _ONE / grown if grown <= FULL else _ZERO
                missed[r0 + r, c0 + c], alpha[r0 + r, c0 + c] = rest, _ONE - rest
                behind = max(exp((front[p] - rules.limit) * rules.sharp), rules.least)
                whole = mass[p] + behind
                total[r0 + r, c0 + c], nearest[r0 + r, c0 + c] = whole, front[p]
                per_whole = _ONE / whole
                for d in range(channels):
                    colour[r0 + r, c0 + c, d] = (sums[p, d] + behind * back[d]) * per_whole


@fast_inlined
def _shares(work, groups, e, z, rules, lanes):
    # Backward: each pair's share of its pixel's colour, and the weights of the corners' attributes in it.
    for g in range(groups):
        for c in range(lanes):
            surface = _surface(work[g, _X + c], work[g, _Y + c], e, z, rules)
            depth = surface[7]
            odds = exp(work[g, _COVER + c] * rules.scale)
            work[g, _ODDS + c] = odds
            share = exp((work[g, _FRONT + c] - depth) * rules.sharp) * work[g, _SHARE_OF + c] / (_ONE + odds)
            gives = (depth >= rules.near) & (depth <= rules.far)
            work[g, _WEIGHT + c] = share if gives else _ZERO
            work[g, _W0 + c], work[g, _W1 + c], work[g, _W2 + c] = surface[8], surface[9], surface[10]


@fast_kernel
def _dot(work, index, count, a, corners, width, wanted):
    # Products of the upstream gradient with the attributes of the corners.
    for j in range(count):
        g, c, p = j // LANES, j % LANES, index[j]
        s0, s1, s2 = _ZERO, _ZERO, _ZERO
        if work[g, _WEIGHT + c] > _ZERO:
            if corners == 1:
                for d in range(width):
                    s0 += wanted[p, d] * a[0, d]
            else:
                for d in range(width):
                    u = wanted[p, d]
                    s0 += u * a[0, d]
                    s1 += u * a[1, d]
                    s2 += u * a[2, d]
        work[g, _D0 + c], work[g, _D1 + c], work[g, _D2 + c] = s0, s1, s2


@fast_inlined
def _add_gradient(work, groups, e, z, rules, corners, lanes, total):
    # From alpha and colour to the corners of the face; total: a group of lanes for each of (3, 3) numbers.
    many = _ONE if corners == 3 else _ZERO
    to_depth = many if not rules.screen else _ZERO
    moves = _ZERO if rules.detach else _ONE
    for g in range(groups):
        for c in range(lanes):
            px, py = work[g, _X + c], work[g, _Y + c]
            w0, w1, w2, n0, n1, n2, per_sum, depth, c0, c1, c2 = _surface(px, py, e, z, rules)
            share = work[g, _WEIGHT + c]
            d0, d1, d2 = work[g, _D0 + c], work[g, _D1 + c], work[g, _D2 + c]
            dot = c0 * d0 + c1 * d1 + c2 * d2 if corners == 3 else d0
            change = share * (dot - work[g, _MEAN + c])  # d loss / d log weight
            signed = work[g, _COVER + c]
            cover = _ONE / (_ONE + work[g, _ODDS + c])
            slope = work[g, _ALPHA + c] * cover - change * (_ONE - cover) * rules.scale
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
    end_depth[:], deepest[:] = -_FAR, float32(-2.0) * _FAR
    for r in range(rows):
        for c in range(columns):
            p = _place(r, c)
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
                end_depth[p] = pixel[p, 3] + (_FAINT_SLOPE - np.log(mass)) / rules.sharp
                deepest[group] = max(deepest[group], end_depth[p])
            if pixel[p, 0] != _ZERO:
                fades[p] = _ONE
                deepest[group] = _FAR


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
    xs, ys = _places(centres)
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
            e, z = edges(v, x, y), _depths(v)
            closest = float32(0.5) * _FAR if _colourless(v, rules) else min(z[0], z[1], z[2])
            count = 0
            for half in range(first, last):
                start, stop = half * SIDE + top, half * SIDE + bottom
                while start < stop and closest > deepest[start]:
                    start += 1
                while start < stop and closest > deepest[stop - 1]:
                    stop -= 1
                paired = len(pairs) > 0 and pairs[f] >= 0
                if paired:
                    _allow(e, faces[pairs[f]], f < pairs[f], x, y, centres, half, top, bottom, rules.blur, allowed)
                some = slice(start * LANES, stop * LANES)
                _choose(
                    xs[some], ys[some], allowed[some], end_depth[some], fades[some], line[some], chosen[some],
                    e, closest, fainter, rules,
                )  # fmt: skip
                if paired:
                    allowed[:] = _ONE
                for group in range(start, stop):
                    left = positive_lanes(chosen, group * LANES)
                    while left != 0:
                        p = group * LANES + first_bit(left)
                        left &= left - 1
                        g, k = count // LANES, count % LANES
                        work[g, _X + k], work[g, _Y + k], work[g, _COVER + k] = xs[p], ys[p], line[p]
                        work[g, _ALPHA + k], work[g, _MEAN + k] = pixel[p, 0], pixel[p, 1]
                        work[g, _SHARE_OF + k] = pixel[p, 2] if chosen[p] == _TINTED else _ZERO
                        work[g, _FRONT + k] = pixel[p, 3]
                        index[count] = p
                        count += 1
            sums[:] = _ZERO
            if count > 0:
                groups = _fill_up(work, count)
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
        share = work[g, _WEIGHT + c]
        if share > _ZERO:
            for i in range(corners):
                w = share * work[g, _W0 + i * LANES + c] if corners == 3 else share
                for d in range(channels):
                    out[i * channels + d] += w * wanted[p, d]
