"""BEDLAM (Black et al., CVPR 2023): its processed SMPL labels to samples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.data.sample import write_table
from bodyreg.data.sources import Bodies, find_files, image_size, placed
from bodyreg.files import safe_load_npz

__all__ = ["WHERE", "prepare"]

WHERE = "https://bedlam.is.tue.mpg.de (pictures, and the processed SMPL labels)"
SPLITS = ("train", "val")
_VAL_SCENES = range(21, 27)
_EVERY = 3
_LEAST_VISIBLE = 500


def prepare(
    root: str | Path, out: str | Path, bodies: Bodies, split: str = "train", *, least_visible: int = _LEAST_VISIBLE
) -> Path:
    """Every third frame, people of whom more than `least_visible` vertices are seen.

    Of the label files in order of name, numbers 21 to 26 (counted from 0) are "val", which is trained on too.

    Args:
        root: holds labels/*.npz and data/SCENE/png (or jpg). out: the file written. bodies: the neutral one.

    Raises:
        MissingFileError: the download is not complete.
    """
    paths = find_files(root, ["labels/*.npz"], what="BEDLAM", where=WHERE)
    chosen = [path for k, path in enumerate(paths) if (k in _VAL_SCENES) == (split == "val")]
    rows = [row for path in chosen for row in _scene(Path(root), path, bodies, least_visible)]
    return write_table(out, "bedlam", split, "smpl", rows)


def _scene(root: Path, path: Path, bodies: Bodies, least_visible: int) -> list[dict[str, Any]]:
    data = safe_load_npz(path)
    sizes: dict[str, tuple[int, int]] = {}
    rows = []
    for k, name in enumerate(data["imgname"]):
        name = name.decode() if isinstance(name, bytes) else str(name)
        number = re.search(r"(\d+)\.\w+$", name)
        if number is None or int(number[1]) % _EVERY:
            continue
        folder = name.rpartition("/")[0]
        image = _picture(root, path.stem, name)
        if folder not in sizes:  # pictures of one clip are of one size
            sizes[folder] = image_size(root / image)
        theta = np.asarray(data["pose_cam"][k], np.float64).reshape(-1, 3)[:24]
        betas = np.asarray(data["shape"][k], np.float64)[:11]
        transl = np.asarray(data["trans_cam"][k], np.float64) + np.asarray(data["cam_ext"][k], np.float64)[:3, 3]
        K = np.asarray(data["cam_int"][k], np.float64)
        box, seen = placed(bodies["neutral"], theta, betas, transl, K, sizes[folder])
        if seen > least_visible:
            rows.append(
                {
                    "image": image, "size_hw": sizes[folder], "box_xywh": box, "K": K, "gender": "neutral",
                    "theta": theta, "betas": betas, "transl": transl, "seen": True,
                }
            )  # fmt: skip
    return rows


def _picture(root: Path, scene: str, name: str) -> str:
    """Path of a picture below the root: as png, or as the jpg that many convert them to."""
    stem = name.rpartition(".")[0]
    kinds = ("png", "jpg")
    candidates = [f"data/{scene}/{kind}/{stem}.{kind}" for kind in kinds] + [f"data/{stem}.{kind}" for kind in kinds]
    for candidate in candidates:
        if (root / candidate).exists():
            return candidate
    return candidates[0]
