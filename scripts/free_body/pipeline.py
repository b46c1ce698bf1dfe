"""The recipe: population, T-pose, topology, order, joints, weights, shape spaces, correctives."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from . import correctives, points, shape, skeleton, spikes, topology
from .collapse import SymmetricMesh, collapse_onto_rim
from .population import Morphs, Persons, concatenate, draw, mean_baby
from .source import BODY_VERTICES, Base, Rig, Source, load_base, load_rig
from .tpose import bone_transforms, skin

log = logging.getLogger(__name__)
GENDERS = ("neutral", "male", "female")
_PER_SEX = 900
_HELD_OUT = 150
_FIT_PERSONS = 300


@dataclass
class FreeBody:
    """Everything that is packed; arrays in float64 metres, final vertex order."""

    spaces: dict[str, shape.ShapeSpace]
    faces: np.ndarray
    mirror: np.ndarray
    weights: np.ndarray
    J_regressor: np.ndarray
    posedirs: np.ndarray
    kid_template: np.ndarray
    points: dict[str, np.ndarray] = field(default_factory=dict)


def volume(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Enclosed volume of (..., V, 3) meshes, cubic metres."""
    p = vertices[..., faces, :]
    return np.einsum("...fi,...fi->...", np.cross(p[..., 0, :], p[..., 1, :]), p[..., 2, :]) / 6


