"""Cameras of the rasteriser, and the border between its frame and OpenCV's.

Two frames meet here and nowhere else.

* OpenCV camera: x right, y down, z forward; column vectors, `x_cam = R x_world + t`; pixels with the outer corner of
  the upper-left pixel at (0, 0), so centres lie at + 0.5. A calibration that puts pixel centres at whole numbers needs
  +0.5 on its principal point before it comes here.
* Rasteriser view: x left, y up, z forward; row vectors, `x_view = x_world R + T`. Its normalised device coordinates
  (NDC) run over [-1, 1] along the shorter side of the image, +x left, +y up, and one unit is min(H, W) / 2 pixels on
  both axes. Depth stays the view depth in world units. This is PyTorch3D's convention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NdcCamera:
    """A batch of cameras in the rasteriser's frame."""

    R: Tensor
    """(B, 3, 3) rotation for row vectors: x_view = x_world R + T."""
    T: Tensor
    """(B, 3) translation, world units."""
    focal: Tensor
    """(B, 2) focal length in NDC units (orthographic: the scale)."""
    principal: Tensor
    """(B, 2) NDC position of the optical axis."""
    perspective: bool = True
    """False for an orthographic camera: no division by depth."""

    def select(self, index: int) -> NdcCamera:
        """The camera at one place of the batch, as a batch of one."""
        one = slice(index, index + 1)
        return NdcCamera(self.R[one], self.T[one], self.focal[one], self.principal[one], self.perspective)

    def view(self, points_world: Tensor) -> Tensor:
        """(B, N, 3) points in the world to the view frame (x left, y up, z forward)."""
        return points_world @ self.R + self.T[:, None]

    def project(self, points_world: Tensor) -> Tensor:
        """(B, N, 3) points in the world to (B, N, 3) x and y in NDC and the view depth: what `rasterize` takes."""
        view = self.view(points_world)
        xy, z, principal = view[..., :2] * self.focal[:, None], view[..., 2:], self.principal[:, None]
        # One division at the end, as in PyTorch3D's projection matrix: the same rounding keeps the same faces.
        return torch.cat([(xy + principal * z) / z if self.perspective else xy + principal, z], -1)

    def unproject(self, points_ndc: Tensor) -> Tensor:
        """(B, N, 3) NDC x, y and view depth back to (B, N, 3) points in the world."""
        xy = (points_ndc[..., :2] - self.principal[:, None]) / self.focal[:, None]
        if self.perspective:
            xy = xy * points_ndc[..., 2:]
        return (torch.cat([xy, points_ndc[..., 2:]], -1) - self.T[:, None]) @ self.R.mT

    def centre(self) -> Tensor:
        """(B, 3) position of the camera in the world."""
        return -(self.T[:, None] @ self.R.mT)[:, 0]


def ndc_camera_from_opencv(R: Tensor, t: Tensor, K: Tensor, size_hw: tuple[int, int]) -> NdcCamera:
    """Convert OpenCV cameras to the rasteriser's frame.

    Args:
        R: (B, 3, 3) rotation, x_cam = R x_world + t.
        t: (B, 3) translation.
        K: (B, 3, 3) intrinsics in pixels; skew is ignored.
        size_hw: image height and width, pixels.
    """
    flip = R.new_tensor([-1.0, -1.0, 1.0])
    half = min(size_hw) / 2
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1) / half
    centre = K.new_tensor([size_hw[1] / 2, size_hw[0] / 2])
    return NdcCamera(R.mT * flip, t * flip, focal, -(K[:, :2, 2] - centre) / half)


def opencv_from_ndc_camera(camera: NdcCamera, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `ndc_camera_from_opencv`: (B, 3, 3) R, (B, 3) t and (B, 3, 3) K in pixels."""
    if not camera.perspective:
        raise ValueError("The camera is orthographic and has no OpenCV intrinsics. Give a perspective camera.")
    flip = camera.R.new_tensor([-1.0, -1.0, 1.0])
    half = min(size_hw) / 2
    K = torch.zeros_like(camera.R)
    K[:, 0, 0], K[:, 1, 1] = (camera.focal * half).unbind(-1)
    K[:, :2, 2] = K.new_tensor([size_hw[1] / 2, size_hw[0] / 2]) - camera.principal * half
    K[:, 2, 2] = 1
    return (camera.R * flip).mT, camera.T * flip, K


def ndc_camera_from_weak_perspective(weak: Tensor) -> NdcCamera:
    """Orthographic camera of mesh-recovery networks: x_img = s (X + t_x), y_img = s (Y + t_y), crop spanning [-1, 1].

    Args:
        weak: (B, 3) s, t_x, t_y; the body is in image axes (x right, y down, z forward).
    """
    eye = torch.eye(3, dtype=weak.dtype, device=weak.device).expand(len(weak), 3, 3)
    scale = weak[:, :1].expand(-1, 2)
    flip = weak.new_tensor([-1.0, -1.0, 1.0])
    return NdcCamera(eye * flip, torch.zeros_like(weak), scale, -weak[:, :1] * weak[:, 1:], perspective=False)


def ndc_camera_from_spin(weak: Tensor, *, focal_px: float = 5000.0, crop_px: int = 224) -> NdcCamera:
    """Full-perspective camera that SPIN-type networks build from s, t_x, t_y (Kolotouros et al., ICCV 2019).

    The translation is (t_x, t_y, 2 f / (n s + 1e-9)) with focal length f and crop size n in pixels, the principal point
    the middle of the crop.

    Args:
        weak: (B, 3) s, t_x, t_y; the body is in image axes (x right, y down, z forward).
    """
    depth = 2 * focal_px / (crop_px * weak[:, 0] + 1e-9)
    flip = weak.new_tensor([-1.0, -1.0, 1.0])
    eye = torch.eye(3, dtype=weak.dtype, device=weak.device).expand(len(weak), 3, 3)
    focal = weak.new_full((len(weak), 2), focal_px / (crop_px / 2))
    translation = torch.stack([-weak[:, 1], -weak[:, 2], depth], -1)
    return NdcCamera(eye * flip, translation, focal, torch.zeros_like(focal))


def ndc_camera_from_fov(R: Tensor, T: Tensor, fov: Tensor, *, aspect: float = 1.0) -> NdcCamera:
    """Camera given by its vertical field of view in radians, (B,), and pose in the rasteriser's frame.

    `aspect` is the width of a pixel over its height, 1 for square ones.
    """
    scale = 1 / torch.tan(fov / 2)
    focal = torch.stack([scale / aspect, scale], -1)
    return NdcCamera(R, T, focal, torch.zeros_like(focal))


def px_from_ndc(points_ndc: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(..., 2 or more) NDC x, y to pixels (x right, y down); further components are kept."""
    half = min(size_hw) / 2
    x, y = size_hw[1] / 2 - half * points_ndc[..., 0], size_hw[0] / 2 - half * points_ndc[..., 1]
    return torch.cat([torch.stack([x, y], -1), points_ndc[..., 2:]], -1)


def ndc_from_px(points_px: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(..., 2 or more) pixel x, y to NDC (x left, y up); further components are kept."""
    half = min(size_hw) / 2
    x, y = (size_hw[1] / 2 - points_px[..., 0]) / half, (size_hw[0] / 2 - points_px[..., 1]) / half
    return torch.cat([torch.stack([x, y], -1), points_px[..., 2:]], -1)
