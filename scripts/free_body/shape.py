"""Shape space: principal components of centred T-posed persons, scaled so that every coefficient is standard normal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NUM_BETAS = 16


@dataclass(frozen=True)
class ShapeSpace:
    """template (V, 3) and components (V, 3, 16), metres; explained (16,) cumulative share of variance."""

    template: np.ndarray
    components: np.ndarray
    explained: np.ndarray


def centre(vertices: np.ndarray) -> np.ndarray:
    """Persons (N, V, 3) moved so that each vertex mean is the origin."""
    return vertices - vertices.mean(1, keepdims=True)


def fit(
    persons: np.ndarray, mirror: np.ndarray, volume_of: Callable[[np.ndarray], float], like: ShapeSpace | None = None
) -> ShapeSpace:
    """Fit to centred, symmetric persons (N, V, 3); mirror: (V,) vertex mirror map.

    Signs: each column grows stature where it mainly changes stature, otherwise volume (`volume_of` maps (V, 3) to
    cubic metres); with `like`, the sign that agrees with the most similar column of that space.
    """
    n = len(persons)
    template = persons.mean(0)
    X = (persons - template).reshape(n, -1)
    values, vectors = np.linalg.eigh(X @ X.T / (n - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    columns = (X.T @ vectors[:, :NUM_BETAS]) / np.sqrt(n - 1)
    columns = columns.reshape(*template.shape, NUM_BETAS)
    flip = np.array([-1.0, 1.0, 1.0])
    template = (template + template[mirror] * flip) / 2  # exact to the last bit, not only to rounding
    columns = (columns + columns[mirror] * flip[:, None]) / 2
    for k in range(NUM_BETAS):
        column = columns[..., k]
        if like is not None:
            overlap = np.einsum("vi,vik->k", column, like.components)
            overlap /= np.linalg.norm(like.components.reshape(-1, NUM_BETAS), axis=0)
            sign = np.sign(overlap[np.abs(overlap).argmax()])
        else:
            taller = np.ptp((template + column)[:, 1]) - np.ptp((template - column)[:, 1])
            heavier = volume_of(template + column) - volume_of(template - column)
            sign = np.sign(taller if abs(taller) > 0.01 else heavier)
        columns[..., k] *= sign or 1.0
    return ShapeSpace(template, columns, np.cumsum(values)[:NUM_BETAS] / values.sum())
