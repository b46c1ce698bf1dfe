"""Numba kernels: the K nearest faces of every pixel, and what is recorded of them."""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.geometry import barycentric, distance, edge, fragment_lanes, index_range
from renderers.backends.jit import LANES, inlined, kernel
from renderers.backends.tiles import SIDE

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def keep(faces, start, stop, pairs, xs, ys, row0, row1, blur, perspective, clip, cull, out_face, out_z):
    # Keep the K nearest faces of every pixel of some rows, ascending by depth, the lower index first at equal depth.
    k = out_face.shape[2]
    radius = np.sqrt(blur)
    for f in range(start, stop):
        v = faces[f]
        turn = edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
        if abs(np.float64(turn)) <= 1e-8 or (cull and turn < _ZERO):
            continue
        if np.float64(min(v[0, 2], v[1, 2], v[2, 2])) < 1e-8:
            continue
        low = min(v[0, 1], v[1, 1], v[2, 1]) - radius
        high = max(v[0, 1], v[1, 1], v[2, 1]) + radius
        top, bottom = index_range(ys, low, high)
        top, bottom = max(top, row0), min(bottom, row1)
        if top >= bottom:
            continue
        left, right = index_range(xs, min(v[0, 0], v[1, 0], v[2, 0]) - radius, max(v[0, 0], v[1, 0], v[2, 0]) + radius)
        other = pairs[f] if 0 <= pairs[f] < f else -1
        hard = blur == _ZERO
        area = np.float64(edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1])) + 1e-8
        sign = -_ONE if area < 0.0 else _ONE
        for r in range(top, bottom):
            py = ys[r]
            for c in range(left, right):
                px = xs[c]
                if hard and (
                    sign * edge(px, py, v[1, 0], v[1, 1], v[2, 0], v[2, 1]) <= _ZERO
                    or sign * edge(px, py, v[2, 0], v[2, 1], v[0, 0], v[0, 1]) <= _ZERO
                    or sign * edge(px, py, v[0, 0], v[0, 1], v[1, 0], v[1, 1]) <= _ZERO
                ):
                    continue  # outside, whatever the divisions below would round to
                inside, z, _, _, _ = barycentric(px, py, v, perspective, clip)
                if not inside and blur == _ZERO:
                    continue
                if z < _ZERO or (other < 0 and out_face[r, c, k - 1] >= 0 and z >= out_z[r, c, k - 1]):
                    continue
                if not inside and distance(px, py, v) >= blur:
                    continue
                last = k - 1  # the slot that is lost
                if other >= 0:
                    dropped = False
                    for j in range(k):
                        if out_face[r, c, j] == other:
                            # Halves of one cut face: the one with the nearer edge stays.
                            dropped = distance(px, py, v) >= distance(px, py, faces[other])
                            last = j
                    if dropped:
                        continue
                    if last == k - 1 and out_face[r, c, last] >= 0 and out_face[r, c, last] != other:
                        if z >= out_z[r, c, last]:
                            continue
                    # Close the gap that the first half leaves.
                    for j in range(last, k - 1):
                        out_face[r, c, j], out_z[r, c, j] = out_face[r, c, j + 1], out_z[r, c, j + 1]
                    out_face[r, c, k - 1] = -1
                j = k - 1
                while j > 0 and (out_face[r, c, j - 1] < 0 or z < out_z[r, c, j - 1]):
                    out_face[r, c, j], out_z[r, c, j] = out_face[r, c, j - 1], out_z[r, c, j - 1]
                    j -= 1
                out_face[r, c, j], out_z[r, c, j] = f, z


@kernel
def fill(faces, xs, ys, row0, row1, perspective, clip, face, out_z, out_bary, out_dists):
    for r in range(row0, row1):
        for c in range(face.shape[1]):
            for j in range(face.shape[2]):
                f = face[r, c, j]
                if f < 0:
                    out_z[r, c, j] = -_ONE
                    continue
                inside, z, b0, b1, b2 = barycentric(xs[c], ys[r], faces[f], perspective, clip)
                d = distance(xs[c], ys[r], faces[f])
                out_z[r, c, j] = z
                out_bary[r, c, j, 0], out_bary[r, c, j, 1], out_bary[r, c, j, 2] = b0, b1, b2
                out_dists[r, c, j] = -d if inside else d


