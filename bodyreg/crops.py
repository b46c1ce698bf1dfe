"""Boxes, crops and Perspective Rotation: turn the camera until its axis meets the person, then cut the person out.

Perspective Rotation (PersPose, Hao and Li, ICCV 2025) rotates the camera about its own centre, which acts on pixels as
the homography K R K^-1 and on camera-frame points as P' = R P. Whatever is estimated in the crop lives in the rotated
frame; `Crop.cam_from_crop` and `unrotate_smpl` bring it back exactly.

Frames: `cam` is the photograph's camera, `crop` the rotated one; both have OpenCV axes (x right, y down, z forward),
metres. `full` are pixels of the photograph, `crop_px` pixels of the crop. Pixel centres lie at + 0.5. OpenCV's warps
put centres at integers instead; `crop_image` converts. The published PersPose weights were trained with the
unconverted matrix, so its pixels lie half a source pixel and half a crop pixel off: `reference_pixels=True` reproduces
that, and changes nothing else.

Everything here is float64 numpy for one sample; the functions on SMPL parameters also take batches and tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from bodyreg.cameras import Camera, check_intrinsics
from bodyreg.rotations import swing

MAX_RAY_ANGLE = np.deg2rad(89.0)
"""Rays further than this from the rotated axis have no usable pixel: boxes with one are refused, points clipped."""


@dataclass(frozen=True)
class Crop:
    """One person cut out of a photograph, and the way back.

    Attributes:
        R_crop_from_cam: (3, 3) rotation, crop-frame points = R_crop_from_cam @ camera-frame points.
        crop_from_full: (3, 3) homography from pixels of the photograph to pixels of the crop.
        K_crop: (3, 3) intrinsics of the crop, pixels.
        size_hw: height and width of the crop, pixels.
        box_xywh: (4,) the box that was asked for (before margin and rotation), pixels of the photograph.
        reference_pixels: whether `crop_image` hands `crop_from_full` to OpenCV unconverted.
    """

    R_crop_from_cam: np.ndarray
    crop_from_full: np.ndarray
    K_crop: np.ndarray
    size_hw: tuple[int, int]
    box_xywh: np.ndarray
    reference_pixels: bool = False

    def crop_px_from_full_px(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the photograph -> (..., 2) pixels of the crop."""
        return apply_homography(self.crop_from_full, points_px)

    def full_px_from_crop_px(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the crop -> (..., 2) pixels of the photograph."""
        return apply_homography(np.linalg.inv(self.crop_from_full), points_px)

    def crop_from_cam(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points or vectors in the photograph's camera frame -> (..., 3) in the crop's frame."""
        return points @ self.R_crop_from_cam.T

    def cam_from_crop(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points or vectors in the crop's frame -> (..., 3) in the photograph's camera frame."""
        return points @ self.R_crop_from_cam

    def inside(self, points_px: np.ndarray) -> np.ndarray:
        """Whether crop pixels (..., 2) lie strictly inside the crop: (...,) bool."""
        h, w = self.size_hw
        return np.asarray(((points_px > 0) & (points_px < (w, h))).all(-1))


class InPlane(NamedTuple):
    """A rotation within the picture: what happens to pixels and what happens to the camera frame."""

    turned_from_full: np.ndarray
    """(3, 3) homography on pixels."""
    R_turned_from_cam: np.ndarray
    """(3, 3) rotation about the optical axis."""


def make_crop(
    camera: Camera,
    box_xywh: np.ndarray,
    size_hw: tuple[int, int],
    *,
    perspective_rotation: bool = True,
    margin: float = 1.0,
    reference_pixels: bool = False,
    points_cam: np.ndarray | None = None,
    aim_px: np.ndarray | None = None,
    in_plane_rad: float = 0.0,
    in_plane_about_image_centre: bool = False,
    scale: float = 1.0,
) -> Crop:
    """Crop around a person, after turning the camera so that the box centre lies on its axis.

    With Perspective Rotation the crop is centred on the principal point and just holds the four rotated corners of the
    box (or the projections of `points_cam`), made symmetric about the principal point. Without it the crop is centred
    on the box and its principal point is wherever it falls. Focal lengths come out equal on both axes unless the
    camera's differ by more than a factor of two.

    Args:
        camera: the photograph's camera.
        box_xywh: (4,) min corner and size, pixels of the photograph; may reach outside it.
        size_hw: height and width of the crop, pixels.
        perspective_rotation: False leaves the camera as it is (ablation).
        margin: factor on the box about its centre (1.2 is usual for detections).
        reference_pixels: warp as the published weights expect it (see the module).
        points_cam: (N, 3) training labels in the camera frame, metres, whose projections the crop shall hold instead of
            the corners; those nearer than 1 degree to the camera plane, or behind it, are clipped to that cone.
        aim_px: (2,) pixel the box centre is turned to, default the principal point (training jitter).
        in_plane_rad: training augmentation, turn of the picture in its plane (see `in_plane_rotation`).
        in_plane_about_image_centre: the reference's centre for that turn.
        scale: training augmentation, factor on the crop's magnification.

    Raises:
        ValueError: a degenerate box or camera; a box with a corner 89 degrees or more from its centre's ray.
    """
    K = camera.K
    box = _checked_box(box_xywh)
    size_hw = _checked_size(size_hw)
    for name, value in (("margin", margin), ("scale", scale)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}. Use a positive number.")
    centre = box[:2] + box[2:] / 2
    box_wh = box[2:] * margin
    pp = K[:2, 2]

    turn = in_plane_rotation(in_plane_rad, K, camera.size_hw, about_image_centre=in_plane_about_image_centre)
    R = perspective_rotation_matrix(K, centre, pp if aim_px is None else aim_px) if perspective_rotation else np.eye(3)
    rotated_from_full = turn.turned_from_full @ K @ R @ np.linalg.inv(K)

    if points_cam is None:
        corners = centre + box_wh * np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        rays = rays_from_px(K, corners) @ R.T
        if perspective_rotation:
            _refuse_wide_rays(rays, box)
    else:
        rays = clip_rays(np.asarray(points_cam, dtype=np.float64) @ R.T)
    extent_px = apply_homography(turn.turned_from_full, apply_homography(K, rays[:, :2] / rays[:, 2:]))

    if perspective_rotation:
        crop_centre, crop_wh = pp, 2 * np.abs(extent_px - pp).max(0)
    else:
        low, high = extent_px.min(0), extent_px.max(0)
        crop_centre, crop_wh = (low + high) / 2, high - low
    crop_from_rotated = _crop_affine(crop_centre, crop_wh, size_hw, K[1, 1] / K[0, 0], scale)
    return Crop(
        R_crop_from_cam=turn.R_turned_from_cam @ R,
        crop_from_full=crop_from_rotated @ rotated_from_full,
        K_crop=crop_from_rotated @ K,
        size_hw=size_hw,
        box_xywh=box,
        reference_pixels=reference_pixels,
    )


def make_crop_without_camera(
    box_xywh: np.ndarray, size_hw: tuple[int, int], *, scale: float = 1.0, reference_pixels: bool = False
) -> Crop:
    """Crop of a photograph of which no camera is known (2D data sets): no rotation, and intrinsics that mean nothing.

    The placeholder K_crop is PersPose's [[600, 0, 128], [0, 600, 128], [0, 0, 1]]; give such samples no encoding.
    """
    box = _checked_box(box_xywh)
    size_hw = _checked_size(size_hw)
    return Crop(
        R_crop_from_cam=np.eye(3),
        crop_from_full=_crop_affine(box[:2] + box[2:] / 2, box[2:], size_hw, 1.0, scale),
        K_crop=np.array([[600.0, 0.0, 128.0], [0.0, 600.0, 128.0], [0.0, 0.0, 1.0]]),
        size_hw=size_hw,
        box_xywh=box,
        reference_pixels=reference_pixels,
    )


def crop_image(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Cut the crop out of a photograph: bilinear, black outside.

    Args:
        image: (H, W, C) uint8.
        crop: from `make_crop`.

    Returns:
        (h, w, C) uint8.
    """
    matrix = crop.crop_from_full
    if not crop.reference_pixels:
        # OpenCV's coordinates are ours minus one half, in the source and in the result.
        matrix = _shift(-0.5) @ matrix @ _shift(0.5)
    h, w = crop.size_hw
    return cv2.warpPerspective(image, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def perspective_rotation_matrix(K: np.ndarray, centre_px: np.ndarray, aim_px: np.ndarray | None = None) -> np.ndarray:
    """Rotation (3, 3) taking the ray through pixel `centre_px` to that through `aim_px` (default principal point).

    Rounded as `bodyreg.rotations.swing` is: any tilt below 0.028 degrees becomes 0.028 degrees, an exact zero stays
    zero.
    """
    K = check_intrinsics(K)
    pixels = np.stack([centre_px, K[:2, 2] if aim_px is None else aim_px])
    rays = rays_from_px(K, pixels)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    return swing(torch.from_numpy(rays[0]), torch.from_numpy(rays[1])).numpy()


def in_plane_rotation(
    angle_rad: float, K: np.ndarray, size_hw: tuple[int, int], *, about_image_centre: bool = False
) -> InPlane:
    """Turn the picture in its plane (training augmentation); a positive angle turns it clockwise as seen.

    The camera frame turns about the optical axis, so pixels must move by K M K^-1: about the principal point, with the
    shear that unequal focal lengths ask for. `about_image_centre=True` turns pixels about the image centre without
    shear, as PersPose's released code does; labels then disagree with pixels by some pixels unless the two centres
    coincide.
    """
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    M = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    if not about_image_centre:
        return InPlane(K @ M @ np.linalg.inv(K), M)
    to_centre = np.eye(3)
    to_centre[:2, 2] = size_hw[1] / 2, size_hw[0] / 2
    return InPlane(to_centre @ M @ np.linalg.inv(to_centre), M)


def clip_rays(rays: np.ndarray, max_angle: float = MAX_RAY_ANGLE) -> np.ndarray:
    """Pull rays (N, 3) that lie more than `max_angle` radians off the z axis onto that cone, keeping their azimuth."""
    radius = np.linalg.norm(rays[:, :2], axis=1)
    outside = radius > rays[:, 2] * np.tan(max_angle)
    # A point on the negative axis has no azimuth; it lands on the axis in front.
    z = np.where(outside, np.where(radius > 0, radius / np.tan(max_angle), 1.0), rays[:, 2])
    return np.concatenate([rays[:, :2], z[:, None]], axis=1)


def rotate_smpl(R_global_orient: Any, transl: Any, J0: Any, R: Any) -> tuple[Any, Any]:
    """Rotate a posed SMPL body about the camera centre by R: the labels of a crop.

    SMPL turns about its rest pelvis J0, not about the origin, hence transl' = R (J0 + transl) - J0.

    Args:
        R_global_orient: (..., 3, 3) global orientation; array or tensor, as all arguments.
        transl: (..., 3) translation, metres.
        J0: (..., 3) rest-pose pelvis of the body's betas, metres.
        R: (..., 3, 3) rotation, `Crop.R_crop_from_cam` to go into the crop's frame.

    Returns:
        (R @ R_global_orient, translation) of the rotated body; pose and betas do not change.
    """
    return R @ R_global_orient, (R @ (J0 + transl)[..., None])[..., 0] - J0


def unrotate_smpl(R_global_orient: Any, transl: Any, J0: Any, R_crop_from_cam: Any) -> tuple[Any, Any]:
    """Bring a body from the crop's frame back to the photograph's camera frame: the inverse of `rotate_smpl`."""
    return rotate_smpl(R_global_orient, transl, J0, R_crop_from_cam.swapaxes(-1, -2))


def rays_from_px(K: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Viewing rays (..., 3) with z = 1 through pixels (..., 2)."""
    points_px = np.asarray(points_px, dtype=np.float64)
    return np.concatenate([points_px, np.ones_like(points_px[..., :1])], axis=-1) @ np.linalg.inv(K).T


def apply_homography(H: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) under a (3, 3) homography."""
    points = np.asarray(points, dtype=np.float64)
    mapped = points @ H[:, :2].T + H[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def _crop_affine(
    centre: np.ndarray, box_wh: np.ndarray, size_hw: tuple[int, int], focal_ratio: float, scale: float
) -> np.ndarray:
    """Scale and shift that bring `centre` to the middle of the crop and fit the box in, focal lengths made equal."""
    h, w = size_hw
    s = min(w / box_wh[0], h / box_wh[1]) * scale
    r = np.clip(focal_ratio, 0.5, 2.0)
    sx, sy = (s * r, s) if r > 1 else (s, s / r)
    return np.array([[sx, 0, w / 2 - sx * centre[0]], [0, sy, h / 2 - sy * centre[1]], [0, 0, 1.0]])


def _shift(offset: float) -> np.ndarray:
    return np.array([[1.0, 0.0, offset], [0.0, 1.0, offset], [0.0, 0.0, 1.0]])


def _refuse_wide_rays(rays: np.ndarray, box: np.ndarray) -> None:
    angle = np.arctan2(np.linalg.norm(rays[:, :2], axis=1), rays[:, 2]).max()
    if angle >= MAX_RAY_ANGLE:
        raise ValueError(
            f"A corner of the box {box.round(1).tolist()} lies {np.rad2deg(angle):.0f} degrees from the ray through "
            "its centre: no camera turned to the centre sees it. Check the focal length or clip the box."
        )


def _checked_box(box_xywh: np.ndarray) -> np.ndarray:
    box = np.asarray(box_xywh, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"The box is {box.tolist()}. Pass four finite numbers x, y, width, height in pixels.")
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"The box {box.tolist()} is {box[2]} x {box[3]} pixels. Give it a positive size.")
    return box


def _checked_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    h, w = (int(n) for n in size_hw)
    if h <= 0 or w <= 0:
        raise ValueError(f"The crop size is {h} x {w} pixels. Both must be positive.")
    return h, w
