"""Predictions of any system, read from what people save: npz, JSON, pickles and joblib files; nothing in them is run.

A file is a table of columns (arrays of equal length), a mapping from sample names to records, or a list of records.
Keys are recognised under the names that public systems use; the order of the joints is said by the file (`joint_set`),
told by the key, or must be given: two orders of the same length are never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg import skeletons
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.truth import Bodies, PosedBodies, Source, StoredJoints, StoredMeshes
from bodyreg.files import safe_load_joblib, safe_load_npz

__all__ = ["UNITS", "read_predictions"]

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}

# Key -> joint set, where the key tells it; None where only the number of joints or the caller can.
_JOINT_KEYS: dict[str, str | None] = {
    "joints": None, "joints3d": None, "joints_3d": None, "pred_joints": None, "pred_joints_3d": None, "kp_3d": None,
    "keypoints_3d": None, "pose3d": None, "xyz_17": "h36m-17-left", "pred_xyz_jts_17": "h36m-17-left",
    "xyz_24": "smpl-24", "pred_xyz_jts_24_struct": "smpl-24", "xyz_29": "hybrik-29", "pred_xyz_jts_29": "hybrik-29",
    "pred_keypoints_3d": "spin-44", "joints49": "spin-49", "S": "spin-24",
}  # fmt: skip
_VERTEX_KEYS = ("vertices", "verts", "pred_vertices", "pred_verts")
_POSE_KEYS = ("theta", "pose", "pred_pose", "pred_rotmat", "pred_theta_mats", "thetas")
_BETA_KEYS = ("betas", "shape", "pred_betas", "pred_shape", "beta")
_NAME_KEYS = ("names", "imgname", "img_name", "img_names", "image", "images", "file_name", "img_path", "img_paths",
              "image_path")  # fmt: skip


def read_predictions(
    path: str | Path, bodies: Bodies, *, joint_set: str | None = None, units: str = "m"
) -> Source:
    """Predictions of a file, as a source for `evaluate`.

    Args:
        path: .npz; .json; .pkl, .pickle, .pt or .joblib, read without running anything.
        bodies: gives the body that meshes and parameters are of; asked for only where the file holds these.
        joint_set: order of the joints, where the file does not tell it. units: of joints and vertices: m, cm or mm.

    Raises:
        UnsafeFileError: a pickle that holds more than arrays and plain values.
        ValueError: an unknown format, no predictions under any known key, joints whose order nobody told, or shapes
            that do not fit.
    """
    path = Path(path)
    if units not in UNITS:
        raise ValueError(f"There is no unit {units!r}. Choose one of {', '.join(UNITS)}.")
    columns = _columns(_read(path), path)
    names = next((_texts(columns[key]) for key in _NAME_KEYS if key in columns), None)
    key = next((key for key in (*_JOINT_KEYS, *_VERTEX_KEYS, *_POSE_KEYS) if key in columns), None)
    if key is None:
        raise ValueError(
            f"{path} holds {', '.join(list(columns)[:8])} and no predictions under a known name. Give joints "
            "(N, J, 3), vertices (N, V, 3), or pose and betas."
        )
    vertex_key = next((key for key in _VERTEX_KEYS if key in columns), None)
    pose_key = next((key for key in _POSE_KEYS if key in columns), None)
    beta_key = next((key for key in _BETA_KEYS if key in columns), None)
    scale = UNITS[units]
    samples = _samples(names, len(columns[key]), path)
    if vertex_key is not None:
        return StoredMeshes(_numbers(columns[vertex_key], 3, vertex_key, path) * scale, bodies("neutral"), samples)
    if key in _JOINT_KEYS:
        joints = _numbers(columns[key], 3, key, path)[..., :3] * scale
        told = str(columns["joint_set"]) if "joint_set" in columns else None
        return StoredJoints(joints, _order(joint_set or told or _JOINT_KEYS[key], joints.shape[1], path), samples)
    if pose_key is None or beta_key is None:
        raise ValueError(f"{path} holds {pose_key or 'no pose'} and {beta_key or 'no betas'}. Give both, or joints.")
    pose = np.asarray(columns[pose_key], np.float64).reshape(len(samples), -1)
    if pose.shape[1] not in (72, 216):
        raise ValueError(f"{pose_key!r} of {path} has {pose.shape[1]} numbers a person. Give 72 (axis-angle) or 216.")
    theta = pose.reshape(len(samples), 24, 3) if pose.shape[1] == 72 else pose.reshape(len(samples), 24, 3, 3)
    betas = np.asarray(columns[beta_key], np.float64).reshape(len(samples), -1)
    return PosedBodies(theta, betas, None, bodies, samples)


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"There is no file of predictions {path}. Check the path given as --predictions.")
    if suffix == ".npz":
        return safe_load_npz(path)
    if suffix == ".json":
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a readable JSON file ({error}). Write it again.") from None
    if suffix in (".pkl", ".pickle", ".pt", ".joblib", ".pk"):
        return safe_load_joblib(path)
    raise ValueError(f"Predictions are not read from {suffix or path.name!r}. Give .npz, .json, .pkl or .joblib.")


def _columns(content: Any, path: Path) -> dict[str, Any]:
    """One table of columns from columns, from records by sample name, or from a list of records."""
    if isinstance(content, Mapping) and isinstance(content.get("predictions"), Mapping | list):
        facts = {key: value for key, value in content.items() if key != "predictions"}
        return {**_columns(content["predictions"], path), **facts}
    if isinstance(content, list):
        records = [_flat(record) for record in content if isinstance(record, Mapping)]
        if len(records) != len(content) or not records:
            raise ValueError(f"{path} is a list of {len(content)} things that are not all records. Give dictionaries.")
        return _stacked(records, path)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}. Give columns or records of predictions.")
    known = {*_JOINT_KEYS, *_VERTEX_KEYS, *_POSE_KEYS, *_BETA_KEYS, *_NAME_KEYS, "joint_set"}
    if known & set(map(str, content)):
        return _flat(content)
    if all(isinstance(value, Mapping) for value in content.values()):
        # Two spellings of a name would be one person twice: names stay as they are written.
        return {**_stacked([_flat(value) for value in content.values()], path), "names": [str(k) for k in content]}
    if all(_is_points(value) for value in content.values()):
        return {"joints": list(content.values()), "names": [str(key) for key in content]}
    return {str(key): value for key, value in content.items()}


def _flat(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A record with the entries of a nested `smpl` beside the others; its own global orientation first in the pose."""
    flat = {str(key): value for key, value in record.items() if not isinstance(value, Mapping)}
    for value in (value for value in record.values() if isinstance(value, Mapping)):
        flat.update({str(key): entry for key, entry in value.items()})
    if {"global_orient", "body_pose"} <= set(flat) and "pose" not in flat:
        parts = [np.asarray(flat[key], np.float64) for key in ("global_orient", "body_pose")]
        count = len(parts[0]) if parts[0].ndim == 4 or (parts[0].ndim == 2 and len(parts[0]) == len(parts[1])) else 1
        flat["pose"] = np.concatenate([part.reshape(count, -1) for part in parts], 1)
    return flat


