"""Losses on what becomes a body: depths, density, twists, leaf rotations, betas (PersPose, ICCV 2025, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bodyreg.losses.keypoints import masked_mean

__all__ = ["TWIST_JOINTS", "density_distance", "depth_distance", "leaf_distance", "twist_distance"]

TWIST_JOINTS = (4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18, 19, 20, 21, 22, 23)
"""Joints whose orthogonal twist is used and supervised."""


def depth_distance(depth: torch.Tensor, joints: torch.Tensor, height: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of |depth - true depth| relative to joint 0, in hundredths of the person's height.

    Args:
        depth: (B, J, 1) metres, relative to joint 0. joints: (B, J, 3) true joints, camera frame, metres.
        height: (B,) metres. mask: (B, J).
    """
    true = joints[..., 2] - joints[:, :1, 2]
    return masked_mean(100 * (depth[..., 0] - true).abs() / height[:, None], mask)


def density_distance(rho0: torch.Tensor, rho0_true: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Mean of |density - true density| of the root over the person's height, millimetres per pixel and metre."""
    return (1000 * (rho0.flatten() - rho0_true.flatten()).abs() / height).mean()


def twist_distance(twist: torch.Tensor, twist_true: torch.Tensor) -> torch.Tensor:
    """Mean distance of unit twist vectors (B, J, 3), J at least 24, over `TWIST_JOINTS`."""
    joints = list(TWIST_JOINTS)
    difference = F.normalize(twist[:, joints], dim=-1) - F.normalize(twist_true[:, joints], dim=-1)
    return torch.linalg.vector_norm(difference, dim=-1).mean()


def leaf_distance(leaf: torch.Tensor, leaf_true: torch.Tensor) -> torch.Tensor:
    """Mean Frobenius distance of local leaf rotations (B, 5, 3, 3)."""
    return torch.linalg.matrix_norm(leaf - leaf_true).mean()