@kernel
def _depth_bound(v, low_x, high_x, low_y, high_y, perspective):
    # A depth that no point of the box can be nearer than on this face, once its coordinates are clipped to the face;
    # -1 where there is none: across the vanishing line of the plane the written operations give any depth.
    z0, z1, z2 = np.float64(v[0, 2]), np.float64(v[1, 2]), np.float64(v[2, 2])
    nearest = min(z0, z1, z2)
    if perspective:
        x0, y0, x1, y1 = np.float64(v[0, 0]), np.float64(v[0, 1]), np.float64(v[1, 0]), np.float64(v[1, 1])
        x2, y2 = np.float64(v[2, 0]), np.float64(v[2, 1])
        area = edge(x2, y2, x0, y0, x1, y1)
        for corner in range(4):
            x = np.float64(low_x if corner % 2 == 0 else high_x)
            y = np.float64(low_y if corner // 2 == 0 else high_y)
            t0 = edge(x, y, x1, y1, x2, y2) / area * z1 * z2
            t1 = edge(x, y, x2, y2, x0, y0) / area * z0 * z2
            t2 = edge(x, y, x0, y0, x1, y1) / area * z0 * z1
            if not t0 + t1 + t2 > max(1e-6, 1e-3 * (abs(t0) + abs(t1) + abs(t2))):
                return float32(-1.0)
    return float32(nearest * (1.0 - 1e-5))


@inlined
def _row_of_fragments(xs, c0, py, v, area, low, high, blur, perspective, clip, lanes, line):
    # LANES pixels from column c0 against one face: line holds depth (-1 where it does not count), signed distance and
    # barycentric coordinates, a group of lanes each.
    for c in range(lanes):
        px = xs[c0 + c]
        inside, z, b0, b1, b2, d = fragment_lanes(px, py, v, area, perspective, clip)
        counts = (inside | (d < blur)) & (z >= _ZERO) & (px >= low) & (px <= high)
        line[c] = z if counts else -_ONE
        line[LANES + c] = -d if inside else d
        line[2 * LANES + c], line[3 * LANES + c], line[4 * LANES + c] = b0, b1, b2


@kernel
def keep_tiles(
    faces,
    xs,
    ys,
    tile0,
    tile1,
    tile_begin,
    entry_face,
    blur,
    perspective,
    clip,
    lanes,
    out_face,
    out_z,
    out_bary,
    out_dists,
):
    # As `keep` and `fill`, tile by tile, the faces of a tile by the depth of their nearest corner: pixels fill from
    # the front, and those that are full turn whole faces away unseen.
    height, width, k = out_face.shape
    across = (width + SIDE - 1) // SIDE
    radius = np.sqrt(blur)
    line = np.empty(5 * LANES, np.float32)
    worst = np.empty((SIDE, SIDE), np.float32)  # depth in the last slot of a full pixel
    kept_z = np.empty((SIDE, SIDE, k), np.float32)
    kept_face, kept_place = np.empty((SIDE, SIDE, k), np.int64), np.empty((SIDE, SIDE, k), np.int64)
    payload = np.empty((SIDE, SIDE, k, 4), np.float32)
    held = np.empty((SIDE, SIDE), np.int64)
    bounded = clip or blur == _ZERO
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        worst[:] = float32(np.inf)
        held[:] = 0
        some_full = False
        for entry in range(tile_begin[tile], tile_begin[tile + 1]):
            f = entry_face[entry]
            v = faces[f]
            low_x, high_x = min(v[0, 0], v[1, 0], v[2, 0]) - radius, max(v[0, 0], v[1, 0], v[2, 0]) + radius
            low_y, high_y = min(v[0, 1], v[1, 1], v[2, 1]) - radius, max(v[0, 1], v[1, 1], v[2, 1]) + radius
            bound = float32(-1.0)
            if some_full and bounded:
                bound = _depth_bound(v, low_x, high_x, low_y, high_y, perspective)
            flat = v[0, 0], v[0, 1], v[0, 2], v[1, 0], v[1, 1], v[1, 2], v[2, 0], v[2, 1], v[2, 2]
            area = float32(np.float64(edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1])) + 1e-8)
            for r in range(rows):
                py = ys[r0 + r]
                if py > high_y or py < low_y:
                    continue
                for half in range(0, SIDE, LANES):
                    if xs[c0 + half] < low_x or xs[c0 + half + LANES - 1] > high_x:
                        continue
                    if some_full:
                        room = False
                        for c in range(half, half + LANES):
                            room = room or worst[r, c] >= bound
                        if not room:
                            continue
                    _row_of_fragments(
                        xs, c0 + half, py, flat, area, low_x, high_x, blur, perspective, clip, lanes, line
                    )
                    for lane in range(LANES):
                        z, c = line[lane], half + lane
                        if z < _ZERO or c >= columns:
                            continue
                        n = held[r, c]
                        place = n
                        if n == k:
                            if z > worst[r, c] or (z == worst[r, c] and f > kept_face[r, c, k - 1]):
                                continue
                            n, place = k - 1, kept_place[r, c, k - 1]
                        else:
                            held[r, c] = n + 1
                        j = n
                        while j > 0 and (
                            z < kept_z[r, c, j - 1] or (z == kept_z[r, c, j - 1] and f < kept_face[r, c, j - 1])
                        ):
                            kept_z[r, c, j], kept_face[r, c, j] = kept_z[r, c, j - 1], kept_face[r, c, j - 1]
                            kept_place[r, c, j] = kept_place[r, c, j - 1]
                            j -= 1
                        kept_z[r, c, j], kept_face[r, c, j], kept_place[r, c, j] = z, f, place
                        slot = payload[r, c, place]
                        for i in range(4):
                            slot[i] = line[(i + 1) * LANES + lane]
                        if n + 1 == k:
                            worst[r, c] = kept_z[r, c, k - 1]
                            some_full = True
        for r in range(rows):
            for c in range(columns):
                to_face, to_z, to_dists = out_face[r0 + r, c0 + c], out_z[r0 + r, c0 + c], out_dists[r0 + r, c0 + c]
                to_bary = out_bary[r0 + r, c0 + c]
                n = held[r, c]
                for j in range(n):
                    slot = payload[r, c, kept_place[r, c, j]]
                    to_face[j], to_z[j], to_dists[j] = kept_face[r, c, j], kept_z[r, c, j], slot[0]
                    to_bary[j, 0], to_bary[j, 1], to_bary[j, 2] = slot[1], slot[2], slot[3]
                to_face[n:] = -1
                to_z[n:] = -_ONE
                to_dists[n:] = -_ONE
                to_bary[n:] = -_ONE
