"""Garments with a shape of their own on synthetic people: from skin-tight to very loose, in every length.

`sample_garments` draws what people wear and how it is cut; a `Tailor` puts it around a body. The clothed surface has
the body's own topology and follows its skinning, so a face of it is the same face of the body below, and costs no more
to draw. Where each garment lies is decided pixel by pixel from interpolated fields (`garment_labels`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.garment_labels import FIELDS, FIT, fill_fields, fill_labels
from bodyreg.data.synthetic.garment_shapes import pose_cloth, shape_cloth
from bodyreg.data.synthetic.outfits import OUTFIT, body_atlas, sample_outfits
from renderers.backends.cpu import vertex_normals

__all__ = ["Clothed", "Tailor", "label_vertices", "painted_looseness", "sample_garments"]

_O, _F = OUTFIT(), FIT()
_CLOTH = [FIELDS().coat, FIELDS().upper, FIELDS().lower]


class Clothed(NamedTuple):
    """A posed, clothed body.

    vertices (V, 3) in the frame of the pose, metres; fields (V, 14), see `garment_labels.FIELDS`; clearance: mean
    distance, metres, of the cloth of coat, upper and lower garment from the body in the rest pose.
    """

    vertices: np.ndarray
    fields: np.ndarray
    clearance: float


def sample_garments(
    rng: np.random.Generator, n: int, looseness: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what n people wear.

    Args:
        rng: source of all randomness. n: people.
        looseness: range in which each person's looseness is drawn, 0 skin-tight, 1 very loose.

    Returns:
        (n, 19) float32 outfits (`OUTFIT`) and (n, 20) float32 fits (`FIT`).

    Raises:
        ValueError: a range outside 0 to 1, or upside down.
    """
    low, high = looseness
    if not 0 <= low <= high <= 1:
        raise ValueError(f"The looseness is to lie between {low} and {high}. Give two numbers from 0 to 1 in order.")
    outfit, fit = sample_outfits(rng, n), np.zeros((n, len(_F)), np.float32)
    u, normal = rng.random, rng.normal
    loose = low + (high - low) * rng.beta(1.1, 1.5, n)
    upper, lower = (np.clip(loose + normal(0, 0.1 * (high - low), n), low, high) for _ in range(2))
    fit[:, _F.looseness] = loose
    fit[:, _F.upper_ease] = 0.003 + 0.055 * upper**1.4
    fit[:, _F.sleeve_ease] = 0.003 + 0.038 * upper**1.4
    fit[:, _F.lower_ease] = 0.003 + 0.042 * lower**1.4
    fit[:, _F.sleeve_flare] = np.where(u(n) < 0.3, u(n) * 0.05 * upper, 0)
    fit[:, _F.leg_flare] = np.where(u(n) < 0.3, u(n) * 0.06 * lower, 0)
    fit[:, _F.drape] = np.clip(1.3 * upper, 0, 1) * rng.uniform(0.4, 1, n)
    fit[:, _F.cone_flare] = 0.03 + 0.4 * np.clip(loose + normal(0, 0.15, n), 0, 1)
    fit[:, _F.waist] = rng.uniform(0.04, 0.15, n)
    fit[:, _F.inner_hem] = normal(0.0, 0.05, n)
    fit[:, _F.opening] = np.where(u(n) < 0.5, rng.uniform(0.01, 0.06, n), 0)
    fit[:, _F.neck_radius] = rng.uniform(0.075, 0.125, n)
    fit[:, _F.neck_dip] = np.where(u(n) < 0.6, rng.uniform(0.0, 0.05, n), rng.uniform(0.04, 0.13, n))
    fit[:, _F.shoe_top] = np.where(u(n) < 0.8, rng.uniform(-0.03, 0.05, n), rng.uniform(0.05, 0.32, n))
    fit[:, _F.hair_length] = np.where(u(n) < 0.3, rng.uniform(0.01, 0.22, n), 0)
    fit[:, _F.brim] = np.where(u(n) < 0.6, rng.uniform(0.01, 0.06, n), 0)
    fit[:, _F.glasses] = u(n) < 0.05
    fit[:, _F.scarf] = np.where(u(n) < 0.06, rng.uniform(0.015, 0.04, n), 0)
    fit[:, _F.folds] = rng.integers(5, 14, n)
    fit[:, _F.fold] = 0.001 + 0.007 * loose * u(n)
    _change_outfits(rng, outfit, fit)
    return outfit, fit


