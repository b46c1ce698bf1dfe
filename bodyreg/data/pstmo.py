"""MPI-INF-3DHP for lifters (Mehta et al., 3DV 2017), in the npz files that circulate with P-STMO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bodyreg import skeletons
from bodyreg.data.lifter_cameras import LensCamera, no_lens
from bodyreg.data.lifter_sets import About, LifterSet, write_lifter_set
from bodyreg.data.sources import find_files
from bodyreg.files import safe_load_object_npz

__all__ = ["CAMERAS", "WHERE", "prepare_3dhp_lift", "set_from_records"]

WHERE = "https://github.com/paTRICK-swk/P-STMO (data_train_3dhp.npz and data_test_3dhp.npz)"
CAMERAS = ("0", "1", "2", "4", "5", "6", "7", "8")
"""Of the fourteen, those that are used."""
_WIDE = ("TS5", "TS6")  # outdoors, with another camera
_JOINTS = "mpi3dhp-17"


def prepare_3dhp_lift(root: str | Path, out: str | Path, source: str | None = None) -> Path:
    """MPI-INF-3DHP for lifters: ground-truth key points, height-normalised joints in each camera's frame.

    Args:
        root: holds data_train_3dhp.npz, data_test_3dhp.npz. out: the file written. source: "gt" is all there is.

    Raises:
        MissingFileError: a file is not there. ValueError: files of another form, or other key points asked for.
    """
    if source not in (None, "gt"):
        raise ValueError(f"The files hold ground-truth key points only, not {source!r}. Leave the option out.")
    names = ["data_train_3dhp.npz", "data_test_3dhp.npz"]
    paths = find_files(root, names, what="MPI-INF-3DHP in P-STMO's layout", where=WHERE)
    return write_lifter_set(out, set_from_records(*(_table(path) for path in paths)))


def set_from_records(train: dict[str, Any], test: dict[str, Any]) -> LifterSet:
    """The set of P-STMO's tables: {"S1 Seq1": [{camera: {data_2d, data_3d}}, fps]}, {"TS1": {data_2d, data_3d, valid}}.

    Sequences at 25 and at 50 pictures a second are mixed, as in all that is trained on these files.
    """
    keypoints: dict[tuple[str, str, int], np.ndarray] = {}
    joints: dict[tuple, np.ndarray] = {}
    valid: dict[tuple[str, str], np.ndarray] = {}
    cameras: dict[str, tuple[LensCamera, ...]] = {}
    for name, record in train.items():
        subject, action = name.split(" ", 1)
        cameras[subject] = _cameras((2048, 2048))
        by_camera = {str(key): value for key, value in record[0].items()}  # text in some files, numbers in others
        for index, camera in enumerate(CAMERAS):
            if camera in by_camera:
                _add((subject, action, index), by_camera[camera], keypoints, joints)
    for name, record in test.items():
        cameras[name] = _cameras((1920, 1080) if name in _WIDE else (2048, 2048))
        _add((name, name, 0), record, keypoints, joints)
        valid[name, name] = np.asarray(record["valid"]).reshape(-1) != 0
    joint_set = skeletons.get(_JOINTS)
    about = About(
        "mpi3dhp", "gt", _JOINTS, _JOINTS, 25.0, list(dict.fromkeys(name.split(" ", 1)[0] for name in train)),
        list(test), joint_set.root, joint_set.mirror, joint_set.mirror, CAMERAS, "mpi3dhp-lift-17",
        "25 and 50 pictures a second are mixed; joints are height-normalised",
    )  # fmt: skip
    return LifterSet(about, cameras, keypoints, joints, valid)


def _table(path: Path) -> dict[str, Any]:
    table = safe_load_object_npz(path).get("data")
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{path} has no table `data`. Fetch P-STMO's file of that name.")
    return table


def _add(key: tuple[str, str, int], record: dict[str, Any], keypoints: dict, joints: dict) -> None:
    keypoints[key] = np.asarray(record["data_2d"], np.float32)
    joints[key] = (np.asarray(record["data_3d"], np.float64) / 1000).astype(np.float32)


def _cameras(size_wh: tuple[int, int]) -> tuple[LensCamera, ...]:
    """Joints stand in the camera's frame already; where it stood is not in the files."""
    turn, place = np.array([1, 0, 0, 0], np.float32), np.zeros(3, np.float32)
    return tuple(LensCamera(name, size_wh, turn, place, no_lens()) for name in CAMERAS)
