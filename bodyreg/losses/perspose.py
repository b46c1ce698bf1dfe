"""The twelve losses that PersPose trains with (Hao and Li, ICCV 2025), and the figures it logs beside them.

A batch mixes samples that know different things: SMPL labels, 3D joints in Human3.6M's order (MPI-INF-3DHP), or 2D key
points alone (COCO). Every term is a mean over the samples and joints it applies to, and 0 where there is none.
Lengths in the losses are hundredths of the person's height times 1.8: centimetres of a person 1.80 m tall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bodyreg.cameras import project
from bodyreg.losses.keypoints import masked_mean
from bodyreg.losses.smpl import TWIST_JOINTS

if TYPE_CHECKING:
    from bodyreg.models.decoding import Decoded

__all__ = [
    "COCO_JOINTS",
    "MPI3DHP_JOINTS",
    "PersPoseTargets",
    "PersPoseWeights",
    "ProjectedTargets",
    "density_mm",
    "perspose_losses",
    "total_loss",
]

COCO_JOINTS = ((7, 8, 9, 10, 13, 14, 15, 16), (18, 19, 20, 21, 4, 5, 7, 8))
"""COCO's elbows, wrists, knees and ankles, and the network's joints that stand for them."""
MPI3DHP_JOINTS = ((0, 2, 3, 5, 6, 12, 13, 15, 16), (24, 5, 8, 4, 7, 18, 20, 19, 21))
"""Joints of MPI-INF-3DHP (Human3.6M's order) that agree with SMPL's, pelvis first, and the network's."""

_STATURE = 1.8
_BEDLAM_UV_WEIGHT = 0.1
_DEAD_PX, _DEAD_CM, _DEAD_DENSITY = 5.0, 4.0, 0.05


@dataclass
class PersPoseWeights:
    """Factors of the losses; the defaults are those of the published mixture with BEDLAM."""

    uv: float = 1.0
    uv_coco: float = 1.0
    uv_3dhp: float = 1.0
    depth: float = 1.0
    depth_3dhp: float = 1.0
    rho0: float = 1.0
    rho0_3dhp: float = 1.0
    xyz: float = 0.0
    height: float = 0.0
    """Of a height error that is identically zero: the published log has it, so that columns agree."""
    twist: float = 0.1
    beta: float = 0.01
    leaf: float = 0.01


class PersPoseTargets(NamedTuple):
    """What is known of the crops of a batch. Values of samples a label does not apply to may be anything finite.

    Everything lies in the crops' camera frames (turned, OpenCV axes), metres; pixels are the crops'.
    """

    K_crop: Tensor
    """(B, 3, 3) intrinsics of the crops."""
    size_hw: tuple[int, int]
    """Height and width of the crops, pixels."""
    height: Tensor
    """(B,) height of the person standing, metres."""
    is_smpl: Tensor
    """(B,) bool, samples with SMPL labels."""
    is_bedlam: Tensor
    """(B,) bool, those of them whose picture positions count a tenth."""
    is_3dhp: Tensor
    """(B,) bool, samples with 3D joints."""
    is_coco: Tensor
    """(B,) bool, samples with 2D key points alone."""
    joints24: Tensor
    """(B, 24, 3) SMPL joints."""
    pelvis17: Tensor
    """(B, 3) pelvis of the Human3.6M regressor on the true mesh."""
    twist: Tensor
    """(B, 24, 3) orthogonal twists of the true body."""
    leaf_rot: Tensor
    """(B, 5, 3, 3) local rotations of hands, feet and head, in the order in which the network gives them."""
    betas: Tensor
    """(B, S)."""
    joints17_3dhp: Tensor
    """(B, 17, 3) joints in Human3.6M's order."""
    keypoints_coco: Tensor
    """(B, 17, 3) x, y in pixels of the crop and visibility, 0 where not labelled."""


class ProjectedTargets(NamedTuple):
    """Targets where the losses need them.

    `uv` (B, J, 2) pixels, `density` (B, J, 1) millimetres a pixel, `mask` (B, J) joints that count: of the right kind
    of sample and inside the crop. `points` (B, J, 3) metres. J is 25 for SMPL, else the joints that are compared.
    """

    points: Tensor
    uv: Tensor
    density: Tensor
    mask: Tensor


def density_mm(points: Tensor, K: Tensor) -> Tensor:
    """(B, J, 1) millimetres a pixel at points (B, J, 3): depth over the mean focal length of K (B, 3, 3)."""
    return 1000 * points[..., 2:] / ((K[:, 0, 0] + K[:, 1, 1]) / 2)[:, None, None]


def smpl_targets(targets: PersPoseTargets) -> ProjectedTargets:
    """SMPL's 24 joints and the regressor's pelvis, 25 in all."""
    points = torch.cat([targets.joints24, targets.pelvis17[:, None]], 1)
    return _projected(points, targets.is_smpl, targets)


def mpi3dhp_targets(targets: PersPoseTargets) -> ProjectedTargets:
    """The joints of `MPI3DHP_JOINTS`."""
    return _projected(targets.joints17_3dhp[:, MPI3DHP_JOINTS[0]], targets.is_3dhp, targets)


def coco_targets(targets: PersPoseTargets) -> tuple[Tensor, Tensor]:
    """Positions (B, 8, 2) of the joints of `COCO_JOINTS`, and which (B, 8) count: visible and inside."""
    points = targets.keypoints_coco[:, COCO_JOINTS[0]]
    uv = points[..., :2]
    return uv, targets.is_coco[:, None] & (points[..., 2] > 0) & _inside(uv, targets.size_hw)


def perspose_losses(decoded: Decoded, targets: PersPoseTargets) -> dict[str, Tensor]:
    """The twelve losses by the names of `PersPoseWeights`, not yet weighted; scalars.

    Args:
        decoded: what the network says, in pixels of the targets' crops.
    """
    smpl, mpi = smpl_targets(targets), mpi3dhp_targets(targets)
    uv_coco, mask_coco = coco_targets(targets)
    height = targets.height[:, None]
    mm = 1000 * decoded.density[..., 0]
    is_smpl, rows = targets.is_smpl[:, None], list(MPI3DHP_JOINTS[1])

    weight = smpl.mask * torch.where(targets.is_bedlam, _BEDLAM_UV_WEIGHT, 1.0)[:, None]
    depth_error = (decoded.depth - (smpl.points - smpl.points[:, :1])[..., 2:])[..., 0].abs()
    depth_3dhp = (decoded.depth[:, rows] - decoded.depth[:, 24:])[..., 0]
    true_3dhp = (mpi.points - mpi.points[:, :1])[..., 2]
    rho0_3dhp = (mm[:, 24:] - mpi.density[:, 0]).abs() / height
    xyz_error = _length(decoded.xyz - (smpl.points - smpl.points[:, :1]))
    twists = list(TWIST_JOINTS)
    twist_error = _length(_unit(decoded.ortho_twist[:, twists]) - _unit(targets.twist[:, twists]))
    leaf_error = _length((decoded.leaf_rot - targets.leaf_rot).flatten(-2))
    return {
        "uv": masked_mean(_length(decoded.uv - smpl.uv), weight),
        "uv_coco": masked_mean(F.relu(_length(decoded.uv[:, COCO_JOINTS[1]] - uv_coco) - _DEAD_PX), mask_coco),
        "uv_3dhp": masked_mean(F.relu(_length(decoded.uv[:, rows] - mpi.uv) - _DEAD_PX), mpi.mask),
        "depth": _STATURE * masked_mean(100 * depth_error / height, smpl.mask),
        "depth_3dhp": _STATURE
        * masked_mean(F.relu(100 * (depth_3dhp - true_3dhp).abs() / height - _DEAD_CM / _STATURE), mpi.mask),
        "rho0": _STATURE * masked_mean((mm[:, :1] - smpl.density[:, 0]).abs() / height, is_smpl),
        "rho0_3dhp": _STATURE
        * masked_mean(F.relu(rho0_3dhp - _DEAD_DENSITY / _STATURE), targets.is_3dhp[:, None]),
        "xyz": _STATURE * masked_mean(100 * xyz_error / height, smpl.mask),
        "height": torch.zeros_like(mm[0, 0]),
        "twist": masked_mean(twist_error, is_smpl),
        "beta": masked_mean((decoded.beta - targets.betas).abs(), is_smpl),
        "leaf": masked_mean(leaf_error, is_smpl),
    }


def total_loss(losses: Mapping[str, Tensor], weights: PersPoseWeights) -> Tensor:
    """Weighted sum of `perspose_losses`; a term of weight 0 is left out, so that it cannot spoil the sum."""
    terms = [getattr(weights, f.name) * losses[f.name] for f in fields(weights) if getattr(weights, f.name) != 0]
    return torch.stack(terms).sum()


def _projected(points: Tensor, applies: Tensor, targets: PersPoseTargets) -> ProjectedTargets:
    # Samples without such labels hold fillers: a point on the axis keeps what is masked later finite.
    ahead = points.new_tensor([0.0, 0.0, 1.0])
    points = torch.where(applies[:, None, None], points, ahead)
    uv = project(points, targets.K_crop)
    mask = applies[:, None] & _inside(uv, targets.size_hw)
    return ProjectedTargets(points, uv, density_mm(points, targets.K_crop), mask)


def _inside(uv: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return ((uv > 0) & (uv < uv.new_tensor([size_hw[1], size_hw[0]]))).all(-1)


def _length(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, dim=-1)


def _unit(v: Tensor) -> Tensor:
    return F.normalize(v, dim=-1)
