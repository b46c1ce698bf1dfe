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

from renderers.backends.cpu_keep import fill, keep, keep_tiles
from renderers.backends.geometry import barycentric, edge, segment
from renderers.backends.jit import kernel
from renderers.backends.tiles import SIDE, bin_faces, tile_chunks
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.rasterize import Settings

_ZERO, _ONE = np.float32(0), np.float32(1)


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
        tiled = k > 1 and bool((pairs < 0).all())  # halves of cut faces meet in the order of their indices
        bins = (
            bin_faces(faces, counts, xs, ys, settings.blur, int(settings.cull), threads, by_depth=True) if tiled else []
        )
        columns = np.pad(np.stack([xs, 0 * xs]), ((0, 0), (0, -w % SIDE)), constant_values=1e6)
        lines = np.stack([ys, 0 * ys])
        blur, options = np.float32(settings.blur), (settings.perspective, settings.clip)

        def band(item: tuple[int, int]) -> None:
            mesh, b = item
            rows = h * b // bands, h * (b + 1) // bands
            found = [x[mesh] for x in out]
            span = starts[mesh], starts[mesh + 1]
            keep(faces, *span, pairs, xs, ys, *rows, blur, *options, settings.cull, found[0], found[1])
            fill(faces, xs, ys, *rows, *options, *found)

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            found = [x[mesh] for x in out]
            keep_tiles(faces, columns, lines, a, z, b.tile_begin, b.entry_face, blur, *options, *found)

        if tiled:
            map_threads(chunk, tile_chunks(bins, threads), threads)
        else:
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
        area = edge(v[2, 0], v[2, 1], v[0, 0], v[0, 1], v[1, 0], v[1, 1]) + 1e-8
        for s in range(begin[f], begin[f + 1]):
            slot = slots[s]
            pixel = slot // k
            px = np.float64(xs[pixel % len(xs)])
            py = np.float64(ys[pixel // len(xs) % len(ys)])
            for i in range(3):
                a, b = (i + 1) % 3, (i + 2) % 3
                w[i] = edge(px, py, v[a, 0], v[a, 1], v[b, 0], v[b, 1]) / area
            if grad_dists[slot] != _ZERO:
                # Side and nearest edge as the forward pass saw them.
                x32, y32 = float32(px), float32(py)
                inside = barycentric(x32, y32, faces[f], perspective, clip)[0]
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
    best, a, b = segment(px, py, v[0, 0], v[0, 1], v[1, 0], v[1, 1]), 0, 1
    d = segment(px, py, v[0, 0], v[0, 1], v[2, 0], v[2, 1])
    if d < best:
        best, a, b = d, 0, 2
    if segment(px, py, v[1, 0], v[1, 1], v[2, 0], v[2, 1]) < best:
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
