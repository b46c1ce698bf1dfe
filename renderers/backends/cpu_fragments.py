"""Numba back end of the rasteriser: the K nearest faces per pixel, and the gradient.

float32 arithmetic in the order of operations that the rules are written in (see `renderers.backends.naive`), without
fused multiply-add: which face a pixel shows agrees with the reference to the bit. The gradient is worked out in
double precision. Work is split by rows and by faces in ways that never change a sum: results do not depend on the
number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import float32
from torch import Tensor

from renderers.backends.jit import kernel
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.rasterize import Settings

_ZERO, _ONE = np.float32(0), np.float32(1)
_DEN, _SUM = np.float32(1e-8), np.float32(1e-5)


def rasterize_fragments(
    face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings, threads: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Back end of `renderers.rasterize.rasterize`: pix_to_face, zbuf, bary, dists."""
    if face_verts.dtype != torch.float32 or face_verts.device.type != "cpu":
        raise ValueError(
            f"The faces are {face_verts.dtype} on {face_verts.device}. The cpu back end takes float32 on the CPU."
        )
    return _Rasterize.apply(face_verts, counts, neighbour, settings, thread_count(threads))


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings, threads: int):
        from renderers.rasterize import pixel_centres

        h, w = settings.size_hw
        n, k = len(counts), settings.k
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        pairs = np.full(len(faces), -1, np.int64) if neighbour is None else neighbour.numpy()
        xs, ys = pixel_centres(w, h).numpy(), pixel_centres(h, w).numpy()
        pix_to_face = torch.full((n, h, w, k), -1)
        zbuf, dists = torch.full((n, h, w, k), -1.0), torch.full((n, h, w, k), -1.0)
        bary = torch.full((n, h, w, k, 3), -1.0)
        out = [x.numpy() for x in (pix_to_face, zbuf, bary, dists)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        bands = 1 if threads == 1 else min(h, 4 * threads)
        blur, options = np.float32(settings.blur), (settings.perspective, settings.clip)

        def band(item: tuple[int, int]) -> None:
            mesh, b = item
            rows = h * b // bands, h * (b + 1) // bands
            found = [x[mesh] for x in out]
            span = starts[mesh], starts[mesh + 1]
            _keep(faces, *span, pairs, xs, ys, *rows, blur, *options, settings.cull, found[0], found[1])
            _fill(faces, xs, ys, *rows, *options, *found)

        map_threads(band, [(m, b) for m in range(n) for b in range(bands)], threads)
        ctx.save_for_backward(face_verts, pix_to_face)
        ctx.settings, ctx.threads = settings, threads
        ctx.mark_non_differentiable(pix_to_face)
        return pix_to_face, zbuf, bary, dists

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, grad_z: Tensor, grad_bary: Tensor, grad_dists: Tensor):
        from renderers.rasterize import pixel_centres

        face_verts, pix_to_face = ctx.saved_tensors
        h, w = ctx.settings.size_hw
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        xs, ys = pixel_centres(w, h).numpy(), pixel_centres(h, w).numpy()
        upstream = [np.ascontiguousarray(g.numpy()) for g in (grad_z, grad_bary, grad_dists)]
        begin, slots = _slots_by_face(pix_to_face.numpy().ravel(), len(faces))
        out = np.zeros((len(faces), 9), np.float32)
        cuts = np.linspace(0, len(faces), ctx.threads * 4 + 1).astype(np.int64)
        flat = upstream[0].ravel(), upstream[1].reshape(-1, 3), upstream[2].ravel()
        options = ctx.settings.perspective, ctx.settings.clip

        def span(i: int) -> None:
            _gradient(faces, cuts[i], cuts[i + 1], begin, slots, xs, ys, ctx.settings.k, *flat, *options, out)

        map_threads(span, range(len(cuts) - 1), ctx.threads)
        return torch.from_numpy(out).reshape(-1, 3, 3), None, None, None, None


@kernel
def _edge(px, py, ax, ay, bx, by):
    return (px - ax) * (by - ay) - (py - ay) * (bx - ax)


@kernel
def _segment(px, py, ax, ay, bx, by):
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    if length2 <= 1e-8:
        ex, ey = px - bx, py - by
        return ex * ex + ey * ey
    t = (dx * (px - ax) + dy * (py - ay)) / length2
    t = min(max(t, _ZERO), _ONE)
    ex, ey = px - (ax + t * dx), py - (ay + t * dy)
    return ex * ex + ey * ey


@kernel
def _distance(px, py, v):
    d = _segment(px, py, v[0, 0], v[0, 1], v[1, 0], v[1, 1])
    d = min(d, _segment(px, py, v[0, 0], v[0, 1], v[2, 0], v[2, 1]))
    return min(d, _segment(px, py, v[1, 0], v[1, 1], v[2, 0], v[2, 1]))


