"""A benchmark for lifters that anyone may run: bodies posed by recorded motion, seen by cameras, with noisy key points.

Every clip of motion becomes Human3.6M's 17 joints of a body, regressed from its mesh, and is seen by four cameras
around it through Human3.6M's lenses. What depends on chance depends on a clip's name and the seed alone, so the set
stays the same when clips come or go. Train and test clips are apart as everywhere (`motion.split_clips`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.data.lifter_cameras import LensCamera, h36m_cameras
from bodyreg.data.lifter_sets import About, write_lifter_set
from bodyreg.data.motion import Motion, clip_name, list_motion, read_amass, split_clips
from bodyreg.files import atomic_write

if TYPE_CHECKING:
    from bodyreg.body import BodyModel

__all__ = ["NOISE", "detector_noise", "prepare_motion", "rig", "write_videopose_files"]

NOISE = (
    "noise like a detector's, in parts of the person's height in the picture: standard deviation 0.6 % at hips, trunk "
    "and head, 0.8 % at shoulders and knees, 1.2 % at elbows and ankles, 1.6 % at wrists; half of the variance lasts "
    "(correlation 0.8 from frame to frame); every hundredth point errs five times as far"
)
"""The noise model in words, kept in the set."""
_SIGMAS = {"knee": 0.008, "shoulder": 0.008, "elbow": 0.012, "ankle": 0.012, "wrist": 0.016}
_SIGMA, _CORRELATION, _OUTLIERS, _OUTLIER_FACTOR = 0.006, 0.8, 0.01, 5.0
_SET = "h36m-17"
_CHUNK = 256  # frames posed at a time
_NEAREST_M, _MARGIN = 3.5, 0.06  # nearest camera; part of the picture that stays empty at its borders


def prepare_motion(
    root: str | Path,
    out: str | Path,
    *,
    body: BodyModel,
    cameras: int = 4,
    fps: float = 30.0,
    held_out: float = 0.15,
    seed: int = 0,
) -> dict[str, Path]:
    """Make the benchmark from a folder of motion in AMASS's layout.

    Shapes are the files' own for real SMPL; for another body, to which those numbers mean nothing, they are drawn.

    Args:
        root: folder of motion files, or one. out: folder of the files written. body: poses the clips.
        cameras: a clip, at most four. fps: joints are interpolated to this rate. held_out: share of test clips.
        seed: of shapes, cameras and noise.

    Returns:
        Paths by name: "gt" and "noisy", the prepared sets; "3d", "2d_gt", "2d_noisy", "cameras", the same in
        VideoPose3D's layout for other programs.

    Raises:
        ValueError: no motion, a file that is none, or no clip on one of the two sides.
    """
    if not 1 <= cameras <= 4:
        raise ValueError(f"{cameras} cameras were asked for. Give one to four.")
    paths = list_motion(root)
    train, test = ([clip_name(path) for path in part] for part in split_clips(paths, held_out))
    if not train or not test:
        raise ValueError(
            f"Of {len(paths)} clips in {root}, {len(train)} train and {len(test)} test. Give more clips, or another "
            "held-out share."
        )
    joints: dict[tuple[str, str], np.ndarray] = {}
    rigs: dict[str, tuple[LensCamera, ...]] = {}
    for path in paths:
        name = clip_name(path)
        clip = clip_joints(read_amass(path, up="z"), body, fps, seed)
        joints[name, name.split("_")[0]] = clip
        rigs[name] = rig(clip, cameras, _generator(seed, name, "cameras"))
    about = About(
        "motion", "gt", _SET, _SET, fps, train, test, 0, skeletons.get(_SET).mirror, skeletons.get(_SET).mirror,
        [str(i) for i in range(cameras)], "motion-lift-17", f"{body.name} body; key points are exact",
    )  # fmt: skip
    seen = {key: [c.pixels(c.camera_from_world(clip)) for c in rigs[key[0]]] for key, clip in joints.items()}
    noisy = {
        (clip, action): [
            view + detector_noise(view, _generator(seed, clip, f"noise {camera}")) for camera, view in enumerate(views)
        ]
        for (clip, action), views in seen.items()
    }
    return _write(Path(out), about, joints, rigs, {"gt": seen, "noisy": noisy}, body.name)


def clip_joints(motion: Motion, body: BodyModel, fps: float, seed: int) -> np.ndarray:
    """(T, 17, 3) float32 joints of a clip in the world (z up), metres, about the middle of its path."""
    betas = np.zeros(body.num_betas, np.float32)
    if body.name == "smpl":
        betas[: len(motion.betas)] = motion.betas[: body.num_betas]
    else:
        betas[:] = _generator(seed, motion.name, "shape").normal(size=body.num_betas).clip(-2, 2)
    parts = []
    for start in range(0, len(motion), _CHUNK):
        poses = motion.poses[start : start + _CHUNK]
        with torch.no_grad():
            posed = body(betas[None], poses[:, 1:].reshape(len(poses), 69), poses[:, 0])
            parts.append(body.regress(posed.vertices, _SET).numpy())
    joints = np.concatenate(parts) + motion.trans[:, None]
    middle = (joints[:, 0].min(0) + joints[:, 0].max(0)) / 2
    joints = joints - [middle[0], middle[1], joints[..., 2].min()]
    return _resampled(joints, motion.fps, fps).astype(np.float32)


def rig(
    joints: np.ndarray, count: int, rng: np.random.Generator, *, lenses: Sequence[np.ndarray] | None = None,
    heights: tuple[float, float] = (0.8, 2.0), nearest: float = _NEAREST_M,
) -> tuple[LensCamera, ...]:  # fmt: skip
    """Cameras around a clip, their horizon level, near enough to see it well and far enough to see all of it.

    Args:
        joints: (T, J, 3) in the world, z up. count: cameras, a quarter turn apart but for chance.
        lenses: (9,) of each camera; Human3.6M's by default. heights: range of their places above the ground, metres.
        nearest: least distance from the middle, metres.
    """
    lenses = [camera.lens for camera in h36m_cameras()["S1"]] if lenses is None else lenses
    middle = np.array([0, 0, (joints[..., 2].min() + joints[..., 2].max()) / 2])
    first, found = rng.uniform(0, 2 * math.pi), []
    for i in range(count):
        azimuth = first + i * math.pi / 2 + rng.uniform(-0.4, 0.4)
        height, distance = rng.uniform(*heights), nearest * rng.uniform(1.0, 1.3)
        while True:
            centre = np.array([distance * math.cos(azimuth), distance * math.sin(azimuth), height])
            size = (1000, 1000)
            camera = LensCamera(str(i), size, _looking(centre, middle), centre.astype(np.float32), lenses[i])
            if _sees(camera, joints):
                break
            distance *= 1.08
        found.append(camera)
    return tuple(found)


def detector_noise(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Errors (T, 17, 2) in pixels of a detector on key points (T, 17, 2); see `NOISE`."""
    names = skeletons.get(_SET).joints
    sigma = np.array([_SIGMAS.get(name.split("_")[-1], _SIGMA) for name in names])
    height = np.ptp(points[..., 1], axis=1).clip(1.0)
    steps = rng.normal(size=points.shape) * math.sqrt(1 - _CORRELATION**2)
    lasting = np.empty_like(steps)
    lasting[0] = rng.normal(size=points.shape[1:])
    for t in range(1, len(points)):
        lasting[t] = _CORRELATION * lasting[t - 1] + steps[t]
    errors = math.sqrt(0.5) * (lasting + rng.normal(size=points.shape))
    errors = np.where(rng.random(points.shape[:2])[..., None] < _OUTLIERS, _OUTLIER_FACTOR * errors, errors)
    return (errors * sigma[:, None] * height[:, None, None]).astype(np.float32)