class TPoser:
    """Persons to T-posed, mirror-symmetric meshes over a chosen subset of the body vertices."""

    def __init__(self, morphs: Morphs, rig: Rig, body_ids: np.ndarray, mirror: np.ndarray) -> None:
        ends = np.unique(np.concatenate(rig.head_ids + rig.tail_ids))
        self._ids = np.concatenate([body_ids, ends])
        row = {int(v): len(body_ids) + i for i, v in enumerate(ends)}
        self._heads = [np.array([row[int(v)] for v in ids]) for ids in rig.head_ids]
        self._tails = [np.array([row[int(v)] for v in ids]) for ids in rig.tail_ids]
        self._count, self._morphs, self._rig = len(body_ids), morphs, rig
        self._weights, self._mirror = rig.weights[body_ids], mirror
        self._bones = np.array([rig.names.index(_other_side(n)) for n in rig.names])

    def __call__(self, persons: Persons) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices (N, V, 3), bone heads and bone tails (N, 163, 3), all symmetric."""
        parts = []
        for start in range(0, len(persons.stature), 50):
            cut = slice(start, start + 50)
            block = Persons(
                {k: v[cut] for k, v in persons.macro.items()},
                {k: v[cut] for k, v in persons.local.items()},
                persons.stature[cut],
            )
            parts.append(self._block(block))
        return tuple(np.concatenate(p) for p in zip(*parts, strict=True))

    def _block(self, persons: Persons) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rest = self._morphs.vertices(persons, self._ids)
        heads = np.stack([rest[:, i].mean(1) for i in self._heads], 1)
        tails = np.stack([rest[:, i].mean(1) for i in self._tails], 1)
        R, t = bone_transforms(self._rig, heads)
        v = skin(self._weights, R, t, rest[:, : self._count])
        heads, tails = (np.einsum("nbij,nbj->nbi", R, x) + t for x in (heads, tails))
        flip, b = skeleton.FLIP_X, self._bones
        return (v + v[:, self._mirror] * flip) / 2, (heads + heads[:, b] * flip) / 2, (tails + tails[:, b] * flip) / 2


def _other_side(bone: str) -> str:
    return bone[:-1] + {"L": "R", "R": "L"}[bone[-1]] if bone.endswith((".L", ".R")) else bone


def _population(seed: int, n: int) -> Persons:
    return concatenate([draw(np.random.default_rng([seed, s]), n, male=s == 0) for s in (0, 1)])


def _simplify(base: Base, rig: Rig, morphs: Morphs) -> np.ndarray:
    """(13776, 3) triangles of the final mesh in base-mesh vertex ids."""
    sample, _, _ = TPoser(morphs, rig, np.arange(BODY_VERTICES), base.mirror)(_population(1, 60))
    mean = sample.mean(0)
    faces = topology.triangulate(base.quads, mean, base.mirror)
    dominant = rig.weights.argmax(1)
    head = rig.subtree("head")[dominant]
    pockets = topology.find_pockets(mean, faces, base.mirror, head)
    log.info("pockets of %s vertices", [len(p) for p in pockets])
    if len(pockets) != 3:
        raise ValueError(f"Found {len(pockets)} pockets in the head, expected mouth and two eye sockets.")
    mesh = SymmetricMesh(faces, base.mirror)
    collapse_onto_rim(mesh, np.concatenate(pockets), mean)
    log.info("closed: %d vertices, %d triangles", len(mesh), len(mesh.faces))
    bmi = volume(sample, faces) / np.ptp(sample[..., 1], axis=1) ** 2
    tall = np.ptp(sample[..., 1], axis=1)
    extremes = [s.start + f(x[s]) for s in (slice(0, 60), slice(60, 120)) for f, x in
                ((np.argmax, tall), (np.argmax, bmi), (np.argmin, bmi))]  # fmt: skip
    region = np.ones(BODY_VERTICES)
    region[head] = 0.28
    for side in "LR":
        region[rig.subtree(f"foot.{side}")[dominant]] = 0.45
        region[rig.subtree(f"wrist.{side}")[dominant]] = 0.65
    topology.decimate(mesh, np.concatenate([mean[None], sample[extremes]]), region)
    log.info("decimated: %d vertices, %d triangles", len(mesh), len(mesh.faces))
    return mesh.array()


def _reorder(faces: np.ndarray, ids: np.ndarray, total: int) -> np.ndarray:
    """Faces in the new numbering, each starting at its smallest index, sorted by it."""
    new = np.full(total, -1)
    new[ids] = np.arange(len(ids))
    faces = new[faces]
    first = faces.argmin(1)
    faces = faces[np.arange(len(faces))[:, None], (first[:, None] + np.arange(3)) % 3]
    return faces[np.lexsort(faces.T[::-1])]


def build(source: Source) -> FreeBody:
    """Run the whole recipe."""
    base = load_base(source)
    rig = load_rig(source, base)
    morphs = Morphs(source, base)
    log.info("read %d targets", len(morphs.files))
    base_faces = _simplify(base, rig, morphs)

    ids = np.unique(base_faces)
    local = np.full(BODY_VERTICES, -1)
    local[ids] = np.arange(len(ids))
    mirror, faces = local[base.mirror[ids]], local[base_faces]
    vertices, heads, tails = TPoser(morphs, rig, ids, mirror)(_population(2, 50))
    found = skeleton.landmarks(rig, rig.weights[ids], heads.mean(0), tails.mean(0), vertices.mean(0), faces)
    ids = ids[skeleton.vertex_order(vertices.mean(0), mirror, found)]
    local[ids] = np.arange(len(ids))
    mirror, faces = local[base.mirror[ids]], _reorder(base_faces, ids, BODY_VERTICES)
    log.info("ordered: midline %d", (mirror == np.arange(len(mirror))).sum())

    pose = TPoser(morphs, rig, ids, mirror)
    vertices, heads, tails = pose(_population(3, _PER_SEX))
    held_out, held_heads, _ = pose(_population(4, _HELD_OUT))
    log.info("population of %d posed", len(vertices))
    weights = skeleton.skinning_weights(rig, rig.weights[ids], faces, mirror)
    fit = np.arange(0, len(vertices), len(vertices) // _FIT_PERSONS)[:_FIT_PERSONS]
    joints = skeleton.joint_targets(rig, heads[fit])
    regressor = skeleton.joint_regressor(joints, vertices[fit], weights, mirror)
    error = np.linalg.norm(regressor @ held_out - skeleton.joint_targets(rig, held_heads), axis=-1).mean(0)
    log.info("joint error on held-out persons, mm: %s, mean %.1f", (1e3 * error).round(1).tolist(), 1e3 * error.mean())

    centred = shape.centre(vertices)
    rows = {"neutral": slice(None), "male": slice(0, _PER_SEX), "female": slice(_PER_SEX, None)}
    spaces: dict[str, shape.ShapeSpace] = {}
    for gender in GENDERS:
        spaces[gender] = shape.fit(centred[rows[gender]], mirror, lambda v: volume(v, faces), spaces.get("neutral"))
        log.info("%s: explained variance %s", gender, spaces[gender].explained[[0, 1, 4, 9, 15]].round(3).tolist())
    kid, _, _ = pose(mean_baby())
    log.info("kid template %.2f m", np.ptp(kid[0, :, 1]))
    mean = spaces["neutral"].template
    posedirs, rms = correctives.pose_correctives(mean, regressor @ mean, weights, faces, mirror)
    for joint, (wanted, left) in rms.items():
        log.info("correctives of joint %d: %.1f mm rms, %.1f mm after the fit", joint, 1e3 * wanted, 1e3 * left)
    rows_of, errors = points.point_rows(vertices[fit], mean, weights, regressor, mirror)
    fitted = {name: round(1e3 * error, 1) for name, error in errors.items()}
    log.info("points: %d, errors of fitted ones in mm %s", len(rows_of), fitted)
    # Last, because weights and regressors give such a vertex nothing: only its own place changes.
    inner = spikes.find_spikes(mean, faces, mirror)
    log.info("pulled in: %s", {v: n.tolist() for v, n in inner.items()})
    return FreeBody(
        spaces={gender: spikes.without_spikes(space, inner) for gender, space in spaces.items()},
        faces=faces,
        mirror=mirror,
        weights=weights,
        J_regressor=regressor,
        posedirs=posedirs,
        kid_template=spikes.pull_in(shape.centre(kid)[0], inner),
        points=rows_of,
    )
