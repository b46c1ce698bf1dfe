"""The losses the SPIN/HMR regressor is trained with beside semantic ones (Kolotouros et al., ICCV 2019; DSR's weights).

Every mean is taken over the samples a term applies to, 0 where there is none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bodyreg.rotations import rodrigues

__all__ = ["HMRPrediction", "HMRTargets", "HMRWeights", "hmr_losses"]

_OPENPOSE = 25
_HIPS = (2, 3)


@dataclass
class HMRWeights:
    """Factors of the terms; the sum is multiplied by `total`."""

    keypoints: float = 5.0
    """Of 2D key points, and of 3D ones."""
    pose: float = 1.0
    betas: float = 0.001
    vertices: float = 0.0
    camera: float = 1.0
    openpose: float = 0.0
    """On the confidence of the 25 OpenPose joints."""
    annotated: float = 1.0
    """On the confidence of the 24 annotated joints."""
    total: float = 60.0


class HMRPrediction(NamedTuple):
    """R_local (B, 24, 3, 3); betas (B, 10); weak (B, 3) camera; joints49 (B, 49, 3) and vertices (B, V, 3), metres, not
    translated; keypoints (B, 49, 2) in crops that span [-1, 1]."""

    R_local: Tensor
    betas: Tensor
    weak: Tensor
    joints49: Tensor
    vertices: Tensor
    keypoints: Tensor


class HMRTargets(NamedTuple):
    """theta (B, 24, 3) axis-angle; betas (B, 10); vertices (B, V, 3); joints24 (B, 24, 4) metres and confidence, the
    last 24 of the 49; keypoints (B, 49, 3) in [-1, 1] and confidence; has_smpl, has_joints (B,) bool."""

    theta: Tensor
    betas: Tensor
    vertices: Tensor
    joints24: Tensor
    keypoints: Tensor
    has_smpl: Tensor
    has_joints: Tensor


def hmr_losses(predicted: HMRPrediction, true: HMRTargets, weights: HMRWeights) -> dict[str, Tensor]:
    """The six terms, each times its weight but not times `total`; scalars.

    `vertices` is left out of the graph where its weight is 0.
    """
    w = asdict(weights)
    smpl, joints = true.has_smpl.bool(), true.has_joints.bool()
    turn = (predicted.R_local - rodrigues(true.theta)).square()
    apart = (predicted.vertices - true.vertices).abs() if w["vertices"] else torch.zeros_like(predicted.vertices)
    return {
        "keypoints": w["keypoints"] * _keypoints(predicted.keypoints, true.keypoints, weights),
        "keypoints_3d": w["keypoints"] * _joints(predicted.joints49[:, _OPENPOSE:], true.joints24, joints),
        "pose": w["pose"] * _mean(turn, smpl),
        "betas": w["betas"] * _mean((predicted.betas - true.betas).square(), smpl),
        "vertices": w["vertices"] * _mean(apart, smpl),
        "camera": w["camera"] * torch.exp((-10 * predicted.weak[:, 0]).clamp(max=40)).square().mean(),
    }


def _keypoints(predicted: Tensor, true: Tensor, weights: HMRWeights) -> Tensor:
    share = true.new_full((true.shape[1],), weights.annotated)
    share[:_OPENPOSE] = weights.openpose
    return (true[..., 2:] * share[:, None] * (predicted - true[..., :2]).square()).mean()


def _joints(predicted: Tensor, true: Tensor, applies: Tensor) -> Tensor:
    centred = predicted - predicted[:, _HIPS].mean(1, keepdim=True)
    points = true[..., :3] - true[:, _HIPS, :3].mean(1, keepdim=True)
    return _mean(true[..., 3:] * (centred - points).square(), applies)


def _mean(values: Tensor, applies: Tensor) -> Tensor:
    """Mean over the samples (B,) that `applies` picks, 0 without any; what is left out cannot spoil it."""
    keep = applies.view(-1, *[1] * (values.ndim - 1))
    count = applies.sum().clamp(min=1) * (values[0].numel() if len(values) else 1)
    return torch.where(keep, values, torch.zeros_like(values)).sum() / count
