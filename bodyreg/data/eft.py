"""EFT's pseudo annotations (Joo et al., 3DV 2021) as a data file in SPIN's layout.

EFT fits SMPL to people of in-the-wild data sets, COCO among them, and stores one record a person: rotation matrices,
betas, the box as SPIN has it, and 49 key points.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg.data.sources import read_json
from bodyreg.data.spin import write_spin
from bodyreg.rotations import aa_from_matrix

__all__ = ["convert_eft"]

_SHAPES = {
    "parm_pose": (24, 3, 3), "parm_shape": (10,), "bbox_center": (2,), "bbox_scale": (), "gt_keypoint_2d": (49, 3),
}  # fmt: skip


def convert_eft(source: str | Path, out: str | Path, *, folder: str = "") -> Path:
    """Write the people of an EFT JSON file as npz in SPIN's layout.

    Args:
        source: JSON, a list of records or {"data": list}. out: the npz. folder: put before every picture's name.

    Raises:
        ValueError: no such file, or a record that lacks a field or has one of another shape.
    """
    content = read_json(source)
    records = content.get("data") if isinstance(content, Mapping) else content
    if not isinstance(records, list) or not records:
        raise ValueError(f"{source} holds no list of people. Pass a JSON file of EFT's fits.")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _SHAPES}
    names = []
    for number, record in enumerate(records):
        for name, shape in _SHAPES.items():
            columns[name].append(_field(record, name, shape, f"Record {number} of {source}"))
        name = record.get("imageName")
        if not isinstance(name, str):
            raise ValueError(f"Record {number} of {source} names no picture. EFT's field is imageName.")
        names.append(f"{folder}/{name}" if folder else name)
    pose = aa_from_matrix(torch.from_numpy(np.stack(columns["parm_pose"]))).numpy().reshape(-1, 72)
    keypoints = np.stack(columns["gt_keypoint_2d"])
    return write_spin(
        out,
        {
            "imgname": np.array(names), "center": np.stack(columns["bbox_center"]),
            "scale": np.stack(columns["bbox_scale"]), "pose": pose, "shape": np.stack(columns["parm_shape"]),
            "openpose": keypoints[:, :25], "part": keypoints[:, 25:],
        },
    )  # fmt: skip


def _field(record: Any, name: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        value = np.asarray(record[name], np.float64).reshape(shape)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{what} has no {name} of shape {shape}. Pass a JSON file of EFT's fits.") from None
    if not np.isfinite(value).all():
        raise ValueError(f"{name} of {what.lower()} is not finite. Drop that person.")
    return value
