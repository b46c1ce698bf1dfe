"""Lit colours in world space, differentiable: Phong's model per pixel, per vertex or per face.

Formulas and defaults are PyTorch3D's (Ravi et al., 2020). For quick pictures of bodies over photographs see
`renderers.shading` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from renderers.blending import interpolate_corners, interpolate_faces
from renderers.rasterize import Fragments

_EPS = 1e-6

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """A lamp in the world: at a point, or so far away that only its direction counts."""

    location: Tensor | None = None
    """(N, 3) or (3,) position of a point light."""
    direction: Tensor | None = None
    """(N, 3) or (3,) direction towards a distant light; used where there is no location."""
    ambient: Rgb = (0.5, 0.5, 0.5)
    diffuse: Rgb = (0.3, 0.3, 0.3)
    specular: Rgb = (0.2, 0.2, 0.2)


@dataclass(frozen=True)
class Material:
    """How much of each kind of light a surface gives back."""

    ambient: Rgb = (1.0, 1.0, 1.0)
    diffuse: Rgb = (1.0, 1.0, 1.0)
    specular: Rgb = (1.0, 1.0, 1.0)
    shininess: float = 64.0


def face_normals(verts: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) vertices and (F, 3) faces to (F, 3) unit normals, towards where the corners run counter-clockwise."""
    v0, v1, v2 = verts[faces].unbind(1)
    return normalize(torch.linalg.cross(v1 - v0, v2 - v0), dim=-1, eps=_EPS)


def vertex_normals(verts: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) area-weighted unit normals of the vertices."""
    v0, v1, v2 = verts[faces].unbind(1)
    area = torch.linalg.cross(v1 - v0, v2 - v0)
    total = torch.zeros_like(verts).index_add(0, faces.reshape(-1), area.repeat_interleave(3, 0))
    return normalize(total, dim=-1, eps=_EPS)


def normals_hard(fragments: Fragments, verts: Tensor, faces: Tensor) -> Tensor:
    """(N, H, W, 3) unit normals of the nearest surface, smooth over faces, in the frame of `verts`; 0 at background.

    Differentiable with respect to the vertices and the fragments.

    Args:
        verts: (V, 3) packed vertices of the batch.
        faces: (F, 3) packed faces.
    """
    first = Fragments(*(x[:, :, :, :1] for x in fragments))
    return normalize(interpolate_corners(first, vertex_normals(verts, faces)[faces])[..., 0, :], dim=-1, eps=_EPS)


def lit(
    points: Tensor, normals: Tensor, colours: Tensor, eye: Tensor, light: Light, material: Material | None = None
) -> Tensor:
    """Phong's reflection model: (ambient + diffuse) colour + highlight.

    diffuse = relu(n . l), highlight = relu(v . r)^shininess where n . l > 0, with r the mirrored direction of the light
    and v the direction to the eye.

    Args:
        points, normals, colours: (..., 3) in the world; normals of any length.
        eye: (..., 3) position of the camera, broadcast against the points.

    Raises:
        ValueError: the light has neither location nor direction.
    """
    material = material or Material()
    if light.location is not None:
        to_light = _like(light.location, points) - points
    elif light.direction is not None:
        to_light = _like(light.direction, points).expand_as(points)
    else:
        raise ValueError("The light has neither location nor direction. Give one of them.")
    n = normalize(normals, dim=-1, eps=_EPS)
    towards = normalize(to_light, dim=-1, eps=_EPS)
    cosine = (n * towards).sum(-1, keepdim=True)
    view = normalize(eye - points, dim=-1, eps=_EPS)
    mirrored = 2 * cosine * n - towards
    shine = (view * mirrored).sum(-1, keepdim=True).relu() * (cosine > 0)
    tensor = points.new_tensor
    ambient = tensor(material.ambient) * tensor(light.ambient)
    diffuse = tensor(material.diffuse) * tensor(light.diffuse) * cosine.relu()
    highlight = tensor(material.specular) * tensor(light.specular) * shine**material.shininess
    return (ambient + diffuse) * colours + highlight


def _like(values: Tensor, points: Tensor) -> Tensor:
    # (N, 3) or (3,) against (N, ..., 3) points.
    if values.ndim == 1 or values.ndim == points.ndim:
        return values
    return values.reshape(len(values), *[1] * (points.ndim - 2), 3)


def shade_phong(
    fragments: Fragments,
    verts: Tensor,
    faces: Tensor,
    colours: Tensor,
    eye: Tensor,
    light: Light,
    material: Material | None = None,
) -> Tensor:
    """Lit colours of the fragments, with points and normals interpolated per pixel: (N, H, W, K, 3).

    Args:
        verts: (V, 3) packed vertices of the batch in the world.
        faces: (F, 3) packed faces.
        colours: (V, 3).
        eye: (N, 3) camera of each image.
    """
    corners = torch.cat([verts, vertex_normals(verts, faces), colours], -1)[faces]
    points, normals, texels = interpolate_corners(fragments, corners).split(3, -1)
    return lit(points, normals, texels, _like(eye, points), light, material)


def shade_flat(
    fragments: Fragments,
    verts: Tensor,
    faces: Tensor,
    colours: Tensor,
    eye: Tensor,
    light: Light,
    material: Material | None = None,
) -> Tensor:
    """As `shade_phong`, with one normal and one point, the centroid, per face; the colours are interpolated."""
    centres = torch.cat([verts[faces].mean(1), face_normals(verts, faces)], -1)
    points, normals = interpolate_faces(fragments, centres).split(3, -1)
    texels = interpolate_corners(fragments, colours[faces])
    return lit(points, normals, texels, _like(eye, points), light, material)


def shade_gouraud(
    fragments: Fragments,
    verts: Tensor,
    faces: Tensor,
    colours: Tensor,
    eye: Tensor,
    light: Light,
    material: Material | None = None,
    *,
    image_of_vertex: Tensor | None = None,
) -> Tensor:
    """As `shade_phong`, but lit at the vertices, whose colours are interpolated.

    Args:
        image_of_vertex: (V,) index of each vertex's image in the batch; all 0 by default.
    """
    image = verts.new_zeros(len(verts), dtype=torch.int64) if image_of_vertex is None else image_of_vertex

    def at(values: Tensor | None) -> Tensor | None:
        return values if values is None or values.ndim == 1 else values[image]

    lamp = Light(at(light.location), at(light.direction), light.ambient, light.diffuse, light.specular)
    shaded = lit(verts, vertex_normals(verts, faces), colours, eye[image], lamp, material)
    return interpolate_corners(fragments, shaded[faces])
