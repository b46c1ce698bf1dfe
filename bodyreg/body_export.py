"""Bodies as files for other programs: what plain `smplx` loads, and plain npz in place of old pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyreg.body_files import REGRESSOR_KEY, BodyArrays, read_body
from bodyreg.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence


def smpl_dictionary(arrays: BodyArrays, *, pad_betas: bool = False) -> dict[str, Any]:
    """A body under the keys of SMPL's files, float32, root parent -1, no pickled classes but arrays.

    Args:
        pad_betas: add shape columns of zeros up to 300. The smplx package offers more than ten betas only for files
            of that width.
    """
    shapedirs = arrays.shapedirs.astype(np.float32)
    if pad_betas and shapedirs.shape[2] < 300:
        shapedirs = np.concatenate([shapedirs, np.zeros((*shapedirs.shape[:2], 300 - shapedirs.shape[2]), "f4")], 2)
    data: dict[str, Any] = {
        "v_template": arrays.v_template.astype(np.float32),
        "shapedirs": shapedirs,
        "posedirs": arrays.posedirs.astype(np.float32),
        "J_regressor": arrays.J_regressor.astype(np.float32),
        "J": (arrays.J_regressor @ arrays.v_template).astype(np.float32),
        "weights": arrays.weights.astype(np.float32),
        "kintree_table": np.array([arrays.parents, range(24)], dtype=np.int64),
        "f": arrays.faces.astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "gender": arrays.gender,
        "bodyreg_name": arrays.name,
    }
    if arrays.kid_template is not None:
        data["kid_template"] = arrays.kid_template.astype(np.float32)
    if arrays.mirror is not None:
        data["vert_sym_idxs"] = arrays.mirror
    return data | {REGRESSOR_KEY + key: matrix.astype(np.float32) for key, matrix in arrays.regressors.items()}


def export_body(arrays: BodyArrays, folder: str | Path, *, formats: Sequence[str] = ("pkl", "npz"),
                pad_betas: bool = False) -> list[Path]:
    """Write `SMPL_<GENDER>.pkl` and/or `.npz` into a folder and return the paths.

    `smplx.SMPL(folder, gender=...)` reads the pickle; it cannot read any npz for this model. An exported licensed body
    stays licensed.

    Raises:
        ValueError: unknown format.
    """
    paths = []
    data = smpl_dictionary(arrays, pad_betas=pad_betas)
    for suffix in formats:
        path = Path(folder) / f"SMPL_{arrays.gender.upper()}.{suffix}"
        if suffix == "npz":
            write_npz(data, path)
        elif suffix == "pkl":
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                pickle.dump(data, file, protocol=2)
        else:
            raise ValueError(f"Unknown body format {suffix!r}. Use 'pkl' or 'npz'.")
        paths.append(path)
    return paths


def convert_body(source: str | Path, target: str | Path, *, gender: str = "neutral") -> BodyArrays:
    """Turn any SMPL pickle into a plain npz: float32, dense regressor, no pickle inside; checked on the way.

    The converted file is the same body: reading it gives the same hash.

    Raises:
        ValueError: the source is no SMPL model, or would run code (nothing is run), or the target is not an .npz.
    """
    target = Path(target)
    if target.suffix.lower() != ".npz":
        raise ValueError(f"The target {target} is not an .npz file. Name it SMPL_NEUTRAL.npz or alike.")
    arrays = read_body(source, gender=gender)
    write_npz(smpl_dictionary(arrays), target)
    return arrays


def write_npz(data: dict[str, Any], path: str | Path) -> None:
    """Write arrays and short strings to a compressed npz, whole or not at all."""
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **data)
