"""MPI-INF-3DHP (Mehta et al., 3DV 2017) as its authors distribute it: MATLAB files for training, HDF5 for the test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg import skeletons
from bodyreg.data.mpi3dhp import HEIGHTS
from bodyreg.data.sample import write_table
from bodyreg.data.sources import find_files

__all__ = ["ACTIVITIES", "CAMERAS", "TEST_FRAMES", "WHERE", "prepare", "read_calibration", "read_test"]

WHERE = "https://vcai.mpi-inf.mpg.de/3dhp-dataset"
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
"""Cameras at chest height; the others look from above."""
ACTIVITIES = (
    "Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On the Floor", "Sports", "Miscellaneous",
)  # fmt: skip
TEST_FRAMES = {"TS1": 603, "TS2": 540, "TS3": 505, "TS4": 553, "TS5": 276, "TS6": 452}
"""Valid frames of the test sequences, 2929 in all."""
_EVERY = 10
_TRAIN_HW = (2048, 2048)


def _test_camera(sequence: str) -> tuple[tuple[int, int], np.ndarray]:
    """Height and width, and intrinsics (3, 3) of a test sequence."""
    outdoor = sequence in ("TS5", "TS6")
    h, w = (1080, 1920) if outdoor else (2048, 2048)
    focal = 192 * 8.770747185 if outdoor else 204.8 * 7.320339203
    return (h, w), np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1.0]])


def read_test(root: str | Path) -> dict[str, np.ndarray]:
    """The valid frames of the test set.

    Args:
        root: holds TS1/annot_data.mat and so on, all six or some.

    Returns:
        Columns of equal length: sequence, frame (from 0), activity (text), keypoints (N, 17, 2) pixels, joints and
        univ_joints (N, 17, 3) metres, camera frame, order "mpi3dhp-17", the latter of one height for all people.

    Raises:
        MissingFileError: no such files. ValueError: h5py is not installed, or a file is not what it should be.
    """
    paths = find_files(root, ["TS*/annot_data.mat"], what="The test set of MPI-INF-3DHP", where=WHERE)
    parts: dict[str, list[np.ndarray]] = {}
    for path in paths:
        arrays = _read_hdf5(path)
        valid = np.flatnonzero(arrays["valid_frame"].reshape(-1) != 0)
        activity = arrays["activity_annotation"].reshape(-1)[valid].astype(int)
        for name, value in (
            ("sequence", np.full(len(valid), path.parent.name)), ("frame", valid),
            ("activity", np.array(ACTIVITIES)[np.clip(activity, 1, 7) - 1]),
            ("keypoints", _poses(arrays, "annot2", 2, path)[valid]),
            ("joints", _poses(arrays, "annot3", 3, path)[valid] / 1000),
            ("univ_joints", _poses(arrays, "univ_annot3", 3, path)[valid] / 1000),
        ):  # fmt: skip
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path} is HDF5, and h5py is not installed. Run: pip install 'bodyreg[datasets]'.") from None
    try:
        with h5py.File(path, "r") as file:
            wanted = ("annot2", "annot3", "univ_annot3", "valid_frame", "activity_annotation")
            return {name: np.asarray(file[name]) for name in wanted}
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} is not a test annotation of MPI-INF-3DHP ({error}). Unpack it again.") from None


def _poses(arrays: Mapping[str, np.ndarray], name: str, count: int, path: Path) -> np.ndarray:
    """(N, 17, count) from MATLAB's (count, 17, 1, N), whose axes HDF5 gives in the reverse order."""
    values = np.squeeze(arrays[name])
    if values.ndim == 2:
        values = values[None]
    if values.shape[1:] != (17, count):
        raise ValueError(f"{name!r} of {path} has shape {arrays[name].shape}. It should be (N, 1, 17, {count}).")
    return values.astype(np.float64)


def prepare(root: str | Path, out: str | Path, bodies: object = None, split: str = "test") -> Path:
    """Write the test or the training set as one indexed file of joints in the camera's frame.

    Args:
        root: folder of the download. out: the file written. bodies: not needed. split: "test" or "train".

    Raises:
        MissingFileError: the download is not complete. ValueError: a file that is not what it should be.
    """
    return _prepare_test(root, out) if split == "test" else _prepare_train(root, out)