@kernel
def _barycentric(px, py, v, perspective, clip):
    # Whether the point is inside, its depth, and its barycentric coordinates after correction and clipping.
    x0, y0, z0 = v[0, 0], v[0, 1], v[0, 2]
    x1, y1, z1 = v[1, 0], v[1, 1], v[1, 2]
    x2, y2, z2 = v[2, 0], v[2, 1], v[2, 2]
    area = float32(np.float64(_edge(x2, y2, x0, y0, x1, y1)) + 1e-8)
    b0 = _edge(px, py, x1, y1, x2, y2) / area
    b1 = _edge(px, py, x2, y2, x0, y0) / area
    b2 = _edge(px, py, x0, y0, x1, y1) / area
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
def _range(values, low, high):
    # Indices [first, last) of falling, equally spaced `values` within [low, high].
    n = len(values)
    step = np.float64(values[0] - values[n - 1]) / (n - 1) if n > 1 else 1.0
    room = np.float64(n) + 2.0
    first = min(max((np.float64(values[0]) - high) / step, -1.0), room)
    last = min(max((np.float64(values[0]) - low) / step + 1.0, -1.0), room)
    begin = _first_at_most(values, high, int(first))
    end = min(max(int(last), 0), n)
    while end > 0 and values[end - 1] < low:
        end -= 1
    while end < n and values[end] >= low:
        end += 1
    return begin, end


@kernel
def _keep(faces, start, stop, pairs, xs, ys, row0, row1, blur, perspective, clip, cull, out_face, out_z):
    # Keep the K nearest faces of every pixel of some rows, ascending by depth, the lower index first at equal depth.
    k = out_face.shape[2]
    radius = np.sqrt(blur)
    for f in range(start, stop):
        v = faces[f]
        turn = _edge(v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1])
        if abs(np.float64(turn)) <= 1e-8 or (cull and turn < _ZERO):
            continue
        if np.float64(min(v[0, 2], v[1, 2], v[2, 2])) < 1e-8:
            continue
        low = min(v[0, 1], v[1, 1], v[2, 1]) - radius
        high = max(v[0, 1], v[1, 1], v[2, 1]) + radius
        top, bottom = _range(ys, low, high)
        top, bottom = max(top, row0), min(bottom, row1)
        if top >= bottom:
            continue
        left, right = _range(xs, min(v[0, 0], v[1, 0], v[2, 0]) - radius, max(v[0, 0], v[1, 0], v[2, 0]) + radius)
        other = pairs[f] if 0 <= pairs[f] < f else -1
        for r in range(top, bottom):
            py = ys[r]
            for c in range(left, right):
                px = xs[c]
                inside, z, _, _, _ = _barycentric(px, py, v, perspective, clip)
                if not inside and blur == _ZERO:
                    continue
                if z < _ZERO or (other < 0 and out_face[r, c, k - 1] >= 0 and z >= out_z[r, c, k - 1]):
                    continue
                if not inside and _distance(px, py, v) >= blur:
                    continue
                last = k - 1  # the slot that is lost
                if other >= 0:
                    dropped = False
                    for j in range(k):
                        if out_face[r, c, j] == other:
                            # Halves of one cut face: the one with the nearer edge stays.
                            dropped = _distance(px, py, v) >= _distance(px, py, faces[other])
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
def _fill(faces, xs, ys, row0, row1, perspective, clip, face, out_z, out_bary, out_dists):
    for r in range(row0, row1):
        for c in range(face.shape[1]):
            for j in range(face.shape[2]):
                f = face[r, c, j]
                if f < 0:
                    out_z[r, c, j] = -_ONE
                    continue
                inside, z, b0, b1, b2 = _barycentric(xs[c], ys[r], faces[f], perspective, clip)
                d = _distance(xs[c], ys[r], faces[f])
                out_z[r, c, j] = z
                out_bary[r, c, j, 0], out_bary[r, c, j, 1], out_bary[r, c, j, 2] = b0, b1, b2
                out_dists[r, c, j] = -d if inside else d


@kernel
def _slots_by_face(face, count):
    # For each face, the slots that hold it, in their order: slots[begin[f]:begin[f + 1]].
    begin = np.zeros(count + 1, np.int64)
    for i in range(len(face)):
        if face[i] >= 0:
            begin[face[i] + 1] += 1
    for f in range(count):
        begin[f + 1] += begin[f]
    slots = np.empty(begin[count], np.int64)
    cursor = begin[:count].copy()
    for i in range(len(face)):
        f = face[i]
        if f >= 0:
            slots[cursor[f]] = i
            cursor[f] += 1
    return begin, slots


