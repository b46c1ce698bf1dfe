"""Pictures of bodies: lit meshes, over a photograph, as masks, from other sides, on sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from renderers.drawing import PALETTE, draw, pack_scene, project
from renderers.sheets import contact_sheet, write
from renderers.views import side_view, top_view

__all__ = ["PALETTE", "contact_sheet", "overlay", "render_mesh", "side_view", "silhouette", "top_view", "write"]


def render_mesh(
    vertices_cam: np.ndarray | Sequence[np.ndarray],
    faces: np.ndarray | Sequence[np.ndarray],
    K: np.ndarray,
    size_hw: tuple[int, int],
    *,
    colour: Any = None,
    background: tuple[float, float, float] | None = None,
    supersample: int = 2,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one mesh, or several of one scene, with soft light and smooth shading.

    Args:
        vertices_cam: (V, 3) OpenCV camera frame (x right, y down, z forward), metres; or a list of such.
        faces: (F, 3) vertex indices; for a list of meshes one array for all, or a list.
        K: (3, 3) intrinsics, pixels (outer corner of the first pixel at (0, 0)).
        size_hw: height and width of the picture.
        colour: (r, g, b) in [0, 1], or (V, 3) per vertex; for a list of meshes a list of them. `PALETTE` by default.
        background: (r, g, b) to put below the mesh. None leaves the mesh's own colour, not mixed with anything, in
            half-covered pixels and black where nothing is.
        supersample: samples along each side of a pixel; 1 switches smoothing of edges off.
        threads: see `renderers.threads.thread_count`; the picture does not depend on it.

    Returns:
        (H, W, 3) uint8 RGB and (H, W) float32 share of each pixel that is covered. What is nearer than 2 cm to the
        camera or behind it is cut away.
    """
    meshes = _as_list(vertices_cam)
    single = len(meshes) == 1 and meshes[0] is vertices_cam
    tints: Any = [colour] if single and colour is not None else colour
    scene = pack_scene(meshes, faces, _colours(tints, len(meshes)))
    layer = draw(scene, _intrinsics(K), size_hw, supersample=supersample, threads=threads)
    alpha = np.zeros(size_hw, np.float32)
    alpha[layer.rows, layer.columns] = layer.rgba[..., 3]
    picture = np.zeros((*size_hw, 3), np.float32)
    if background is None:
        own = layer.rgba[..., :3] / np.maximum(layer.rgba[..., 3:], 1e-6)
        picture[layer.rows, layer.columns] = own
    else:
        picture[:] = background
        layer.over(picture)
    return np.round(picture.clip(0, 1) * 255).astype(np.uint8), alpha


def overlay(
    photo: np.ndarray,
    meshes: Sequence[np.ndarray],
    faces: np.ndarray | Sequence[np.ndarray],
    K: np.ndarray,
    *,
    colours: Sequence | None = None,
    opacity: float = 0.92,
    supersample: int = 2,
    threads: int | None = None,
) -> np.ndarray:
    """Draw bodies over their photograph at its full resolution; nearer bodies hide farther ones.

    Args:
        photo: (H, W, 3) uint8 RGB.
        meshes: (V_i, 3) vertices each, OpenCV camera frame of this photograph, metres; may be empty.
        faces: (F, 3) for all, or one array per mesh.
        K: (3, 3) intrinsics of the photograph, pixels.
        colours: one per mesh, (r, g, b) in [0, 1] or (V_i, 3); `PALETTE` by default.
        opacity: of the bodies, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB; a new array.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"The photograph is {photo.shape} {photo.dtype}. Give (H, W, 3) uint8 RGB.")
    people = _as_list(meshes)
    scene = pack_scene(people, faces, _colours(colours, len(people)))
    out = photo.copy()
    draw(scene, _intrinsics(K), photo.shape[:2], supersample=supersample, threads=threads).over(out, opacity)
    return out


def silhouette(
    vertices_cam: np.ndarray | Sequence[np.ndarray],
    faces: np.ndarray | Sequence[np.ndarray],
    K: np.ndarray,
    size_hw: tuple[int, int],
    *,
    threads: int = 1,
) -> np.ndarray:
    """(H, W) bool: the pixels whose centre a mesh (or any of a list) covers. Arguments as in `render_mesh`."""
    from renderers.backends.cpu import rasterize_hard

    meshes = _as_list(vertices_cam)
    scene = pack_scene(meshes, faces, _colours(None, len(meshes)))
    return rasterize_hard(project(scene.vertices, _intrinsics(K)), scene.faces, size_hw, threads=threads).face >= 0


def _as_list(meshes: Any) -> list[Any]:
    return list(meshes) if isinstance(meshes, (list, tuple)) or meshes.ndim == 3 else [meshes]


def _colours(colours: Sequence | None, count: int) -> Sequence:
    if colours is None:
        return [PALETTE[i % len(PALETTE)] for i in range(count)]
    if len(colours) != count:
        raise ValueError(f"{len(colours)} colours were given for {count} meshes. Give one each.")
    return colours


def _intrinsics(K: np.ndarray) -> np.ndarray:
    K = np.asarray(K.detach().cpu() if hasattr(K, "detach") else K, np.float64)
    if K.shape != (3, 3) or not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(f"K has shape {K.shape}, or no positive focal lengths. Give (3, 3) intrinsics in pixels.")
    return K
