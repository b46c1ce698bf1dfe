"""Human3.6M (Ionescu et al., TPAMI 2014) in the JSON form of PoseNet (Moon et al., ICCV 2019) and Pose2Mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.data.h36m_mosh import DROPPED
from bodyreg.data.sample import write_table
from bodyreg.data.sources import find_files, intrinsics, read_json

__all__ = ["WHERE", "prepare"]

WHERE = "http://vision.imar.ro/human3.6m (pictures) and https://github.com/mks0601/3DMPPE_POSENET_RELEASE (annotations)"
SPLITS: dict[str, tuple[tuple[int, ...], int]] = {
    "test": ((9, 11), 64), "train": ((1, 5, 6, 7, 8), 5), "test50": ((9, 11), 50), "test20": ((9, 11), 20),
}  # fmt: skip
"""Part -> subjects and distance of frames: PoseNet's (64), Pose2Mesh's (50) and HybrIK's (20) test."""


def prepare(root: str | Path, out: str | Path, bodies: object = None, split: str = "test") -> Path:
    """Write the 17 joints of every n-th frame in the cameras' frames, as one indexed file.

    Args:
        root: holds annotations/Human36M_subject{S}_{data,camera,joint_3d}.json and the pictures below images.
        out: the file written. bodies: not needed. split: one of `SPLITS`; "test20" leaves out what HybrIK does.

    Raises:
        MissingFileError: the download is not complete. ValueError: a file that is not what it should be.
    """
    subjects, every = SPLITS[split]
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        names = [f"annotations/Human36M_subject{subject}_{part}.json" for part in ("data", "camera", "joint_3d")]
        paths = find_files(root, names, what="Human3.6M", where=WHERE)
        try:
            data, camera, joints = (read_json(path) for path in paths)
            rows += _subject(data, camera, joints, subject, every, drop=split == "test20")
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"The annotations of subject {subject} in {root} lack {error}. Fetch all three files of one release."
            ) from None
    return write_table(out, "h36m", split, "joints", rows)


def _subject(data: Any, cameras: Any, joints: Any, subject: int, every: int, *, drop: bool) -> list[dict[str, Any]]:
    boxes = {label["image_id"]: label["bbox"] for label in data["annotations"]}
    rows = []
    for image in data["images"]:
        action, part, frame = (image[key] for key in ("action_idx", "subaction_idx", "frame_idx"))
        if frame % every or (drop and (subject, action, part) in DROPPED):
            continue
        camera = cameras[str(image["cam_idx"])]
        world = np.asarray(joints[str(action)][str(part)][str(frame)], np.float64).reshape(17, 3)
        seen = (world @ np.asarray(camera["R"], np.float64).T + np.asarray(camera["t"], np.float64)) / 1000
        rows.append(
            {
                "image": f"images/{image['file_name']}", "size_hw": (image["height"], image["width"]),
                "box_xywh": np.asarray(boxes[image["id"]], np.float64), "K": intrinsics(camera), "joints17": seen,
                "height": 1.7,
            }
        )  # fmt: skip
    return rows
