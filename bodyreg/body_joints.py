"""Named points and joint regressors on SMPL's topology: landmark vertices and the search for published matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.files import find_licensed

if TYPE_CHECKING:
    from bodyreg.body import BodyModel
    from bodyreg.body_files import BodyArrays

#: Vertices that the smplx package appends to SMPL's joints, in its order, and the head top that HybrIK adds.
LANDMARKS: dict[str, int] = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583,
    "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
    "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    "left_thumb": 2746, "left_index": 2319, "left_middle": 2445, "left_ring": 2556, "left_pinky": 2673,
    "right_thumb": 6191, "right_index": 5782, "right_middle": 5905, "right_ring": 6016, "right_pinky": 6133,
    "head_top": 411,
}  # fmt: skip

#: OpenPose-25 picked from SMPL's 24 joints followed by the landmarks (the head top not counted).
_OPENPOSE = (24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34)
#: The 24-joint superset of SPIN's 49, picked from the same list followed by nine rows of the extra regressor.
_SUPERSET = (8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27)
#: Published matrix file(s) of a joint set; real SMPL only.
_FILES = {"h36m-17": ("J_regressor_h36m.npy", "J_regressor_h36m_correct.npy"),
          "coco-17": ("J_regressor_coco.npy",), "extra-9": ("J_regressor_extra.npy",)}  # fmt: skip
PUBLISHED_SETS = tuple(_FILES)
"""Joint sets whose regressor for real SMPL is a published file."""
_ROWS = {"h36m-17": 17, "coco-17": 17, "extra-9": 9}


def regressor_matrix(joint_set: str, arrays: BodyArrays) -> np.ndarray:
    """(J, V) float64 matrix that takes a body's vertices to a named joint set.

    `smpl-24` is the body's own regressor. The free body carries its sets; for real SMPL the published files are looked
    for. Sets without a file follow by name from H36M-17, or from joints, landmark vertices and the extra rows
    (Kolotouros et al., SPIN, ICCV 2019). On a posed mesh the chain's joints inside OpenPose-25 and SPIN-49 are then
    regressed too.

    Raises:
        MissingFileError: a published matrix is needed and not found.
        ValueError: unknown set, a file of the wrong shape, or a body of another topology.
    """
    if joint_set in arrays.regressors:
        return arrays.regressors[joint_set]
    if joint_set == "smpl-24":
        return np.asarray(arrays.J_regressor, np.float64)
    if joint_set == "h36m-17-left":
        return _reorder(regressor_matrix("h36m-17", arrays), "h36m-17", joint_set)
    if joint_set != "extra-9":
        skeletons.get(joint_set)  # an unknown name raises with the nearest match
    v_count = len(arrays.v_template)
    if v_count != 6890:
        raise ValueError(f"A body of {v_count} vertices has no regressor for {joint_set!r}. Pass a (J, V) matrix.")
    if joint_set in ("openpose-25", "spin-49"):
        points = np.concatenate([arrays.J_regressor, np.eye(6890)[list(LANDMARKS.values())[:21]]])
        if joint_set == "openpose-25":
            return points[list(_OPENPOSE)]
        points = np.concatenate([points, regressor_matrix("extra-9", arrays)])
        return points[list(_OPENPOSE + _SUPERSET)]
    if joint_set == "lsp-14":
        return _reorder(regressor_matrix("h36m-17", arrays), "h36m-17", joint_set)
    if joint_set in _FILES and arrays.name == "smpl":
        return _published(joint_set)
    raise ValueError(f"The {arrays.name} body has no regressor for {joint_set!r}. Pass a (J, V) matrix instead.")


def spin_joints(joints24: Tensor, landmarks: Tensor, extra: Tensor) -> Tensor:
    """(B, 49, 3) joints of the set "spin-49", those of the chain as the chain has them (SPIN, ICCV 2019).

    Args:
        joints24: (B, 24, 3) of the chain. landmarks: (B, 21, 3) vertices in the order of `LANDMARKS`, the head top left
            out. extra: (B, 9, 3) regressed by the matrix "extra-9".
    """
    return torch.cat([joints24, landmarks, extra], 1)[:, list(_OPENPOSE + _SUPERSET)]


def body_spin_joints(body: BodyModel, vertices: Tensor, joints24: Tensor) -> Tensor:
    """(B, 49, 3) joints of the set "spin-49" of posed bodies, from vertices (B, V, 3) and chain joints (B, 24, 3)."""
    rows = list(body.landmarks.values())[:21]
    return spin_joints(joints24, vertices[:, rows], body.regress(vertices, "extra-9"))


def _reorder(matrix: np.ndarray, from_set: str, to_set: str) -> np.ndarray:
    return np.asarray(skeletons.convert(matrix, from_set, to_set))


def find_regressor(joint_set: str) -> Path:
    """The published joint regressor file of one of `PUBLISHED_SETS`.

    Raises:
        MissingFileError: listing the names tried, the places searched and where to register.
    """
    return find_licensed(_FILES[joint_set], subfolders=("", "smpl", "regressors"),
                         register="https://smpl.is.tue.mpg.de",
                         what=f"the published joint regressor of {joint_set}")  # fmt: skip


def _published(joint_set: str) -> np.ndarray:
    path = find_regressor(joint_set)
    matrix = np.load(path, allow_pickle=False).astype(np.float64)
    if matrix.shape != (_ROWS[joint_set], 6890):
        raise ValueError(f"{path} has shape {matrix.shape}. It must be ({_ROWS[joint_set]}, 6890).")
    if joint_set == "h36m-17" and left_first(matrix):
        matrix = _reorder(matrix, "h36m-17-left", "h36m-17")
    return matrix


def left_first(matrix: np.ndarray) -> bool:
    """Whether a (17, 6890) H36M regressor has the left leg in rows 1-3: SMPL's left vertices lie below 3500.

    Both orders circulate under one name, so the side is read off the matrix instead of trusted.

    Raises:
        ValueError: the knee and ankle rows do not lie on one side each.
    """
    below = np.abs(matrix[:, :3500]).sum(1) / np.abs(matrix).sum(1)
    if (below[[2, 3]] > 0.9).all() and (below[[5, 6]] < 0.1).all():
        return True
    if (below[[2, 3]] < 0.1).all() and (below[[5, 6]] > 0.9).all():
        return False
    raise ValueError("The regressor's leg rows are on neither side. Give an H36M regressor for SMPL's 6,890 vertices.")
