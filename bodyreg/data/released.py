"""Files that PersPose's authors prepared themselves (densepose_*.pt): a joblib dictionary of equal-length arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bodyreg.data.sample import write_table
from bodyreg.pickles import safe_load_joblib

__all__ = ["prepare_released"]

_KEYS = (
    "file_name", "image_wh", "bbox", "cam_intrinsics", "gender", "smpl_theta", "smpl_beta", "smpl_transl", "vis"
)  # fmt: skip


def prepare_released(path: str | Path, out: str | Path, source: str, split: str) -> Path:
    """Samples of a set with SMPL labels from the authors' own file; nothing in it is executed.

    Args:
        path: densepose_train.pt, densepose_train_5.pt and the like. out: the file written.
        source, split: names of the data set and of its part.

    Raises:
        UnsafeFileError: the file holds more than arrays and plain values. ValueError: keys are missing.
    """
    data = safe_load_joblib(path)
    missing = [key for key in _KEYS if not isinstance(data, dict) or key not in data]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. Pass a densepose file of PersPose's authors.")
    rows = []
    for k in range(len(data["file_name"])):
        width, height = (int(n) for n in data["image_wh"][k])
        rows.append(
            {
                "image": str(data["file_name"][k]), "size_hw": (height, width), "box_xywh": data["bbox"][k],
                "K": data["cam_intrinsics"][k], "gender": str(data["gender"][k]),
                "theta": np.asarray(data["smpl_theta"][k]).reshape(24, 3),
                "betas": np.asarray(data["smpl_beta"][k]).reshape(-1)[:11],
                "transl": np.asarray(data["smpl_transl"][k]).reshape(3), "seen": bool(np.any(data["vis"][k])),
            }
        )  # fmt: skip
    return write_table(out, source, split, "smpl", rows)
