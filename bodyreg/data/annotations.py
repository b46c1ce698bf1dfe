"""Turning published annotations into labels: world to camera, boxes of points, which vertices a camera sees."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bodyreg.crops import rotate_smpl
from bodyreg.rotations import aa_from_matrix, matrix_from_aa
from renderers.backends.jit import kernel


def camera_smpl_from_world(
    global_orient_aa: Tensor, transl: Tensor, J0: Tensor, R_cam_from_world: Tensor, t_cam_from_world: Tensor
) -> tuple[Tensor, Tensor]:
    """SMPL parameters in the frame of a camera, P_cam = R P_world + t, from those in the world.

    SMPL turns about its rest pelvis, hence transl_cam = R (J0 + transl) - J0 + t. Body pose and betas do not change.

    Args:
        global_orient_aa: (..., 3) axis-angle, radians.
        transl: (..., 3) metres.
        J0: (..., 3) rest-pose pelvis of the body's betas, metres.
        R_cam_from_world: (..., 3, 3).
        t_cam_from_world: (..., 3) metres.

    Returns:
        Global orientation (..., 3) axis-angle and translation (..., 3) in the camera frame.
    """
    R_global, turned = rotate_smpl(matrix_from_aa(global_orient_aa), transl, J0, R_cam_from_world)
    return aa_from_matrix(R_global), turned + t_cam_from_world


def box_around(points_px: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Boxes (..., 4) x, y, width, height, pixels, around points (..., N, 2), cut off at the picture's borders.

    Only the near sides are cut at 0 and the far sides at the size, so that points which all lie outside give a box
    without area; `bodyreg.crops.make_crop` refuses it.
    """
    h, w = size_hw
    low = np.maximum(points_px.min(-2), 0)
    high = np.minimum(points_px.max(-2), (w, h))
    return np.concatenate([low, np.maximum(high - low, 0)], axis=-1)


def visible_vertices(
    vertices_px: np.ndarray, depth: np.ndarray, faces: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """Which vertices of a mesh the camera sees, as the published annotations count them.

    A vertex is visible when it lies strictly inside the picture and no triangle strictly contains it in the picture
    while the triangle's nearest corner is nearer than the vertex.

    Args:
        vertices_px: (V, 2) projections, pixels.
        depth: (V,) metres.
        faces: (F, 3) vertex indices.
        size_hw: height and width of the picture, pixels.

    Returns:
        (V,) bool.
    """
    px = np.ascontiguousarray(vertices_px, dtype=np.float64)
    h, w = size_hw
    visible = np.asarray(((px > 0) & (px < (w, h))).all(-1))
    # A grid over the vertices that can be hidden, about four a cell: a triangle visits the few cells it touches only.
    candidates = np.flatnonzero(visible)
    if len(candidates) == 0:
        return visible
    low, high = px[candidates].min(0), px[candidates].max(0)
    cells = max(1, int(np.sqrt(len(candidates) / 4)))
    cell_size = np.maximum((high - low) / cells, 1e-9)
    cell = np.minimum(((px[candidates] - low) / cell_size).astype(np.int64), cells - 1)
    flat = cell[:, 1] * cells + cell[:, 0]
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(cells * cells + 1))
    _hide(px, np.ascontiguousarray(depth, dtype=np.float64), np.ascontiguousarray(faces, dtype=np.int64),
          candidates[order], starts, low, cell_size, cells, visible)  # fmt: skip
    return visible


@kernel
def _hide(px, depth, faces, ordered, starts, low, cell_size, cells, visible):
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = px[a, 0], px[a, 1], px[b, 0], px[b, 1], px[c, 0], px[c, 1]
        nearest = min(depth[a], depth[b], depth[c])
        if not np.isfinite(ax + ay + bx + by + cx + cy):
            continue  # a corner in the camera's plane projects nowhere
        # Clamped before they become integers; the last cell also holds the points on its far border.
        x0 = int(min(max(np.floor((min(ax, bx, cx) - low[0]) / cell_size[0]), 0.0), cells - 1.0))
        y0 = int(min(max(np.floor((min(ay, by, cy) - low[1]) / cell_size[1]), 0.0), cells - 1.0))
        x1 = int(min(max(np.floor((max(ax, bx, cx) - low[0]) / cell_size[0]), -1.0), cells - 1.0))
        y1 = int(min(max(np.floor((max(ay, by, cy) - low[1]) / cell_size[1]), -1.0), cells - 1.0))
        for row in range(y0, y1 + 1):
            for column in range(x0, x1 + 1):
                for k in range(starts[row * cells + column], starts[row * cells + column + 1]):
                    v = ordered[k]
                    if not visible[v] or not nearest < depth[v]:
                        continue
                    x, y = px[v, 0], px[v, 1]
                    s1 = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
                    s2 = (cx - bx) * (y - by) - (cy - by) * (x - bx)
                    s3 = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
                    if (s1 > 0 and s2 > 0 and s3 > 0) or (s1 < 0 and s2 < 0 and s3 < 0):
                        visible[v] = False
