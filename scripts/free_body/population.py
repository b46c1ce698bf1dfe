"""Draw a population of persons in MakeHuman's parameters and turn them into vertices.

Whole-body targets have product-form names: the weight of a target is the product of the weights of the words in its
name, each linear between its anchors. Local targets are signed pairs. The height parameter is solved last, so that
statures follow the wanted distribution whatever the other parameters did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .source import ALL_VERTICES, BODY_VERTICES, Base, Source, load_target

_AGE = {"baby": 0.0, "child": 1 / 3, "young": 2 / 3, "old": 1.0}
_THREE = {"min": 0.0, "average": 0.5, "max": 1.0}
_MACRO_WORDS = re.compile(r"^(min|average|max)(muscle|weight|cup|firmness)$")

# What grows together with adiposity: target pair -> coefficient per unit of adiposity.
_FAT = {
    "stomach/stomach-tone": -0.8,  # less tone is more belly
    "torso/torso-scale-horiz": 0.5, "torso/torso-scale-depth": 0.9,
    "hip/hip-scale-horiz": 0.5, "hip/hip-scale-depth": 0.7,
    "buttocks/buttocks-volume": 0.6,
    "neck/neck-scale-horiz": 0.5, "neck/neck-scale-depth": 0.4,
    "arms/{s}-upperarm-fat": 1.0, "arms/{s}-lowerarm-fat": 0.6,
    "legs/{s}-upperleg-fat": 0.8, "legs/{s}-lowerleg-fat": 0.6,
}  # fmt: skip
# Independent local changes: target pair -> standard deviation.
_LOCAL = {
    "torso/torso-scale-horiz": 0.25, "torso/torso-scale-depth": 0.25, "torso/torso-scale-vert": 0.3,
    "torso/torso-vshape": 0.3, "torso/torso-muscle-dorsi": 0.25, "torso/torso-muscle-pectoral": 0.25,
    "torso/measure-shoulder-dist": 0.3, "hip/hip-scale-horiz": 0.25, "hip/hip-scale-depth": 0.25,
    "hip/hip-scale-vert": 0.25, "stomach/stomach-tone": 0.3, "buttocks/buttocks-volume": 0.3,
    "legs/upperlegs-height": 0.3, "legs/lowerlegs-height": 0.3, "legs/{s}-upperleg-fat": 0.25,
    "legs/{s}-upperleg-muscle": 0.25, "legs/{s}-lowerleg-muscle": 0.25, "arms/measure-upperarm-length": 0.3,
    "arms/measure-lowerarm-length": 0.3, "arms/{s}-upperarm-muscle": 0.25, "arms/{s}-lowerarm-muscle": 0.25,
    "arms/{s}-upperarm-shoulder-muscle": 0.25, "neck/neck-scale-vert": 0.25, "neck/neck-scale-horiz": 0.25,
    "head/head-scale-horiz": 0.2, "head/head-scale-vert": 0.2, "hands/{s}-hand-scale": 0.3, "feet/{s}-foot-scale": 0.3,
}  # fmt: skip


@dataclass(frozen=True)
class Persons:
    """`macro`: parameter name -> (N,); `local`: pair name -> (N,) signed; `stature` (N,) metres wanted."""

    macro: dict[str, np.ndarray]
    local: dict[str, np.ndarray]
    stature: np.ndarray


def draw(rng: np.random.Generator, n: int, male: bool) -> Persons:
    """Draw `n` persons of one sex."""

    def clipped(sd: float) -> np.ndarray:
        return np.clip(rng.normal(0.5, sd, n), 0, 1)

    z = rng.normal(size=n)
    fat = np.clip((0.20 if male else 0.28) + 0.27 * z + 0.04 * z**2, -0.25, 1.3)
    race = rng.dirichlet([1.5] * 3, n)
    macro = {
        "gender": rng.uniform(0, 0.3, n) if male else rng.uniform(0.7, 1, n),
        "age": rng.uniform(0.60, 0.95, n),
        "muscle": clipped(0.2), "proportions": clipped(0.2), "cup": clipped(0.2), "firmness": clipped(0.17),
        "weight": np.clip(0.4 + 0.6 * fat + rng.normal(0, 0.08, n), 0, 1),
        "african": race[:, 0], "asian": race[:, 1], "caucasian": race[:, 2],
    }  # fmt: skip
    local = {name: sd * rng.normal(size=n) for name, sd in _LOCAL.items()}
    for name, k in _FAT.items():
        local[name] = local.get(name, 0.0) + k * fat
    stature = rng.normal(1.76, 0.07, n) if male else rng.normal(1.63, 0.065, n)
    return Persons(macro, {k: np.clip(v, -1.3, 1.5) for k, v in local.items()}, stature)


def mean_baby() -> Persons:
    """One baby of average parameters, sex and race."""
    macro = {k: np.array([0.5]) for k in ("gender", "muscle", "weight", "proportions", "cup", "firmness")}
    macro |= {"age": np.array([0.0])} | {r: np.array([1 / 3]) for r in ("african", "asian", "caucasian")}
    return Persons(macro, {}, np.array([0.67]))


def concatenate(parts: list[Persons]) -> Persons:
    return Persons(
        {k: np.concatenate([p.macro[k] for p in parts]) for k in parts[0].macro},
        {k: np.concatenate([p.local[k] for p in parts]) for k in parts[0].local},
        np.concatenate([p.stature for p in parts]),
    )


def _hat(x: np.ndarray, at: float, anchors: list[float]) -> np.ndarray:
    """Linear interpolation weight of the anchor `at` at x, constant beyond the ends."""
    return np.interp(x, anchors, [1.0 if a == at else 0.0 for a in anchors])


def _word_weight(word: str, macro: dict[str, np.ndarray]) -> np.ndarray | float:
    if word == "universal":
        return 1.0
    if word in ("african", "asian", "caucasian"):
        return macro[word]
    if word in ("male", "female"):
        return macro["gender"] if word == "female" else 1 - macro["gender"]
    if word in _AGE:
        return _hat(macro["age"], _AGE[word], list(_AGE.values()))
    if word in ("minheight", "maxheight"):  # unclipped: stature stays linear in the parameter
        return macro["height"] if word == "maxheight" else 1 - macro["height"]
    if word in ("idealproportions", "uncommonproportions"):
        return macro["proportions"] if word[0] == "u" else 1 - macro["proportions"]
    match = _MACRO_WORDS.match(word)
    if match is None:
        raise ValueError(f"The target word {word!r} is not known. The wheel is probably another version than 0.6.2.")
    return _hat(macro[match[2]], _THREE[match[1]], list(_THREE.values()))


class Morphs:
    """All targets that the population uses, as one sparse matrix over the kept vertices."""

    def __init__(self, source: Source, base: Base) -> None:
        macro = [n for n in source.names("targets/macrodetails/") if n.endswith(".target.gz")]
        macro += [n for n in source.names("targets/breast/female-") if n.endswith(".target.gz")]
        known = set(source.names("targets/"))
        self._signed: dict[str, list[tuple[str, float]]] = {}
        for pair in sorted(set(_LOCAL) | set(_FAT)):
            for side in ("l", "r") if "{s}" in pair else ("",):
                stem = f"targets/{pair.replace('{s}', side)}"
                files = [(f"{stem}-{end}.target.gz", sign) for end, sign in (("incr", 1.0), ("decr", -1.0))]
                if any(f not in known for f, _ in files):
                    raise ValueError(f"The target pair {stem!r} is missing. The wheel is probably not version 0.6.2.")
                self._signed.setdefault(pair, []).extend(files)
        self._macro_words = {n: n.rsplit("/", 1)[1].removesuffix(".target.gz").split("-") for n in macro}
        self.files = macro + [f for files in self._signed.values() for f, _ in files]
        self._row = {f: i for i, f in enumerate(self.files)}
        rows, cols, values = [], [], []
        for r, name in enumerate(self.files):
            ids, xyz = load_target(source, name)
            rows.append(np.full(3 * len(ids), r))
            cols.append((3 * ids[:, None] + np.arange(3)).ravel())
            values.append(xyz.ravel())
        shape = (len(self.files), 3 * ALL_VERTICES)
        self._matrix = sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))), shape)
        self._base = base.vertices
        self._restricted: tuple[bytes, sp.csr_matrix] | None = None

    def _coefficients(self, persons: Persons, height: np.ndarray) -> np.ndarray:
        n = len(persons.stature)
        out = np.zeros((n, len(self.files)))
        macro = persons.macro | {"height": height}
        for name, words in self._macro_words.items():
            weight = np.ones(n)
            for word in words:
                weight = weight * _word_weight(word, macro)
            out[:, self._row[name]] = weight
        for pair, values in persons.local.items():
            for name, sign in self._signed[pair]:
                out[:, self._row[name]] = np.maximum(sign * values, 0)
        return out

    def vertices(self, persons: Persons, ids: np.ndarray) -> np.ndarray:
        """(N, len(ids), 3) rest-pose vertices; the height parameter is solved for each person's stature."""
        n = len(persons.stature)
        low, high = self._coefficients(persons, np.zeros(n)), self._coefficients(persons, np.ones(n))
        body_y = self._matrix[:, 1 : 3 * BODY_VERTICES : 3]
        spans = []
        for c in (low, high):
            y = self._base[:BODY_VERTICES, 1] + np.asarray(sp.csr_matrix(c) @ body_y.toarray())
            spans.append(y.max(1) - y.min(1))
        height = ((persons.stature - spans[0]) / (spans[1] - spans[0]))[:, None]
        coefficients = low + height * (high - low)  # every height word is linear, so the targets' weights are too
        key = ids.tobytes()
        if self._restricted is None or self._restricted[0] != key:
            self._restricted = (key, self._matrix[:, (3 * ids[:, None] + np.arange(3)).ravel()].tocsr())
        offsets = (self._restricted[1].T @ coefficients.T).T
        return self._base[ids] + offsets.reshape(n, len(ids), 3)