def write_videopose_files(
    folder: Path,
    joints: Mapping[tuple[str, str], np.ndarray],
    points: Mapping[str, Mapping[tuple[str, str], Sequence[np.ndarray]]],
    rigs: Mapping[str, Sequence[LensCamera]],
) -> dict[str, Path]:
    """The set in VideoPose3D's layout: data_3d_motion.npz, data_2d_motion_SOURCE.npz, and cameras_motion.json.

    The dictionaries in the npz files are pickled, as that layout has it; camera places are in millimetres.
    """
    joint_set = skeletons.get(_SET)
    symmetry = [list(joint_set.left), list(joint_set.right)]
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": symmetry}
    paths = {"3d": folder / "data_3d_motion.npz"}
    with atomic_write(paths["3d"]) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, positions_3d=np.array(_nested(joints), object))
    for source, table in points.items():
        paths[f"2d_{source}"] = folder / f"data_2d_motion_{source}.npz"
        with atomic_write(paths[f"2d_{source}"]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, positions_2d=np.array(_nested(table), object), metadata=np.array(metadata, object)
            )
    cameras = {
        clip: [
            {"orientation": c.orientation.tolist(), "translation": (1000 * c.centre).tolist(), "lens": c.lens.tolist(),
             "res_w": c.size_wh[0], "res_h": c.size_wh[1]}
            for c in rig_of
        ]
        for clip, rig_of in rigs.items()
    }  # fmt: skip
    paths["cameras"] = folder / "cameras_motion.json"
    with atomic_write(paths["cameras"]) as temporary:
        temporary.write_text(json.dumps(cameras), encoding="utf-8")
    return paths


