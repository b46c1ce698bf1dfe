"""Motion in AMASS's file layout: reading, listing and splitting clips."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from priors.rotations import aa_from_matrix, matrix_from_aa

__all__ = ["Motion", "clip_name", "list_motion", "read_amass", "split_clips"]

# Columns of `poses` by body family: SMPL, SMPL-H (22 joints, then hands), SMPL-X (22, jaw and eyes, then hands).
_SMPL_COLUMNS = 72
_HAND_LAYOUTS = (156, 165)
_BODY_COLUMNS = 66
_FPS_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")
_GENDERS = ("neutral", "male", "female")

# World y up (SMPL's rest frame) from world z up (AMASS): -90 degrees about x.
_Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Motion:
    """One clip of SMPL poses.

    poses: (N, 24, 3) float32 axis-angle, radians; joint 0 is the global orientation in the world frame.
    trans: (N, 3) float32 model translation in the world frame, metres.
    fps: frames per second. gender: "neutral", "male" or "female". betas: (S,) float32 shape.
    name: name of the clip (file name without `_poses.npz`). up: "y" or "z", the world axis that points up.
    """

    poses: np.ndarray
    trans: np.ndarray
    fps: float
    gender: str
    betas: np.ndarray
    name: str
    up: str = "y"

    def __len__(self) -> int:
        return len(self.poses)


def clip_name(path: str | Path) -> str:
    """Name of a clip: the file name without suffix and without a trailing `_poses`."""
    name = Path(path).name.removesuffix(".npz")
    return name.removesuffix("_poses")


def read_amass(path: str | Path, *, up: str = "y") -> Motion:
    """Read one clip in AMASS's layout (keys poses, trans, betas, gender, mocap_framerate; world z up).

    path: an npz file whose `poses` have 72 (SMPL), 156 (SMPL-H) or 165 (SMPL-X) columns; of the latter two the 22 body
        joints are kept and SMPL's two hand joints are set to zero.
    up: "y" turns global orientation and translation by -90 degrees about x into SMPL's y-up frame, "z" keeps them as
        they are. The translation is turned with the world: with y up it is right up to the constant offset
        (R - 1) J_0 that comes from SMPL's turning about its root joint J_0.

    Raises ValueError when the file is no readable npz, holds pickled objects, or lacks or garbles an array.
    """
    if up not in ("y", "z"):
        raise ValueError(f"The up axis is {up!r}. Give 'y' (SMPL's frame) or 'z' (as in the file).")
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("poses", "trans", "betas", "gender", *_FPS_KEYS) if key in file.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read as motion: {error}. Give an npz file of plain arrays in AMASS's layout."
        ) from error
    poses = _body_poses(arrays, path)
    trans = _floats(arrays, "trans", path)
    if trans.shape != (len(poses), 3):
        raise ValueError(
            f"{path} holds 'trans' of shape {trans.shape} for {len(poses)} frames. One (x, y, z) a frame is needed."
        )
    fps_key = next((key for key in _FPS_KEYS if key in arrays), None)
    if fps_key is None:
        raise ValueError(f"{path} states no frame rate. Store it under '{_FPS_KEYS[0]}'.")
    fps = _floats(arrays, fps_key, path)
    if fps.size != 1 or fps.item() <= 0:
        raise ValueError(f"{path} holds the frame rate {fps!r}. One positive number is needed.")
    betas = _floats(arrays, "betas", path).reshape(-1) if "betas" in arrays else np.zeros(10)
    if up == "y":
        poses[:, 0] = aa_from_matrix(_Y_UP_FROM_Z_UP @ matrix_from_aa(poses[:, 0]))
        trans = trans @ _Y_UP_FROM_Z_UP.T
    return Motion(
        poses=poses.astype(np.float32),
        trans=trans.astype(np.float32),
        fps=float(fps.item()),
        gender=_gender(arrays.get("gender"), path),
        betas=betas.astype(np.float32),
        name=clip_name(path),
        up=up,
    )


def list_motion(root: str | Path) -> list[Path]:
    """Sorted paths of all clips at or below `root` (a folder, or one npz file).

    AMASS's `shape.npz` files, which hold no motion, are left out. Raises ValueError when there is no clip.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{root} does not exist. Give a folder of motion files in AMASS's layout, or one such file.")
    paths = sorted(path for path in root.rglob("*.npz") if path.name != "shape.npz")
    if not paths:
        raise ValueError(f"{root} holds no npz file. Give a folder of motion files in AMASS's layout.")
    return paths


def split_clips(names: Iterable[str | Path], held_out: float = 0.15) -> tuple[list, list]:
    """Split clips into (train, held_out), each in the order given.

    A clip's side depends on nothing but its name (SHA-256 of `clip_name`), so it stays when clips come or go and poses
    of held-out clips never train anything. `held_out` is the expected share, in [0, 1].
    """
    if not 0 <= held_out <= 1:
        raise ValueError(f"The held-out share is {held_out}. Give a number between 0 and 1.")
    train: list[str | Path] = []
    test: list[str | Path] = []
    for name in names:
        digest = hashlib.sha256(clip_name(name).encode()).digest()
        fraction = int.from_bytes(digest[:8], "big") / 2**64
        (test if fraction < held_out else train).append(name)
    return train, test


def _floats(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    """The named array as finite float64."""
    if key not in arrays:
        raise ValueError(f"{path} has no array '{key}'. Give a file in AMASS's layout (poses, trans, betas, gender).")
    try:
        values = np.asarray(arrays[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no numbers under '{key}'. Store a float array there.") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path} holds NaN or infinite values under '{key}'. Remove the broken frames.")
    return values


def _body_poses(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """(N, 24, 3) float64 axis-angle from any of the column layouts."""
    flat = _floats(arrays, "poses", path)
    columns = flat.shape[1] if flat.ndim == 2 else None
    if columns not in (_SMPL_COLUMNS, *_HAND_LAYOUTS) or len(flat) == 0:
        raise ValueError(
            f"{path} holds 'poses' of shape {flat.shape}. "
            f"At least one frame of {_SMPL_COLUMNS} (SMPL), 156 (SMPL-H) or 165 (SMPL-X) columns is needed."
        )
    poses = np.zeros((len(flat), 24, 3))
    kept = _SMPL_COLUMNS if columns == _SMPL_COLUMNS else _BODY_COLUMNS
    poses.reshape(len(flat), -1)[:, :kept] = flat[:, :kept]
    return poses


def _gender(value: np.ndarray | None, path: Path) -> str:
    """Gender from a 0-d or one-element array of str or bytes; neutral when not stated."""
    if value is None:
        return "neutral"
    item = value.reshape(-1)[0] if value.size == 1 else None
    text = item.decode("ascii", "replace") if isinstance(item, bytes) else item
    if not isinstance(text, str) or text.lower() not in _GENDERS:
        raise ValueError(f"{path} states the gender {value!r}. One of {', '.join(_GENDERS)} is needed.")
    return text.lower()
