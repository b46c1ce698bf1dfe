"""The semantic prior: for each face of a body, how probable it is that a picture shows each clothing label there.

After DSR (Dwivedi et al., ICCV 2021), which learned its array from clothed scans. Here it is learned again, from label
maps and from which face of the fitted body each pixel shows (`LabelCounts`, `learn`), by anybody who has such scans;
the prior that ships was learned by this code from synthetic people (`scripts/learn_clothing_prior.py`).

File format, an npz of plain arrays:
    probabilities (F, 20) float32, rows sum to one, columns in the order of `clothing_labels.LABELS`
    labels        (20,) text, those names
    faces_hash    text, SHA-256 of the (F, 3) int32 faces the rows belong to; empty where it is not known
    centroids     (F, 3) float32, centres of these faces in the rest pose, metres; (0, 3) where they are not known
    joints        (24, 3) float32, SMPL joints of that rest body; (0, 3) where they are not known
    meta          text, a JSON object that says where the numbers come from
DSR's own `semantic_prior.npy`, (13776, 20) or (1, 13776, 20), is read as well: its rows are SMPL's faces.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from priors.clothing_labels import C_GROUP_MATRIX, LABELS, MC_COLUMNS, SMPL_JOINTS_OF_LABEL

__all__ = ["ClothingPrior", "faces_hash"]

_ASSET = Path(__file__).parent / "assets" / "clothing.npz"
_COUNT = len(LABELS)
_TOLERANCE = 2e-3
_NECK = 12


@dataclass(frozen=True)
class ClothingPrior:
    """Label probabilities of the faces of one body.

    probabilities: (F, 20) float32, rows sum to one. faces_hash: of the faces the rows belong to, or empty.
    centroids, joints: (F, 3) and (24, 3) of the rest body, metres, or (0, 3): what `transfer` stands on.
    meta: where the numbers come from.

    Raises:
        ValueError: wrong shape, numbers that are negative or not finite, rows that do not sum to one.
    """

    probabilities: np.ndarray
    faces_hash: str = ""
    centroids: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    joints: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = self.probabilities
        if p.ndim != 2 or p.shape[1] != _COUNT or not len(p):
            raise ValueError(f"The prior has shape {p.shape}. Give one row of {_COUNT} probabilities a face, (F, 20).")
        if not np.isfinite(p).all() or (p < 0).any():
            raise ValueError("The prior has entries that are negative or not finite. Give probabilities.")
        off = np.abs(p.sum(1, dtype=np.float64) - 1)
        if off.max() > _TOLERANCE:
            raise ValueError(
                f"Row {int(off.argmax())} of the prior sums to {p[int(off.argmax())].sum():.4f}. "
                "Divide each row by its sum."
            )
        for name, rows in (("centroids", len(p)), ("joints", 24)):
            value = getattr(self, name)
            if value.shape not in ((rows, 3), (0, 3)):
                raise ValueError(f"The {name} have shape {value.shape}. Give ({rows}, 3), or none.")

    def __len__(self) -> int:
        return len(self.probabilities)

    # ------------------------------------------------------------------------------------------------------- reading

    def groups(self, matrix: np.ndarray = C_GROUP_MATRIX) -> np.ndarray:
        """(F, G) float32 probabilities of groups of labels, by a (20, G) matrix of ones; DSR-C's eight by default."""
        if matrix.shape[:1] != (_COUNT,):
            raise ValueError(f"The groups have shape {matrix.shape}. Give one row a label, (20, G).")
        return (self.probabilities @ matrix).astype(np.float32)

    def hard(self) -> np.ndarray:
        """(F, 20) float32: one for each face's most probable label, zero for the others."""
        return np.eye(_COUNT, dtype=np.float32)[self.probabilities.argmax(1)]

    def minimal_clothing(self) -> np.ndarray:
        """(F, 5) float32 probabilities of DSR-MC's labels, in their order."""
        return self.probabilities[:, list(MC_COLUMNS)]

    def entropy(self) -> np.ndarray:
        """(F,) entropy of each face's distribution, nats."""
        p = self.probabilities.astype(np.float64)
        return -(p * np.log(np.maximum(p, 1e-12))).sum(1)

    def vertices(self, faces: np.ndarray, count: int) -> np.ndarray:
        """(V, 20) float32: the mean over the faces at each of `count` vertices; a vertex without faces has zeros."""
        self.check_faces(faces)
        total, near = np.zeros((count, _COUNT)), np.zeros(count)
        for corner in faces.T:
            np.add.at(total, corner, self.probabilities)
            np.add.at(near, corner, 1)
        return (total / np.maximum(near, 1)[:, None]).astype(np.float32)

    @classmethod
    def from_vertices(cls, probabilities: np.ndarray, faces: np.ndarray, **details: Any) -> ClothingPrior:
        """The prior whose faces have the mean of their corners' rows (V, 20)."""
        if probabilities.ndim != 2 or faces.max() >= len(probabilities):
            raise ValueError(
                f"{probabilities.shape} probabilities for faces of {faces.max() + 1} vertices. Give a row a vertex."
            )
        rows = probabilities[faces].mean(1).astype(np.float32)
        return cls(rows, details.pop("faces_hash", faces_hash(faces)), **details)

    @classmethod
    def from_weights(cls, weights: np.ndarray, faces: np.ndarray, *, uniform: float = 0.05) -> ClothingPrior:
        """A plain prior from skinning weights: each label where its joints move the body, a little of everything else.

        weights: (V, 24) skinning weights in SMPL's order. faces: (F, 3). uniform: share spread over all 20 labels.
        """
        table = np.zeros((weights.shape[1], _COUNT))
        for name, joints in SMPL_JOINTS_OF_LABEL.items():
            table[list(joints), LABELS.index(name)] = 1
        table[_NECK, [LABELS.index("face"), LABELS.index("upperclothes")]] = 1
        table /= table.sum(1, keepdims=True)
        rows = (1 - uniform) * weights @ table + uniform / _COUNT
        return cls.from_vertices(rows / rows.sum(1, keepdims=True), faces, meta={"source": "skinning weights"})

    # ------------------------------------------------------------------------------------------------- other bodies

    def check_faces(self, faces: np.ndarray) -> None:
        """Refuse faces (F, 3) that the rows do not belong to (ValueError)."""
        if len(faces) != len(self):
            raise ValueError(f"The prior has {len(self)} rows and the body {len(faces)} faces. Use `transfer`.")
        if self.faces_hash and self.faces_hash != faces_hash(faces):
            raise ValueError(
                f"The prior belongs to another mesh, though it has {len(self)} faces as well. Use `transfer`."
            )

    def transfer(
        self, vertices: np.ndarray, faces: np.ndarray, joints: np.ndarray, weights: np.ndarray, *, neighbours: int = 6
    ) -> ClothingPrior:
        """The prior for another mesh of SMPL's skeleton, or itself where the faces are its own.

        Each vertex is carried by its skinning weights to where the same body parts are on this prior's rest body, and
        each face takes the distance-weighted mean of the rows of the nearest faces there.

        Args:
            vertices, joints: (V, 3), (24, 3) of the other rest body in the T-pose, y up, metres.
            faces, weights: (F, 3), (V, 24) of the other body. neighbours: faces looked at.

        Raises:
            ValueError: this prior does not know its rest body.
        """
        if self.faces_hash and self.faces_hash == faces_hash(faces):
            return self
        if not len(self.centroids) or not len(self.joints):
            raise ValueError("This prior does not say which rest body it belongs to. Learn one with `centroids`.")
        from scipy.spatial import cKDTree

        centroids = vertices[faces].mean(1)
        scale = np.ptp(self.centroids[:, 1]) / np.ptp(centroids[:, 1])
        moved = scale * (vertices - weights @ joints) + weights @ self.joints
        there = moved[faces].mean(1)
        distance, near = cKDTree(self.centroids).query(there, neighbours)
        share = 1 / (distance + 1e-3) ** 2
        rows = np.einsum("fk,fkl->fl", share / share.sum(1, keepdims=True), self.probabilities[near])
        rows = (rows / rows.sum(1, keepdims=True)).astype(np.float32)
        meta = {**self.meta, "transferred": True}
        return ClothingPrior(rows, faces_hash(faces), centroids.astype(np.float32), joints.astype(np.float32), meta)

    # ---------------------------------------------------------------------------------------------------------- files

    def save(self, path: str | Path, *, steps: int | None = None) -> None:
        """Write the documented npz. `steps` rounds probabilities to that many steps of one, for a small file."""
        p = self.probabilities if steps is None else _rounded(self.probabilities, steps)
        centroids = np.round(self.centroids, 4) if steps else self.centroids
        np.savez_compressed(
            path,
            probabilities=p.astype(np.float32),
            labels=np.array(LABELS),
            faces_hash=np.array(self.faces_hash),
            centroids=centroids.astype(np.float32),
            joints=self.joints.astype(np.float32),
            meta=np.array(json.dumps(self.meta)),
        )

    @classmethod
    def load(cls, path: str | Path | None = None, *, faces: int | None = None) -> ClothingPrior:
        """Read a prior: the file format above, or DSR's published array; None reads the one that ships.

        Args:
            path: npz or npy; nothing in it is run. faces: how many rows it must have.

        Raises:
            ValueError: the file is no such prior, one sentence for each kind of fault.
        """
        path = _ASSET if path is None else Path(path)
        try:
            content = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is no file of plain numpy arrays. Give an npz or npy prior.") from error
        if isinstance(content, np.ndarray):
            prior = cls._published(content, path)
        else:
            with content:
                prior = cls._own(content, path)
        if faces is not None and len(prior) != faces:
            raise ValueError(f"{path} has {len(prior)} rows and the body {faces} faces. Give the prior of that body.")
        return prior

    @classmethod
    def _published(cls, array: np.ndarray, path: Path) -> ClothingPrior:
        rows = array[0] if array.ndim == 3 and len(array) == 1 else array
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
            raise ValueError(f"{path} holds {array.dtype} {array.shape}. Give (F, 20) probabilities.")
        return cls(rows.astype(np.float32), meta={"source": path.name})

    @classmethod
    def _own(cls, content: Any, path: Path) -> ClothingPrior:
        needed = {"probabilities", "labels", "faces_hash", "centroids", "joints", "meta"}
        if missing := needed - set(content.files):
            raise ValueError(f"{path} lacks {sorted(missing)}. Give a file that ClothingPrior.save wrote.")
        if tuple(content["labels"].tolist()) != LABELS:
            raise ValueError(f"{path} has other labels than LIP's twenty. Put its columns in their order.")
        try:
            meta = json.loads(str(content["meta"]))
        except json.JSONDecodeError as error:
            raise ValueError(f"The meta of {path} is no JSON. Give a file that ClothingPrior.save wrote.") from error
        return cls(
            content["probabilities"].astype(np.float32), str(content["faces_hash"]),
            content["centroids"].astype(np.float32), content["joints"].astype(np.float32), meta,
        )  # fmt: skip


def faces_hash(faces: np.ndarray) -> str:
    """SHA-256 of faces (F, 3) as little-endian int32, row by row."""
    return hashlib.sha256(np.ascontiguousarray(faces, "<i4").tobytes()).hexdigest()


def _rounded(p: np.ndarray, steps: int) -> np.ndarray:
    """Rows in whole steps whose sum stays exactly one: what is left goes to the largest entry."""
    whole = np.round(p.astype(np.float64) * steps)
    whole[np.arange(len(p)), p.argmax(1)] += steps - whole.sum(1)
    return (whole / steps).astype(np.float32)
