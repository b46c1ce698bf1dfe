"""The fused soft renderers in plain torch: the readable oracle, and the fallback for any device and precision.

First, without gradients, all pixels are held against all faces and the (pixel, face) pairs within the blur radius are
listed. Their weights are then computed differentiably and added up per pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from renderers.backends.naive import _EPSILON, _edge, _segment
from renderers.blending import Picture

if TYPE_CHECKING:
    from renderers.soft import Blend, Scene

_CHUNK = 1 << 20  # (pixel, face) pairs worked on at once


class _Pairs(NamedTuple):
    pixel: Tensor
    """(P,) pixel in the whole batch."""
    face: Tensor
    """(P,)."""
    point: Tensor
    """(P, 2) pixel centre, NDC."""
    pixels: int
    """Pixels of the whole batch."""


def silhouette(scene: Scene, blend: Blend, threads: int | None) -> Tensor:
    """Back end of `renderers.soft.soft_silhouette`; `threads` is left to torch."""
    dtype, scene = scene.face_verts.dtype, _precise(scene)
    pairs = _list_pairs(scene, blend)
    signed = _signed_distance(pairs.point, scene.face_verts[pairs.face])
    return _alpha(signed, pairs, blend).reshape(len(scene.counts), *scene.size_hw).to(dtype)


def paint(scene: Scene, attributes: Tensor, background: Tensor, blend: Blend, threads: int | None) -> Picture:
    """Back end of `renderers.soft.soft_render`; `threads` is left to torch."""
    dtype, scene = scene.face_verts.dtype, _precise(scene)
    attributes, background = attributes.to(scene.face_verts), background.to(scene.face_verts)
    pairs = _list_pairs(scene, blend)
    corners = scene.face_verts[pairs.face]
    signed = _signed_distance(pairs.point, corners)
    alpha = _alpha(signed, pairs, blend)
    depth, bary = _interpolation(pairs.point, corners, blend)
    values = attributes[pairs.face]
    if values.ndim == 3:
        values = (bary[..., None] * values).sum(1)
    span = blend.zfar - blend.znear
    seen = torch.ones_like(pairs.pixel, dtype=torch.bool)
    if blend.cut_depth:
        seen &= (depth >= blend.znear) & (depth <= blend.zfar)
    if blend.cull == "colour":
        seen &= _in_front(corners, blend)
    limit = blend.zfar - blend.background_zeta * span
    nearest = depth.new_full((pairs.pixels,), limit)
    nearest = nearest.scatter_reduce(0, pairs.pixel, torch.where(seen, depth, limit), "amin")
    exponent = torch.where(seen, nearest[pairs.pixel] - depth, 0.0) / (blend.gamma * span)
    weight = torch.where(seen, torch.sigmoid(-signed / blend.sigma) * exponent.exp(), 0.0)
    rest = torch.exp((nearest - limit) / (blend.gamma * span)).clamp(min=blend.background_least)
    total = rest.index_add(0, pairs.pixel, weight)
    colour = (rest[:, None] * background).index_add(0, pairs.pixel, weight[:, None] * values) / total[:, None]
    shape = len(scene.counts), *scene.size_hw
    return Picture(colour.reshape(*shape, len(background)).to(dtype), alpha.reshape(shape).to(dtype))


def _precise(scene: Scene) -> Scene:
    # The oracle works in double precision, where the device has it.
    if scene.face_verts.device.type == "mps":
        return scene
    return scene._replace(face_verts=scene.face_verts.double())


def _alpha(signed: Tensor, pairs: _Pairs, blend: Blend) -> Tensor:
    missed = signed.new_zeros(pairs.pixels).index_add(0, pairs.pixel, logsigmoid(signed / blend.sigma))
    return -torch.expm1(missed)


def _in_front(corners: Tensor, blend: Blend) -> Tensor:
    turn = _edge(*corners.unbind(-2))
    return turn < 0 if blend.front_clockwise else turn > 0


def _signed_distance(p: Tensor, corners: Tensor) -> Tensor:
    # Squared distance to the outline, negative inside.
    v0, v1, v2 = corners.unbind(-2)
    dist = torch.minimum(torch.minimum(_segment(p, v0, v1), _segment(p, v0, v2)), _segment(p, v1, v2))
    with torch.no_grad():
        side = torch.stack([_edge(p, v1, v2), _edge(p, v2, v0), _edge(p, v0, v1)], -1) * _edge(v2, v0, v1)[..., None]
        inside = (side > 0).all(-1)
    return torch.where(inside, -dist, dist)


def _interpolation(p: Tensor, corners: Tensor, blend: Blend) -> tuple[Tensor, Tensor]:
    # Depth at the point, and the weights of the corners' attributes.
    v0, v1, v2 = corners.unbind(-2)
    z = corners[..., 2]
    area = _edge(v2, v0, v1) + _EPSILON
    w = torch.stack([_edge(p, v1, v2), _edge(p, v2, v0), _edge(p, v0, v1)], -1) / area[..., None]
    if blend.detach_bary:
        w = w.detach()
    m = w.clamp(0, 1) if blend.unit_weights else w.clamp(min=0)
    n = m / m.sum(-1, keepdim=True)
    depth = 1 / (n / z).sum(-1) if blend.perspective else (n * z).sum(-1)
    if blend.screen_attributes or not blend.perspective:
        return depth, n
    return depth, n / z * depth[..., None]


@torch.no_grad()
def _list_pairs(scene: Scene, blend: Blend) -> _Pairs:
    from renderers.rasterize import pixel_centres

    faces = scene.face_verts.detach()
    h, w = scene.size_hw
    x = pixel_centres(w, h, faces.dtype).to(faces.device)
    y = pixel_centres(h, w, faces.dtype).to(faces.device)
    points = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).reshape(-1, 2)
    usable = (_edge(*faces.unbind(1)).double().abs() > _EPSILON) & (faces[..., 2].amin(1) >= _EPSILON)
    if blend.cull == "all":
        usable &= _in_front(faces, blend)
    pixel, face, start = [], [], 0
    for image, count in enumerate(scene.counts):
        here = start + usable[start : start + count].nonzero()[:, 0]
        start += count
        step = max(1, _CHUNK // max(1, len(here)))
        for i in range(0, h * w, step):
            kept = _reaches(points[i : i + step, None], here, scene, blend)
            at, which = kept.nonzero().unbind(1)
            pixel.append(image * h * w + i + at)
            face.append(here[which])
    none = torch.zeros(0, dtype=torch.int64, device=faces.device)
    pixels = torch.cat([none, *pixel])
    return _Pairs(pixels, torch.cat([none, *face]), points[pixels % (h * w)], len(scene.counts) * h * w)


def _reaches(points: Tensor, which: Tensor, scene: Scene, blend: Blend) -> Tensor:
    # (P, 1, 2) points against faces `which`: (P, F) whether a face takes part at a point.
    signed = _signed_distance(points, scene.face_verts.detach()[which])
    kept = signed < blend.blur
    if scene.neighbour is None:
        return kept
    # Of two halves of a cut face, the one counts that the point is deeper inside of, or nearer to; the first where
    # they tie, as they do wherever the nearest point is a corner of both. (Fragments go by the distance without sign,
    # as their reference does, and by rounding where that ties.)
    place = torch.full((len(scene.face_verts),), -1, device=which.device)
    place[which] = torch.arange(len(which), device=which.device)
    pair = scene.neighbour[which]
    other = torch.where(pair >= 0, place[pair], -1)
    rival = torch.where((other >= 0) & kept[:, other], signed[:, other], torch.inf)
    first = pair > which
    margin = 1e-4 * torch.where(first, signed, rival).abs() + 1e-9
    return kept & ~torch.where(first, rival < signed - margin, rival - margin <= signed)
