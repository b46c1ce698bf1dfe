"""Draw lit meshes of one scene into premultiplied colour and alpha: the engine below `renderers.shading`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from renderers.threads import map_threads

PALETTE: tuple[tuple[float, float, float], ...] = (
    (0.62, 0.74, 0.90),  # sky
    (0.96, 0.66, 0.55),  # coral
    (0.64, 0.82, 0.66),  # sage
    (0.95, 0.81, 0.53),  # sand
    (0.77, 0.69, 0.90),  # lavender
    (0.53, 0.81, 0.82),  # teal
    (0.94, 0.68, 0.78),  # rose
    (0.80, 0.76, 0.70),  # clay
)
"""Colours of successive people, display-coded r, g, b in [0, 1]."""

NEAR = 0.02
"""Metres in front of the camera at which meshes are cut."""

_STRIP_ROWS = 128  # of output pixels; fixed, so that the picture does not depend on the number of threads

# Towards a warm key light at the upper left of the camera, a cool weak fill at its right, a rim light behind.
_LIGHTS = ((-0.55, -0.75, -0.75, 0.82, 0.79, 0.74, 0.18), (0.85, -0.15, -0.60, 0.20, 0.23, 0.28, 0.50))
_RIM = (0.35, -0.60, 0.72, 0.22, 0.22, 0.24, 0.0)
_MATERIAL = (0.19, 0.20, 0.22, 0.09, 0.085, 0.08, 0.045, 4.0)


class Scene(NamedTuple):
    """Meshes of one picture packed into one."""

    vertices: np.ndarray
    """(V, 3) float32, OpenCV camera frame, metres."""
    faces: np.ndarray
    """(F, 3) int32."""
    normals: np.ndarray
    """(V, 3) float32 unit normals."""
    colours: np.ndarray
    """(V, 3) float32 in [0, 1]."""


def pack_scene(
    meshes: Sequence[np.ndarray], faces: np.ndarray | Sequence[np.ndarray], colours: Sequence[np.ndarray | tuple]
) -> Scene:
    """Join meshes, compute smooth normals, and cut what reaches behind the camera.

    Args:
        meshes: (V_i, 3) vertices each, OpenCV camera frame, metres.
        faces: (F, 3) vertex indices of all meshes, or one array per mesh.
        colours: per mesh one (r, g, b) or (V_i, 3), in [0, 1].
    """
    from renderers.backends.cpu import vertex_normals

    shared = not isinstance(faces, (list, tuple))
    vertices, packed, normals, tints, offset = [], [], [], [], 0
    for i, mesh in enumerate(meshes):
        mesh = np.ascontiguousarray(_to_numpy(mesh), np.float32)
        its_faces = np.ascontiguousarray(_to_numpy(faces if shared else faces[i]), np.int32)
        normals.append(vertex_normals(mesh, its_faces))
        if not np.isfinite(mesh).all():
            raise ValueError(f"Mesh {i} has vertices that are not finite. Leave it out or repair it before drawing.")
        tint = np.asarray(_to_numpy(colours[i]), np.float32)
        if tint.shape not in ((3,), mesh.shape):
            raise ValueError(f"The colour of mesh {i} has shape {tint.shape}. Give (3,) or one row per vertex, (V, 3).")
        vertices.append(mesh)
        packed.append(its_faces + offset)
        tints.append(np.broadcast_to(tint, mesh.shape))
        offset += len(mesh)
    if not vertices:
        nothing = np.zeros((0, 3), np.float32)
        return Scene(nothing, np.zeros((0, 3), np.int32), nothing, nothing)
    scene = Scene(*map(np.concatenate, (vertices, packed, normals, tints)))
    return _clip(scene) if (scene.vertices[:, 2] < NEAR).any() else scene


class Layer(NamedTuple):
    """The part of a picture that a scene covers."""

    rgba: np.ndarray
    """(h, w, 4) float32 premultiplied display-coded r, g, b and coverage, in [0, 1]."""
    rows: slice
    """Where it lies in the picture; empty where nothing is seen."""
    columns: slice

    def over(self, picture: np.ndarray, opacity: float = 1.0) -> None:
        """Lay it over a picture, (H, W, 3) uint8 or float32 in [0, 1], in place."""
        import cv2

        below = picture[self.rows, self.columns]
        if below.size == 0:
            return
        unit = 255 if picture.dtype == np.uint8 else 1
        share = 1 - np.float32(opacity) * self.rgba[..., 3]
        mixed = cv2.multiply(below, cv2.merge([share] * 3), dtype=cv2.CV_32F)
        mixed = cv2.scaleAdd(cv2.cvtColor(self.rgba, cv2.COLOR_RGBA2RGB), opacity * unit, mixed)
        below[:] = np.rint(mixed, out=mixed) if unit == 255 else mixed


def draw(
    scene: Scene, K: np.ndarray, size_hw: tuple[int, int], *, supersample: int = 2, threads: int | None = None
) -> Layer:
    """Draw a scene as seen by a camera with intrinsics K in a picture of some size, pixels.

    Each pixel is the mean of supersample x supersample samples. Only the rectangle that the meshes cover is worked on.
    """
    from renderers.backends.cpu import rasterize_hard
    from renderers.backends.shade import shade

    if supersample < 1:
        raise ValueError(f"supersample is {supersample}. Give the number of samples along a pixel's side, at least 1.")
    px = project(scene.vertices, K)
    low, high = _extents(px[:, :2], scene.faces)
    used = (low.min(0), high.max(0)) if len(low) else np.zeros((2, 2))
    left, top = (int(x) for x in np.floor(np.clip(used[0], 0, size_hw[::-1])))
    right, bottom = (int(x) for x in np.ceil(np.clip(used[1], 0, size_hw[::-1])))
    rgba = np.zeros((bottom - top, right - left, 4), np.float32)
    lights = np.array([_unit_light(x) for x in (*_LIGHTS, _RIM)], np.float32)
    material = np.array(_MATERIAL, np.float32)
    step = 1.0 / supersample / np.array([K[0, 0], K[1, 1]])

    def strip(first: int) -> None:
        window = rgba[first - top : first - top + _STRIP_ROWS]
        part = scene._replace(faces=scene.faces[(low[:, 1] <= first + len(window)) & (high[:, 1] >= first)])
        moved = px.copy()
        moved[:, :2] = (moved[:, :2] - (left, first)) * supersample
        samples = (window.shape[0] * supersample, window.shape[1] * supersample)
        hard = rasterize_hard(moved, part.faces, samples, near=NEAR * 0.5)
        start = (np.array([left, first]) - (K[0, 2], K[1, 2])) / (K[0, 0], K[1, 1])
        rays = np.concatenate([start, step]).astype(np.float32)
        shade(hard.face, hard.bary, *part, rays, lights, material, supersample, window)

    if rgba.size:
        map_threads(strip, range(top, bottom, _STRIP_ROWS), threads)
    return Layer(rgba, slice(top, bottom), slice(left, right))


def _extents(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest coordinates (F, 2) of each face."""
    a, b, c = (points[corner] for corner in faces.T)
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def project(vertices_cam: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(V, 3) OpenCV camera frame to (V, 3) float32: pixel x, y and depth. Points at depth 0 or less become NaN."""
    x, y, z = np.asarray(vertices_cam, np.float64).T
    depth = np.where(z > 0, z, np.nan)
    K = np.asarray(_to_numpy(K), np.float64)
    u = (K[0, 0] * x + K[0, 1] * y) / depth + K[0, 2]
    v = K[1, 1] * y / depth + K[1, 2]
    return np.stack([u, v, depth], -1).astype(np.float32)


def _clip(scene: Scene) -> Scene:
    import torch

    from renderers.clipping import clip_faces

    clipped = clip_faces(torch.from_numpy(scene.vertices[scene.faces]), NEAR, perspective=False)
    weights = clipped.bary.numpy()
    corners = scene.faces[clipped.face.numpy()]
    # New corner k of face f is sum_j weights[f, j, k] times old corner j, for positions, normals and colours alike.
    blended = [np.einsum("fjk,fjc->fkc", weights, x[corners]).reshape(-1, 3) for x in scene[2:]]
    vertices = clipped.face_verts.numpy().reshape(-1, 3)
    return Scene(vertices, np.arange(len(vertices), dtype=np.int32).reshape(-1, 3), *blended)


def _unit_light(light: tuple[float, ...]) -> np.ndarray:
    unit = np.array(light)
    unit[:3] /= np.linalg.norm(unit[:3])
    return unit


def _to_numpy(x):
    return x.detach().cpu().numpy() if hasattr(x, "detach") else x
