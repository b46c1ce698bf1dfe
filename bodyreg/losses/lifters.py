"""Losses of lifters on root-relative joints (B, F, J, 3), metres, camera frame."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["joint_weights", "loss_terms", "n_mpjpe", "position", "squared", "temporal_consistency", "velocity"]

_H36M = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)
_WEIGHTS = {
    "h36m-17": _H36M,
    # As the line of MixSTE trains: Human3.6M's list without two entries, which does not follow HumanEva's order.
    "humaneva-15": (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4),
    # The same places by name.
    "mpi3dhp-17": (1.5, 1, 1.5, 4, 4, 1.5, 4, 4, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1),
}


def joint_weights(joint_set: str) -> Tensor:
    """(J,) weights of joints: limbs that move more count more (MixSTE, Zhang et al., CVPR 2022); ones elsewhere.

    Raises:
        ValueError: a set of which no weights are known.
    """
    if joint_set not in _WEIGHTS:
        raise ValueError(f"There are no joint weights for {joint_set!r}. Known: {', '.join(_WEIGHTS)}; or use mpjpe.")
    return torch.tensor(_WEIGHTS[joint_set])


def position(pred: Tensor, true: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean distance of joints, each times its weight (J,)."""
    errors = torch.linalg.vector_norm(pred - true, dim=-1)
    return errors.mean() if weights is None else (weights.to(errors) * errors).mean()


def temporal_consistency(pred: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference from frame to frame of the prediction, each joint times its weight; needs two frames."""
    squares = pred.diff(dim=1).square()
    return squares.mean() if weights is None else (weights.to(squares)[:, None] * squares).mean()


def velocity(pred: Tensor, true: Tensor) -> Tensor:
    """Mean error of the difference from frame to frame; needs two frames."""
    return torch.linalg.vector_norm(pred.diff(dim=1) - true.diff(dim=1), dim=-1).mean()


def n_mpjpe(pred: Tensor, true: Tensor) -> Tensor:
    """Mean distance after the best scale of each frame (MotionBERT's second term)."""
    scale = (pred * true).sum((-2, -1), keepdim=True) / pred.square().sum((-2, -1), keepdim=True).clamp_min(1e-12)
    return position(scale * pred, true)


def loss_terms(
    pred: Tensor, true: Tensor, factors: dict[str, float], weights: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms that have a factor, not yet weighted: mpjpe, weighted_mpjpe, temporal, velocity, n_mpjpe.

    Terms that compare frames are left out of clips of one.
    """
    moving = pred.shape[1] > 1
    found: dict[str, Tensor] = {}
    if factors.get("mpjpe"):
        found["mpjpe"] = position(pred, true)
    if factors.get("weighted_mpjpe"):
        found["weighted_mpjpe"] = position(pred, true, weights)
    if factors.get("temporal") and moving:
        found["temporal"] = temporal_consistency(pred, weights)
    if factors.get("velocity") and moving:
        found["velocity"] = velocity(pred, true)
    if factors.get("n_mpjpe"):
        found["n_mpjpe"] = n_mpjpe(pred, true)
    return found


def squared(loss: Tensor) -> Tensor:
    """Half the square of a loss: its derivative is the loss times its derivative, as KTPFormer was trained."""
    return 0.5 * loss.square()
