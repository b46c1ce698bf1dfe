"""Human3.6M (Ionescu et al., TPAMI 2014) with SMPL parameters, in the JSON form that circulates with HybrIK."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg.data.sample import write_table
from bodyreg.data.sources import Bodies, find_files, intrinsics, placed, read_json

__all__ = ["DROPPED", "WHERE", "prepare"]

WHERE = "http://vision.imar.ro/human3.6m (pictures) and https://github.com/jeffffffli/HybrIK (annotations)"
SPLITS = ("train", "test")
SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
DROPPED = ((9, 5, 2), (9, 10, 2), (9, 13, 1), (11, 6, 2), (11, 2, 1), (11, 2, 2))
"""Subject, action, part: sequences whose markers drifted or whose labels are missing."""
_EVERY = 5
_NAME = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)(?:.*?)_(\d+)\.\w+$")


def prepare(root: str | Path, out: str | Path, bodies: Bodies, split: str = "train") -> Path:
    """Every fifth frame of each video, with SMPL placed so that the means of the 17 true and regressed joints meet.

    Args:
        root: holds annotations/*SPLIT*.json and images. out: the file written.
        bodies: the neutral one, with Human3.6M's regressor.

    Raises:
        MissingFileError: the download is not complete. ValueError: names that are not Human3.6M's.
    """
    paths = find_files(root, [f"annotations/*{split}*.json"], what="Human3.6M", where=WHERE)
    videos: dict[tuple[int, ...], list[tuple[int, dict, dict]]] = defaultdict(list)
    for path in paths:
        content = read_json(path)
        images = {image["id"]: image for image in content["images"]}
        for label in content["annotations"]:
            image = images[label["image_id"]]
            found = _NAME.search(image["file_name"])
            if found is None:
                raise ValueError(f"{path} names a picture {image['file_name']!r}. Human3.6M's begin with s_01_act_.")
            subject, action, part, camera, frame = (int(n) for n in found.groups())
            if subject in SUBJECTS[split] and (subject, action, part) not in DROPPED:
                videos[subject, action, part, camera].append((frame, image, label))
    rows = []
    for key in sorted(videos):
        frames = sorted(videos[key], key=lambda entry: entry[0])
        rows += [_row(image, label, bodies) for frame, image, label in frames if (frame - frames[0][0]) % _EVERY == 0]
    return write_table(out, "h36m", split, "smpl", rows)


def _row(image: dict[str, Any], label: dict[str, Any], bodies: Bodies) -> dict[str, Any]:
    body = bodies["neutral"]
    theta = np.asarray(label["thetas"], dtype=np.float64).reshape(24, 3)
    betas = np.asarray(label["betas"], dtype=np.float64).reshape(-1)
    K, size_hw = intrinsics(label.get("cam_param") or image.get("cam_param") or {}), (image["height"], image["width"])
    shape = np.zeros(body.num_betas)
    shape[: min(len(betas), body.num_betas)] = betas[: body.num_betas]
    with torch.no_grad():
        posed = body(*(torch.as_tensor(np.asarray(x, np.float32))[None] for x in (shape, theta[1:].ravel(), theta[0])))
        regressed = body.regress(posed.vertices, "h36m-17")[0].double().numpy()
    transl = np.asarray(label["h36m_joints"], np.float64).reshape(17, 3).mean(0) / 1000 - regressed.mean(0)
    box, seen = placed(body, theta, betas, transl, K, size_hw)
    return {
        "image": f"images/{image['file_name']}", "size_hw": size_hw, "box_xywh": box, "K": K, "gender": "neutral",
        "theta": theta, "betas": betas, "transl": transl, "seen": seen > 0,
    }  # fmt: skip
