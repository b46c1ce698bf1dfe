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

from renderers.backends.jit import kernel
from renderers.backends.tiles import (
    FACE,
    SIDE,
    add_distance_gradient,
    add_slots,
    bin_faces,
    distance_row,
    drop_rival,
    exact,
    load,
    tile_chunks,
)
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene

_ONE = np.float32(1)
_FAR = np.float32(1e30)


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


def prepare(face_verts: Tensor, scene: Scene, blend: Blend, threads: int):
    """Arrays for the kernels: faces, pairs, pixel columns (padded to whole tiles), pixel rows, bins.

    Columns and rows are (2, n) float32: the coordinate of the centre and what rounding left of it.
    """
    from renderers.rasterize import pixel_centres

    h, w = scene.size_hw
    faces = np.ascontiguousarray(face_verts.detach().numpy())
    pairs = np.zeros(0, np.int64) if scene.neighbour is None else scene.neighbour.numpy()
    xs, ys = pixel_centres(w, h).numpy(), pixel_centres(h, w).numpy()
    turn = 0 if blend.cull != "all" else (-1 if blend.front_clockwise else 1)
    bins = bin_faces(faces, scene.counts, xs, ys, blend.blur, turn, threads)
    exact_x, exact_y = pixel_centres(w, h, torch.float64).numpy(), pixel_centres(h, w, torch.float64).numpy()
    columns = np.stack([xs, (exact_x - xs).astype(np.float32)])
    rows = np.stack([ys, (exact_y - ys).astype(np.float32)])
    return faces, pairs, np.pad(columns, ((0, 0), (0, -w % SIDE)), constant_values=1e6), rows, bins


