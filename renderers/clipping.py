"""Cutting faces at a plane in front of the camera, so that the part beyond it can be projected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Clipped(NamedTuple):
    """Faces after clipping, in the order of the faces they came from."""

    face_verts: Tensor
    """(F', 3, 3) corners."""
    face: Tensor
    """(F',) int64: the face each came from."""
    bary: Tensor
    """(F', 3, 3): column k holds the barycentric coordinates of corner k in the face it came from."""
    neighbour: Tensor
    """(F',) int64: where one face became two, the other of the pair; -1 elsewhere."""

    def counts(self, before: Sequence[int]) -> list[int]:
        """Faces of each mesh after clipping, from those before, for meshes packed one after the other."""
        if not before:
            return []
        ends = torch.searchsorted(self.face.cpu(), torch.tensor(before).cumsum(0)).tolist()
        return [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def clip_faces(face_verts: Tensor, z_clip: float, *, perspective: bool) -> Clipped:
    """Cut faces at depth `z_clip`; what is nearer is dropped.

    A face with one corner in front keeps a smaller triangle, one with two corners in front a quadrilateral, as two
    triangles. Cut points are linear in view space; their weights carry gradients to the corners.

    Args:
        face_verts: (F, 3, 3) corners: x, y and the view depth z.
        z_clip: depth of the plane, > 0 if perspective.
        perspective: x and y have been divided by z (they are multiplied again before cutting); False where they are
            linear, as in an orthographic camera or in camera space itself.
    """
    near = face_verts[..., 2] < z_clip
    count = near.sum(-1)
    device = face_verts.device
    eye = torch.eye(3, dtype=face_verts.dtype, device=device)
    whole = torch.nonzero(count == 0)[:, 0]
    ids, corners, matrices = [whole], [face_verts[whole]], [eye.expand(len(whole), 3, 3)]
    pieces = [torch.zeros_like(whole)]
    for behind in (1, 2):
        cut = torch.nonzero(count == behind)[:, 0]
        # p1 is the corner alone on its side, p2 and p3 follow it around the face.
        alone = (near[cut] == (behind == 1)).to(torch.int8).argmax(-1)
        order = (alone[:, None] + torch.arange(3, device=device)) % 3
        verts = torch.gather(face_verts[cut], 1, order[..., None].expand(-1, -1, 3))
        units = eye[order]  # (n, corner, original corner)
        p4, b4 = _cut_point(verts, units, 1, z_clip, perspective)
        p5, b5 = _cut_point(verts, units, 2, z_clip, perspective)
        p, b = verts.unbind(1), units.unbind(1)
        if behind == 2:
            triangles = [((p4, p5, p[0]), (b4, b5, b[0]))]
        else:
            triangles = [((p4, p[1], p5), (b4, b[1], b5)), ((p5, p[1], p[2]), (b5, b[1], b[2]))]
        for half, (points, weights) in enumerate(triangles):
            ids.append(cut)
            corners.append(torch.stack(points, 1))
            matrices.append(torch.stack(weights, -1))
            pieces.append(torch.full_like(cut, half))
    face, piece = torch.cat(ids), torch.cat(pieces)
    by_face = torch.argsort(2 * face + piece)
    face, piece = face[by_face], piece[by_face]
    here = torch.arange(len(face), device=device)
    first_of_two = torch.zeros_like(face, dtype=torch.bool)
    first_of_two[:-1] = piece[1:] == 1
    neighbour = torch.where(piece == 1, here - 1, torch.where(first_of_two, here + 1, torch.full_like(here, -1)))
    return Clipped(torch.cat(corners)[by_face], face, torch.cat(matrices)[by_face], neighbour)


def _cut_point(verts: Tensor, units: Tensor, k: int, z_clip: float, perspective: bool) -> tuple[Tensor, Tensor]:
    # Where the edge from corner 0 to corner k meets the plane: the point and its barycentric coordinates.
    z1, z2 = verts[:, 0, 2:], verts[:, k, 2:]
    plane = torch.full_like(z1, z_clip)  # a tensor: GPUs divide by a number as they multiply by its inverse
    weight = (z1 - plane) / (z1 - z2)
    xy1, xy2 = verts[:, 0, :2], verts[:, k, :2]
    if perspective:
        xy = (xy1 * z1 * (1 - weight) + xy2 * z2 * weight) / plane
    else:
        xy = xy1 * (1 - weight) + xy2 * weight
    point = torch.cat([xy, plane], -1)
    return point, units[:, 0] * (1 - weight) + units[:, k] * weight
