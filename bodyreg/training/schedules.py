"""Learning rates over time, and which parameters decay."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["decay_groups", "stepped_rate"]


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
