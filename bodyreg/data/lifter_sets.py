"""Prepared data sets of lifters: one plain npz with key points, joints and cameras, whatever the download looked like.

Entries: `keypoints/SUBJECT/ACTION/CAMERA` (T, J, 2 or 3) pixels (and confidence), `joints/SUBJECT/ACTION` (T, J', 3)
in the world or `joints/SUBJECT/ACTION/CAMERA` in the camera's frame, metres, `valid/SUBJECT/ACTION` (T,), cameras as
`cameras/SUBJECT` (C, 4 + 3 + 9 + 2), and `about`, JSON with everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg import skeletons
from bodyreg.data.lifter_cameras import LensCamera
from bodyreg.files import atomic_write, safe_load_npz

__all__ = ["About", "LifterSequence", "LifterSet", "read_lifter_set", "write_lifter_set"]


@dataclass(frozen=True)
class About:
    """What a prepared set is.

    Attributes:
        name: of the data set. source: of its 2D key points ("gt", "cpn_ft_h36m_dbb", ...).
        input_set, joint_set: joint sets of key points and joints. fps: pictures a second.
        train, test: subjects of either part. root: index of the root joint.
        mirror_in, mirror_out: index of each point's mirror image.
        camera_names: in order. protocol: name of the protocol it is scored under. note: what else one should know.
    """

    name: str
    source: str
    input_set: str
    joint_set: str
    fps: float
    train: Sequence[str]
    test: Sequence[str]
    root: int
    mirror_in: Sequence[int]
    mirror_out: Sequence[int]
    camera_names: Sequence[str]
    protocol: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class LifterSequence:
    """One camera's view of one action.

    Attributes:
        subject, action, camera: which. size_wh: of the pictures, pixels. fps: pictures a second.
        keypoints: (T, J, 2 or 3) float32 screen coordinates (and confidence).
        joints: (T, J', 3) float32 in the camera's frame, metres; the root is absolute, the others relative to it.
        lens: (9,) float32 of screen coordinates, zeros if unknown. valid: (T,) bool, frames that are scored.
    """

    subject: str
    action: str
    camera: int
    size_wh: tuple[int, int]
    fps: float
    keypoints: np.ndarray
    joints: np.ndarray
    lens: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)

    def part(self, start: int, end: int) -> LifterSequence:
        """Frames [start, end)."""
        return replace(
            self, keypoints=self.keypoints[start:end], joints=self.joints[start:end], valid=self.valid[start:end]
        )


@dataclass(frozen=True, eq=False)
class LifterSet:
    """A prepared set in memory.

    Attributes:
        about: what it is. cameras: subject -> cameras.
        keypoints: (subject, action, camera) -> (T, J, 2 or 3) pixels.
        joints: (subject, action) -> (T, J', 3) world, or (subject, action, camera) -> in the camera's frame, metres.
        valid: (subject, action) -> (T,) bool; absent where all frames are.
    """

    about: About
    cameras: Mapping[str, Sequence[LensCamera]]
    keypoints: Mapping[tuple[str, str, int], np.ndarray]
    joints: Mapping[tuple, np.ndarray]
    valid: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def subjects(self, part: str) -> list[str]:
        """Subjects of "train" or "test"."""
        if part not in ("train", "test"):
            raise ValueError(f"There is no part {part!r}. Choose train or test.")
        return list(self.about.train if part == "train" else self.about.test)

    def sequences(
        self, subjects: Iterable[str], *, actions: Iterable[str] | None = None, downsample: int = 1
    ) -> list[LifterSequence]:
        """Every camera's view of every action of some subjects, in the order of the file.

        Args:
            subjects: whose. actions: beginnings of the actions' names; none takes all.
            downsample: keep every n-th frame.

        Raises:
            ValueError: a subject that is not there, or nothing left.
        """
        subjects, starts = list(subjects), None if actions is None else tuple(actions)
        there = {subject for subject, _, _ in self.keypoints}
        if missing := [subject for subject in subjects if subject not in there]:
            raise ValueError(
                f"{self.about.name} has no subject {', '.join(missing)}. Known: {', '.join(sorted(there))}."
            )
        found = [
            self._sequence(key, downsample)
            for subject in subjects
            for key in self.keypoints
            if key[0] == subject and (starts is None or key[1].startswith(starts))
        ]
        if not found:
            raise ValueError(f"{self.about.name} has no actions that begin with {starts} for {subjects}. Check both.")
        return found

    def _sequence(self, key: tuple[str, str, int], step: int) -> LifterSequence:
        subject, action, index = key
        camera, root = self.cameras[subject][index], self.about.root
        world = self.joints.get((subject, action))
        joints = self.joints[key].copy() if world is None else camera.camera_from_world(world)
        others = [j for j in range(joints.shape[1]) if j != root]
        joints[:, others] -= joints[:, root : root + 1]
        valid = self.valid.get((subject, action), np.ones(len(joints), bool))
        return LifterSequence(
            subject, action, index, camera.size_wh, self.about.fps / step, camera.screen(self.keypoints[key])[::step],
            joints[::step].astype(np.float32), camera.lens, valid[::step],
        )  # fmt: skip


def write_lifter_set(path: str | Path, prepared: LifterSet) -> Path:
    """Write a set; `read_lifter_set` gives it back.

    Raises:
        ValueError: arrays that do not fit each other or the joint sets.
    """
    path = Path(path)
    _check(prepared, path)
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(asdict(prepared.about)))}
    for subject, cameras in prepared.cameras.items():
        rows = [np.concatenate([c.orientation, c.centre, c.lens, c.size_wh]) for c in cameras]
        arrays[f"cameras/{subject.replace('/', '|')}"] = np.stack(rows).astype(np.float32)
    tables: tuple[tuple[str, Mapping[Any, np.ndarray], Any], ...] = (
        ("keypoints", prepared.keypoints, np.float32), ("joints", prepared.joints, np.float32),
        ("valid", prepared.valid, np.bool_),
    )  # fmt: skip
    for kind, table, dtype in tables:
        for key, value in table.items():
            name = "/".join([kind, *(str(part).replace("/", "|") for part in key)])
            arrays[name] = np.asarray(value, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def read_lifter_set(path: str | Path) -> LifterSet:
    """A set that `bodyreg prepare` wrote.

    Raises:
        ValueError: no such file, or another kind of file; the message says how to make one.
    """
    path = Path(path)
    advice = "Make it with `bodyreg prepare motion`, `h36m-lift`, `humaneva` or `3dhp-lift`."
    if not path.is_file():
        raise ValueError(f"There is no prepared set {path}. {advice}")
    arrays = safe_load_npz(path)
    try:
        about = About(**json.loads(str(arrays.pop("about"))))
        tables: dict[str, dict[Any, np.ndarray]] = {"cameras": {}, "keypoints": {}, "joints": {}, "valid": {}}
        for name, value in arrays.items():
            kind, *parts = name.split("/")
            key = [part.replace("|", "/") for part in parts]
            tables[kind][tuple([*key[:2], int(key[2])] if len(key) == 3 else key)] = value
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no prepared set of a lifter. {advice}") from None
    cameras = {
        subject: tuple(
            LensCamera(name, (int(r[16]), int(r[17])), r[:4], r[4:7], r[7:16])
            for name, r in zip(about.camera_names, rows, strict=True)
        )
        for (subject,), rows in tables["cameras"].items()
    }
    prepared = LifterSet(about, cameras, tables["keypoints"], tables["joints"], tables["valid"])
    _check(prepared, path)
    return prepared


def _check(prepared: LifterSet, path: Path) -> None:
    about = prepared.about
    sizes = {"keypoints": len(skeletons.get(about.input_set)), "joints": len(skeletons.get(about.joint_set))}
    for key, points in prepared.keypoints.items():
        joints = prepared.joints.get(key[:2], prepared.joints.get(key))
        known = key[0] in prepared.cameras and 0 <= key[2] < len(prepared.cameras[key[0]])
        if joints is None or not known:
            raise ValueError(
                f"{path}: {key} has no {'camera' if joints is not None else '3D joints'}. Prepare it again."
            )
        fits = points.shape[1:] in ((sizes["keypoints"], 2), (sizes["keypoints"], 3))
        if not fits or joints.shape[1:] != (sizes["joints"], 3) or len(points) != len(joints):
            raise ValueError(
                f"{path}: {key} has key points of shape {points.shape} and joints of shape {joints.shape}. "
                f"Give one row a frame, {about.input_set} and {about.joint_set}."
            )
    if not prepared.keypoints:
        raise ValueError(f"{path} holds no sequence. Prepare it again from a complete download.")
