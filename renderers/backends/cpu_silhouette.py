"""Numba back end of the soft silhouette: one pass over tiles forward, one backward, nothing kept per pixel and face.

Within a tile faces are multiplied in their order, and a face's gradient is summed over its tiles in theirs: results do
not depend on the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import float32
from torch import Tensor

from renderers.backends.cpu_lanes import (
    GROUPS,
    HALVES,
    edges,
    exp,
    lane_centres,
    outline,
    rival_lanes,
    window,
)
from renderers.backends.jit import LANES, fast_kernel
from renderers.backends.tiles import SIDE, add_slots, bin_faces, tile_chunks
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene

_ZERO, _ONE = np.float32(0), np.float32(1)
FULL = np.float32(2.0**30)
"""1 / prod(1 - p) beyond which a pixel counts as covered: alpha rounds to 1 long before."""
LOOK = 32  # faces of a tile between looks at which pixels are covered


def silhouette(scene: Scene, blend: Blend, threads: int | None) -> Tensor:
    """Back end of `renderers.soft.soft_silhouette`."""
    return _Silhouette.apply(require_float32(scene.face_verts), scene, blend, thread_count(threads))


def require_float32(face_verts: Tensor) -> Tensor:
    """The faces, if this back end can take them."""
    if face_verts.dtype != torch.float32 or face_verts.device.type != "cpu":
        raise ValueError(
            f"The faces are {face_verts.dtype} on {face_verts.device}. The cpu back end takes float32 on the CPU."
        )
    return face_verts


def prepare(face_verts: Tensor, scene: Scene, blend: Blend, threads: int, *, by_depth: bool = False):
    """Arrays for the kernels: faces, other halves of cut faces (empty without any), bins (see `bin_faces`)."""
    from renderers.rasterize import pixel_centres

    h, w = scene.size_hw
    faces = np.ascontiguousarray(face_verts.detach().numpy())
    pairs = np.zeros(0, np.int64) if scene.neighbour is None else scene.neighbour.numpy()
    xs, ys = pixel_centres(w, h).numpy(), pixel_centres(h, w).numpy()
    turn = 0 if blend.cull != "all" else (-1 if blend.front_clockwise else 1)
    return faces, pairs, bin_faces(faces, scene.counts, xs, ys, blend.blur, turn, threads, by_depth=by_depth)


class _Silhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, scene: Scene, blend: Blend, threads: int) -> Tensor:
        h, w = scene.size_hw
        faces, pairs, bins = prepare(face_verts, scene, blend, threads)
        missed = np.empty((len(bins), h, w), np.float32)
        alpha = np.empty_like(missed)
        blur, scale = np.float32(blend.blur), np.float32(1 / blend.sigma)

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            lists = b.tile_begin, b.entry_face
            _forward(faces, pairs, a, z, *lists, blur, scale, LANES, missed[mesh], alpha[mesh])

        map_threads(chunk, tile_chunks(bins, threads), threads)
        ctx.save_for_backward(face_verts)
        ctx.state = pairs, bins, missed, scene.counts, blur, scale, threads
        return torch.from_numpy(alpha)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        (face_verts,) = ctx.saved_tensors
        pairs, bins, missed, counts, blur, scale, threads = ctx.state
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        upstream = np.ascontiguousarray(grad.numpy())
        slots = [np.empty((len(b.entry_face), 9), np.float32) for b in bins]

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            lists = b.tile_begin, b.entry_face, b.entry_slot
            _backward(faces, pairs, a, z, *lists, blur, scale, LANES, missed[mesh], upstream[mesh], slots[mesh])

        map_threads(chunk, tile_chunks(bins, threads), threads)
        return gather_slots(bins, slots, counts, threads).reshape(-1, 3, 3), None, None, None


def gather_slots(bins, slots: list[np.ndarray], counts: list[int], threads: int) -> Tensor:
    """(F, ...) sums over the slots of each face of each mesh."""
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    width = slots[0].shape[1] if slots else 9
    out = np.empty((int(starts[-1]), width), np.float32)
    pieces = [
        (m, counts[m] * i // threads, counts[m] * (i + 1) // threads)
        for m in range(len(counts))
        for i in range(threads)
    ]

    def one(piece: tuple[int, int, int]) -> None:
        mesh, a, z = piece
        add_slots(bins[mesh].slot_begin, slots[mesh], a, z, starts[mesh], out)

    map_threads(one, pieces, threads)
    return torch.from_numpy(out)


@fast_kernel
def _forward(faces, pairs, tile0, tile1, tile_begin, entry_face, blur, scale, lanes, missed, alpha):
    height, width = missed.shape
    across = (width + SIDE - 1) // SIDE
    step = 2.0 / min(height, width)
    radius = np.sqrt(np.float64(blur))
    centres = lane_centres(step)
    allowed = np.ones(LANES, np.float32)
    product = np.empty((GROUPS, LANES), np.float32)  # 1 / prod(1 - p)
    full = np.empty(GROUPS, np.bool_)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        x, y = width * step / 2 - (c0 + SIDE // 2) * step, height * step / 2 - (r0 + SIDE // 2) * step
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        product[:] = _ONE
        full[:] = False
        begin, end = tile_begin[tile], tile_begin[tile + 1]
        for entry in range(begin, end):
            if (entry - begin) % LOOK == LOOK - 1 and mark_full(product, rows, full):
                break
            f = entry_face[entry]
            top, bottom, first, last = window(faces[f], x, y, radius, step, rows)
            e = edges(faces[f], x, y)
            for r in range(top, bottom):
                py = centres[r // LANES, r % LANES]
                for half in range(first, last):
                    group = r * HALVES + half
                    if full[group]:
                        continue
                    if len(pairs) > 0:
                        allowed[:] = _ONE
                        if pairs[f] >= 0:
                            rival_lanes(f < pairs[f], e, faces[pairs[f]], x, y, centres, half, py, blur, allowed)
                    for c in range(lanes):
                        d = outline(centres[half, c], py, e)[0]
                        odds = exp(-d * scale)
                        odds = odds if (d < blur) & (allowed[c] > _ZERO) else _ZERO
                        product[group, c] *= _ONE + odds
        for r in range(rows):
            for c in range(columns):
                grown = product[r * HALVES + c // LANES, c % LANES]
                rest = _ONE / grown if grown <= FULL else _ZERO
                missed[r0 + r, c0 + c] = rest
                alpha[r0 + r, c0 + c] = _ONE - rest


@fast_kernel
def mark_full(product, rows, full):
    """Note which groups of lanes are covered throughout; true if all are."""
    everywhere = True
    for group in range(rows * HALVES):
        if not full[group]:
            least = product[group, 0]
            for c in range(1, LANES):
                least = min(least, product[group, c])
            full[group] = least > FULL
            everywhere = everywhere and full[group]
    return everywhere


@fast_kernel
def _backward(faces, pairs, tile0, tile1, tile_begin, entry_face, entry_slot, blur, scale, lanes, missed, grad, slots):
    height, width = missed.shape
    across = (width + SIDE - 1) // SIDE
    step = 2.0 / min(height, width)
    radius = np.sqrt(np.float64(blur))
    centres = lane_centres(step)
    allowed = np.ones(LANES, np.float32)
    # d alpha / d distance = -p prod(1 - p) / sigma: what all faces of a pixel share (times 2, for the square).
    shared = np.zeros((GROUPS, LANES), np.float32)
    live = np.zeros(GROUPS, np.bool_)
    total = np.zeros(6 * LANES, np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        x, y = width * step / 2 - (c0 + SIDE // 2) * step, height * step / 2 - (r0 + SIDE // 2) * step
        rows, columns = min(SIDE, height - r0), min(SIDE, width - c0)
        shared[:] = _ZERO
        live[:] = False
        for r in range(rows):
            for c in range(columns):
                group = r * HALVES + c // LANES
                value = float32(-2.0) * missed[r0 + r, c0 + c] * grad[r0 + r, c0 + c] * scale
                shared[group, c % LANES] = value
                if value != _ZERO:
                    live[group] = True
        for entry in range(tile_begin[tile], tile_begin[tile + 1]):
            f = entry_face[entry]
            top, bottom, first, last = window(faces[f], x, y, radius, step, rows)
            e = edges(faces[f], x, y)
            total[:] = _ZERO
            for r in range(top, bottom):
                py = centres[r // LANES, r % LANES]
                for half in range(first, last):
                    group = r * HALVES + half
                    if not live[group]:
                        continue
                    if len(pairs) > 0:
                        allowed[:] = _ONE
                        if pairs[f] >= 0:
                            rival_lanes(f < pairs[f], e, faces[pairs[f]], x, y, centres, half, py, blur, allowed)
                    for c in range(lanes):
                        d, ex, ey, share0, share2 = outline(centres[half, c], py, e)
                        slope = shared[group, c] / (_ONE + exp(d * scale))
                        # Towards the nearest point outside, away from it inside; (ex, ey) comes from there.
                        slope = slope if d < _ZERO else -slope
                        slope = slope if (d < blur) & (allowed[c] > _ZERO) else _ZERO
                        ex *= slope
                        ey *= slope
                        total[c] += share0 * ex
                        total[LANES + c] += share0 * ey
                        total[2 * LANES + c] += share2 * ex
                        total[3 * LANES + c] += share2 * ey
                        share1 = _ONE - share0 - share2
                        total[4 * LANES + c] += share1 * ex
                        total[5 * LANES + c] += share1 * ey
            put_slot(total, slots, entry_slot[entry])


@fast_kernel
def put_slot(total, slots, slot):
    """Sum the lanes of the xy gradients of corners 0, 2 and 1, into slots[slot] as (3, 3), depth 0."""
    for corner in range(3):
        place = 0 if corner == 0 else (2 if corner == 1 else 1)
        for axis in range(2):
            value = _ZERO
            for c in range(LANES):
                value += total[(2 * corner + axis) * LANES + c]
            slots[slot, 3 * place + axis] = value
        slots[slot, 3 * place + 2] = _ZERO
