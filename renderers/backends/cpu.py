"""Numba kernels for the nearest surface of one mesh: z-buffer and attribute interpolation.

Pixels follow the rule of the whole project: the centre of pixel (row r, column c) is (c + 0.5, r + 0.5), x to the
right, y down, depth z in metres along the viewing axis.

Coverage is watertight: an edge is evaluated from the same end point for both faces that share it, and a centre exactly
on it belongs to exactly one of them. (The soft rasteriser of `renderers.rasterize` keeps the other, PyTorch3D rule:
such a centre is inside neither.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.jit import kernel
from renderers.threads import map_threads


class Hard(NamedTuple):
    """Nearest surface per pixel."""

    face: np.ndarray
    """(H, W) int32 index of the nearest face, -1 where there is none."""
    zbuf: np.ndarray
    """(H, W) float32 depth of that surface, metres; 0 where there is none."""
    bary: np.ndarray
    """(H, W, 3) float32 perspective-correct barycentric coordinates, sum 1; 0 where there is none."""


def rasterize_hard(
    vertices_px: np.ndarray, faces: np.ndarray, size_hw: tuple[int, int], *, near: float = 1e-3, threads: int = 1
) -> Hard:
    """Find the nearest face, its depth and perspective-correct barycentrics at every pixel centre.

    Args:
        vertices_px: (V, 3) float32, x and y in pixels, z the depth in metres.
        faces: (F, 3) int32 vertex indices; both sides are drawn.
        size_hw: image height and width in pixels.
        near: a face with a vertex nearer than this (metres), behind the camera or not finite is left out whole; call
            `renderers.clipping.clip_near` before projection to keep the part in front.
        threads: bands of rows worked on at once; the result does not depend on it.

    At equal depth the lower face index wins.

    Raises:
        ValueError: wrong shapes, or a face index outside the vertices.
    """
    vertices_px, faces = _checked(vertices_px, faces)
    h, w = int(size_hw[0]), int(size_hw[1])
    if h < 1 or w < 1:
        raise ValueError(f"The image size is {h} x {w} pixels. Give a height and a width of at least 1.")
    face = np.full((h, w), -1, np.int32)
    zbuf = np.zeros((h, w), np.float32)
    bary = np.zeros((h, w, 3), np.float32)
    inverse_z = np.zeros((h, w), np.float64)
    bands = max(1, min(threads, h))
    rows = [(h * i // bands, h * (i + 1) // bands) for i in range(bands)]

    def band(row_range: tuple[int, int]) -> None:
        _nearest(vertices_px, faces, row_range[0], row_range[1], float(near), face, inverse_z)
        _resolve(vertices_px, faces, row_range[0], row_range[1], face, inverse_z, zbuf, bary)

    map_threads(band, rows, threads=bands)
    return Hard(face, zbuf, bary)


def interpolate(
    face: np.ndarray, bary: np.ndarray, attributes: np.ndarray, faces: np.ndarray, *, unit: bool = False
) -> np.ndarray:
    """Interpolate vertex attributes over the image of `rasterize_hard`.

    Args:
        face: (H, W) int32, -1 = background.
        bary: (H, W, 3) float32.
        attributes: (V, C) float32 per vertex, e.g. colours, part probabilities or normals.
        faces: (F, 3) int32.
        unit: scale each result to length 1, for normals.

    Returns:
        (H, W, C) float32, 0 at background.
    """
    attributes = np.ascontiguousarray(attributes, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    if attributes.ndim != 2:
        raise ValueError(f"The attributes have shape {attributes.shape}. Give one row of values per vertex, (V, C).")
    if faces.size and int(faces.max()) >= len(attributes):
        raise ValueError(f"A face uses vertex {faces.max()} of {len(attributes)}. Give attributes of every vertex.")
    out = np.zeros((*face.shape, attributes.shape[1]), np.float32)
    _interpolate(face, bary, attributes, faces, unit, out)
    return out


def interpolate_normals(face: np.ndarray, bary: np.ndarray, normals: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Interpolate (V, 3) vertex normals to (H, W, 3) unit normals, 0 at background."""
    return interpolate(face, bary, normals, faces, unit=True)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals of the vertices: (V, 3) and (F, 3) to (V, 3) float32, 0 for a vertex without faces."""
    vertices, faces = _checked(vertices, faces)
    out = np.zeros((len(vertices), 3), np.float32)
    _vertex_normals(vertices, faces, out)
    return out


def _checked(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"The vertices have shape {vertices.shape}. Give (V, 3).")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"The faces have shape {faces.shape}. Give (F, 3) vertex indices of triangles.")
    if faces.size and (int(faces.min()) < 0 or int(faces.max()) >= len(vertices)):
        raise ValueError(
            f"The faces use vertices {faces.min()} to {faces.max()} of {len(vertices)}. Give indices of this mesh."
        )
    return vertices, faces


@kernel
def _edge(ax, ay, bx, by, sign):
    # Both faces at an edge start from the same end, so their edge functions are exact negatives of each other.
    # Returns start, direction times side, and the least value that counts as inside: zero for the face that runs along
    # the edge in canonical order, just above zero for the other.
    if ay > by or (ay == by and ax > bx):
        return bx, by, -sign * (ax - bx), -sign * (ay - by), 0.0 if sign < 0.0 else 1e-300
    return ax, ay, sign * (bx - ax), sign * (by - ay), 0.0 if sign > 0.0 else 1e-300


@kernel
def _nearest(vertices, faces, row_begin, row_end, near, out_face, out_inverse_z):
    w = out_face.shape[1]
    for f in range(faces.shape[0]):
        i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
        z0, z1, z2 = np.float64(vertices[i0, 2]), np.float64(vertices[i1, 2]), np.float64(vertices[i2, 2])
        if not (z0 >= near and z1 >= near and z2 >= near):  # also skips NaN
            continue
        x0, y0 = np.float64(vertices[i0, 0]), np.float64(vertices[i0, 1])
        x1, y1 = np.float64(vertices[i1, 0]), np.float64(vertices[i1, 1])
        x2, y2 = np.float64(vertices[i2, 0]), np.float64(vertices[i2, 1])
        top = np.ceil(max(min(y0, y1, y2) - 0.5, np.float64(row_begin)))
        bottom = np.floor(min(max(y0, y1, y2) - 0.5, np.float64(row_end - 1)))
        left = np.ceil(max(min(x0, x1, x2) - 0.5, 0.0))
        right = np.floor(min(max(x0, x1, x2) - 0.5, np.float64(w - 1)))
        if not (top <= bottom and left <= right):
            continue
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        if not (area != 0.0 and abs(area) < 1e300):  # edge-on or not finite
            continue
        # e0 belongs to the edge opposite of vertex 0, and so on; all are positive inside.
        sign = -1.0 if area > 0.0 else 1.0
        ax0, ay0, dx0, dy0, least0 = _edge(x1, y1, x2, y2, sign)
        ax1, ay1, dx1, dy1, least1 = _edge(x2, y2, x0, y0, sign)
        ax2, ay2, dx2, dy2, least2 = _edge(x0, y0, x1, y1, sign)
        scale = 1.0 / abs(area)
        q0, q1, q2 = scale / z0, scale / z1, scale / z2
        for r in range(int(top), int(bottom) + 1):
            py = r + 0.5
            c0, c1, c2 = (py - ay0) * dx0, (py - ay1) * dx1, (py - ay2) * dx2
            entered = False
            for c in range(int(left), int(right) + 1):
                px = c + 0.5
                e0 = (px - ax0) * dy0 - c0
                e1 = (px - ax1) * dy1 - c1
                e2 = (px - ax2) * dy2 - c2
                if e0 >= least0 and e1 >= least1 and e2 >= least2:
                    entered = True
                    inverse_z = e0 * q0 + e1 * q1 + e2 * q2  # 1/z is affine in the image
                    if inverse_z > out_inverse_z[r, c]:
                        out_inverse_z[r, c] = inverse_z
                        out_face[r, c] = f
                elif entered:  # a triangle is convex: this row is done
                    break


@kernel
def _resolve(vertices, faces, row_begin, row_end, face, inverse_z, out_z, out_bary):
    for r in range(row_begin, row_end):
        py = r + 0.5
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            x0, y0 = np.float64(vertices[i0, 0]), np.float64(vertices[i0, 1])
            x1, y1 = np.float64(vertices[i1, 0]), np.float64(vertices[i1, 1])
            x2, y2 = np.float64(vertices[i2, 0]), np.float64(vertices[i2, 1])
            px = c + 0.5
            sign = 1.0 if (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) > 0.0 else -1.0
            # Weights over depth are clipped at 0: rounding may leave a tiny negative one on an edge.
            u0 = max(sign * ((x1 - px) * (y2 - py) - (y1 - py) * (x2 - px)), 0.0) / vertices[i0, 2]
            u1 = max(sign * ((x2 - px) * (y0 - py) - (y2 - py) * (x0 - px)), 0.0) / vertices[i1, 2]
            u2 = max(sign * ((x0 - px) * (y1 - py) - (y0 - py) * (x1 - px)), 0.0) / vertices[i2, 2]
            total = u0 + u1 + u2
            if total > 0.0:
                out_bary[r, c, 0] = u0 / total
                out_bary[r, c, 1] = u1 / total
                out_bary[r, c, 2] = u2 / total
            else:
                out_bary[r, c, 0] = 1.0
            out_z[r, c] = 1.0 / inverse_z[r, c]


@kernel
def _interpolate(face, bary, attributes, faces, unit, out):
    channels = attributes.shape[1]
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
            b0, b1, b2 = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
            squares = np.float32(0.0)
            for k in range(channels):
                value = b0 * attributes[i0, k] + b1 * attributes[i1, k] + b2 * attributes[i2, k]
                out[r, c, k] = value
                squares += value * value
            if unit and squares > 0.0:
                scale = np.float32(1.0 / np.sqrt(squares))
                for k in range(channels):
                    out[r, c, k] *= scale


@kernel
def _vertex_normals(vertices, faces, out):
    for f in range(faces.shape[0]):
        i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = (
            vertices[i1, 0] - vertices[i0, 0],
            vertices[i1, 1] - vertices[i0, 1],
            vertices[i1, 2] - vertices[i0, 2],
        )
        bx, by, bz = (
            vertices[i2, 0] - vertices[i0, 0],
            vertices[i2, 1] - vertices[i0, 1],
            vertices[i2, 2] - vertices[i0, 2],
        )
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for i in (i0, i1, i2):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] * out[i, 0] + out[i, 1] * out[i, 1] + out[i, 2] * out[i, 2])
        if length > 0.0:
            out[i, 0] /= length
            out[i, 1] /= length
            out[i, 2] /= length
