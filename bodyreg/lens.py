"""Cameras of the 2D-to-3D data sets: screen coordinates, quaternions, and Human3.6M's own lens model.

A camera is an orientation (4,), the unit quaternion w x y z that turns camera to world, a centre (3,) in the world,
metres, and a lens (9,) = fx fy cx cy k1 k2 k3 p1 p2. In screen coordinates the picture's width runs from -1 to 1 and
its height keeps the unit. All functions take any leading axes, numpy arrays through torch's tensors of any float type.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "camera_from_world", "conjugate", "joints_from_uvd", "pixels_from_screen", "project", "project_linear", "rays",
    "rotate", "screen_from_pixels", "screen_lens", "world_from_camera",
]  # fmt: skip


def screen_from_pixels(points: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Screen coordinates (..., 2) of pixels (..., 2): x in [-1, 1], y with the same unit, both 0 in the middle."""
    width, height = size_wh
    return points / width * 2 - points.new_tensor([1.0, height / width])


def pixels_from_screen(points: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """Pixels (..., 2) of screen coordinates (..., 2)."""
    width, height = size_wh
    return (points + points.new_tensor([1.0, height / width])) * width / 2


def screen_lens(lens: Tensor, size_wh: tuple[int, int]) -> Tensor:
    """The lens (..., 9) of screen coordinates, from that of pixels: both focal lengths times 2 / width."""
    centre = screen_from_pixels(lens[..., 2:4], size_wh)
    return torch.cat([lens[..., :2] * (2 / size_wh[0]), centre, lens[..., 4:]], -1)


def conjugate(q: Tensor) -> Tensor:
    """The inverse (..., 4) of unit quaternions (..., 4), w x y z."""
    return torch.cat([q[..., :1], -q[..., 1:]], -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors (..., 3) turned by unit quaternions (..., 4): v + 2 (w (u x v) + u x (u x v))."""
    w, u = q[..., :1], q[..., 1:].expand(v.shape)
    turned = torch.linalg.cross(u, v, dim=-1)
    return v + 2 * (w * turned + torch.linalg.cross(u, turned, dim=-1))


def camera_from_world(points: Tensor, orientation: Tensor, centre: Tensor) -> Tensor:
    """Points (..., 3) in the camera's frame."""
    return rotate(conjugate(orientation), points - centre)


def world_from_camera(points: Tensor, orientation: Tensor, centre: Tensor) -> Tensor:
    """Points (..., 3) in the world."""
    return rotate(orientation, points) + centre


def project(points: Tensor, lens: Tensor) -> Tensor:
    """Image points (..., 2) of points (..., 3) in the camera's frame, through Human3.6M's lens.

    u = clamp(X / Z, -1, 1); u' = u (1 + k1 r^2 + k2 r^4 + k3 r^6 + p . u) + p r^2; f u' + c. The tangential term is the
    data set's own, not OpenCV's; the clamp keeps wild points finite. `lens` (..., 9) broadcasts against the points.
    """
    u = _rays(points)
    r2 = u.square().sum(-1, keepdim=True)
    k, p = lens[..., 4:7], lens[..., 7:9]
    radial = 1 + (k * torch.cat([r2, r2**2, r2**3], -1)).sum(-1, keepdim=True)
    tangential = (p * u).sum(-1, keepdim=True)
    return lens[..., :2] * (u * (radial + tangential) + p * r2) + lens[..., 2:4]


def project_linear(points: Tensor, lens: Tensor) -> Tensor:
    """Image points (..., 2) without distortion."""
    return lens[..., :2] * _rays(points) + lens[..., 2:4]


def rays(points: Tensor, lens: Tensor, iterations: int = 10) -> Tensor:
    """Undistorted rays (..., 2), X / Z and Y / Z, of image points (..., 2): the inverse of `project`.

    Fixed-point iteration; lenses of real cameras are undone to rounding in about ten steps.
    """
    distorted = (points - lens[..., 2:4]) / lens[..., :2]
    if not bool(lens[..., 4:].any()):
        return distorted
    k, p = lens[..., 4:7], lens[..., 7:9]
    u = distorted
    for _ in range(iterations):
        r2 = u.square().sum(-1, keepdim=True)
        radial = 1 + (k * torch.cat([r2, r2**2, r2**3], -1)).sum(-1, keepdim=True)
        u = (distorted - p * r2) / (radial + (p * u).sum(-1, keepdim=True))
    return u


def joints_from_uvd(uvd: Tensor, root: Tensor, lens: Tensor) -> Tensor:
    """Root-relative joints (..., J, 3) of image points and root-relative depths (..., J, 3), without distortion.

    Args:
        uvd: image point and depth, of which joint 0 is the root; its own depth is not read.
        root: (..., 3) the root in the camera's frame. lens: (..., 9).
    """
    depth = torch.cat([torch.zeros_like(uvd[..., :1, 2]), uvd[..., 1:, 2]], -1) + root[..., None, 2]
    xy = (uvd[..., :2] - lens[..., None, 2:4]) * depth[..., None] / lens[..., None, :2]
    joints = torch.cat([xy, depth[..., None]], -1)
    return joints - joints[..., :1, :]


def _rays(points: Tensor) -> Tensor:
    return (points[..., :2] / points[..., 2:]).clamp(-1, 1)