def _stacked(records: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    lacking = [k for k, record in enumerate(records) if set(record) != set(records[0])]
    if lacking:
        raise ValueError(f"Record {lacking[0]} of {path} has other keys than the first. Give the same in each.")
    return {key: [record[key] for record in records] for key in records[0]}


def _is_points(value: Any) -> bool:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return array.ndim == 2 and array.shape[1] == 3


def _numbers(value: Any, least: int, key: str, path: Path) -> np.ndarray:
    """(N, P, 3 or more) numbers of a column."""
    try:
        array = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{key!r} of {path} differs in shape from person to person. Give the same points for each."
        ) from None
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] % 3 == 0:
        array = array.reshape(len(array), -1, 3)
    if array.ndim != 3 or array.shape[2] < least or array.dtype.kind not in "fiu":
        raise ValueError(f"{key!r} of {path} has shape {array.shape}. Give numbers (N, points, 3).")
    return array


def _order(told: str | None, count: int, path: Path) -> str:
    """The joint set that the file or the caller names, else the only one of that many joints."""
    if told is not None:
        wanted = len(skeletons.get(told))
        if wanted != count:
            raise ValueError(
                f"{path} has {count} joints a person, and {told!r} has {wanted}. Name the set they are in: "
                f"{', '.join(_of_length(count)) or 'none of ours has so many'}."
            )
        return told
    choices = _of_length(count)
    if len(choices) != 1:
        known = ", ".join(choices)
        advice = f"Say which order with --joint-set: {known}." if choices else "No joint set of ours has so many."
        raise ValueError(f"{path} has {count} joints a person and does not say in which order. {advice}")
    return choices[0]


def _of_length(count: int) -> list[str]:
    return [name for name in skeletons.names() if len(skeletons.get(name)) == count]


def _texts(value: Any) -> list[str]:
    entries = np.asarray(value).reshape(-1).tolist()
    return [entry.decode("utf-8") if isinstance(entry, bytes) else str(entry) for entry in entries]


def _samples(names: list[str] | None, count: int, path: Path) -> Samples:
    if names is None:
        return Samples.of([str(k) for k in range(count)])
    if len(names) != count:
        raise ValueError(f"{path} names {len(names)} samples and holds {count} predictions. Give one name for each.")
    seen: dict[str, int] = {}
    numbered = []
    for name in names:  # several people of one picture, in order
        seen[name] = seen.get(name, -1) + 1
        numbered.append(f"{name}#{seen[name]}" if seen[name] else name)
    return Samples.of(numbered)
