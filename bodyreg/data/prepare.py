"""Preparing a downloaded data set of photographs: check that it is complete, then write one indexed file."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import NamedTuple

from bodyreg.body import BodyModel
from bodyreg.data.sources import Bodies

__all__ = ["DATASETS", "LIFTER_SETS", "DataSet", "load_bodies", "prepare_dataset", "prepare_lifter_set"]


class DataSet(NamedTuple):
    """A data set that can be prepared: its module, its parts, the genders of SMPL it needs, one sentence."""

    module: str
    splits: tuple[str, ...]
    genders: tuple[str, ...]
    summary: str


DATASETS = {
    "pw3d": DataSet("pw3d", ("train", "test", "validation"), ("male", "female"), "3DPW, as distributed"),
    "h36m": DataSet("h36m_mosh", ("train", "test"), ("neutral",), "Human3.6M with SMPL parameters, HybrIK's JSON"),
    "h36m_moon": DataSet(
        "h36m_moon", ("test", "train", "test50", "test20"), (), "Human3.6M's joints, PoseNet's and Pose2Mesh's JSON"
    ),
    "bedlam": DataSet("bedlam", ("train", "val"), ("neutral",), "BEDLAM's processed SMPL labels"),
    "mpi3dhp": DataSet("mpi3dhp", ("train_v2", "test"), (), "MPI-INF-3DHP, HybrIK's JSON"),
    "mpi3dhp_raw": DataSet("mpi3dhp_raw", ("test", "train"), (), "MPI-INF-3DHP, as its authors distribute it"),
    "coco": DataSet("coco", ("train2017", "val2017"), (), "COCO person key points"),
    "densepose": DataSet(
        "densepose", ("train", "minival", "valminusminival"), (), "DensePose-COCO's people, their key points"
    ),
}
_ALIASES = {"3dpw": "pw3d", "3dhp": "mpi3dhp", "3dhp-raw": "mpi3dhp_raw", "mpi-inf-3dhp": "mpi3dhp",
            "human3.6m": "h36m", "h36m-moon": "h36m_moon", "densepose-coco": "densepose"}  # fmt: skip


def prepare_dataset(
    name: str, root: str | Path, out: str | Path, *, split: str | None = None, bodies: Bodies | None = None
) -> Path:
    """Write `out`/NAME_SPLIT.npz from the download of a data set.

    Args:
        name: one of `DATASETS`, or what people call it ("3dpw", "3dhp").
        root: folder of the download. out: folder of the prepared files.
        split: part of the data set, by default its first. bodies: default the user's SMPL files, found as always.

    Returns:
        Path of the file written.

    Raises:
        MissingFileError: the download, or SMPL, is not complete; the message says what is missing and where to get it.
        ValueError: an unknown data set or part.
    """
    name = _ALIASES.get(name.lower(), name)
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no data set {name!r}. {hint}Known: {', '.join(DATASETS)}.")
    entry = DATASETS[name]
    split = split or entry.splits[0]
    if split not in entry.splits:
        raise ValueError(f"{name} has no part {split!r}. Choose one of {', '.join(entry.splits)}.")
    module = importlib.import_module(f"bodyreg.data.{entry.module}")
    if bodies is None:
        bodies = load_bodies(entry.genders)
    return module.prepare(root, Path(out) / f"{name}_{split}.npz", bodies, split)


LIFTER_SETS = {
    "h36m-lift": ("videopose", "prepare_h36m", "h36m", "cpn_ft_h36m_dbb"),
    "humaneva": ("videopose", "prepare_humaneva", "humaneva", "gt"),
    "3dhp-lift": ("pstmo", "prepare_3dhp_lift", "mpi3dhp", "gt"),
}
"""Name -> module, function, beginning of the file's name, key points by default."""


def prepare_lifter_set(name: str, root: str | Path, out: str | Path, keypoints: str | None = None) -> Path:
    """Write `out`/NAME_KEYPOINTS.npz, a set to train and test lifters on, from the download of a data set.

    Args:
        name: one of `LIFTER_SETS`. root: folder of the download. out: folder of the prepared file.
        keypoints: which of the 2D key points that the data set comes with.

    Raises:
        MissingFileError: a file is not there; the message says where to get it.
        ValueError: an unknown name, or files that do not fit each other.
    """
    if name not in LIFTER_SETS:
        raise ValueError(f"There is no lifting data set {name!r}. Known: {', '.join(LIFTER_SETS)}.")
    module, function, prefix, usual = LIFTER_SETS[name]
    prepare = getattr(importlib.import_module(f"bodyreg.data.{module}"), function)
    return prepare(root, Path(out) / f"{prefix}_{keypoints or usual}.npz", keypoints)


def load_bodies(genders: tuple[str, ...]) -> dict[str, BodyModel]:
    """The user's SMPL models with eleven shape components.

    Raises:
        MissingFileError: not found; the message lists the places searched.
        ValueError: a file has fewer components.
    """
    bodies = {gender: BodyModel.load("smpl", gender, 11) for gender in genders}
    for gender, body in bodies.items():
        if body.has_kid:
            raise ValueError(
                f"The {gender} SMPL file has ten shape components, and the eleventh number would be its child "
                "template. Bring a file with at least 11 (v1.1.0 has 300)."
            )
    return bodies
