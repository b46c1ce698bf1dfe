"""Learning the semantic prior from labelled scans: count what each face shows, then smooth, mirror and normalise.

A scan is a picture's label map (from a parser, or known) and, pixel by pixel, the face of the fitted body that lies
there (`pix_to_face` of a rasteriser, -1 where there is none). Both come as arrays; this module renders nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from priors.clothing import ClothingPrior, faces_hash
from priors.clothing_labels import LABELS, MIRROR

__all__ = ["LabelCounts", "learn", "mirror_faces"]

_COUNT = len(LABELS)


class LabelCounts:
    """How often each face was seen under each label: counts (F, 20) int64, and the number of views."""

    def __init__(self, num_faces: int) -> None:
        self.counts = np.zeros((num_faces, _COUNT), np.int64)
        self.views = 0

    def add(self, pix_to_face: np.ndarray, labels: np.ndarray, near: np.ndarray | None = None) -> None:
        """Count one view.

        Args:
            pix_to_face: (H, W) int, the face of the fitted body at each pixel, -1 where there is none.
            labels: (H, W) int, LIP label of each pixel. Background counts nothing: the fit lies beside the scan there.
            near: (H, W) bool, where the scan lies near enough to the fit to count; everywhere by default.

        Raises:
            ValueError: maps of different sizes, faces or labels outside their ranges.
        """
        pix_to_face, labels = np.asarray(pix_to_face), np.asarray(labels)
        if pix_to_face.shape != labels.shape or (near is not None and near.shape != labels.shape):
            raise ValueError(
                f"Faces {pix_to_face.shape} and labels {labels.shape} differ in size. Give maps of one view."
            )
        if pix_to_face.size and (pix_to_face.max() >= len(self.counts) or labels.min() < 0 or labels.max() >= _COUNT):
            raise ValueError(
                f"Faces go to {pix_to_face.max()} of {len(self.counts)}, labels from {labels.min()} to {labels.max()}. "
                f"Give faces of this body and labels 0 to {_COUNT - 1}."
            )
        seen = (pix_to_face >= 0) & (labels > 0)
        if near is not None:
            seen &= near
        flat = pix_to_face[seen].astype(np.int64) * _COUNT + labels[seen]
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.views += 1

    def __add__(self, other: LabelCounts) -> LabelCounts:
        """Both together: pool what was counted for each gender, or by several processes."""
        if len(self.counts) != len(other.counts):
            raise ValueError(f"Counts of {len(self.counts)} and {len(other.counts)} faces. Add those of one body.")
        both = LabelCounts(len(self.counts))
        both.counts, both.views = self.counts + other.counts, self.views + other.views
        return both


def learn(
    counts: LabelCounts, faces: np.ndarray, *, mirror: np.ndarray | None = None, smoothing: float = 0.3,
    pseudo: float = 0.5, meta: dict[str, Any] | None = None, centroids: np.ndarray | None = None,
    joints: np.ndarray | None = None,
) -> ClothingPrior:  # fmt: skip
    """The prior that counts tell.

    Args:
        counts: of the views of all scans. faces: (F, 3) of the fitted body.
        mirror: (F,) face on the other side of the body, see `mirror_faces`; None leaves the sides as they were seen.
        smoothing: share of its counts that each face gives to the three faces beside it.
        pseudo: counts spread evenly over all labels but background, added to each face; keeps every label possible.
        meta, centroids, joints: kept with the prior, see `ClothingPrior`.

    A face that nobody saw takes the mean of its neighbours. The result depends on the counts alone.

    Raises:
        ValueError: nothing was counted, or faces that are not those of the counts.
    """
    if len(faces) != len(counts.counts):
        raise ValueError(f"{len(faces)} faces and counts of {len(counts.counts)}. Give the faces of the fitted body.")
    if not counts.counts.any():
        raise ValueError("No labelled pixel shows the body. Add views in which labels and fit overlap.")
    total = counts.counts.astype(np.float64)
    if mirror is not None:
        total = total + total[mirror][:, MIRROR]
    beside = _neighbours(faces)
    total = (1 - smoothing) * total + smoothing * (beside @ total)
    unseen = total.sum(1) <= 0
    while unseen.any():
        filled = beside @ total
        reached = unseen & (filled.sum(1) > 0)
        if not reached.any():
            total[unseen] = total[~unseen].mean(0)  # a piece of its own that nobody saw
            break
        total[reached] = filled[reached]
        unseen &= ~reached
    total[:, 1:] += pseudo / (_COUNT - 1)
    probabilities = (total / total.sum(1, keepdims=True)).astype(np.float32)
    details = {"views": counts.views, "smoothing": smoothing, "pseudo": pseudo, "mirrored": mirror is not None}
    nothing = np.zeros((0, 3), np.float32)
    return ClothingPrior(
        probabilities, faces_hash(faces), nothing if centroids is None else centroids.astype(np.float32),
        nothing if joints is None else joints.astype(np.float32), {**details, **(meta or {})},
    )  # fmt: skip


def mirror_faces(faces: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(F,) index of each face's mirror image, from the mirror map of the vertices (V,).

    Raises:
        ValueError: a face has no mirror image, because the mesh is not symmetric.
    """
    index = {tuple(sorted(face)): k for k, face in enumerate(faces.tolist())}
    try:
        return np.array([index[tuple(sorted(face))] for face in mirror[faces].tolist()])
    except KeyError as error:
        raise ValueError(f"The face {error.args[0]} is not in the mesh. Leave out `mirror` for such a mesh.") from error


def _neighbours(faces: np.ndarray) -> sparse.csr_matrix:
    """(F, F): the mean over the faces that share an edge with each face."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    _, edge = np.unique(edges, axis=0, return_inverse=True)
    face = np.tile(np.arange(len(faces)), 3)
    on = sparse.coo_matrix((np.ones(len(face)), (face, edge.ravel()))).tocsr()
    near = on @ on.T
    near.setdiag(0)
    near.eliminate_zeros()
    return sparse.diags(1 / np.maximum(np.asarray(near.sum(1)).ravel(), 1)) @ near
