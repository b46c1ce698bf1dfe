"""Numba back end of `renderers.soft.soft_render`: attributes of all faces blended tile by tile.

The backward pass works out anew what it needs. Within a tile faces come in their order, and a face's gradient is
summed over its tiles in theirs: results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renderers.backends.cpu_blend import paint_tiles
from renderers.backends.cpu_blend_backward import paint_tiles_backward
from renderers.backends.cpu_pairs import Rules
from renderers.backends.cpu_silhouette import gather_slots, prepare, require_float32
from renderers.backends.jit import LANES
from renderers.backends.tiles import tile_chunks
from renderers.blending import Picture
from renderers.threads import map_threads, thread_count

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene


def paint(scene: Scene, attributes: Tensor, background: Tensor, blend: Blend, threads: int | None) -> Picture:
    """Back end of `renderers.soft.soft_render`."""
    values = attributes if attributes.ndim == 3 else attributes[:, None]
    faces = require_float32(scene.face_verts)
    return Picture(*_Paint.apply(faces, values, background, scene, blend, thread_count(threads)))


def _rules(blend: Blend) -> Rules:
    span = blend.zfar - blend.znear
    ends = (blend.znear, blend.zfar) if blend.cut_depth else (-np.inf, np.inf)
    front = 0 if blend.cull == "none" else (-1 if blend.front_clockwise else 1)
    numbers = (blend.blur, 1 / blend.sigma, 1 / (blend.gamma * span), blend.zfar - blend.background_zeta * span)
    blur, scale, sharp, limit, least, near, far = (np.float32(x) for x in (*numbers, blend.background_least, *ends))
    screen = blend.screen_attributes or not blend.perspective
    return Rules(
        blur=blur,
        scale=scale,
        sharp=sharp,
        limit=limit,
        least=least,
        near=near,
        far=far,
        front=front,
        perspective=blend.perspective,
        screen=screen,
        cap=np.float32(1 if blend.unit_weights else 1e30),
        detach=blend.detach_bary,
    )


class _Paint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, values: Tensor, background: Tensor, scene: Scene, blend, threads: int):
        h, w = scene.size_hw
        faces, pairs, bins = prepare(face_verts, scene, blend, threads, by_depth=True)
        rules = _rules(blend)
        attributes = np.ascontiguousarray(values.detach().numpy())
        back = np.ascontiguousarray(background.numpy())
        colour = np.empty((len(bins), h, w, len(back)), np.float32)
        missed = np.empty((len(bins), h, w), np.float32)
        alpha, total, nearest = np.empty_like(missed), np.empty_like(missed), np.empty_like(missed)

        def chunk(item: tuple[int, int, int]) -> None:
            m, a, z = item
            b = bins[m]
            lists = b.tile_begin, b.entry_face
            found = colour[m], alpha[m], missed[m], total[m], nearest[m]
            paint_tiles(faces, attributes, back, pairs, a, z, *lists, rules, LANES, *found)

        map_threads(chunk, tile_chunks(bins, threads), threads)
        out = torch.from_numpy(colour)
        ctx.save_for_backward(face_verts, values, out)
        ctx.state = pairs, bins, missed, total, nearest, scene.counts, rules, threads
        return out, torch.from_numpy(alpha)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_colour: Tensor, grad_alpha: Tensor):
        face_verts, values, colour = ctx.saved_tensors
        pairs, bins, missed, total, nearest, counts, rules, threads = ctx.state
        faces = np.ascontiguousarray(face_verts.detach().numpy())
        attributes = np.ascontiguousarray(values.detach().numpy())
        upstream = np.ascontiguousarray(grad_colour.numpy()), np.ascontiguousarray(grad_alpha.numpy())
        painted = colour.detach().numpy()
        wanted = bool(ctx.needs_input_grad[1])
        width = attributes.shape[1] * attributes.shape[2]
        slots = [np.empty((len(b.entry_face), 9), np.float32) for b in bins]
        attribute_slots = [np.zeros((len(b.entry_face) if wanted else 0, width), np.float32) for b in bins]

        def chunk(item: tuple[int, int, int]) -> None:
            m, a, z = item
            b = bins[m]
            lists = b.tile_begin, b.entry_face, b.entry_slot
            found = painted[m], missed[m], total[m], nearest[m], upstream[0][m], upstream[1][m]
            outs = slots[m], attribute_slots[m]
            paint_tiles_backward(faces, attributes, pairs, a, z, *lists, rules, LANES, *found, wanted, *outs)

        map_threads(chunk, tile_chunks(bins, threads), threads)
        grad_faces = gather_slots(bins, slots, counts, threads).reshape(-1, 3, 3)
        if not wanted:
            return grad_faces, None, None, None, None, None
        grad_values = gather_slots(bins, attribute_slots, counts, threads).reshape(values.shape)
        return grad_faces, grad_values, None, None, None, None
