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
from renderers.backends.geometry import edge, segment_lanes
from renderers.backends.jit import LANES, kernel
from renderers.backends.tiles import SIDE, bin_faces, tile_chunks
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.rasterize import Settings

_ZERO = np.float32(0)


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
        xs = pixel_centres(w, h).numpy()
        ys = xs if h == w else pixel_centres(h, w).numpy()
        # NumPy asks for huge pages: on fresh large outputs page faults would cost more than the faces.
        shapes = (((n, h, w, k), np.int64), ((n, h, w, k), np.float32), ((n, h, w, k, 3), np.float32))
        out = [np.empty(*x) for x in (*shapes, shapes[1])]
        starts = np.concatenate([[0], np.cumsum(counts)])
        bands = min(h, -(-threads // max(n, 1)))  # each looks at all faces of its mesh
        tiled = k > 1 and bool((pairs < 0).all())  # halves of cut faces meet in the order of their indices
        bins = (
            bin_faces(faces, counts, xs, ys, settings.blur, int(settings.cull), threads, by_depth=True) if tiled else []
        )
        columns = np.pad(xs, (0, -w % SIDE), constant_values=np.float32(-1e6))  # x falls from left to right
        blur, options = np.float32(settings.blur), (settings.perspective, settings.clip)

        def band(item: tuple[int, int]) -> None:
            mesh, b = item
            rows = h * b // bands, h * (b + 1) // bands
            found = [x[mesh] for x in out]
            for x in found:
                x[rows[0] : rows[1]] = -1
            span = starts[mesh], starts[mesh + 1]
            keep(faces, *span, pairs, xs, ys, *rows, blur, *options, settings.cull, found[0], found[1])
            fill(faces, xs, ys, *rows, *options, *found)

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            found = [x[mesh] for x in out]
            keep_tiles(faces, columns, ys, a, z, b.tile_begin, b.entry_face, blur, *options, LANES, *found)

        if tiled:
            map_threads(chunk, tile_chunks(bins, threads), threads)
        else:
            map_threads(band, [(m, b) for m in range(n) for b in range(bands)], threads)
        pix_to_face, zbuf, bary, dists = (torch.from_numpy(x) for x in out)
        ctx.save_for_backward(face_verts, pix_to_face, dists)
        ctx.settings, ctx.counts, ctx.threads, ctx.centres = settings, counts, threads, (xs, ys)
        ctx.mark_non_differentiable(pix_to_face)
        return pix_to_face, zbuf, bary, dists

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, grad_z: Tensor, grad_bary: Tensor, grad_dists: Tensor):
        face_verts, pix_to_face, dists = ctx.saved_tensors
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        xs, ys = ctx.centres
        upstream = [np.ascontiguousarray(g.numpy()) for g in (grad_z, grad_bary, grad_dists)]
        begin, slots = _slots_by_face(pix_to_face.numpy(), ctx.counts, ctx.threads)
        out = np.empty((len(faces), 9), np.float32)
        cuts = np.linspace(0, len(faces), ctx.threads * 4 + 1).astype(np.int64)
        flat = upstream[0].ravel(), upstream[1].reshape(-1, 3), upstream[2].ravel(), dists.detach().numpy().ravel()
        options = ctx.settings.perspective, ctx.settings.clip

        def span(i: int) -> None:
            _gradient(faces, cuts[i], cuts[i + 1], begin, slots, xs, ys, ctx.settings.k, LANES, *flat, *options, out)

        map_threads(span, range(len(cuts) - 1), ctx.threads)
        return torch.from_numpy(out).reshape(-1, 3, 3), None, None, None, None


def _slots_by_face(pix_to_face: np.ndarray, counts: list[int], threads: int) -> tuple[np.ndarray, np.ndarray]:
    """The slots of (N, H, W, K) pix_to_face that hold each face f, in their order: slots[begin[f]:begin[f + 1]]."""
    k = pix_to_face.shape[-1]
    face = pix_to_face.reshape(-1)
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    pixels = len(face) // k
    parts = -(-threads // max(len(counts), 1))  # of each image
    cuts = np.linspace(0, pixels, len(counts) * parts + 1).astype(np.int64) * k
    found = [np.zeros((parts, count), np.int64) for count in counts]  # by part of an image and face

    def count(i: int) -> None:
        mesh, part = divmod(i, parts)
        _count_slots(face, k, cuts[i], cuts[i + 1], starts[mesh], found[mesh][part])

    map_threads(count, range(len(counts) * parts), threads)
    begin = np.zeros(starts[-1] + 1, np.int64)
    np.cumsum(np.concatenate([x.sum(0) for x in found]), out=begin[1:])
    slots = np.empty(begin[-1], np.int64)

    def place(i: int) -> None:
        mesh, part = divmod(i, parts)
        cursor = begin[starts[mesh] : starts[mesh + 1]] + found[mesh][:part].sum(0)
        _place_slots(face, k, cuts[i], cuts[i + 1], starts[mesh], cursor, slots)

    map_threads(place, range(len(counts) * parts), threads)
    return begin, slots


@kernel
def _count_slots(face, k, first, last, base, found):
    for pixel in range(first, last, k):
        for i in range(pixel, pixel + k):  # the empty slots of a pixel are its last
            if face[i] < 0:
                break
            found[face[i] - base] += 1


@kernel
def _place_slots(face, k, first, last, base, cursor, slots):
    for pixel in range(first, last, k):
        for i in range(pixel, pixel + k):
            if face[i] < 0:
                break
            f = face[i] - base
            slots[cursor[f]] = i
            cursor[f] += 1


@kernel
def _gradient(
    faces, f0, f1, begin, slots, xs, ys, k, lanes, grad_z, grad_bary, grad_dists, dists, perspective, clip, out
):
    # Gradient to the corners of faces f0 to f1, summed over their slots in double precision, LANES slots at a time.
    work = np.zeros(7 * LANES, np.float64)
    total = np.zeros(9 * LANES, np.float64)
    for f in range(f0, f1):
        if begin[f] == begin[f + 1]:
            out[f] = _ZERO
            continue
        total[:] = 0.0
        used = lanes if begin[f + 1] - begin[f] > LANES // 2 else lanes // 2
        for s in range(begin[f], begin[f + 1], LANES):
            for c in range(used):
                slot = slots[min(s + c, begin[f + 1] - 1)]
                pixel = slot // k
                part = 1.0 if s + c < begin[f + 1] else 0.0  # lanes behind the last slot repeat it, without weight
                work[c] = xs[pixel % len(xs)]
                work[LANES + c] = ys[pixel // len(xs) % len(ys)]
                work[2 * LANES + c] = part * grad_z[slot]
                work[3 * LANES + c] = part * grad_bary[slot, 0]
                work[4 * LANES + c] = part * grad_bary[slot, 1]
                work[5 * LANES + c] = part * grad_bary[slot, 2]
                work[6 * LANES + c] = part * grad_dists[slot] * (-2.0 if dists[slot] < _ZERO else 2.0)
            _add_bary_gradient(faces[f], perspective, clip, used, work, total)
            _add_distance_gradient(faces[f], used, work, total)
        for i in range(9):
            value = 0.0
            for c in range(LANES):
                value += total[i * LANES + c]
            out[f, i] = value


@kernel
def _add_bary_gradient(v, perspective, clip, lanes, work, total):
    # From depths and barycentric coordinates: products m over depth (perspective), or m themselves, scaled to a sum.
    x0, y0, z0 = np.float64(v[0, 0]), np.float64(v[0, 1]), np.float64(v[0, 2])
    x1, y1, z1 = np.float64(v[1, 0]), np.float64(v[1, 1]), np.float64(v[1, 2])
    x2, y2, z2 = np.float64(v[2, 0]), np.float64(v[2, 1]), np.float64(v[2, 2])
    per_area = 1.0 / (edge(x2, y2, x0, y0, x1, y1) + 1e-8)
    r0, r1, r2 = (1.0 / z0, 1.0 / z1, 1.0 / z2) if perspective else (1.0, 1.0, 1.0)
    bent = 1.0 if perspective else 0.0
    least = 1e-5 if not perspective else (0.0 if clip else 1e-8 * r0 * r1 * r2)
    bound, whole = not perspective and not clip, perspective and clip
    floor = 0.0 if clip else -1e300
    for c in range(lanes):
        px, py, gz = work[c], work[LANES + c], work[2 * LANES + c]
        g0, g1, g2 = work[3 * LANES + c] + gz * z0, work[4 * LANES + c] + gz * z1, work[5 * LANES + c] + gz * z2
        w0 = edge(px, py, x1, y1, x2, y2) * per_area
        w1 = edge(px, py, x2, y2, x0, y0) * per_area
        w2 = edge(px, py, x0, y0, x1, y1) * per_area
        u0, u1, u2 = max(w0, floor) * r0, max(w1, floor) * r1, max(w2, floor) * r2
        raw = u0 + u1 + u2
        scaled = whole | ((raw > least) & (not bound))
        divisor = raw if scaled else least
        divisor = 1.0 if bound | (divisor == 0.0) else divisor
        per = 1.0 / divisor
        c0, c1, c2 = u0 * per, u1 * per, u2 * per
        mean = g0 * c0 + g1 * c1 + g2 * c2
        taken = mean if scaled else 0.0
        # Where the divisor is held at its floor, it varies with the product of the three depths.
        held = bent * (mean - taken)
        h0, h1, h2 = (g0 - taken) * per, (g1 - taken) * per, (g2 - taken) * per
        total[2 * LANES + c] += gz * c0 + (held - bent * h0 * u0) * r0
        total[5 * LANES + c] += gz * c1 + (held - bent * h1 * u1) * r1
        total[8 * LANES + c] += gz * c2 + (held - bent * h2 * u2) * r2
        d0 = h0 * r0 * per_area if w0 >= floor else 0.0
        d1 = h1 * r1 * per_area if w1 >= floor else 0.0
        d2 = h2 * r2 * per_area if w2 >= floor else 0.0
        darea = -(d0 * w0 + d1 * w1 + d2 * w2)
        # w_i = e_i / area; e_i is twice the area of the point with the edge opposite of corner i.
        total[c] += d1 * (y2 - py) + d2 * (py - y1) + darea * (y2 - y1)
        total[LANES + c] += d1 * (px - x2) + d2 * (x1 - px) + darea * (x1 - x2)
        total[3 * LANES + c] += d2 * (y0 - py) + d0 * (py - y2) + darea * (y0 - y2)
        total[4 * LANES + c] += d2 * (px - x0) + d0 * (x2 - px) + darea * (x2 - x0)
        total[6 * LANES + c] += d0 * (y1 - py) + d1 * (py - y0) + darea * (y1 - y0)
        total[7 * LANES + c] += d0 * (px - x1) + d1 * (x0 - px) + darea * (x0 - x1)


@kernel
def _add_distance_gradient(v, lanes, work, total):
    # The nearest edge, as the forward pass saw it, takes it all.
    x0, y0, x1, y1, x2, y2 = v[0, 0], v[0, 1], v[1, 0], v[1, 1], v[2, 0], v[2, 1]
    for c in range(lanes):
        qx, qy = float32(work[c]), float32(work[LANES + c])
        d = segment_lanes(qx, qy, x0, y0, x1, y1)
        d2 = segment_lanes(qx, qy, x0, y0, x2, y2)
        last = d2 < d
        d = d2 if last else d
        cross = segment_lanes(qx, qy, x1, y1, x2, y2) < d
        ax, ay = np.float64(x1 if cross else x0), np.float64(y1 if cross else y0)
        bx, by = np.float64(x2 if last | cross else x1), np.float64(y2 if last | cross else y1)
        dx, dy = bx - ax, by - ay
        length2 = dx * dx + dy * dy
        px, py, g = work[c], work[LANES + c], work[6 * LANES + c]
        t = min(max((dx * (px - ax) + dy * (py - ay)) / length2, 0.0), 1.0)
        t = t if length2 > 1e-8 else 1.0  # a segment that counts as its second end point
        gx, gy = g * (ax + t * dx - px), g * (ay + t * dy - py)
        first0, first1 = (0.0 if cross else 1.0 - t), (1.0 - t if cross else 0.0)
        second1, second2 = (0.0 if last | cross else t), (t if last | cross else 0.0)
        total[c] += first0 * gx
        total[LANES + c] += first0 * gy
        total[3 * LANES + c] += (first1 + second1) * gx
        total[4 * LANES + c] += (first1 + second1) * gy
        total[6 * LANES + c] += second2 * gx
        total[7 * LANES + c] += second2 * gy
