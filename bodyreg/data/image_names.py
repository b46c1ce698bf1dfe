"""What the names of a data set's files and pictures tell: which data set, sequence, action, subject and frame."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["dataset_of", "parts_of_name"]

_DATASETS = {"3dpw": "pw3d", "pw3d": "pw3d", "h36m": "h36m", "3dhp": "mpi3dhp"}
_H36M = re.compile(r"(S\d+)_([A-Za-z]+)(?:[_ ](\d+))?\.(\d{8})_(\d+)")
_MOON = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)\D*_(\d+)\.\w+$")
_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
"""Human3.6M's actions 2 to 16, in the order of its numbers."""


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

