"""Shape prior: SMPL's betas are, by construction, standard normal and independent."""

from __future__ import annotations

import numpy as np

__all__ = ["log_prob_betas", "sample_betas"]


def sample_betas(
    n: int, rng: np.random.Generator, *, num_betas: int = 10, std: float = 1.0, limit: float = 2.5
) -> np.ndarray:
    """Draw (n, num_betas) float32 betas from N(0, std^2) truncated to [-limit, limit] in every component.

    The truncation redraws; it does not pile samples up at the limit. std above 1 gives more extreme bodies.
    """
    if std < 0 or limit <= 0:
        raise ValueError(
            f"The spread is {std} and the limit {limit}. Give a spread of at least 0 and a positive limit."
        )
    betas = rng.normal(scale=std, size=(n, num_betas))
    outside = np.abs(betas) > limit
    for _ in range(100):
        if not outside.any():
            break
        betas[outside] = rng.normal(scale=std, size=int(outside.sum()))
        outside = np.abs(betas) > limit
    # a spread far above the limit is as good as uniform
    betas[outside] = rng.uniform(-limit, limit, int(outside.sum()))
    return betas.astype(np.float32)


def log_prob_betas(betas: np.ndarray) -> np.ndarray:
    """(...) log density of betas (..., S) under N(0, I)."""
    betas = np.asarray(betas)
    return -0.5 * (betas**2).sum(-1) - 0.5 * betas.shape[-1] * np.log(2 * np.pi)
