"""Numba kernels: the K nearest faces of every pixel, and what is recorded of them."""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.geometry import barycentric, distance, edge, index_range
from renderers.backends.jit import kernel
from renderers.backends.tiles import FACE, SIDE, distance_row, load

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
        for r in range(top, bottom):
            py = ys[r]
            for c in range(left, right):
                px = xs[c]
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


@kernel
def keep_tiles(
    faces, xs, ys, tile0, tile1, tile_begin, entry_face, blur, perspective, clip, out_face, out_z, out_bary, out_dists
):
    # As `keep` and `fill`, tile by tile, the faces of a tile by the depth of their nearest corner: pixels fill from
    # the front, and those that are full turn whole faces away unseen.
    height, width, k = out_face.shape
    across = xs.shape[1] // SIDE
    radius = np.sqrt(blur)
    # What the fast distance may be off by is far less than this.
    reach = max(blur * float32(1.001), float32(1e-9))
    row = np.empty(SIDE, np.float32)
    g = np.empty(FACE, np.float32)
    worst = np.empty((SIDE, SIDE), np.float32)  # depth in the last slot of a full pixel
    kept_z = np.empty((SIDE, SIDE, k), np.float32)
    kept_face = np.empty((SIDE, SIDE, k), np.int64)
    held = np.empty((SIDE, SIDE), np.int64)
    bounded = clip or blur == _ZERO
    x = np.empty((2, SIDE), np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        x[:] = xs[:, c0 : c0 + SIDE]
        worst[:] = float32(np.inf)
        held[:] = 0
        for entry in range(tile_begin[tile], tile_begin[tile + 1]):
            f = entry_face[entry]
            v = faces[f]
            low_x, high_x = min(v[0, 0], v[1, 0], v[2, 0]) - radius, max(v[0, 0], v[1, 0], v[2, 0]) + radius
            low_y, high_y = min(v[0, 1], v[1, 1], v[2, 1]) - radius, max(v[0, 1], v[1, 1], v[2, 1]) + radius
            bound = _depth_bound(v, low_x, high_x, low_y, high_y, perspective) if bounded else float32(-1.0)
            compact = max(high_x - low_x, high_y - low_y) < float32(4.0)
            if compact:
                load(v, g)
            for r in range(rows):
                py = ys[0, r0 + r]
                if py > high_y or py < low_y:
                    continue
                room = False
                for c in range(columns):
                    room = room or worst[r, c] >= bound
                if not room:
                    continue
                if compact:
                    distance_row(g, x, ys, r0 + r, reach, row)
                else:
                    row[:] = _ZERO
                for c in range(columns):
                    px = x[0, c]
                    if row[c] > reach or worst[r, c] < bound or px > high_x or px < low_x:
                        continue
                    inside, z, _, _, _ = barycentric(px, py, v, perspective, clip)
                    if z < _ZERO or (not inside and blur == _ZERO):
                        continue
                    n = held[r, c]
                    if n == k and (z > worst[r, c] or (z == worst[r, c] and f > kept_face[r, c, k - 1])):
                        continue
                    if not inside and distance(px, py, v) >= blur:
                        continue
                    j = min(n, k - 1)
                    while j > 0 and (
                        z < kept_z[r, c, j - 1] or (z == kept_z[r, c, j - 1] and f < kept_face[r, c, j - 1])
                    ):
                        kept_z[r, c, j], kept_face[r, c, j] = kept_z[r, c, j - 1], kept_face[r, c, j - 1]
                        j -= 1
                    kept_z[r, c, j], kept_face[r, c, j] = z, f
                    if n < k:
                        held[r, c] = n + 1
                    if held[r, c] == k:
                        worst[r, c] = kept_z[r, c, k - 1]
        for r in range(rows):
            for c in range(columns):
                for j in range(held[r, c]):
                    f = kept_face[r, c, j]
                    px, py = x[0, c], ys[0, r0 + r]
                    inside, z, b0, b1, b2 = barycentric(px, py, faces[f], perspective, clip)
                    d = distance(px, py, faces[f])
                    slot = out_bary[r0 + r, c0 + c, j]
                    slot[0], slot[1], slot[2] = b0, b1, b2
                    out_face[r0 + r, c0 + c, j], out_z[r0 + r, c0 + c, j] = f, z
                    out_dists[r0 + r, c0 + c, j] = -d if inside else d
