"""3DPW (von Marcard et al., ECCV 2018): sequences as distributed to samples in the camera's frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg.data.annotations import camera_smpl_from_world
from bodyreg.data.sample import write_table
from bodyreg.data.sources import Bodies, find_files, image_size, placed
from bodyreg.pickles import safe_unpickle

__all__ = ["WHERE", "prepare"]

WHERE = "https://virtualhumans.mpi-inf.mpg.de/3DPW"
SPLITS = ("train", "test", "validation")
_GENDERS = {"m": "male", "f": "female"}


def prepare(root: str | Path, out: str | Path, bodies: Bodies, split: str = "train") -> Path:
    """Every frame with a trusted camera of every person, with the person's own gender and first ten betas.

    Args:
        root: holds sequenceFiles/SPLIT/*.pkl and imageFiles. out: the file written. bodies: male and female.

    Raises:
        MissingFileError: the download is not complete.
    """
    paths = find_files(root, [f"sequenceFiles/{split}/*.pkl"], what="3DPW", where=WHERE)
    rows = [row for path in paths for row in _sequence(Path(root), path, bodies)]
    return write_table(out, "pw3d", split, "smpl", rows)


def _sequence(root: Path, path: Path, bodies: Bodies) -> list[dict[str, Any]]:
    data = safe_unpickle(path)
    folder = f"imageFiles/{data['sequence']}"
    pictures = find_files(root, [f"{folder}/image_*.jpg"], what="3DPW", where=WHERE)
    size_hw = image_size(pictures[0])
    K = np.asarray(data["cam_intrinsics"], dtype=np.float64)
    cam_from_world = np.asarray(data["cam_poses"], dtype=np.float64)
    rows = []
    for person, gender in enumerate(data["genders"]):
        body = bodies[_GENDERS[str(gender)]]
        betas = np.asarray(data["betas"][person], dtype=np.float64).reshape(-1)[:10]
        frames = np.flatnonzero(np.asarray(data["campose_valid"][person]) == 1)
        poses = np.asarray(data["poses"][person], dtype=np.float64)[frames].reshape(-1, 24, 3)
        shape = np.zeros(body.num_betas)
        shape[: min(10, body.num_betas)] = betas[: body.num_betas]
        J0 = body.rest_joints(torch.as_tensor(shape, dtype=body.v_template.dtype)[None])[0, 0].double()
        orient, transl = camera_smpl_from_world(
            torch.from_numpy(poses[:, 0]),
            torch.from_numpy(np.asarray(data["trans"][person], dtype=np.float64)[frames]),
            J0,
            torch.from_numpy(cam_from_world[frames, :3, :3]),
            torch.from_numpy(cam_from_world[frames, :3, 3]),
        )
        for k, frame in enumerate(frames):
            theta = np.concatenate([orient[k].numpy()[None], poses[k, 1:]])
            box, seen = placed(body, theta, betas, transl[k].numpy(), K, size_hw)
            rows.append(
                {
                    "image": f"{folder}/image_{frame:05d}.jpg", "size_hw": size_hw, "box_xywh": box, "K": K,
                    "gender": _GENDERS[str(gender)], "theta": theta, "betas": betas, "transl": transl[k].numpy(),
                    "seen": seen > 0,
                }
            )  # fmt: skip
    return rows
