"""Distances weighed by the network's own uncertainty."""

from __future__ import annotations

from torch import Tensor

__all__ = ["gaussian_distance"]


def gaussian_distance(predicted: Tensor, log_scale: Tensor, true: Tensor) -> Tensor:
    """mean(d exp(-s) + s), d the Euclidean distance: what GUMLP is trained with (Wang et al., IEEE TMM 2025).

    Its authors call it Gaussian; d is not squared, so it is the negative logarithm of a Laplace-like density. Where
    both points coincide the gradient of d is zero.

    Args:
        predicted, true: (..., J, 3) joints, metres. log_scale: (..., J, 1) s.
    """
    scale = log_scale.squeeze(-1)
    return ((predicted - true).norm(dim=-1) * (-scale).exp() + scale).mean()
