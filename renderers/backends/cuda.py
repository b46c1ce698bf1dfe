"""Triton back end of the rasteriser: the K nearest faces per pixel, and the gradient.

The forward kernel rounds as the rules are written, without fused multiply-add: which face a pixel shows agrees with the
other back ends. The gradient is worked out in double precision, per kept face of a pixel, and added up atomically: its
last bits vary from run to run, unless torch.use_deterministic_algorithms(True) asks for a fixed order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from renderers.backends.cuda_geometry import (
    INTERPRETED,
    SIDE,
    barycentric,
    bin_faces,
    centres,
    distance,
    edge,
    launch,
    load_face,
    load_faces,
    require_device,
    segment,
)

if TYPE_CHECKING:
    from renderers.rasterize import Settings

__all__ = ["INTERPRETED", "rasterize_fragments"]

# A candidate is its depth's bits above its face; these order as (depth, face). Slots without a face lie beyond all.
_EMPTY = tl.constexpr(0x7FFFFFFF << 32)
_LAST = tl.constexpr((1 << 63) - 1)
_FACE = tl.constexpr(0xFFFFFFFF)
_PER_PROGRAM = 1 << 22 if INTERPRETED else 1024  # candidates that a program holds


def rasterize_fragments(
    face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings, threads: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Back end of `renderers.rasterize.rasterize`: pix_to_face, zbuf, bary, dists; `threads` means nothing here."""
    return _Rasterize.apply(require_device(face_verts), counts, neighbour, settings)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings):
        device, (h, w), k = face_verts.device, settings.size_hw, settings.k
        shape = (len(counts), h, w, k)
        faces = face_verts.detach().contiguous()
        tiles = bin_faces(faces, counts, settings.size_hw, settings.blur, int(settings.cull))
        out = (
            torch.full(shape, -1, device=device),
            torch.full(shape, -1.0, device=device),
            torch.full((*shape, 3), -1.0, device=device),
            torch.full(shape, -1.0, device=device),
        )
        columns, lines = centres(w, h, device), centres(h, w, device)
        paired = neighbour is not None and bool((neighbour >= 0).any())
        slots = triton.next_power_of_2(k)
        pixels = max(1, min(SIDE * SIDE, _PER_PROGRAM // slots))
        if tiles.entries:
            launch(
                _keep,
                (len(tiles.begin) - 1, SIDE * SIDE // pixels),
                faces,
                tiles.areas,
                neighbour if paired else tiles.face,
                columns,
                lines,
                tiles.begin,
                tiles.face,
                *out,
                math.sqrt(np.float32(settings.blur)),
                settings.blur,
                h,
                w,
                *tiles.grid,
                K=k,
                SLOTS=slots,
                PIXELS=pixels,
                SIDE=SIDE,
                PERSPECTIVE=settings.perspective,
                CLIP=settings.clip,
                PAIRED=paired,
                enable_fp_fusion=False,
                num_warps=max(1, min(4, pixels * slots // 128)),
            )
        ctx.save_for_backward(faces, tiles.areas, out[0], columns, lines)
        ctx.settings = settings
        ctx.mark_non_differentiable(out[0])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, grad_z: Tensor, grad_bary: Tensor, grad_dists: Tensor):
        faces, areas, pix_to_face, columns, lines = ctx.saved_tensors
        settings = ctx.settings
        total = torch.zeros(len(faces), 9, dtype=torch.float64, device=faces.device)
        slots = (pix_to_face.flatten() >= 0).nonzero()[:, 0]
        which = pix_to_face.flatten()[slots]
        fixed_order = torch.are_deterministic_algorithms_enabled()
        rows = total.new_empty(len(slots), 9) if fixed_order else total
        if len(slots):
            block = 1 << 15 if INTERPRETED else 128
            launch(
                _gradient,
                (triton.cdiv(len(slots), block),),
                faces,
                areas,
                columns,
                lines,
                slots,
                which,
                len(slots),
                *(grad.contiguous() for grad in (grad_z, grad_bary, grad_dists)),
                rows,
                settings.k,
                *settings.size_hw,
                PERSPECTIVE=settings.perspective,
                CLIP=settings.clip,
                ATOMIC=not fixed_order,
                BLOCK=block,
                enable_fp_fusion=False,
            )
        if fixed_order:
            total.index_put_((which,), rows, accumulate=True)
        return total.float().reshape(-1, 3, 3), None, None, None


@triton.jit
def _keep(
    faces,
    areas,
    pairs,
    xs,
    ys,
    tile_begin,
    entry_face,
    pix_to_face,
    zbuf,
    bary,
    dists,
    radius,
    blur,
    height,
    width,
    across,
    tiles,
    K: tl.constexpr,
    SLOTS: tl.constexpr,
    PIXELS: tl.constexpr,
    SIDE: tl.constexpr,
    PERSPECTIVE: tl.constexpr,
    CLIP: tl.constexpr,
    PAIRED: tl.constexpr,
):
    tile = tl.program_id(0)
    inner = tile % tiles
    lane = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    row = inner // across * SIDE + lane // SIDE
    column = inner % across * SIDE + lane % SIDE
    shown = (row < height) & (column < width)
    px, py = tl.load(xs + column, shown, 1e6), tl.load(ys + row, shown, 1e6)
    # Slots beyond K look nearer than all faces, so that no face displaces them.
    slot = tl.arange(0, SLOTS).to(tl.int64)[None, :]
    keys = tl.where(slot < K, _EMPTY + slot, -1) + tl.zeros((PIXELS, 1), tl.int64)
    worst = tl.max(keys, 1)
    for entry in range(tl.load(tile_begin + tile), tl.load(tile_begin + tile + 1)):
        f = tl.load(entry_face + entry)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        left, right = tl.minimum(tl.minimum(x0, x1), x2) - radius, tl.maximum(tl.maximum(x0, x1), x2) + radius
        low, high = tl.minimum(tl.minimum(y0, y1), y2) - radius, tl.maximum(tl.maximum(y0, y1), y2) + radius
        near = (px >= left) & (px <= right) & (py >= low) & (py <= high)
        if tl.max(near.to(tl.int32), 0) > 0:
            inside, z, b0, b1, b2 = barycentric(
                px, py, x0, y0, z0, x1, y1, z1, x2, y2, z2, tl.load(areas + f), PERSPECTIVE, CLIP
            )
            dist = distance(px, py, x0, y0, x1, y1, x2, y2)
            valid = near & (z >= 0.0) & (inside | (dist < blur))
            key = (tl.abs(z).to(tl.int32, bitcast=True).to(tl.int64) << 32) + f
            if PAIRED:
                mate = tl.load(pairs + f)
                if (mate >= 0) & (mate < f):
                    # The first half of a cut face, where it is kept, meets the second: the nearer outline stays.
                    x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, mate)
                    wins = dist < distance(px, py, x0, y0, x1, y1, x2, y2)
                    rival = ((keys & _FACE) == mate) & (keys < _EMPTY) & valid[:, None]
                    valid = valid & (tl.max(rival.to(tl.int32), 1) == 0)
                    keys = tl.where(rival & wins[:, None], key[:, None], keys)
                    worst = tl.max(keys, 1)
            take = valid & (key < worst)
            if tl.max(take.to(tl.int32), 0) > 0:
                keys = tl.where((keys == worst[:, None]) & take[:, None], key[:, None], keys)
                worst = tl.max(keys, 1)
    keys = tl.where(slot < K, keys, _LAST)
    out = ((tile // tiles * height + row).to(tl.int64) * width + column) * K
    for k in range(K):
        best = tl.min(keys, 1)
        keys = tl.where(keys == best[:, None], _LAST, keys)
        hit = shown & (best < _EMPTY)
        f = (best & _FACE).to(tl.int32)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_faces(faces, f, hit)
        area = tl.load(areas + f, hit, 1.0)
        inside, z, b0, b1, b2 = barycentric(px, py, x0, y0, z0, x1, y1, z1, x2, y2, z2, area, PERSPECTIVE, CLIP)
        dist = distance(px, py, x0, y0, x1, y1, x2, y2)
        tl.store(pix_to_face + out + k, f.to(tl.int64), hit)
        tl.store(zbuf + out + k, z, hit)
        tl.store(bary + 3 * (out + k), b0, hit)
        tl.store(bary + 3 * (out + k) + 1, b1, hit)
        tl.store(bary + 3 * (out + k) + 2, b2, hit)
        tl.store(dists + out + k, tl.where(inside, -dist, dist), hit)


@triton.jit
def _gradient(
    faces,
    areas,
    xs,
    ys,
    slots,
    which,
    count,
    grad_z,
    grad_bary,
    grad_dists,
    rows,
    k,
    height,
    width,
    PERSPECTIVE: tl.constexpr,
    CLIP: tl.constexpr,
    ATOMIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = lane < count
    slot, f = tl.load(slots + lane, here, 0), tl.load(which + lane, here, 0)
    pixel = slot // k
    px, py = tl.load(xs + pixel % width, here, 0.0), tl.load(ys + pixel // width % height, here, 0.0)
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_faces(faces, f, here)
    gd = tl.load(grad_dists + slot, here, 0.0).to(tl.float64)
    # Side and nearest edge as the forward pass saw them.
    area = tl.load(areas + f, here, 1.0)
    inside, z, c0, c1, c2 = barycentric(px, py, x0, y0, z0, x1, y1, z1, x2, y2, z2, area, PERSPECTIVE, CLIP)
    d01, d02 = segment(px, py, x0, y0, x1, y1), segment(px, py, x0, y0, x2, y2)
    d12 = segment(px, py, x1, y1, x2, y2)
    third = d12 < tl.minimum(d01, d02)
    second = (d02 < d01) & (d12 >= d02)
    px, py = px.to(tl.float64), py.to(tl.float64)
    x0, y0, z0 = x0.to(tl.float64), y0.to(tl.float64), z0.to(tl.float64)
    x1, y1, z1 = x1.to(tl.float64), y1.to(tl.float64), z1.to(tl.float64)
    x2, y2, z2 = x2.to(tl.float64), y2.to(tl.float64), z2.to(tl.float64)
    ax, ay = tl.where(third, x1, x0), tl.where(third, y1, y0)
    bx, by = tl.where(third | second, x2, x1), tl.where(third | second, y2, y1)
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    point = length2 <= 1e-8
    t = (dx * (px - ax) + dy * (py - ay)) / tl.where(point, 1.0, length2)
    t = tl.where(point, 1.0, tl.minimum(tl.maximum(t, 0.0), 1.0))
    gd = 2.0 * tl.where(inside, -gd, gd)
    gx, gy = gd * (ax + t * dx - px), gd * (ay + t * dy - py)
    s = 1.0 - t
    to0, to1, to2 = tl.where(third, 0.0, s), tl.where(third, s, tl.where(second, 0.0, t)), 0.0 * t
    to2 = tl.where(third | second, t, to2)
    # Depth and barycentric coordinates: products m over depth (perspective), or m themselves, scaled to a given sum.
    gz = tl.load(grad_z + slot, here, 0.0).to(tl.float64)
    g0 = tl.load(grad_bary + 3 * slot, here, 0.0) + gz * z0
    g1 = tl.load(grad_bary + 3 * slot + 1, here, 0.0) + gz * z1
    g2 = tl.load(grad_bary + 3 * slot + 2, here, 0.0) + gz * z2
    whole = edge(x2, y2, x0, y0, x1, y1) + 1e-8
    whole = tl.where(here, whole, 1.0)
    w0 = edge(px, py, x1, y1, x2, y2) / whole
    w1 = edge(px, py, x2, y2, x0, y0) / whole
    w2 = edge(px, py, x0, y0, x1, y1) / whole
    u0, u1, u2 = w0, w1, w2
    if CLIP:
        u0, u1, u2 = tl.maximum(w0, 0.0), tl.maximum(w1, 0.0), tl.maximum(w2, 0.0)
    if PERSPECTIVE:
        z0, z1, z2 = tl.where(here, z0, 1.0), tl.where(here, z1, 1.0), tl.where(here, z2, 1.0)
        u0, u1, u2 = u0 / z0, u1 / z1, u2 / z2
    raw = u0 + u1 + u2
    scaled = raw == raw
    divisor = raw
    if PERSPECTIVE:
        if CLIP:
            divisor = tl.where(raw > 0.0, raw, 1.0)
        else:
            least = 1e-8 / (z0 * z1 * z2)
            scaled = raw > least
            divisor = tl.where(scaled, raw, least)
    elif CLIP:
        scaled = raw >= 1e-5
        divisor = tl.maximum(raw, 1e-5)
    else:
        scaled = raw != raw
        divisor = tl.where(scaled, raw, 1.0)
    c0, c1, c2 = u0 / divisor, u1 / divisor, u2 / divisor
    mean = g0 * c0 + g1 * c1 + g2 * c2
    shift = tl.where(scaled, mean, 0.0)
    h0, h1, h2 = (g0 - shift) / divisor, (g1 - shift) / divisor, (g2 - shift) / divisor
    to_z0, to_z1, to_z2 = gz * c0, gz * c1, gz * c2
    if PERSPECTIVE:
        # Where the divisor is held at its floor, it varies with the product of the three depths.
        rest = tl.where(scaled, 0.0, mean)
        to_z0 += (rest - h0 * u0) / z0
        to_z1 += (rest - h1 * u1) / z1
        to_z2 += (rest - h2 * u2) / z2
        h0, h1, h2 = h0 / z0, h1 / z1, h2 / z2
    if CLIP:
        h0, h1, h2 = tl.where(w0 >= 0.0, h0, 0.0), tl.where(w1 >= 0.0, h1, 0.0), tl.where(w2 >= 0.0, h2, 0.0)
    # w_i = e_i / area; e_i is twice the area of the point with the edge opposite of corner i.
    h0, h1, h2 = h0 / whole, h1 / whole, h2 / whole
    ha = -(h0 * w0 + h1 * w1 + h2 * w2)
    at = rows + 9 * (f if ATOMIC else lane)
    _add(at, to0 * gx + h1 * (y2 - py) + h2 * (py - y1) + ha * (y2 - y1), here, ATOMIC)
    _add(at + 1, to0 * gy + h1 * (px - x2) + h2 * (x1 - px) + ha * (x1 - x2), here, ATOMIC)
    _add(at + 2, to_z0, here, ATOMIC)
    _add(at + 3, to1 * gx + h2 * (y0 - py) + h0 * (py - y2) + ha * (y0 - y2), here, ATOMIC)
    _add(at + 4, to1 * gy + h2 * (px - x0) + h0 * (x2 - px) + ha * (x2 - x0), here, ATOMIC)
    _add(at + 5, to_z1, here, ATOMIC)
    _add(at + 6, to2 * gx + h0 * (y1 - py) + h1 * (py - y0) + ha * (y1 - y0), here, ATOMIC)
    _add(at + 7, to2 * gy + h0 * (px - x1) + h1 * (x0 - px) + ha * (x0 - x1), here, ATOMIC)
    _add(at + 8, to_z2, here, ATOMIC)


@triton.jit
def _add(at, value, here, ATOMIC: tl.constexpr):
    if ATOMIC:
        tl.atomic_add(at, value, here)
    else:
        tl.store(at, value, here)