def _change_outfits(rng: np.random.Generator, outfit: np.ndarray, fit: np.ndarray) -> None:
    """What geometry can do and paint cannot: jumpsuits, tucked shirts, thick hair; thicknesses are those of `fit`."""
    n, u = len(outfit), rng.random
    jumpsuit = (outfit[:, _O.upper_kind] == 5) & (outfit[:, _O.lower_kind] == 9) & (u(n) < 0.06)
    outfit[jumpsuit, _O.upper_kind] = 10
    fit[jumpsuit, _F.lower_ease] = fit[jumpsuit, _F.upper_ease]
    plain = outfit[:, _O.upper_kind] == 5
    long = plain & (outfit[:, _O.shirt_hem] > -0.15)
    outfit[long, _O.shirt_hem] = rng.uniform(-0.12, 0.18, n)[long]
    fit[:, _F.drape] = np.where(outfit[:, _O.shirt_hem] < -0.03, 0.5 * fit[:, _F.drape], fit[:, _F.drape])
    outfit[:, _O.neckline] = np.clip(rng.normal(0.99, 0.06, n), 0.85, 1.15)
    outfit[:, _O.hair_offset] -= 0.12
    outfit[:, _O.hair_thick] = rng.uniform(0.003, 0.035, n)
    outfit[:, _O.upper_thick], outfit[:, _O.lower_thick] = fit[:, _F.upper_ease], fit[:, _F.lower_ease]
    outfit[:, _O.fold], outfit[:, _O.flare] = fit[:, _F.fold], fit[:, _F.leg_flare]


