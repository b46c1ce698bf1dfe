"""Human3.6M and HumanEva-I in VideoPose3D's npz files, checked and turned into prepared sets.

The files hold pickled dictionaries: they are read by a reader that builds arrays and containers and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg import skeletons
from bodyreg.data.lifter_cameras import LensCamera, h36m_cameras, h36m_fps, humaneva_cameras, humaneva_fps
from bodyreg.data.lifter_sets import About, LifterSet, write_lifter_set
from bodyreg.data.sources import find_files
from bodyreg.files import safe_load_object_npz
from bodyreg.windows import mirror_map

__all__ = ["H36M_KEPT", "WHERE", "prepare_h36m", "prepare_humaneva", "project_ground_truth", "set_from_tables"]

WHERE = "https://github.com/facebookresearch/VideoPose3D/blob/main/DATASETS.md"
H36M_KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Joints of Human3.6M's 32 that make h36m-17, in its order."""
_BROKEN = {("S11", "Directions")}  # a damaged recording, which most files leave out
_HUMANEVA_PREFIXES = ("Train/", "Validate/", "Unlabeled/Train/", "Unlabeled/Validate/", "Unlabeled/", "")


def prepare_h36m(root: str | Path, out: str | Path, source: str | None = None) -> Path:
    """Human3.6M for lifters: world joints, four cameras, detected or ground-truth key points.

    Args:
        root: holds data_3d_h36m.npz and data_2d_h36m_SOURCE.npz. out: the file written.
        source: of the key points: "cpn_ft_h36m_dbb" by default, "gt", "detectron_ft_h36m", ...; "projected" computes
            them from the joints and needs no second file.

    Raises:
        MissingFileError: a file is not there; the message says where to get it. ValueError: files that do not fit.
    """
    source = source or "cpn_ft_h36m_dbb"
    names = ["data_3d_h36m.npz"] + ([] if source == "projected" else [f"data_2d_h36m_{source}.npz"])
    paths = find_files(root, names, what="Human3.6M in VideoPose3D's layout", where=WHERE)
    joints = {
        (subject, action): h36m_joints(array, f"{subject} {action}")
        for (subject, action), array in _flat(_entry(paths[0], "positions_3d"), paths[0]).items()
        if (subject, action) not in _BROKEN
    }
    cameras = {subject: h36m_cameras()[subject] for subject in {subject for subject, _ in joints}}
    about = _about("h36m", source, "h36m-17", "h36m-17", h36m_fps(), ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11"),
                   cameras, "h36m-lift-17")  # fmt: skip
    if source == "projected":
        return write_lifter_set(out, project_ground_truth(about, joints, cameras))
    points, mirror = _keypoints(paths[1], joints, cameras)
    return write_lifter_set(out, set_from_tables(dataclasses.replace(about, mirror_in=mirror), joints, points, cameras))


def prepare_humaneva(root: str | Path, out: str | Path, source: str | None = None) -> Path:
    """HumanEva-I for lifters: 15 joints, three cameras, ground-truth or detected (COCO) key points.

    Args:
        root: holds data_3d_humaneva15.npz and data_2d_humaneva15_SOURCE.npz. out: the file written.
        source: "gt" by default, or "detectron_pt_coco".

    Raises:
        MissingFileError, ValueError: as for `prepare_h36m`.
    """
    source = source or "gt"
    names = ["data_3d_humaneva15.npz", f"data_2d_humaneva15_{source}.npz"]
    paths = find_files(root, names, what="HumanEva-I in VideoPose3D's layout", where=WHERE)
    joints = _flat(_entry(paths[0], "positions_3d"), paths[0])
    cameras = humaneva_subjects([subject for subject, _ in joints])
    joints = {key: array for key, array in joints.items() if key[0] in cameras}
    points, mirror = _keypoints(paths[1], joints, cameras)
    input_set = "coco-17" if len(mirror) == 17 else "humaneva-15"
    about = _about("humaneva", source, input_set, "humaneva-15", humaneva_fps(),
                   ("Train/S1", "Train/S2", "Train/S3"), ("Validate/S1", "Validate/S2", "Validate/S3"), cameras,
                   "humaneva-15")  # fmt: skip
    return write_lifter_set(out, set_from_tables(dataclasses.replace(about, mirror_in=mirror), joints, points, cameras))


