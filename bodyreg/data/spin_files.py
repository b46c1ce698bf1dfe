"""Labels in the npz layout that SPIN (Kolotouros et al., ICCV 2019) made customary, and what names of pictures tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bodyreg.files import safe_load_npz

__all__ = ["SpinLabels", "dataset_of", "parts_of_name", "read_spin"]

_SHAPES = {"center": (2,), "scale": (), "pose": (72,), "shape": (10,), "S": (24, 4), "part": (24, 3)}
_DATASETS = {"3dpw": "pw3d", "pw3d": "pw3d", "h36m": "h36m", "3dhp": "mpi3dhp"}
_H36M = re.compile(r"(S\d+)_([A-Za-z]+)(?:[_ ](\d+))?\.(\d{8})_(\d+)")
_MOON = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)\D*_(\d+)\.\w+$")
_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
"""Human3.6M's actions 2 to 16, in the order of its numbers."""


@dataclass(frozen=True, eq=False)
class SpinLabels:
    """Labels of N people in photographs; a part that a file does not have is None.

    imgname (N,) paths; centre (N, 2) pixels; scale (N,) side of the box over 200; joints24 (N, 24, 4) "spin-24" joints,
    metres about the pelvis, and confidence; theta (N, 24, 3) axis-angle in the camera's frame; betas (N, 10);
    genders (N,) "male", "female" or "neutral".
    """

    imgname: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    joints24: np.ndarray | None = None
    theta: np.ndarray | None = None
    betas: np.ndarray | None = None
    genders: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.imgname)


def read_spin(path: str | Path) -> SpinLabels:
    """Labels of an npz in SPIN's layout.

    Raises:
        ValueError: not such a file, or rows of another shape.
    """
    arrays = safe_load_npz(path)
    missing = [key for key in ("imgname", "center", "scale") if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. Give an npz in SPIN's layout.")
    count = len(arrays["imgname"])
    for key, shape in _SHAPES.items():
        if key in arrays and arrays[key].shape != (count, *shape):
            raise ValueError(f"{key!r} of {path} has shape {arrays[key].shape}. It should be {(count, *shape)}.")
    names = tuple(name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in arrays["imgname"].tolist())
    pose, genders = arrays.get("pose"), arrays.get("gender")
    return SpinLabels(
        names, arrays["center"].astype(np.float64), arrays["scale"].astype(np.float64), arrays.get("S"),
        None if pose is None else pose.reshape(count, 24, 3), arrays.get("shape"),
        None if genders is None else tuple(_gender(value) for value in genders.tolist()),
    )  # fmt: skip


def dataset_of(path: str | Path) -> str | None:
    """The data set that a file's name speaks of ("3dpw_test.npz" -> "pw3d"), None if of none."""
    stem = Path(path).stem.lower()
    return next((dataset for word, dataset in _DATASETS.items() if word in stem), None)


def parts_of_name(name: str) -> tuple[str, str, str, int]:
    """Sequence, action, subject and frame number that a picture's path tells; what it does not tell is empty or -1.

    Understood are Human3.6M's names of both lineages (S9_Directions_1.54138969_000001.jpg,
    s_09_act_02_subact_01_ca_01_000001.jpg), 3DPW's and MPI-INF-3DHP's folders with numbered pictures.
    """
    if found := _H36M.search(name):
        subject, action, _, _, frame = found.groups()
        return found[0].rpartition("_")[0], action, subject, int(frame)
    if found := _MOON.search(name):
        number = int(found[2])
        action = _ACTIONS[number - 2] if 2 <= number <= 16 else found[2]
        return found[0].rpartition("_")[0], action, f"S{int(found[1])}", int(found[5])
    path = Path(name)
    digits = re.findall(r"\d+", path.stem)
    sequence = next((part for part in path.parts[:-1] if re.fullmatch(r"TS\d", part)), path.parent.name)
    return sequence, "", "", int(digits[-1]) if digits else -1


def _gender(value: object) -> str:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return {"m": "male", "f": "female"}.get(text.lower()[:1], "neutral")
