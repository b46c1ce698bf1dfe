"""See bodies from the side and from above, framed by themselves, on a ground grid with soft shadows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.drawing import PALETTE, draw, pack_scene, project

_FOV = 0.45  # radians over the shorter side: a portrait lens
_PAPER = (0.955, 0.96, 0.97)
_LINE = np.array([0.80, 0.82, 0.85])
_GRID_NEAR = 0.1  # metres from the eye at which lines on the ground end


def side_view(
    meshes: Sequence[np.ndarray],
    faces: np.ndarray | Sequence[np.ndarray],
    size_hw: tuple[int, int] = (512, 512),
    *,
    azimuth: float = np.pi / 2,
    elevation: float = 0.18,
    colours: Sequence | None = None,
    ground: bool = True,
    supersample: int = 2,
    threads: int | None = None,
) -> np.ndarray:
    """Draw bodies as seen from their side.

    At the default azimuth the eye stands to the right of the scene (at +x of the camera frame) and looks to its left,
    so that depth grows to the right of the picture: errors in depth, hidden in the photograph, show here.

    Args:
        meshes: (V_i, 3) vertices each, OpenCV camera frame (y down), metres.
        faces: (F, 3) for all, or one array per mesh.
        size_hw: height and width of the picture.
        azimuth: radians about the vertical; 0 looks along the camera's own axis, pi from behind.
        elevation: radians by which the eye looks down.
        colours: one per mesh, (r, g, b) in [0, 1] or (V_i, 3); `PALETTE` by default.
        ground: draw a half-metre grid at the lowest point, and shadows.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    forward = np.array([-sa * ce, se, ca * ce])
    right = np.array([ca, 0.0, sa])
    return _view(meshes, faces, size_hw, right, forward, colours, ground, supersample, threads)


def top_view(
    meshes: Sequence[np.ndarray],
    faces: np.ndarray | Sequence[np.ndarray],
    size_hw: tuple[int, int] = (512, 512),
    *,
    colours: Sequence | None = None,
    ground: bool = True,
    supersample: int = 2,
    threads: int | None = None,
) -> np.ndarray:
    """Draw bodies as seen from above, like a map: camera x to the right, farther from the camera upwards.

    Arguments and result as in `side_view`.
    """
    right, forward = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    return _view(meshes, faces, size_hw, right, forward, colours, ground, supersample, threads)


def _view(meshes, faces, size_hw, right, forward, colours, ground, supersample, threads) -> np.ndarray:
    R_view_from_cam = np.stack([right, np.cross(forward, right), forward])
    meshes = [np.asarray(m.detach().cpu() if hasattr(m, "detach") else m, np.float64) for m in meshes]
    points = np.concatenate(meshes) if meshes else np.zeros((1, 3))
    if not np.isfinite(points).all():
        raise ValueError("Some vertices are not finite. Leave those bodies out of the view.")
    half = min(size_hw) / 2
    K = np.array(
        [[half / np.tan(_FOV / 2), 0, size_hw[1] / 2], [0, half / np.tan(_FOV / 2), size_hw[0] / 2], [0, 0, 1]]
    )
    turned = points @ R_view_from_cam.T
    centre, distance = _frame(turned, K, size_hw)
    offset = np.array([0, 0, distance]) - centre
    colours = colours if colours is not None else [PALETTE[i % len(PALETTE)] for i in range(len(meshes))]
    scene = pack_scene([m @ R_view_from_cam.T + offset for m in meshes], faces, colours)
    picture = np.empty((*size_hw, 3), np.float32)
    picture[:] = _PAPER
    if ground and meshes:
        floor = points[:, 1].max() + 0.002
        _draw_grid(picture, points, floor, R_view_from_cam, offset, K)
        _draw_shadow(picture, scene, floor, R_view_from_cam, offset, K)
    draw(scene, K, size_hw, supersample=supersample, threads=threads).over(picture)
    return np.round(picture.clip(0, 1) * 255).astype(np.uint8)


def _frame(points: np.ndarray, K: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, float]:
    # Centre of the points' box, and the least distance at which all of them fall inside the picture with a margin.
    centre = (points.min(0) + points.max(0)) / 2
    x, y, z = (points - centre).T
    room = 0.86
    needed_x = np.abs(x) * K[0, 0] / (room * size_hw[1] / 2) - z
    needed_y = np.abs(y) * K[1, 1] / (room * size_hw[0] / 2) - z
    return centre, max(float(max(needed_x.max(), needed_y.max())), float(-z.min()) + 0.5)


def _draw_grid(picture, points, floor, R_view_from_cam, offset, K, spacing: float = 0.5) -> None:
    import cv2

    lo = np.floor((points.min(0) - 0.75) / spacing) * spacing
    hi = np.ceil((points.max(0) + 0.75) / spacing) * spacing
    lines = [((x, lo[2]), (x, hi[2])) for x in np.arange(lo[0], hi[0] + 1e-6, spacing)]
    lines += [((lo[0], z), (hi[0], z)) for z in np.arange(lo[2], hi[2] + 1e-6, spacing)]
    shade = np.zeros(picture.shape[:2], np.uint8)
    for line in lines:
        ends = np.array([[x, floor, z] for x, z in line])
        ends = ends @ R_view_from_cam.T + offset
        depth = ends[:, 2]
        if depth.max() <= _GRID_NEAR:
            continue
        # Straight lines stay straight: one stroke each, cut off short of the eye's plane.
        cut = ends[0] + (ends[1] - ends[0]) * (_GRID_NEAR - depth[0]) / (depth[1] - depth[0] or 1.0)
        px = project(np.where(depth[:, None] < _GRID_NEAR, cut, ends), K)[:, :2]
        ends_px = np.round((px - 0.5) * 16).astype(np.int32)
        cv2.line(shade, ends_px[0].tolist(), ends_px[1].tolist(), 255, 1, cv2.LINE_AA, shift=4)
    drawn = shade > 0
    cover = (shade[drawn] / np.float32(255))[:, None]
    picture[drawn] += cover * (_LINE.astype(np.float32) - picture[drawn])


def _draw_shadow(picture, scene, floor, R_view_from_cam, offset, K) -> None:
    import cv2

    from renderers.backends.cpu import rasterize_hard

    points = (scene.vertices - offset) @ R_view_from_cam
    points[:, 0] += (floor - points[:, 1]) * 0.12
    points[:, 2] += (floor - points[:, 1]) * 0.10
    points[:, 1] = floor
    px = project(points @ R_view_from_cam.T + offset, K)
    cover = (rasterize_hard(px, scene.faces, picture.shape[:2]).face >= 0).astype(np.float32)
    soft = cv2.GaussianBlur(cover, (0, 0), max(1.0, min(picture.shape[:2]) / 110))
    picture *= (1 - 0.28 * soft)[..., None]
