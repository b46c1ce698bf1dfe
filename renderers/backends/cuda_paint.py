"""Triton back end of `renderers.soft.soft_render`: attributes of all faces blended tile by tile.

A program walks twice along the faces of its tile, first for the nearest depth, then for the weights; the backward pass
walks once more and recomputes. Channels are visited one by one, so that a kernel holds only numbers per pixel and any
number of channels is served. As in `renderers.backends.cuda_silhouette`, results are the same bits every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from renderers.backends.cuda_geometry import (
    SIDE,
    beaten,
    edge_gradient,
    launch,
    load_face,
    outline,
    pixels_of,
    require_device,
    sigmoid,
    sum_slots,
)
from renderers.backends.cuda_silhouette import Prepared
from renderers.blending import Picture

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene

_FAINT = tl.constexpr(-26.0)  # exponents below this are left out; the nearest face itself may weigh as little as e^-9


def paint(scene: Scene, attributes: Tensor, background: Tensor, blend: Blend, threads: int | None) -> Picture:
    """Back end of `renderers.soft.soft_render`; `threads` means nothing here."""
    values = attributes if attributes.ndim == 3 else attributes[:, None]
    return Picture(*_Paint.apply(require_device(scene.face_verts), values, background, scene, blend))


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, values: Tensor, background: Tensor, scene: Scene, blend: Blend):
        ready, channels = Prepared(face_verts, scene, blend), len(background)
        attributes = values.detach().contiguous()
        colour = background[:, None, None, None].expand(channels, *ready.shape).contiguous()
        missed = torch.ones(ready.shape, device=face_verts.device)
        total, nearest = torch.ones_like(missed), torch.zeros_like(missed)
        span = blend.zfar - blend.znear
        numbers = (1 / (blend.gamma * span), blend.zfar - blend.background_zeta * span, blend.background_least)
        sizes = blend.znear, blend.zfar, channels, missed.numel()
        options: dict[str, Any] = dict(
            FRONT=0 if blend.cull == "none" else (-1 if blend.front_clockwise else 1),
            PERSPECTIVE=blend.perspective,
            SCREEN=blend.screen_attributes or not blend.perspective,
            UNIT=blend.unit_weights,
            CUT=blend.cut_depth,
            CORNERS=values.shape[1],
            PAIRED=ready.paired,
            SIDE=SIDE,
            num_warps=1,
        )
        if ready.tiles.entries:
            found = colour, missed, total, nearest
            launch(_paint, (ready.programs,), *ready.first, *numbers, *sizes, attributes, *found, **options)
        ctx.save_for_backward(attributes, colour)
        ctx.state = ready, (*numbers, *sizes), (missed, total, nearest), options
        ctx.detach = blend.detach_bary
        return colour.permute(1, 2, 3, 0), 1 - missed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_colour: Tensor, grad_alpha: Tensor):
        attributes, colour = ctx.saved_tensors
        ready, numbers, found, options = ctx.state
        wanted = ctx.needs_input_grad[1]
        entries, width = ready.tiles.entries, attributes.shape[1] * attributes.shape[2]
        slots = colour.new_zeros(entries, 9)
        attribute_slots = colour.new_zeros(entries if wanted else 0, width)
        if entries:
            upstream = grad_colour.permute(3, 0, 1, 2).contiguous()
            mean = (upstream * colour).sum(0)
            arguments = (*ready.first, *numbers, attributes, *found, mean, upstream, grad_alpha.contiguous())
            outs = ready.tiles.slot, slots, attribute_slots
            launch(_gradient, (ready.programs,), *arguments, *outs, **options, DETACH=ctx.detach, WANTED=wanted)
        rows = sum_slots(slots, ready.tiles)
        grad_faces = torch.cat([rows[:, :6].reshape(-1, 3, 2), rows[:, 6:, None]], -1)
        grad_values = sum_slots(attribute_slots, ready.tiles).reshape(attributes.shape) if wanted else None
        return grad_faces, grad_values, None, None, None


@triton.jit
def _surface(e0, e1, e2, area, z0, z1, z2, PERSPECTIVE: tl.constexpr, SCREEN: tl.constexpr, UNIT: tl.constexpr):
    # Depth; n: weights of the corners on the screen, and the sum they were divided by; c: weights of their attributes.
    n0, n1, n2 = tl.maximum(e0 / area, 0.0), tl.maximum(e1 / area, 0.0), tl.maximum(e2 / area, 0.0)
    if UNIT:
        n0, n1, n2 = tl.minimum(n0, 1.0), tl.minimum(n1, 1.0), tl.minimum(n2, 1.0)
    total = n0 + n1 + n2
    lost = ~(total > 0.0)  # slivers, by rounding
    n0, n1, n2 = tl.where(lost, 1.0, n0), tl.where(lost, 1.0, n1), tl.where(lost, 1.0, n2)
    total = n0 + n1 + n2
    n0, n1, n2 = n0 / total, n1 / total, n2 / total
    if PERSPECTIVE:
        depth = 1.0 / (n0 / z0 + n1 / z1 + n2 / z2)
    else:
        depth = n0 * z0 + n1 * z1 + n2 * z2
    if SCREEN:
        c0, c1, c2 = n0, n1, n2
    else:
        c0, c1, c2 = n0 / z0 * depth, n1 / z1 * depth, n2 / z2 * depth
    return depth, total, n0, n1, n2, c0, c1, c2


@triton.jit
def _plane(pixel, channel, pixels):
    # Where a channel of a pixel stands; channels are apart, so that neighbouring lanes read neighbouring numbers.
    return (tl.zeros_like(pixel) + channel) * pixels + pixel


@triton.jit
def _paint(
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
    sharp,
    limit,
    least,
    near,
    far,
    channels,
    pixels,
    values,
    colour,
    missed,
    total,
    nearest,
    FRONT: tl.constexpr,
    PERSPECTIVE: tl.constexpr,
    SCREEN: tl.constexpr,
    UNIT: tl.constexpr,
    CUT: tl.constexpr,
    CORNERS: tl.constexpr,
    PAIRED: tl.constexpr,
    SIDE: tl.constexpr,
):
    pixel, shown, px, x_rest, py, y_rest = pixels_of(xs, ys, height, width, across, tiles, SIDE)
    tile = tl.program_id(0)
    begin, end = tl.load(tile_begin + tile), tl.load(tile_begin + tile + 1)
    product = tl.full((SIDE * SIDE,), 1.0, tl.float32)
    front = tl.zeros((SIDE * SIDE,), tl.float32) + limit
    for entry in range(begin, end):
        f = tl.load(entry_face + entry)
        area = tl.load(areas + f)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        signed, e0, e1, e2, which, t, fx, fy = outline(px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, area)
        valid = signed < blur
        if PAIRED:
            mate = tl.load(pairs + f)
            if mate >= 0:
                valid = valid & ~beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur)
        product *= tl.where(valid, sigmoid(signed * scale), 1.0)
        depth, whole, n0, n1, n2, c0, c1, c2 = _surface(e0, e1, e2, area, z0, z1, z2, PERSPECTIVE, SCREEN, UNIT)
        if CUT:
            valid = valid & (depth >= near) & (depth <= far)
        if FRONT != 0:
            valid = tl.where(valid, area * FRONT, 0.0) > 0.0
        front = tl.where(valid, tl.minimum(front, depth), front)
    mass = tl.maximum(tl.exp((front - limit) * sharp), least)
    # The colour is added up where it will stand; the background is there already.
    for d in range(channels):
        at = colour + _plane(pixel, d, pixels)
        tl.store(at, mass * tl.load(at, shown, 0.0), shown)
    tl.debug_barrier()  # loads and stores may deal lanes to threads differently
    for entry in range(begin, end):
        f = tl.load(entry_face + entry)
        area = tl.load(areas + f)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        signed, e0, e1, e2, which, t, fx, fy = outline(px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, area)
        depth, whole, n0, n1, n2, c0, c1, c2 = _surface(e0, e1, e2, area, z0, z1, z2, PERSPECTIVE, SCREEN, UNIT)
        exponent = (front - depth) * sharp
        valid = (signed < blur) & (exponent >= _FAINT)
        if CUT:
            valid = valid & (depth >= near) & (depth <= far)
        if FRONT != 0:
            valid = tl.where(valid, area * FRONT, 0.0) > 0.0
        if tl.max(valid.to(tl.int32), 0) > 0:
            if PAIRED:
                mate = tl.load(pairs + f)
                if mate >= 0:
                    valid = valid & ~beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur)
            weight = tl.where(valid, sigmoid(-signed * scale) * tl.exp(tl.where(valid, exponent, 0.0)), 0.0)
            mass += weight
            row = values + (f * CORNERS).to(tl.int64) * channels
            for d in range(channels):
                if CORNERS == 1:
                    value = tl.load(row + d)
                else:
                    value = (
                        c0 * tl.load(row + d) + c1 * tl.load(row + channels + d) + c2 * tl.load(row + 2 * channels + d)
                    )
                at = colour + _plane(pixel, d, pixels)
                tl.store(at, tl.load(at, shown, 0.0) + weight * value, shown)
            tl.debug_barrier()
    tl.debug_barrier()
    for d in range(channels):
        at = colour + _plane(pixel, d, pixels)
        tl.store(at, tl.load(at, shown, 0.0) / mass, shown)
    tl.store(missed + pixel, product, shown)
    tl.store(total + pixel, mass, shown)
    tl.store(nearest + pixel, front, shown)


@triton.jit
def _gradient(
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
    sharp,
    limit,
    least,
    near,
    far,
    channels,
    pixels,
    values,
    missed,
    total,
    nearest,
    mean,
    grad_colour,
    grad_alpha,
    entry_slot,
    slots,
    attribute_slots,
    FRONT: tl.constexpr,
    PERSPECTIVE: tl.constexpr,
    SCREEN: tl.constexpr,
    UNIT: tl.constexpr,
    CUT: tl.constexpr,
    CORNERS: tl.constexpr,
    PAIRED: tl.constexpr,
    SIDE: tl.constexpr,
    DETACH: tl.constexpr,
    WANTED: tl.constexpr,
):
    pixel, shown, px, x_rest, py, y_rest = pixels_of(xs, ys, height, width, across, tiles, SIDE)
    shared = -tl.load(missed + pixel, shown, 0.0) * tl.load(grad_alpha + pixel, shown, 0.0) * scale
    mass, front = tl.load(total + pixel, shown, 1.0), tl.load(nearest + pixel, shown, 0.0)
    average = tl.load(mean + pixel, shown, 0.0)
    tile = tl.program_id(0)
    for entry in range(tl.load(tile_begin + tile), tl.load(tile_begin + tile + 1)):
        f = tl.load(entry_face + entry)
        slot = tl.load(entry_slot + entry).to(tl.int64)
        area = tl.load(areas + f)
        x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, f)
        signed, e0, e1, e2, which, t, fx, fy = outline(px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, area)
        valid = shown & (signed < blur)
        if PAIRED:
            mate = tl.load(pairs + f)
            if mate >= 0:
                valid = valid & ~beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur)
        depth, whole, n0, n1, n2, c0, c1, c2 = _surface(e0, e1, e2, area, z0, z1, z2, PERSPECTIVE, SCREEN, UNIT)
        cover = sigmoid(-signed * scale)
        # To the signed distance: through alpha, and through the weight in the colour.
        slope = tl.where(valid, shared * cover, 0.0)
        exponent = (front - depth) * sharp
        seen = valid & (exponent >= _FAINT)
        if CUT:
            seen = seen & (depth >= near) & (depth <= far)
        if FRONT != 0:
            seen = tl.where(seen, area * FRONT, 0.0) > 0.0
        if tl.max(seen.to(tl.int32), 0) > 0:
            share = tl.where(seen, cover * tl.exp(tl.where(seen, exponent, 0.0)) / mass, 0.0)
            d0, d1, d2 = 0.0 * share, 0.0 * share, 0.0 * share
            row = (f * CORNERS).to(tl.int64) * channels
            for d in range(channels):
                g = tl.load(grad_colour + _plane(pixel, d, pixels), shown, 0.0)
                d0 += g * tl.load(values + row + d)
                if CORNERS == 3:
                    d1 += g * tl.load(values + row + channels + d)
                    d2 += g * tl.load(values + row + 2 * channels + d)
                if WANTED:
                    out = attribute_slots + slot * CORNERS * channels + d
                    if CORNERS == 1:
                        tl.store(out, tl.sum(g * share, 0))
                    else:
                        tl.store(out, tl.sum(g * share * c0, 0))
                        tl.store(out + channels, tl.sum(g * share * c1, 0))
                        tl.store(out + 2 * channels, tl.sum(g * share * c2, 0))
            dot = d0
            if CORNERS == 3:
                dot = c0 * d0 + c1 * d1 + c2 * d2
            change = share * (dot - average)  # d loss / d log weight
            slope -= change * (1.0 - cover) * scale
            # To depth and attributes: gn is what reaches the weights on the screen.
            to_depth = -change * sharp
            g0, g1, g2 = 0.0 * share, 0.0 * share, 0.0 * share
            to_z0, to_z1, to_z2 = g0, g1, g2
            if CORNERS == 3:
                g0, g1, g2 = share * d0, share * d1, share * d2
                if not SCREEN:
                    to_depth += g0 * n0 / z0 + g1 * n1 / z1 + g2 * n2 / z2
                    to_z0 -= g0 * n0 * depth / (z0 * z0)
                    to_z1 -= g1 * n1 * depth / (z1 * z1)
                    to_z2 -= g2 * n2 * depth / (z2 * z2)
                    g0, g1, g2 = g0 * depth / z0, g1 * depth / z1, g2 * depth / z2
            if PERSPECTIVE:
                square = to_depth * depth * depth
                to_z0 += square * n0 / (z0 * z0)
                to_z1 += square * n1 / (z1 * z1)
                to_z2 += square * n2 / (z2 * z2)
                g0, g1, g2 = g0 - square / z0, g1 - square / z1, g2 - square / z2
            else:
                to_z0, to_z1, to_z2 = to_z0 + to_depth * n0, to_z1 + to_depth * n1, to_z2 + to_depth * n2
                g0, g1, g2 = g0 + to_depth * z0, g1 + to_depth * z1, g2 + to_depth * z2
            tl.store(slots + slot * 9 + 6, tl.sum(to_z0, 0))
            tl.store(slots + slot * 9 + 7, tl.sum(to_z1, 0))
            tl.store(slots + slot * 9 + 8, tl.sum(to_z2, 0))
            if DETACH:
                h0, h1, h2, w0, w1, w2 = 0.0 * g0, 0.0 * g0, 0.0 * g0, 0.0 * g0, 0.0 * g0, 0.0 * g0
            else:
                w0, w1, w2 = e0 / area, e1 / area, e2 / area
                shift = g0 * n0 + g1 * n1 + g2 * n2
                h0, h1, h2 = (g0 - shift) / whole, (g1 - shift) / whole, (g2 - shift) / whole
                h0 = tl.where(w0 < 0.0, 0.0, h0 / area)
                h1 = tl.where(w1 < 0.0, 0.0, h1 / area)
                h2 = tl.where(w2 < 0.0, 0.0, h2 / area)
                if UNIT:
                    h0, h1, h2 = tl.where(w0 > 1.0, 0.0, h0), tl.where(w1 > 1.0, 0.0, h1), tl.where(w2 > 1.0, 0.0, h2)
            ha = -(h0 * w0 + h1 * w1 + h2 * w2)
        else:
            h0, h1, h2, ha = 0.0 * slope, 0.0 * slope, 0.0 * slope, 0.0 * slope
        a, b, c, d, e, g = edge_gradient(tl.where(signed < 0.0, -slope, slope), which, t, fx, fy)
        x, y = px + x_rest, py + y_rest
        row = slots + slot * 9
        tl.store(row, tl.sum(a + h1 * (y2 - y) + h2 * (y - y1) + ha * (y2 - y1), 0))
        tl.store(row + 1, tl.sum(b + h1 * (x - x2) + h2 * (x1 - x) + ha * (x1 - x2), 0))
        tl.store(row + 2, tl.sum(c + h2 * (y0 - y) + h0 * (y - y2) + ha * (y0 - y2), 0))
        tl.store(row + 3, tl.sum(d + h2 * (x - x0) + h0 * (x2 - x) + ha * (x2 - x0), 0))
        tl.store(row + 4, tl.sum(e + h0 * (y1 - y) + h1 * (y - y0) + ha * (y1 - y0), 0))
        tl.store(row + 5, tl.sum(g + h0 * (x - x1) + h1 * (x0 - x) + ha * (x0 - x1), 0))