def painted_looseness(outfits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) looseness and (n,) clearance in metres, as near as they are known, of painted outfits (n, 19)."""
    thick = outfits[:, [_O.upper_thick, _O.lower_thick]].mean(1)
    return np.clip((thick - 0.002) / 0.029, 0, 1).astype(np.float32), thick.astype(np.float32)


def label_vertices(fields: np.ndarray, outfit: np.ndarray) -> np.ndarray:
    """(N,) uint8 label codes of rows of fields (N, 14)."""
    upper, lower = float(outfit[_O.upper_kind]), float(outfit[_O.lower_kind])
    out = np.empty(len(fields), np.uint8)
    fill_labels(fields, upper, lower, out)
    return out


class Tailor:
    """What dressing needs to know of a body: made once, used for any number of people.

    Args:
        body: with ten betas and named landmarks (the free body, or SMPL).
    """

    def __init__(self, body: BodyModel) -> None:
        if body.num_betas != 10 or not body.landmarks:
            raise ValueError(
                f"The body {body.name!r} has {body.num_betas} betas and {len(body.landmarks)} landmarks. "
                "Give one with ten betas and SMPL's 6,890 vertices."
            )
        rest = body.v_template.detach().numpy()
        weights = body.weights.detach().numpy().astype(np.float64)
        self.rest = np.ascontiguousarray(rest, np.float32)
        self.faces = body.faces.numpy().astype(np.int32)
        self.atlas = body_atlas(body.rest_joints().numpy()[0], rest, body.landmarks)
        self.ear = np.asarray(rest[body.landmarks["left_ear"]], np.float32)
        self.arm = weights[:, 16:24].sum(1).astype(np.float32)
        self._average = _averaging(self.faces, len(rest))
        shape = np.concatenate([rest[..., None], body.shapedirs.detach().numpy()], 2)
        self._smooth = _smoothed(self._average, shape, 10)
        self._draped = _smoothed(self._average, shape, 60)
        self._index, self._value = _largest(weights, 4)
        self._skirt_index, self._skirt_value = _largest(self._cone_weights(weights, body.mirror.numpy()), 6)
        self._chest = self._anchors()
        self._hips = self._hip_vertices()

    def dress(
        self, betas: np.ndarray, rest_vertices: np.ndarray, rest_joints: np.ndarray, posed: np.ndarray,
        joints: np.ndarray, R_global: np.ndarray, down: np.ndarray, outfit: np.ndarray, fit: np.ndarray,
    ) -> Clothed:  # fmt: skip
        """Put clothes around one posed body.

        Args:
            betas: (10,). rest_vertices, rest_joints: (V, 3), (24, 3) of this shape in the rest pose, metres.
            posed, joints, R_global: (V, 3), (24, 3), (24, 3, 3) of the posed body in any frame.
            down: (3,) unit vector of gravity in that frame. outfit, fit: (19,), (20,) as `sample_garments` draws them.
        """
        fields, shift = self.fields(outfit, fit)
        numbers = np.concatenate([[1.0], betas]).astype(np.float32)
        smooth, draped = ((basis @ numbers).reshape(-1, 3) for basis in (self._smooth, self._draped))
        v = np.ascontiguousarray(rest_vertices, np.float32)
        moved, cone = np.empty_like(v), np.empty(len(v), np.float32)
        hips = v[self._hips]
        middle = hips[1:, 2].mean()
        half = np.array([abs(hips[0, 0]), hips[1, 2] - middle, middle - hips[2, 2], middle], np.float32)
        shape_cloth(
            v, smooth, draped, vertex_normals(smooth, self.faces), vertex_normals(draped, self.faces), self._chest,
            self.rest, self.arm, rest_joints.astype(np.float32), half, fields, shift, self.atlas, outfit, fit, moved,
            cone,
        )  # fmt: skip
        R = np.ascontiguousarray(R_global, np.float32)
        t = (joints - np.einsum("jab,jb->ja", R_global, rest_joints)).astype(np.float32)
        out = np.empty_like(v)
        pose_cloth(
            np.ascontiguousarray(posed, np.float32), v, moved, cone, self._index, self._value, self._skirt_index,
            self._skirt_value, R, t, np.asarray(down, np.float32), fit, out,
        )  # fmt: skip
        worn = (fields[:, _CLOTH] > 0).any(1)
        away = float(np.linalg.norm(moved[worn] - v[worn], axis=1).mean()) if worn.any() else 0.0
        return Clothed(out, fields, away)

    def fields(self, outfit: np.ndarray, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V, 14) fields of the rest body's vertices, and (V, 2) shifts onto hems, metres."""
        fields, shift = np.empty((len(self.rest), 14), np.float32), np.empty((len(self.rest), 2), np.float32)
        fill_fields(self.rest, self.arm, self.ear, self.atlas, outfit, fit, fields, shift)
        return fields, shift

    def _cone_weights(self, weights: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """(V, 24) weights of skirts: smooth, and shared by both legs near the middle."""
        for _ in range(25):
            weights = 0.5 * (weights + self._average @ weights)
        swap = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
        x = np.abs(self.rest[:, 0])
        inner = np.where(self.rest[:, 1] < self.atlas[2], x - 0.115, x) / 0.06  # from the inside of the legs
        share = 0.5 * np.exp(-(np.clip(inner, 0, None) ** 2))[:, None]
        return weights * (1 - share) + weights[mirror][:, swap] * share

    def _anchors(self) -> np.ndarray:
        """(V,) int64: for each vertex the one at the height of the chest in its direction from the torso's axis."""
        x, y, z = self.rest.T
        ring = np.flatnonzero((np.abs(y - (self.atlas[5] - 0.17)) < 0.02) & (np.abs(x) < self.atlas[0]))
        angle = np.arctan2(z + 0.02, x)
        away = np.abs((angle[:, None] - angle[ring] + np.pi) % (2 * np.pi) - np.pi)
        return ring[away.argmin(1)]

    def _hip_vertices(self) -> np.ndarray:
        """Three vertices: at the side of the hips, the front and the back."""
        x, y, z = self.rest.T
        height = np.abs(y - self.atlas[2] + 0.02) < 0.06
        torso = height & (np.abs(x) < 0.3)
        centre = torso & (np.abs(x) < 0.1)
        return np.array([
            np.where(torso, x, -9).argmax(), np.where(centre, z, -9).argmax(), np.where(centre, z, 9).argmin()
        ])  # fmt: skip


def _averaging(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """(V, V): the mean of a vertex's neighbours."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    near = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count)).tocsr()
    near = ((near + near.T) > 0).astype(np.float64)
    return sparse.diags(1 / np.asarray(near.sum(1)).ravel()) @ near


def _smoothed(average: sparse.csr_matrix, shape: np.ndarray, steps: int) -> np.ndarray:
    """(3V, 11) template and shape columns after half-strength smoothing: linear, so it holds for all betas."""
    flat = shape.reshape(len(shape), -1).astype(np.float64)
    for _ in range(steps):
        flat = 0.5 * (flat + average @ flat)
    return np.ascontiguousarray(flat.reshape(-1, shape.shape[2]), np.float32)


def _largest(weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(V, k) int64 joints and (V, k) float32 weights, the largest ones, scaled to sum one."""
    index = np.argsort(-weights, axis=1)[:, :k]
    value = np.take_along_axis(weights, index, 1)
    return np.ascontiguousarray(index), np.ascontiguousarray(value / value.sum(1, keepdims=True), np.float32)
