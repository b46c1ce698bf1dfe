"""The rasteriser in plain torch: the readable oracle, and the fallback for any device and precision.

Which faces a pixel keeps is found without gradients, for all pixels against all faces, in the written order of
operations. Depth, barycentric coordinates and distances of the kept faces are then computed again, differentiably.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from renderers.rasterize import Settings

_EPSILON = 1e-8
_CHUNK = 1 << 22  # (pixel, face) pairs worked on at once


def rasterize_fragments(
    face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings, threads: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Back end of `renderers.rasterize.rasterize`: pix_to_face, zbuf, bary, dists.

    `neighbour` (F,) tells, for faces that near-plane cutting made two of, the index of the other half, else -1.
    `threads` is left to torch.
    """
    from renderers.rasterize import pixel_centres

    h, w = settings.size_hw
    x = pixel_centres(w, h, face_verts.dtype).to(face_verts.device)
    y = pixel_centres(h, w, face_verts.dtype).to(face_verts.device)
    points = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).reshape(-1, 2)
    images, start = [], 0
    with torch.no_grad():
        for count in counts:
            faces = face_verts.detach()[start : start + count]
            pairs = None if neighbour is None else neighbour[start : start + count] - start
            step = max(1, _CHUNK // max(1, count))
            kept = torch.cat([_nearest(points[i : i + step], faces, pairs, settings) for i in range(0, h * w, step)])
            images.append(torch.where(kept >= 0, kept + start, kept).reshape(h, w, settings.k))
            start += count
        empty = torch.zeros((0, h, w, settings.k), dtype=torch.int64, device=face_verts.device)
        pix_to_face = torch.stack(images) if images else empty
    hit = pix_to_face >= 0
    which = hit.nonzero()
    values = evaluate(points[which[:, 1] * w + which[:, 2]], face_verts[pix_to_face[hit]], settings)
    z, bary, dist, inside = values
    blank = face_verts.new_full(pix_to_face.shape, -1.0)
    zbuf = blank.masked_scatter(hit, z)
    dists = blank.masked_scatter(hit, torch.where(inside, -dist, dist))
    bary = blank[..., None].expand(*blank.shape, 3).masked_scatter(hit[..., None], bary)
    return pix_to_face, zbuf, bary, dists


def evaluate(p: Tensor, corners: Tensor, settings: Settings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Depth, barycentrics, squared distance to the edges and insideness of points against faces.

    Args:
        p: (..., 2) points, NDC.
        corners: (..., 3, 3) faces, broadcast against the points.
    """
    v0, v1, v2 = corners.unbind(-2)
    z0, z1, z2 = corners[..., 2].unbind(-1)
    area = (_edge(v2, v0, v1).double() + _EPSILON).to(p.dtype)
    w = (_edge(p, v1, v2) / area, _edge(p, v2, v0) / area, _edge(p, v0, v1) / area)
    if settings.perspective:
        t = (w[0] * z1 * z2, w[1] * z0 * z2, w[2] * z0 * z1)
        den = (t[0] + t[1] + t[2]).clamp(min=_EPSILON)
        b = (t[0] / den, t[1] / den, t[2] / den)
    else:
        b = w
    inside = (b[0] > 0) & (b[1] > 0) & (b[2] > 0)
    c = b
    if settings.clip:
        c = _clipped(b)
        if settings.perspective and torch.is_grad_enabled() and corners.requires_grad:
            c = _clipped_then_corrected(w, (z0, z1, z2))
    z = c[0] * z0 + c[1] * z1 + c[2] * z2
    dist = _segment(p, v0, v1)
    for other in (_segment(p, v0, v2), _segment(p, v1, v2)):
        dist = torch.where(dist <= other, dist, other)
    return z, torch.stack(c, -1), dist, inside


def _nearest(p: Tensor, faces: Tensor, pairs: Tensor | None, settings: Settings) -> Tensor:
    # (P, 2) points and (F, 3, 3) faces of one mesh to (P, K) face indices, -1 where there are fewer.
    if not len(faces):
        return torch.full((len(p), settings.k), -1, device=p.device)
    z, _, dist, inside = evaluate(p[:, None], faces, settings)
    v0, v1, v2 = faces.unbind(1)
    turn = _edge(v0, v1, v2).double()
    radius = torch.tensor(settings.blur, dtype=p.dtype, device=p.device).sqrt()
    lo, hi = faces[..., :2].amin(1) - radius, faces[..., :2].amax(1) + radius
    seen = (turn.abs() > _EPSILON) & (faces[..., 2].amin(1).double() >= _EPSILON)
    if settings.cull:
        seen = seen & (turn >= 0)
    near = ~((p[:, None] > hi) | (p[:, None] < lo)).any(-1)
    valid = seen & near & ~(z < 0) & (inside | (dist < settings.blur))
    z = torch.where(valid, z, torch.inf)
    if pairs is not None and bool((pairs >= 0).any()):
        return _keep_in_order(z, dist, pairs, settings.k)
    z, order = z.sort(dim=1, stable=True)  # stable: at equal depth the lower index is first
    order, z = order[:, : settings.k], z[:, : settings.k]
    kept = torch.where(torch.isinf(z), -1, order)
    return torch.nn.functional.pad(kept, (0, settings.k - kept.shape[1]), value=-1)


def _keep_in_order(z: Tensor, dist: Tensor, pairs: Tensor, k: int) -> Tensor:
    # Faces one after the other: the second half of a cut face meets the first half where that is kept at this moment,
    # and only the one whose edges are nearer stays.
    kept_z = z.new_full((len(z), k), torch.inf)
    kept = torch.full((len(z), k), -1, device=z.device)
    for f in range(z.shape[1]):
        new_z = z[:, f]
        other = int(pairs[f])
        if 0 <= other < f:
            met = (kept == other) & torch.isfinite(new_z)[:, None]
            wins = dist[:, f] < dist[:, other]
            removed = met & wins[:, None]
            kept_z, kept = torch.where(removed, torch.inf, kept_z), torch.where(removed, -1, kept)
            new_z = torch.where(met.any(1) & ~wins, torch.inf, new_z)
        index = torch.where(torch.isfinite(new_z), f, -1)
        kept_z, order = torch.cat([kept_z, new_z[:, None]], 1).sort(dim=1, stable=True)
        kept = torch.cat([kept, index[:, None]], 1).gather(1, order)[:, :k]
        kept_z = kept_z[:, :k]
    return kept


def _edge(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # Twice the signed area of (p, a, b), x and y of the last axis.
    return (p[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1]) - (p[..., 1] - a[..., 1]) * (b[..., 0] - a[..., 0])


def _clipped(b: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    m = (b[0].clamp(min=0), b[1].clamp(min=0), b[2].clamp(min=0))
    total = (m[0] + m[1] + m[2]).clamp(min=1e-5)
    return m[0] / total, m[1] / total, m[2] / total


def _clipped_then_corrected(w, z) -> tuple[Tensor, Tensor, Tensor]:
    # The same values as correcting first, for positive depths, but no denominator can vanish.
    u = tuple(wi.clamp(min=0) / zi for wi, zi in zip(w, z, strict=True))
    total = u[0] + u[1] + u[2]
    return u[0] / total, u[1] / total, u[2] / total


def _segment(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # Squared distance to the segment a b. The foot point moves along the segment without changing the distance to
    # first order, so its parameter needs no gradient.
    ax, ay, bx, by = a[..., 0], a[..., 1], b[..., 0], b[..., 1]
    dx, dy = bx - ax, by - ay
    with torch.no_grad():
        length2 = dx * dx + dy * dy
        t = (dx * (p[..., 0] - ax) + dy * (p[..., 1] - ay)) / length2
        t = t.clamp(0, 1)
        point = length2 <= _EPSILON
        t = torch.where(point, 1.0, t)
    qx, qy = ax + t * dx, ay + t * dy
    # A segment shorter than 1e-4 counts as its second end point.
    qx, qy = torch.where(point, bx, qx), torch.where(point, by, qy)
    ex, ey = p[..., 0] - qx, p[..., 1] - qy
    return ex * ex + ey * ey
