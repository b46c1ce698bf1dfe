"""Numba back end of `renderers.soft.soft_render`: attributes of all faces blended tile by tile.

For each tile the (pixel, face) pairs within the blur radius are listed once, with signed distance, depth and
barycentric coordinates; blending and its gradient are loops over that list. Pairs are in face order and a face's
gradient is summed over its tiles in theirs: results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numba import float32
from torch import Tensor

from renderers.backends.cpu_silhouette import gather_slots, prepare, require_float32
from renderers.backends.geometry import edge
from renderers.backends.jit import kernel
from renderers.backends.tiles import (
    FACE,
    SIDE,
    add_distance_gradient,
    distance_row,
    drop_rival,
    exact,
    load,
    tile_chunks,
)
from renderers.blending import Picture
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene

_ZERO, _ONE = np.float32(0), np.float32(1)
_FAR = np.float32(1e30)
_FAINT = np.float32(-16)  # exponents below this are left out: e^-16 of the nearest face's weight


class Rules(NamedTuple):
    """`Blend` as numbers for the kernels."""

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
    unit: bool
    detach: bool


def paint(scene: Scene, attributes: Tensor, background: Tensor, blend: Blend, threads: int | None) -> Picture:
    """Back end of `renderers.soft.soft_render`."""
    values = attributes if attributes.ndim == 3 else attributes[:, None]
    faces = require_float32(scene.face_verts)
    return Picture(*_Paint.apply(faces, values, background, scene, blend, thread_count(threads)))


def _rules(blend: Blend) -> Rules:
    span = blend.zfar - blend.znear
    ends = (blend.znear, blend.zfar) if blend.cut_depth else (-np.inf, np.inf)
    front = 0 if blend.cull == "none" else (-1 if blend.front_clockwise else 1)
    numbers = (blend.blur, 1 / blend.sigma, 1 / (blend.gamma * span), blend.zfar - blend.background_zeta * span)
    blur, scale, sharp, limit, least, near, far = (np.float32(x) for x in (*numbers, blend.background_least, *ends))
    screen = blend.screen_attributes or not blend.perspective
    return Rules(
        blur=blur,
        scale=scale,
        sharp=sharp,
        limit=limit,
        least=least,
        near=near,
        far=far,
        front=front,
        perspective=blend.perspective,
        screen=screen,
        unit=blend.unit_weights,
        detach=blend.detach_bary,
    )


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, values: Tensor, background: Tensor, scene: Scene, blend, threads: int):
        h, w = scene.size_hw
        faces, pairs, xs, ys, bins = prepare(face_verts, scene, blend, threads)
        rules = _rules(blend)
        attributes = np.ascontiguousarray(values.detach().numpy())
        back = np.ascontiguousarray(background.numpy())
        colour = np.empty((len(bins), h, w, len(back)), np.float32)
        missed = np.empty((len(bins), h, w), np.float32)
        total, nearest = np.empty_like(missed), np.empty_like(missed)

        def chunk(item: tuple[int, int, int]) -> None:
            m, a, z = item
            b = bins[m]
            lists = b.tile_begin, b.entry_face
            found = colour[m], missed[m], total[m], nearest[m]
            _forward(faces, attributes, back, pairs, xs, ys, a, z, *lists, rules, *found)

        map_threads(chunk, tile_chunks(bins, threads), threads)
        out = torch.from_numpy(colour)
        ctx.save_for_backward(face_verts, values, out)
        ctx.state = pairs, xs, ys, bins, missed, total, nearest, scene.counts, rules, threads
        return out, torch.from_numpy(1 - missed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_colour: Tensor, grad_alpha: Tensor):
        face_verts, values, colour = ctx.saved_tensors
        pairs, xs, ys, bins, missed, total, nearest, counts, rules, threads = ctx.state
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        attributes = np.ascontiguousarray(values.detach().numpy())
        upstream = np.ascontiguousarray(grad_colour.numpy()), np.ascontiguousarray(grad_alpha.numpy())
        painted = colour.detach().numpy()
        wanted = bool(ctx.needs_input_grad[1])
        width = attributes.shape[1] * attributes.shape[2]
        slots = [np.zeros((len(b.entry_face), 9), np.float32) for b in bins]
        attribute_slots = [np.zeros((len(b.entry_face) if wanted else 0, width), np.float32) for b in bins]

        def chunk(item: tuple[int, int, int]) -> None:
            m, a, z = item
            b = bins[m]
            lists = b.tile_begin, b.entry_face, b.entry_slot
            found = painted[m], missed[m], total[m], nearest[m], upstream[0][m], upstream[1][m]
            outs = slots[m], attribute_slots[m]
            _backward(faces, attributes, pairs, xs, ys, a, z, *lists, rules, *found, wanted, *outs)

        map_threads(chunk, tile_chunks(bins, threads), threads)
        grad_faces = gather_slots(bins, slots, counts, threads).reshape(-1, 3, 3)
        if not wanted:
            return grad_faces, None, None, None, None, None
        grad_values = gather_slots(bins, attribute_slots, counts, threads).reshape(values.shape)
        return grad_faces, grad_values, None, None, None, None


@kernel
def _surface(px, py, v, rules, n, c):
    # Depth at the point; n: weights of the corners on the screen; c: weights of their attributes.
    area = float32(np.float64(edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1])) + 1e-8)
    total = _ZERO
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        n[i] = max(edge(px, py, v[a, 0], v[a, 1], v[b, 0], v[b, 1]) / area, _ZERO)
        if rules.unit:
            n[i] = min(n[i], _ONE)
        total += n[i]
    depth = _ZERO
    for i in range(3):
        n[i] /= total
        depth += n[i] / v[i, 2] if rules.perspective else n[i] * v[i, 2]
    if rules.perspective:
        depth = _ONE / depth
    for i in range(3):
        c[i] = n[i] if rules.screen else n[i] / v[i, 2] * depth
    return depth


@kernel
def _list_pairs(faces, pairs, x, ys, r0, rows, columns, begin, end, entry_face, rules, wanted, where, what, weights):
    # The pairs of one tile: where[:, 0] pixel in the tile, where[:, 1] entry; what: signed distance, depth (huge where
    # the face gives no colour); weights of the attributes. Only pixels with wanted > 0. Returns grown arrays and count.
    row = np.empty(SIDE, np.float32)
    other = np.empty(SIDE, np.float32)
    g = np.empty(FACE, np.float32)
    g_other = np.empty(FACE, np.float32)
    n = np.empty(3, np.float32)
    radius = np.sqrt(rules.blur)
    count = 0
    for entry in range(begin, end):
        f = entry_face[entry]
        v = faces[f]
        load(v, g)
        turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
        colourless = (rules.front > 0 and turn < _ZERO) or (rules.front < 0 and turn > _ZERO)
        low = min(v[0, 1], v[1, 1], v[2, 1]) - radius
        high = max(v[0, 1], v[1, 1], v[2, 1]) + radius
        if count + SIDE * SIDE > len(where):
            where = np.concatenate((where, np.empty_like(where)))
            what = np.concatenate((what, np.empty_like(what)))
            weights = np.concatenate((weights, np.empty_like(weights)))
        for r in range(rows):
            py = ys[0, r0 + r]
            if py < low or py > high:
                continue
            distance_row(g, x, ys, r0 + r, rules.blur, row)
            if len(pairs) > 0 and pairs[f] >= 0:
                drop_rival(f < pairs[f], faces[pairs[f]], x, ys, r0 + r, rules.blur, row, g_other, other)
            for c in range(columns):
                if row[c] >= _FAR or wanted[r, c] == 0:
                    continue
                depth = _surface(x[0, c], py, v, rules, n, weights[count])
                if colourless or depth < rules.near or depth > rules.far:
                    depth = _FAR
                where[count, 0], where[count, 1] = r * SIDE + c, entry
                what[count, 0], what[count, 1] = row[c], depth
                count += 1
    return where, what, weights, count


@kernel
def _sigmoid(x):
    return _ONE / (_ONE + np.exp(min(-x, float32(60.0))))


@kernel
def _forward(
    faces, attributes, back, pairs, xs, ys, tile0, tile1, tile_begin, entry_face, rules, colour, missed, total, nearest
):
    across, channels, corners = xs.shape[1] // SIDE, len(back), attributes.shape[1]
    where = np.empty((4 * SIDE * SIDE, 2), np.int64)
    what = np.empty((4 * SIDE * SIDE, 2), np.float32)
    weights = np.empty((4 * SIDE * SIDE, 3), np.float32)
    everywhere = np.ones((SIDE, SIDE), np.int8)
    product = np.empty(SIDE * SIDE, np.float32)
    front = np.empty(SIDE * SIDE, np.float32)
    mass = np.empty(SIDE * SIDE, np.float32)
    sums = np.empty((SIDE * SIDE, channels), np.float32)
    x = np.empty((2, SIDE), np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows, columns = min(SIDE, ys.shape[1] - r0), min(SIDE, missed.shape[1] - c0)
        begin, end = tile_begin[tile], tile_begin[tile + 1]
        x[:] = xs[:, c0 : c0 + SIDE]
        where, what, weights, count = _list_pairs(
            faces, pairs, x, ys, r0, rows, columns, begin, end, entry_face, rules, everywhere, where, what, weights
        )
        product[:] = _ONE
        front[:] = rules.limit
        for k in range(count):
            p = where[k, 0]
            product[p] *= _sigmoid(what[k, 0] * rules.scale)
            if product[p] < float32(1e-30):
                product[p] = _ZERO
            front[p] = min(front[p], what[k, 1])
        for p in range(SIDE * SIDE):
            mass[p] = max(np.exp((front[p] - rules.limit) * rules.sharp), rules.least)
            for d in range(channels):
                sums[p, d] = mass[p] * back[d]
        for k in range(count):
            p = where[k, 0]
            exponent = (front[p] - what[k, 1]) * rules.sharp
            if exponent < _FAINT:
                continue
            w = _sigmoid(-what[k, 0] * rules.scale) * np.exp(exponent)
            mass[p] += w
            a = attributes[entry_face[where[k, 1]]]
            if corners == 1:
                for d in range(channels):
                    sums[p, d] += w * a[0, d]
            else:
                w0, w1, w2 = w * weights[k, 0], w * weights[k, 1], w * weights[k, 2]
                for d in range(channels):
                    sums[p, d] += w0 * a[0, d] + w1 * a[1, d] + w2 * a[2, d]
        for r in range(rows):
            for c in range(columns):
                p = r * SIDE + c
                missed[r0 + r, c0 + c] = product[p]
                total[r0 + r, c0 + c] = mass[p]
                nearest[r0 + r, c0 + c] = front[p]
                for d in range(channels):
                    colour[r0 + r, c0 + c, d] = sums[p, d] / mass[p]


@kernel
def _backward(
    faces,
    attributes,
    pairs,
    xs,
    ys,
    tile0,
    tile1,
    tile_begin,
    entry_face,
    entry_slot,
    rules,
    colour,
    missed,
    total,
    nearest,
    grad_colour,
    grad_alpha,
    want_attributes,
    slots,
    attribute_slots,
):
    across, channels, corners = xs.shape[1] // SIDE, colour.shape[2], attributes.shape[1]
    where = np.empty((4 * SIDE * SIDE, 2), np.int64)
    what = np.empty((4 * SIDE * SIDE, 2), np.float32)
    weights = np.empty((4 * SIDE * SIDE, 3), np.float32)
    wanted = np.empty((SIDE, SIDE), np.int8)
    mean = np.empty(SIDE * SIDE, np.float32)
    dots = np.empty(3, np.float32)
    n = np.empty(3, np.float32)
    c3 = np.empty(3, np.float32)
    sums = np.empty(9, np.float64)
    x = np.empty((2, SIDE), np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows, columns = min(SIDE, ys.shape[1] - r0), min(SIDE, missed.shape[1] - c0)
        begin, end = tile_begin[tile], tile_begin[tile + 1]
        x[:] = xs[:, c0 : c0 + SIDE]
        for r in range(rows):
            for c in range(columns):
                gc = grad_colour[r0 + r, c0 + c]
                used = grad_alpha[r0 + r, c0 + c] != _ZERO
                dot = _ZERO
                for d in range(channels):
                    used = used or gc[d] != _ZERO
                    dot += gc[d] * colour[r0 + r, c0 + c, d]
                mean[r * SIDE + c] = dot
                wanted[r, c] = 1 if used else 0
        where, what, weights, count = _list_pairs(
            faces, pairs, x, ys, r0, rows, columns, begin, end, entry_face, rules, wanted, where, what, weights
        )
        sums[:] = 0.0
        for k in range(count):
            p, entry = where[k, 0], where[k, 1]
            r, c = r0 + p // SIDE, c0 + p % SIDE
            f, slot = entry_face[entry], entry_slot[entry]
            v = faces[f]
            px, py = x[0, p % SIDE], ys[0, r]
            cover = _sigmoid(-what[k, 0] * rules.scale)
            # To the signed distance: through alpha, and through the weight in the colour.
            slope = -np.float64(grad_alpha[r, c]) * missed[r, c] * cover * rules.scale
            exponent = (nearest[r, c] - what[k, 1]) * rules.sharp
            if exponent >= _FAINT:
                gc = grad_colour[r, c]
                a = attributes[f]
                share = cover * np.exp(exponent) / total[r, c]
                dot = _ZERO
                for i in range(corners):
                    dots[i] = _ZERO
                    for d in range(channels):
                        dots[i] += gc[d] * a[i, d]
                    dot += dots[i] if corners == 1 else weights[k, i] * dots[i]
                change = np.float64(share) * np.float64(dot - mean[p])  # d loss / d log weight
                slope -= change * (_ONE - cover) * rules.scale
                _surface_gradient(px, py, v, rules, share, dots, corners, -change * rules.sharp, n, c3, sums)
                if want_attributes:
                    for i in range(corners):
                        w = share if corners == 1 else share * weights[k, i]
                        for d in range(channels):
                            attribute_slots[slot, i * channels + d] += w * gc[d]
            if slope != 0.0:
                if what[k, 0] < _ZERO:
                    slope = -slope
                add_distance_gradient(exact(x, p % SIDE), exact(ys, r), v, slope, sums)
            if k + 1 == count or where[k + 1, 1] != entry:
                for i in range(9):
                    slots[slot, i] = sums[i]
                sums[:] = 0.0


@kernel
def _surface_gradient(px, py, v, rules, share, dots, corners, grad_depth, n, c, out):
    # From depth and attributes to the corners. n are the weights on the screen, m / sum(m) with m = max(w, 0).
    z = np.float64(_surface(px, py, v, rules, n, c))
    total, mean = 0.0, 0.0
    x, y = np.float64(px), np.float64(py)
    area = np.float64(edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1])) + 1e-8
    if not rules.screen and corners == 3:
        for i in range(3):
            grad_depth += share * dots[i] * n[i] / v[i, 2]
    g0, g1, g2 = 0.0, 0.0, 0.0
    for i in range(3):
        zi = np.float64(v[i, 2])
        gn = 0.0
        if corners == 3:
            gn = np.float64(share) * dots[i]
            if not rules.screen:
                out[3 * i + 2] -= gn * n[i] * z / (zi * zi)
                gn *= z / zi
        if rules.perspective:
            out[3 * i + 2] += grad_depth * z * z * n[i] / (zi * zi)
            gn -= grad_depth * z * z / zi
        else:
            out[3 * i + 2] += grad_depth * n[i]
            gn += grad_depth * zi
        mean += gn * n[i]
        if i == 0:
            g0 = gn
        elif i == 1:
            g1 = gn
        else:
            g2 = gn
    if rules.detach:
        return
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        w = edge(x, y, np.float64(v[a, 0]), np.float64(v[a, 1]), np.float64(v[b, 0]), np.float64(v[b, 1])) / area
        m = max(w, 0.0)
        total += min(m, 1.0) if rules.unit else m
    darea = 0.0
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        w = edge(x, y, np.float64(v[a, 0]), np.float64(v[a, 1]), np.float64(v[b, 0]), np.float64(v[b, 1])) / area
        if w < 0.0 or (rules.unit and w > 1.0):
            continue
        gn = g0 if i == 0 else (g1 if i == 1 else g2)
        de = (gn - mean) / total / area
        darea -= de * w
        out[3 * a] += de * (y - v[b, 1])
        out[3 * a + 1] += de * (v[b, 0] - x)
        out[3 * b] += de * (v[a, 1] - y)
        out[3 * b + 1] += de * (x - v[a, 0])
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        out[3 * i] += darea * (v[b, 1] - v[a, 1])
        out[3 * i + 1] += darea * (v[a, 0] - v[b, 0])
