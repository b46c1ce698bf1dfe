"""Take out vertices that a closed pocket left behind: deep inside the head, at the end of a fold no one can see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .shape import ShapeSpace

_LONGEST_EDGE = 0.04  # metres; on the body itself every vertex has a neighbour within 2 cm


def find_spikes(template: np.ndarray, faces: np.ndarray, mirror: np.ndarray) -> dict[int, np.ndarray]:
    """Vertices of `template` (V, 3) with no neighbour within 4 cm, and the neighbours among which each belongs.

    The pockets are found by visibility, vertex by vertex, so one that is glimpsed between the lips survives as the tip
    of a fold. It belongs between its neighbours: those on the midline for a vertex on the midline, where the rest of
    the ring lies at the corners of the mouth, else all of them.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    length = np.linalg.norm(template[edges[:, 0]] - template[edges[:, 1]], axis=1)
    nearest = np.full(len(template), np.inf)
    for end in edges.T:
        np.minimum.at(nearest, end, length)
    out = {}
    for v in np.flatnonzero(nearest > _LONGEST_EDGE):
        ring = edges[edges[:, 0] == v, 1]
        middle = ring[mirror[ring] == ring]
        out[int(v)] = np.sort(middle if mirror[v] == v and len(middle) else ring)
    return out


def pull_in(vertices: np.ndarray, spikes: dict[int, np.ndarray]) -> np.ndarray:
    """Copy of templates or shape columns (V, ...) with every spike at the mean of its neighbours."""
    out = vertices.copy()
    for v, neighbours in spikes.items():
        out[v] = vertices[neighbours].mean(0)
    return out


def without_spikes(space: ShapeSpace, spikes: dict[int, np.ndarray]) -> ShapeSpace:
    """The shape space with its template and its columns pulled in, hence every shape of it."""
    return replace(space, template=pull_in(space.template, spikes), components=pull_in(space.components, spikes))
