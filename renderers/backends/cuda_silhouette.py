"""Triton back end of the soft silhouette, and what both soft renderers prepare.

A program owns the pixels of one tile and walks along the faces that reach it; the backward pass walks once more and
recomputes. Each entry of a tile's list leaves its share of the face's gradient in a slot of its own, and slots are
summed in a fixed order, without atomics: results are the same bits every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from renderers.backends.cuda_geometry import (
    SIDE,
    Tiles,
    beaten,
    bin_faces,
    centres,
    edge_gradient,
    launch,
    load_face,
    outline,
    pixels_of,
    require_device,
    sigmoid,
    sum_slots,
)

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene


def silhouette(scene: Scene, blend: Blend, threads: int | None) -> Tensor:
    """Back end of `renderers.soft.soft_silhouette`; `threads` means nothing here."""
    return _Silhouette.apply(require_device(scene.face_verts), scene, blend)


class Prepared:
    """What every kernel takes first, in its order, and what the backward pass needs again."""

    def __init__(self, face_verts: Tensor, scene: Scene, blend: Blend) -> None:
        device, (h, w) = face_verts.device, scene.size_hw
        turn = 0 if blend.cull != "all" else (-1 if blend.front_clockwise else 1)
        self.faces = face_verts.detach().contiguous()
        self.tiles: Tiles = bin_faces(self.faces, scene.counts, scene.size_hw, blend.blur, turn)
        self.paired = scene.neighbour is not None
        pairs = self.tiles.face if scene.neighbour is None else scene.neighbour
        table = (centres(w, h, device), centres(h, w, device), self.tiles.begin, self.tiles.face)
        self.first = (self.faces, self.tiles.areas, pairs, *table, h, w, *self.tiles.grid, blend.blur, 1 / blend.sigma)
        self.shape = len(scene.counts), h, w
        self.programs = len(self.tiles.begin) - 1


class _Silhouette(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, scene: Scene, blend: Blend) -> Tensor:
        ready = Prepared(face_verts, scene, blend)
        missed = torch.ones(ready.shape, device=face_verts.device)
        if ready.tiles.entries:
            options = dict(PAIRED=ready.paired, SIDE=SIDE, num_warps=1)
            launch(_cover, (ready.programs,), *ready.first, missed, **options)
        ctx.state = ready, missed
        return 1 - missed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor):
        ready, missed = ctx.state
        slots = missed.new_zeros(ready.tiles.entries, 6)
        if ready.tiles.entries:
            options = dict(PAIRED=ready.paired, SIDE=SIDE, num_warps=1)
            arguments = (*ready.first, missed, grad.contiguous(), ready.tiles.slot, slots)
            launch(_cover_gradient, (ready.programs,), *arguments, **options)
        flat = sum_slots(slots, ready.tiles).reshape(-1, 3, 2)
        return torch.nn.functional.pad(flat, (0, 1)), None, None


@triton.jit
def _cover(
    faces,
    areas,
    pairs,
    xs,
    ys,
    tile_begin,
    entry_face,
    height,
    width,
    across,
    tiles,
    blur,
    scale,
    missed,
    PAIRED: tl.constexpr,
    SIDE: tl.constexpr,
):
    pixel, shown, px, x_rest, py, y_rest = pixels_of(xs, ys, height, width, across, tiles, SIDE)
    product = tl.full((SIDE * SIDE,), 1.0, tl.float32)
    tile = tl.program_id(0)
    for entry in range(tl.load(tile_begin + tile), tl.load(tile_begin + tile + 1)):
        f = tl.load(entry_face + entry)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        signed, e0, e1, e2, which, t, fx, fy = outline(
            px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, tl.load(areas + f)
        )
        valid = signed < blur
        if PAIRED:
            mate = tl.load(pairs + f)
            if mate >= 0:
                valid = valid & ~beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur)
        product *= tl.where(valid, sigmoid(signed * scale), 1.0)
    tl.store(missed + pixel, product, shown)


@triton.jit
def _cover_gradient(
    faces,
    areas,
    pairs,
    xs,
    ys,
    tile_begin,
    entry_face,
    height,
    width,
    across,
    tiles,
    blur,
    scale,
    missed,
    grad,
    entry_slot,
    slots,
    PAIRED: tl.constexpr,
    SIDE: tl.constexpr,
):
    pixel, shown, px, x_rest, py, y_rest = pixels_of(xs, ys, height, width, across, tiles, SIDE)
    # d alpha / d distance = -p prod(1 - p) / sigma: what all faces of a pixel share.
    shared = -tl.load(missed + pixel, shown, 0.0) * tl.load(grad + pixel, shown, 0.0) * scale
    tile = tl.program_id(0)
    begin, end = tl.load(tile_begin + tile), tl.load(tile_begin + tile + 1)
    if tl.max(tl.abs(shared), 0) == 0.0:
        end = begin
    for entry in range(begin, end):
        f = tl.load(entry_face + entry)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        signed, e0, e1, e2, which, t, fx, fy = outline(
            px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, tl.load(areas + f)
        )
        valid = (signed < blur) & (shared != 0.0)
        if PAIRED:
            mate = tl.load(pairs + f)
            if mate >= 0:
                valid = valid & ~beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur)
        slope = tl.where(valid, sigmoid(-signed * scale) * shared, 0.0)
        a, b, c, d, e, g = edge_gradient(tl.where(signed < 0.0, -slope, slope), which, t, fx, fy)
        row = slots + tl.load(entry_slot + entry).to(tl.int64) * 6
        tl.store(row, tl.sum(a, 0))
        tl.store(row + 1, tl.sum(b, 0))
        tl.store(row + 2, tl.sum(c, 0))
        tl.store(row + 3, tl.sum(d, 0))
        tl.store(row + 4, tl.sum(e, 0))
        tl.store(row + 5, tl.sum(g, 0))