def _prepare_test(root: str | Path, out: str | Path) -> Path:
    """Every valid frame of the test set; `root` holds TS1/annot_data.mat and so on."""
    people = read_test(root)
    rows = []
    for k, sequence in enumerate(people["sequence"]):
        size_hw, K = _test_camera(str(sequence))
        rows.append(
            {
                "image": f"{sequence}/imageSequence/img_{people['frame'][k] + 1:06d}.jpg", "size_hw": size_hw, "K": K,
                "box_xywh": _box(people["keypoints"][k]), "height": 1.75,
                "joints17": skeletons.convert(people["joints"][k], "mpi3dhp-17", "h36m-17"),
            }
        )  # fmt: skip
    return write_table(out, "mpi3dhp", "test", "joints", rows)


def _box(points_px: np.ndarray) -> np.ndarray:
    """(4,) tight box x, y, width, height around points (J, 2)."""
    low, high = points_px.min(0), points_px.max(0)
    return np.concatenate([low, high - low])


def read_calibration(path: str | Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Intrinsics (4, 4) and extrinsics (4, 4, millimetres) by camera from camera.calibration.

    Raises:
        ValueError: not such a text.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    cameras = {}
    for v in range((len(lines) - 1) // 7):
        matrices = []
        for label, at in (("intrinsic", 7 * v + 5), ("extrinsic", 7 * v + 6)):
            words = lines[at].split() if at < len(lines) else []
            try:
                numbers = np.array([float(word) for word in words[1:]])
            except ValueError:
                numbers = np.zeros(0)
            if len(numbers) != 16:
                raise ValueError(f"Line {at + 1} of {path} is no {label} of 16 numbers. Fetch the calibration again.")
            matrices.append(numbers.reshape(4, 4))
        cameras[v] = (matrices[0], matrices[1])
    return cameras


def _prepare_train(root: str | Path, out: str | Path) -> Path:
    """Every tenth frame of the chest-high cameras; `root` holds S1/Seq1/annot.mat and camera.calibration and so on.

    Pictures are named as SPIN's extraction names them: S1/Seq1/imageFrames/video_0/frame_000001.jpg.
    """
    paths = find_files(root, ["S*/Seq*/annot.mat"], what="MPI-INF-3DHP", where=WHERE)
    rows: list[dict[str, Any]] = []
    for path in paths:
        subject, part = path.parent.parent.name, path.parent.name
        calibration = read_calibration(path.parent / "camera.calibration")
        annot2, annot3 = _read_mat(path)
        found = re.fullmatch(r"S([1-8])", subject)
        height = HEIGHTS[int(found[1]) - 1] if found else 1.75
        for v in CAMERAS:
            if v not in calibration or v >= len(annot2):
                raise ValueError(f"{path} has {len(annot2)} cameras, {len(calibration)} are calibrated; {v} is needed.")
            keypoints, joints = annot2[v].reshape(-1, 28, 2), annot3[v].reshape(-1, 28, 3) / 1000
            for frame in range(0, len(joints), _EVERY):
                inside = ((keypoints[frame] > 0) & (keypoints[frame] < _TRAIN_HW[::-1])).all(-1)
                if not inside.all():
                    continue
                rows.append(
                    {
                        "image": f"{subject}/{part}/imageFrames/video_{v}/frame_{frame + 1:06d}.jpg",
                        "size_hw": _TRAIN_HW, "K": calibration[v][0][:3, :3], "box_xywh": _box(keypoints[frame]),
                        "joints17": skeletons.convert(joints[frame], "mpi3dhp-28", "h36m-17"), "height": height,
                    }
                )  # fmt: skip
    return write_table(out, "mpi3dhp", "train", "joints", rows)


def _read_mat(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per camera (N, 56) pixels and (N, 84) millimetres of an annot.mat (MATLAB 5)."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        annot2, annot3 = ([np.asarray(cell, np.float64) for cell in content[name].reshape(-1)]
                          for name in ("annot2", "annot3"))  # fmt: skip
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a readable annot.mat ({reason}). Fetch it again.") from None
    wide = all(a.shape[1:] == (56,) for a in annot2) and all(a.shape[1:] == (84,) for a in annot3)
    if len(annot2) != len(annot3) or not wide:
        raise ValueError(f"{path} does not hold 28 joints a camera. Fetch it again.")
    return annot2, annot3