def _write(
    folder: Path, about: About, joints: Mapping[tuple[str, str], np.ndarray], rigs: Mapping[str, Sequence[LensCamera]],
    points: Mapping[str, Mapping[tuple[str, str], Sequence[np.ndarray]]], body: str,
) -> dict[str, Path]:  # fmt: skip
    import dataclasses

    from bodyreg.data.videopose import set_from_tables

    folder.mkdir(parents=True, exist_ok=True)
    paths = write_videopose_files(folder, joints, points, rigs)
    for source, table in points.items():
        note = about.note if source == "gt" else f"{body} body; {NOISE}"
        own = dataclasses.replace(about, source=source, note=note)
        paths[source] = write_lifter_set(folder / f"motion_{source}.npz", set_from_tables(own, joints, table, rigs))
    return paths


def _nested(table: Mapping[tuple[str, str], object]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for (subject, action), value in table.items():
        found.setdefault(subject, {})[action] = value
    return found


def _generator(seed: int, name: str, what: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {name} {what}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _resampled(joints: np.ndarray, fps: float, wanted: float) -> np.ndarray:
    """Joints at another rate, by linear interpolation of their places."""
    if abs(fps / wanted - 1) < 1e-3 or len(joints) < 2:
        return joints
    times = np.arange(int((len(joints) - 1) * wanted / fps) + 1) * fps / wanted
    before = np.minimum(times.astype(np.int64), len(joints) - 2)
    share = (times - before)[:, None, None]
    return joints[before] * (1 - share) + joints[before + 1] * share


def _looking(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (4,), world from camera, of a level camera at `centre` that looks at `target`; the world's z is up."""
    from bodyreg.rotations import quaternion_from_matrix

    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    turn = torch.from_numpy(np.stack([right, down, forward], 1))
    return quaternion_from_matrix(turn).numpy().astype(np.float32)


def _sees(camera: LensCamera, joints: np.ndarray) -> bool:
    points = camera.camera_from_world(joints)
    if (points[..., 2] < 0.5).any():
        return False
    share = camera.pixels(points) / camera.size_wh
    return bool((share > _MARGIN).all() and (share < 1 - _MARGIN).all())
