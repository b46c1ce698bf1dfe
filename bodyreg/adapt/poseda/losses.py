"""What drives generator and critics; and PoseAug's feedback from the lifter, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "FeedbackSettings", "critic_loss", "difference_range", "feedback_loss", "generator_loss", "ratio_limit",
    "regulariser",
]  # fmt: skip

# How much each joint's error tells of a pose's difficulty, and the joints of hips and shoulders, middle and end joints.
_JOINT_WEIGHTS = (1, 5, 2, 1, 5, 2, 1, 1, 1, 1, 5, 2, 1, 5, 2, 1)
_GROUPS = ((1, 4, 10, 13), (2, 5, 9, 11, 14), (3, 6, 12, 15))


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares: scores of real poses go to one, of generated ones to zero."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares the other way round; the real term has no gradient for the generator and is kept for its value."""
    return 0.5 * (real.square().mean() + (fake - 1).square().mean())


def difference_range(values: Tensor, wanted: float, width: float) -> Tensor:
    """Mean of (value - wanted)^2 where it exceeds width^2, zero elsewhere: free within the range."""
    squares = (values - wanted).square()
    return torch.where(squares > width**2, squares, torch.zeros_like(squares)).mean()


def ratio_limit(values: Tensor, limit: float) -> Tensor:
    """Mean of value^2 where it exceeds limit^2, zero elsewhere."""
    return difference_range(values, 0.0, limit)


def regulariser(
    angle_change: Tensor, ratios: Tensor, *, angle: float = 0.205, angle_width: float = 0.165, limit: float = 0.1
) -> Tensor:
    """Keeps the mean turn of the bones (N, 15) within a range and lengths (N, 9) within a limit."""
    return difference_range(angle_change.mean(-1), angle, angle_width) + ratio_limit(ratios, limit)


@dataclass(frozen=True)
class FeedbackSettings:
    """PoseAug's numbers: how much harder than the original a changed pose should be."""

    hard_angles: tuple[float, float] = (3.0, 5.0)
    """Wanted ratio of errors at the first and after the last epoch, for turned bones."""
    hard_rotation: tuple[float, float] = (17.0, 17.0)
    width_angles: float = 2.0
    width_rotation: float = 15.0
    weight_angles: float = 0.1
    weight_rotation: float = 0.01


def feedback_loss(
    error: Tensor, error_angles: Tensor, error_rotation: Tensor, progress: float, settings: FeedbackSettings
) -> Tensor:  # fmt: skip
    """How far changed poses are from the wanted difficulty.

    Args:
        error, error_angles, error_rotation: (N, 16) the lifter's errors on the original, the turned bones and the
            turned body. progress: epoch over epochs. settings: the numbers.
    """
    base = _groups(error)
    total = base.new_zeros(())
    for changed, (start, end), width, weight in (
        (error_angles, settings.hard_angles, settings.width_angles, settings.weight_angles),
        (error_rotation, settings.hard_rotation, settings.width_rotation, settings.weight_rotation),
    ):
        total = total + weight * difference_range(_groups(changed) / base, start + (end - start) * progress, width)
    return total


def _groups(error: Tensor) -> Tensor:
    """(N, 3) weighted mean errors of the joint groups."""
    weighted = error * error.new_tensor(_JOINT_WEIGHTS)
    return torch.stack([weighted[:, list(group)].mean(-1) for group in _GROUPS], -1)