def h36m_joints(array: np.ndarray, name: str) -> np.ndarray:
    """(T, 17, 3) of Human3.6M's (T, 32, 3), metres in the world."""
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[1:] not in ((32, 3), (17, 3)):
        raise ValueError(f"{name} has 3D joints of shape {array.shape}. Human3.6M's are (T, 32, 3) or (T, 17, 3).")
    return (array[:, list(H36M_KEPT)] if array.shape[1] == 32 else array).astype(np.float32)


def humaneva_subjects(names: Sequence[str]) -> dict[str, tuple[LensCamera, ...]]:
    """Cameras of subjects such as "Train/S1"; those whose cameras are not known (S4) are left out."""
    known = {prefix + name: cameras for name, cameras in humaneva_cameras().items() for prefix in _HUMANEVA_PREFIXES}
    return {name: known[name] for name in dict.fromkeys(names) if name in known}


def set_from_tables(
    about: About,
    joints: Mapping[tuple[str, str], np.ndarray],
    points: Mapping[tuple[str, str], Sequence[np.ndarray]],
    cameras: Mapping[str, Sequence[LensCamera]],
) -> LifterSet:
    """A set of world joints and key points in pixels; key points longer than the joints are cut.

    Raises:
        ValueError: an action without key points, with fewer frames or fewer cameras of them than needed.
    """
    keypoints: dict[tuple[str, str, int], np.ndarray] = {}
    for (subject, action), world in joints.items():
        views = points.get((subject, action))
        if views is None:
            raise ValueError(f"{subject} {action} has 3D joints and no key points. Fetch files that belong together.")
        if len(views) < len(cameras[subject]):
            raise ValueError(
                f"{subject} {action} has key points of {len(views)} cameras, and {len(cameras[subject])} are needed. "
                "Fetch the file again."
            )
        for camera, view in enumerate(views[: len(cameras[subject])]):
            if len(view) < len(world):
                raise ValueError(
                    f"{subject} {action}, camera {camera}, has {len(view)} frames of key points for {len(world)} of "
                    "joints. Fetch files that belong together."
                )
            keypoints[subject, action, camera] = np.asarray(view, np.float32)[: len(world)]
    return LifterSet(about, cameras, keypoints, dict(joints))


def project_ground_truth(
    about: About, joints: Mapping[tuple[str, str], np.ndarray], cameras: Mapping[str, Sequence[LensCamera]]
) -> LifterSet:
    """A set whose key points are the joints seen through the cameras' lenses."""
    points = {
        (subject, action): [camera.pixels(camera.camera_from_world(world)) for camera in cameras[subject]]
        for (subject, action), world in joints.items()
    }
    return set_from_tables(about, joints, points, cameras)


def _about(
    name: str, source: str, input_set: str, joint_set: str, fps: float, train: Sequence[str], test: Sequence[str],
    cameras: Mapping[str, Sequence[LensCamera]], protocol: str,
) -> About:  # fmt: skip
    there = set(cameras)
    return About(
        name, source, input_set, joint_set, fps, [s for s in train if s in there], [s for s in test if s in there],
        skeletons.get(joint_set).root, skeletons.get(input_set).mirror, skeletons.get(joint_set).mirror,
        [camera.name for camera in next(iter(cameras.values()))], protocol,
    )  # fmt: skip


def _keypoints(
    path: Path, joints: Mapping[tuple[str, str], np.ndarray], cameras: Mapping[str, Sequence[LensCamera]]
) -> tuple[dict[tuple[str, str], list[np.ndarray]], tuple[int, ...]]:
    """Key points by subject and action, and their mirror map from the file's own lists."""
    table = _flat(_entry(path, "positions_2d"), path)
    metadata = _entry(path, "metadata")
    first = np.asarray(next(iter(table.values()))[0])
    left, right = metadata["keypoints_symmetry"]
    mirror = mirror_map(first.shape[1], [int(i) for i in left], [int(i) for i in right])
    return {key: [np.asarray(v)[..., :2] for v in views] for key, views in table.items() if key in joints}, mirror


def _entry(path: Path, key: str) -> Any:
    entries = safe_load_object_npz(path)
    if key not in entries:
        raise ValueError(f"{path} has no entry {key!r}. Fetch VideoPose3D's file of that name.")
    return entries[key]


def _flat(table: Any, path: Path) -> dict[tuple[str, str], Any]:
    """Nested dictionaries by (subject, action)."""
    if not isinstance(table, dict) or not all(isinstance(actions, dict) for actions in table.values()):
        raise ValueError(f"{path} holds no table of subjects and actions. Fetch VideoPose3D's file of that name.")
    return {(str(s), str(a)): value for s, actions in table.items() for a, value in actions.items()}
