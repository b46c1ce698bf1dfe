"""COCO key points (Lin et al., ECCV 2014): people with limbs labelled in the picture, no camera, no depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.data.sample import write_table
from bodyreg.data.sources import find_files, read_json

__all__ = ["LIMBS", "WHERE", "keypoint_rows", "prepare"]

WHERE = "https://cocodataset.org/#download"
SPLITS = ("train2017", "val2017")
LIMBS = (7, 8, 9, 10, 13, 14, 15, 16)
"""Elbows, wrists, knees and ankles: the joints that mean the same as SMPL's."""


def prepare(root: str | Path, out: str | Path, bodies: object = None, split: str = "train2017") -> Path:
    """Every person, crowds apart, of whom at least one of `LIMBS` is labelled.

    Args:
        root: holds annotations/person_keypoints_SPLIT.json and the folder SPLIT. out: the file written.
        bodies: not needed.

    Raises:
        MissingFileError: the download is not complete.
    """
    name = f"annotations/person_keypoints_{split}.json"
    (path,) = find_files(root, [name], what="COCO", where=WHERE)
    return write_table(out, "coco", split, "keypoints", keypoint_rows(read_json(path), split))


def keypoint_rows(
    content: dict[str, Any], folder: str, also: Callable[[dict[str, Any]], bool] = lambda label: True
) -> list[dict[str, Any]]:
    """Rows of kind "keypoints" of a file of COCO's form: people with a limb labelled and a box, crowds apart.

    Args:
        content: of the file. folder: of its pictures, below the data set's root. also: which labels are wanted.
    """
    images = {image["id"]: image for image in content["images"]}
    rows = []
    for label in filter(also, content["annotations"]):
        keypoints = np.asarray(label.get("keypoints", []), dtype=np.float64).reshape(-1, 3)
        if label.get("iscrowd") or len(keypoints) != 17 or not (keypoints[list(LIMBS), 2] > 0).any():
            continue
        if min(label["bbox"][2:]) <= 0:
            continue
        image = images[label["image_id"]]
        rows.append(
            {
                "image": f"{folder}/{image['file_name']}", "size_hw": (image["height"], image["width"]),
                "box_xywh": label["bbox"], "keypoints17": keypoints,
            }
        )  # fmt: skip
    return rows