@kernel
def _gradient(faces, f0, f1, begin, slots, xs, ys, k, grad_z, grad_bary, grad_dists, perspective, clip, out):
    # Gradient to the corners of faces f0 to f1, summed over their slots in double precision.
    total = np.zeros(9, np.float64)
    v = np.empty((3, 3), np.float64)
    w = np.empty(3, np.float64)
    m = np.empty(3, np.float64)
    u = np.empty(3, np.float64)
    c = np.empty(3, np.float64)
    g = np.empty(3, np.float64)
    dw = np.empty(3, np.float64)
    for f in range(f0, f1):
        if begin[f] == begin[f + 1]:
            continue
        total[:] = 0.0
        v[:] = faces[f]
        area = _edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1]) + 1e-8
        for s in range(begin[f], begin[f + 1]):
            slot = slots[s]
            pixel = slot // k
            px = np.float64(xs[pixel % len(xs)])
            py = np.float64(ys[pixel // len(xs) % len(ys)])
            for i in range(3):
                a, b = (i + 1) % 3, (i + 2) % 3
                w[i] = _edge(px, py, v[a, 0], v[a, 1], v[b, 0], v[b, 1]) / area
            if grad_dists[slot] != _ZERO:
                # Side and nearest edge as the forward pass saw them.
                x32, y32 = float32(px), float32(py)
                inside = _barycentric(x32, y32, faces[f], perspective, clip)[0]
                a, b = _nearest_edge(x32, y32, faces[f])
                _distance_gradient(px, py, v, a, b, -grad_dists[slot] if inside else grad_dists[slot], total)
            gz = np.float64(grad_z[slot])
            for i in range(3):
                g[i] = grad_bary[slot, i] + gz * v[i, 2]
            if g[0] == 0.0 and g[1] == 0.0 and g[2] == 0.0 and gz == 0.0:
                continue
            # Coordinates are products m over depth (perspective), or m themselves, scaled to a given sum.
            for i in range(3):
                m[i] = max(w[i], 0.0) if clip else w[i]
                u[i] = m[i] / v[i, 2] if perspective else m[i]
            raw = u[0] + u[1] + u[2]
            if perspective:
                least = 0.0 if clip else 1e-8 / (v[0, 2] * v[1, 2] * v[2, 2])
                scaled = clip or raw > least
                divisor = raw if scaled else least
            else:
                scaled = clip and raw >= 1e-5
                divisor = max(raw, 1e-5) if clip else 1.0
            mean = 0.0
            for i in range(3):
                c[i] = u[i] / divisor
                mean += g[i] * c[i]
            for i in range(3):
                h = (g[i] - mean if scaled else g[i]) / divisor
                total[3 * i + 2] += gz * c[i]
                if perspective:
                    # Where the divisor is held at its floor, it varies with the product of the three depths.
                    total[3 * i + 2] += ((0.0 if scaled else mean) - h * u[i]) / v[i, 2]
                    h /= v[i, 2]
                dw[i] = h if not clip or w[i] >= 0.0 else 0.0
            _weight_gradient(px, py, v, area, w, dw, total)
        for i in range(9):
            out[f, i] = total[i]


@kernel
def _weight_gradient(px, py, v, area, w, dw, total):
    # w_i = e_i / area; e_i is twice the area of the point with the edge opposite of corner i.
    darea = 0.0
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        de = dw[i] / area
        darea -= de * w[i]
        total[3 * a] += de * (py - v[b, 1])
        total[3 * a + 1] += de * (v[b, 0] - px)
        total[3 * b] += de * (v[a, 1] - py)
        total[3 * b + 1] += de * (px - v[a, 0])
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        total[3 * i] += darea * (v[b, 1] - v[a, 1])
        total[3 * i + 1] += darea * (v[a, 0] - v[b, 0])


@kernel
def _nearest_edge(px, py, v):
    best, a, b = _segment(px, py, v[0, 0], v[0, 1], v[1, 0], v[1, 1]), 0, 1
    d = _segment(px, py, v[0, 0], v[0, 1], v[2, 0], v[2, 1])
    if d < best:
        best, a, b = d, 0, 2
    if _segment(px, py, v[1, 0], v[1, 1], v[2, 0], v[2, 1]) < best:
        a, b = 1, 2
    return a, b


@kernel
def _distance_gradient(px, py, v, a, b, grad, total):
    dx, dy = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1]
    length2 = dx * dx + dy * dy
    t = 1.0  # a segment that counts as its second end point
    if length2 > 1e-8:
        t = min(max((dx * (px - v[a, 0]) + dy * (py - v[a, 1])) / length2, 0.0), 1.0)
        qx, qy = v[a, 0] + t * dx, v[a, 1] + t * dy
    else:
        qx, qy = v[b, 0], v[b, 1]
    gx, gy = 2.0 * grad * (qx - px), 2.0 * grad * (qy - py)
    total[3 * a] += (1.0 - t) * gx
    total[3 * a + 1] += (1.0 - t) * gy
    total[3 * b] += t * gx
    total[3 * b + 1] += t * gy
