"""Learning rates over time, and which parameters decay."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["bn_momentum", "cosine_rate", "decay_groups", "exponential_rate", "linear_rate", "stepped_rate"]


def stepped_rate(epoch: float, lr: float, period: float, gamma: float = 0.75) -> float:
    """PersPose's rate at a fractional epoch: lr (e + 0.01) in the first, then lr gamma^floor((e - 1) / period).

    Raises:
        ValueError: a negative epoch or a period that is not positive.
    """
    if epoch < 0 or not period > 0:
        raise ValueError(f"Epoch {epoch} with a period of {period} has no rate. Give an epoch >= 0 and a period > 0.")
    if epoch < 1:
        return lr * (epoch + 0.01)
    return lr * gamma ** math.floor((epoch - 1) / period)


def exponential_rate(epoch: int, lr: float, decay: float, halve_every: int = 0) -> float:
    """Rate in an epoch (from 0): lr times `decay` after each, or times 0.5 instead after every `halve_every`-th."""
    halvings = epoch // halve_every if halve_every else 0
    return lr * decay ** (epoch - halvings) * 0.5**halvings


def linear_rate(epoch: int, epochs: int, lr: float, constant: int = 0) -> float:
    """Rate in an epoch (from 0): constant for some epochs, then falling evenly to zero after the last (PoseAug)."""
    return lr * (1 - max(0, epoch - constant) / (epochs - constant + 1))


def cosine_rate(epoch: int, epochs: int, lr: float, lowest: float) -> float:
    """Rate in an epoch (from 0) of a half cosine from lr to `lowest`, which the epoch after the last would have."""
    return lowest + 0.5 * (lr - lowest) * (1 + math.cos(math.pi * min(epoch, epochs) / epochs))


def bn_momentum(epoch: int, epochs: int, first: float = 0.1, last: float = 0.001) -> float:
    """Momentum of batch normalisation in an epoch (from 0): from `first` down to `last` exponentially (VideoPose3D)."""
    return first * (last / first) ** (epoch / epochs)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two parameter groups of an optimiser: tensors of more than one axis that are no bias decay, the rest does not.

    The group's `names` say which parameters it holds. Parameters that need no gradient are left out.
    """
    decay: dict[str, torch.Tensor] = {}
    plain: dict[str, torch.Tensor] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (decay if parameter.ndim > 1 and not name.endswith("bias") else plain)[name] = parameter
    return [
        {"params": list(group.values()), "names": list(group), "weight_decay": value}
        for group, value in ((decay, weight_decay), (plain, 0.0))
    ]
