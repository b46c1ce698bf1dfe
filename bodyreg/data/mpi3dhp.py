"""MPI-INF-3DHP (Mehta et al., 3DV 2017) in the JSON form that circulates with HybrIK: camera-frame joints in mm."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bodyreg import skeletons
from bodyreg.data.sample import write_table
from bodyreg.data.sources import find_files, intrinsics, read_json

__all__ = ["HEIGHTS", "WHERE", "prepare"]

WHERE = "https://vcai.mpi-inf.mpg.de/3dhp-dataset (pictures) and https://github.com/jeffffffli/HybrIK (annotations)"
SPLITS = ("train_v2", "test")
HEIGHTS = (1.7994, 1.8039, 1.7621, 1.6546, 1.6756, 1.6977, 1.7823, 1.7548)
"""Metres, of subjects S1 to S8."""
_UNKNOWN_HEIGHT = 1.75


def prepare(root: str | Path, out: str | Path, bodies: object = None, split: str = "train_v2") -> Path:
    """Every annotated person; 28 joints (training) or 17 (test) become Human3.6M's 17.

    Joints 8, 9 and 10 of the result (thorax, nose, head) follow another definition than Human3.6M's.

    Args:
        root: holds annotation_mpi_inf_3dhp_SPLIT.json. out: the file written. bodies: not needed.

    Raises:
        MissingFileError: the download is not complete. ValueError: another number of joints.
    """
    (path,) = find_files(root, [f"annotation_mpi_inf_3dhp_{split}.json"], what="MPI-INF-3DHP", where=WHERE)
    content = read_json(path)
    images = {image["id"]: image for image in content["images"]}
    rows = []
    for label in content["annotations"]:
        image = images[label["image_id"]]
        joints = np.asarray(label["keypoints_cam"], dtype=np.float64).reshape(-1, 3) / 1000
        if len(joints) not in (17, 28):
            raise ValueError(f"{path} has a person of {len(joints)} joints. MPI-INF-3DHP's have 17 or 28.")
        joints = skeletons.convert(joints, f"mpi3dhp-{len(joints)}", "h36m-17")
        rows.append(
            {
                "image": image["file_name"], "size_hw": (image["height"], image["width"]), "box_xywh": label["bbox"],
                "K": intrinsics(label.get("cam_param") or image.get("cam_param") or {}), "joints17": joints,
                "height": _height(image["file_name"]),
            }
        )  # fmt: skip
    return write_table(out, "mpi3dhp", split, "joints", rows)


def _height(file_name: str) -> float:
    subject = re.search(r"(?:^|[/_])S([1-8])(?=[/_])", file_name)
    return HEIGHTS[int(subject[1]) - 1] if subject else _UNKNOWN_HEIGHT