class _Silhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, scene: Scene, blend: Blend, threads: int) -> Tensor:
        h, w = scene.size_hw
        faces, pairs, xs, ys, bins = prepare(face_verts, scene, blend, threads)
        missed = np.empty((len(bins), h, w), np.float32)
        blur, scale = np.float32(blend.blur), np.float32(1 / blend.sigma)

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            _forward(faces, pairs, xs, ys, a, z, b.tile_begin, b.entry_face, blur, scale, missed[mesh])

        map_threads(chunk, tile_chunks(bins, threads), threads)
        ctx.save_for_backward(face_verts)
        ctx.state = pairs, xs, ys, bins, missed, scene.counts, blur, scale, threads
        return torch.from_numpy(1 - missed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        (face_verts,) = ctx.saved_tensors
        pairs, xs, ys, bins, missed, counts, blur, scale, threads = ctx.state
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        upstream = np.ascontiguousarray(grad.numpy())
        slots = [np.zeros((len(b.entry_face), 9), np.float32) for b in bins]

        def chunk(item: tuple[int, int, int]) -> None:
            mesh, a, z = item
            b = bins[mesh]
            lists = b.tile_begin, b.entry_face, b.entry_slot
            _backward(faces, pairs, xs, ys, a, z, *lists, blur, scale, missed[mesh], upstream[mesh], slots[mesh])

        map_threads(chunk, tile_chunks(bins, threads), threads)
        return gather_slots(bins, slots, counts, threads).reshape(-1, 3, 3), None, None, None


def gather_slots(bins, slots: list[np.ndarray], counts: list[int], threads: int) -> Tensor:
    """(F, ...) sums over the slots of each face of each mesh."""
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    width = slots[0].shape[1] if slots else 9
    out = np.zeros((int(starts[-1]), width), np.float32)

    def one(mesh: int) -> None:
        add_slots(bins[mesh].slot_begin, slots[mesh], 0, counts[mesh], starts[mesh], out)

    map_threads(one, range(len(counts)), threads)
    return torch.from_numpy(out)


@kernel
def _forward(faces, pairs, xs, ys, tile0, tile1, tile_begin, entry_face, blur, scale, missed):
    across = xs.shape[1] // SIDE
    product = np.empty((SIDE, SIDE), np.float32)
    row = np.empty(SIDE, np.float32)
    other = np.empty(SIDE, np.float32)
    g = np.empty(FACE, np.float32)
    g_other = np.empty(FACE, np.float32)
    radius = np.sqrt(blur)
    x = np.empty((2, SIDE), np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows = min(SIDE, ys.shape[1] - r0)
        columns = min(SIDE, missed.shape[1] - c0)
        x[:] = xs[:, c0 : c0 + SIDE]
        product[:] = _ONE
        for entry in range(tile_begin[tile], tile_begin[tile + 1]):
            f = entry_face[entry]
            v = faces[f]
            load(v, g)
            low = min(v[0, 1], v[1, 1], v[2, 1]) - radius
            high = max(v[0, 1], v[1, 1], v[2, 1]) + radius
            for r in range(rows):
                py = ys[0, r0 + r]
                if py < low or py > high:
                    continue
                distance_row(g, x, ys, r0 + r, blur, row)
                if len(pairs) > 0 and pairs[f] >= 0:
                    drop_rival(f < pairs[f], faces[pairs[f]], x, ys, r0 + r, blur, row, g_other, other)
                for c in range(SIDE):
                    if row[c] < _FAR:
                        # 1 - p; deep inside it is 0, and exp must not overflow.
                        product[r, c] *= _ONE / (_ONE + np.exp(min(-row[c] * scale, float32(60.0))))
                        if product[r, c] < float32(1e-30):
                            product[r, c] = float32(0.0)
        missed[r0 : r0 + rows, c0 : c0 + columns] = product[:rows, :columns]


@kernel
def _backward(faces, pairs, xs, ys, tile0, tile1, tile_begin, entry_face, entry_slot, blur, scale, missed, grad, slots):
    across = xs.shape[1] // SIDE
    # d alpha / d distance = -p prod(1 - p) / sigma: what all faces of a pixel share.
    shared = np.zeros((SIDE, SIDE), np.float32)
    row = np.empty(SIDE, np.float32)
    other = np.empty(SIDE, np.float32)
    g = np.empty(FACE, np.float32)
    g_other = np.empty(FACE, np.float32)
    total = np.empty(9, np.float64)
    radius = np.sqrt(blur)
    x = np.empty((2, SIDE), np.float32)
    for tile in range(tile0, tile1):
        r0, c0 = tile // across * SIDE, tile % across * SIDE
        rows = min(SIDE, ys.shape[1] - r0)
        columns = min(SIDE, missed.shape[1] - c0)
        x[:] = xs[:, c0 : c0 + SIDE]
        shared[:] = float32(0.0)
        top, bottom = SIDE, -1
        for r in range(rows):
            for c in range(columns):
                shared[r, c] = -missed[r0 + r, c0 + c] * grad[r0 + r, c0 + c] * scale
                if shared[r, c] != float32(0.0):
                    top, bottom = min(top, r), r
        if bottom < 0:
            continue
        for entry in range(tile_begin[tile], tile_begin[tile + 1]):
            f = entry_face[entry]
            v = faces[f]
            load(v, g)
            low = min(v[0, 1], v[1, 1], v[2, 1]) - radius
            high = max(v[0, 1], v[1, 1], v[2, 1]) + radius
            total[:] = 0.0
            for r in range(top, bottom + 1):
                py = ys[0, r0 + r]
                if py < low or py > high:
                    continue
                distance_row(g, x, ys, r0 + r, blur, row)
                if len(pairs) > 0 and pairs[f] >= 0:
                    drop_rival(f < pairs[f], faces[pairs[f]], x, ys, r0 + r, blur, row, g_other, other)
                for c in range(SIDE):
                    if row[c] < _FAR and shared[r, c] != float32(0.0):
                        p = _ONE / (_ONE + np.exp(min(row[c] * scale, float32(60.0))))
                        slope = np.float64(p * shared[r, c])
                        if row[c] < float32(0.0):
                            slope = -slope
                        add_distance_gradient(exact(x, c), exact(ys, r0 + r), v, slope, total)
            slot = entry_slot[entry]
            for i in range(9):
                slots[slot, i] = total[i]
