"""Synthetic scenes: a body, a camera, a place in the picture, and everything a label could ask for.

Each scene is one person seen by a camera of 20 to 90 degrees field of view, anywhere in the picture, often cut by its
edge. The crop is the one inference would make (Perspective Rotation included unless switched off), with room around the
person so that training can still zoom and turn. All labels live in the crop's camera frame, metres.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.crops import Crop, make_crop
from bodyreg.data.synthetic.garments import Tailor, painted_looseness, sample_garments
from bodyreg.data.synthetic.outfits import body_atlas, inflate, sample_outfits
from bodyreg.data.synthetic.poses import PoseBatch
from bodyreg.rotations import matrix_from_aa
from renderers.backends.cpu import vertex_normals

__all__ = ["LABELS", "SceneSettings", "Scenes", "make_scenes"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneSettings:
    """What scenes look like.

    Attributes:
        crop_size: side of the stored square crop, pixels.
        room: the stored crop shows this many times the person's box.
        fov_deg: range of the field of view of the picture's long side.
        truncated: share of scenes in which the frame may cut the person.
        min_visible: at least this share of the vertices lies inside the frame.
        box_jitter: standard deviation of the box's centre and log size, in box sizes.
        easy: share of scenes with the whole person near the middle of an ordinary lens.
        perspective_rotation: turn the camera onto the person before cropping; off only for ablation, and then the same
            seed gives the same people at the same places, cut out without turning.
        garments: "geometry" dresses people in garments with a shape of their own (`garments`), "painted" paints clothes
            onto a body that is little thicker. The same seed gives the same bodies at the same places either way.
            None goes on with what a folder of shards holds, and means geometry in a new one.
        looseness: range in which the looseness of a person's garments is drawn, 0 skin-tight, 1 very loose.
    """

    crop_size: int = 192
    room: float = 1.4
    fov_deg: tuple[float, float] = (20.0, 90.0)
    truncated: float = 0.3
    min_visible: float = 0.5
    box_jitter: float = 0.05
    easy: float = 0.2
    perspective_rotation: bool = True
    garments: str | None = None
    looseness: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.garments not in (None, "geometry", "painted"):
            raise ValueError(f"There are no garments {self.garments!r}. Choose 'geometry' or 'painted'.")


# name -> shape of one sample's label; all float32, crop camera frame, metres, pixels of the stored crop or the picture.
LABELS: dict[str, tuple[int, ...]] = {
    "joints": (24, 3),
    "rest_joints": (24, 3),
    "R_global": (24, 3, 3),
    "body_pose": (23, 3),
    "betas": (10,),
    "transl": (3,),
    "K_crop": (3, 3),
    "crop_from_full": (3, 3),
    "R_crop_from_cam": (3, 3),
    "K": (3, 3),
    "image_hw": (2,),
    "box_xywh": (4,),
    "outfit": (19,),
    "fit": (20,),
    "looseness": (),
    "clearance": (),
    "kind": (),
    "visible": (),
}


class Scenes(NamedTuple):
    """A batch of scenes: clothed vertices (n, V, 3) in the crop frame, their normals (n, V, 3), the labels, and of
    garments with a shape of their own the fields (n, V, 14) that divide the surface among them."""

    vertices: np.ndarray
    normals: np.ndarray
    labels: dict[str, np.ndarray]
    fields: np.ndarray | None = None


class _Placed(NamedTuple):
    camera: Camera
    shift: np.ndarray
    crop: Crop
    visible: float


def make_scenes(
    body: BodyModel, poses: PoseBatch, rng: np.random.Generator, settings: SceneSettings | None = None
) -> Scenes:
    """Place one person a pose. Poses that find no acceptable place in a few tries are left out.

    Args:
        body: a model with 10 betas.
        poses: (n) body poses and global orientations in a y-up world.
        rng: source of all randomness.
        settings: what scenes look like.

    Returns:
        At most n scenes.
    """
    settings = settings or SceneSettings()
    n = len(poses.body_pose)
    betas = np.clip(rng.normal(0, 1.0, (n, 10)), -2.5, 2.5).astype(np.float32)
    easy = rng.random(n) < settings.easy
    R_cam_from_world = _camera_tilts(rng, n, easy)
    global_orient = R_cam_from_world @ poses.global_orient
    with torch.no_grad():
        out = body(
            betas=torch.from_numpy(betas),
            body_pose=torch.as_tensor(poses.body_pose, dtype=torch.float32),
            global_orient=torch.as_tensor(global_orient, dtype=torch.float32),
        )
        rest_joints = body.rest_joints(torch.from_numpy(betas)).numpy()
        local = matrix_from_aa(torch.as_tensor(poses.body_pose, dtype=torch.float64)).numpy()
    vertices, joints = out.vertices.numpy(), out.joints.numpy()
    R_global = _chain(global_orient, local, tuple(int(p) for p in body.parents))
    rest = body.v_template.detach().numpy()
    part = body.part_labels.numpy().astype(np.int64)
    faces = body.faces.numpy().astype(np.int32)
    atlas = body_atlas(body.rest_joints().numpy()[0], rest, body.landmarks)
    outfits = sample_outfits(rng, n)
    fits = np.zeros((n, *LABELS["fit"]), np.float32)
    looseness, clearance = painted_looseness(outfits)
    tailor = None if settings.garments == "painted" else _tailor(body)
    if tailor is not None:
        # From the numbers just drawn, not from `rng`: whatever people wear, the rest of the scenes stays as it is.
        outfits, fits = sample_garments(np.random.default_rng(zlib.crc32(outfits.tobytes())), n, settings.looseness)
        looseness = fits[:, 0]
        rest_vertices = body.rest_vertices(torch.from_numpy(betas)).detach().numpy()
    down = R_cam_from_world @ np.array([0.0, -1.0, 0.0])

    kept_vertices, kept_normals, kept_fields = [], [], []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in LABELS}
    for i in range(n):
        placed = _place(vertices[i], bool(easy[i]), rng, settings)
        if placed is None:
            continue
        R, crop = placed.crop.R_crop_from_cam, placed.crop
        verts_crop = ((vertices[i] + placed.shift) @ R.T).astype(np.float32)
        joints_crop = (joints[i] + placed.shift) @ R.T
        if tailor is None:
            clothed = inflate(verts_crop, vertex_normals(verts_crop, faces), part, rest, atlas, outfits[i])
        else:
            clothed, fields, clearance[i] = tailor.dress(
                betas[i], rest_vertices[i], rest_joints[i], verts_crop, joints_crop, R @ R_global[i], R @ down[i],
                outfits[i], fits[i],
            )  # fmt: skip
            kept_fields.append(fields)
        kept_vertices.append(clothed)
        kept_normals.append(vertex_normals(clothed, faces))
        values = {
            "joints": joints_crop,
            "rest_joints": rest_joints[i],
            "R_global": R @ R_global[i],
            "body_pose": poses.body_pose[i],
            "betas": betas[i],
            "transl": joints_crop[0] - rest_joints[i, 0],
            "K_crop": crop.K_crop,
            "crop_from_full": crop.crop_from_full,
            "R_crop_from_cam": R,
            "K": placed.camera.K,
            "image_hw": placed.camera.size_hw,
            "box_xywh": crop.box_xywh,
            "outfit": outfits[i],
            "fit": fits[i],
            "looseness": looseness[i],
            "clearance": clearance[i],
            "kind": poses.kind[i],
            "visible": placed.visible,
        }
        for name, value in values.items():
            columns[name].append(np.asarray(value, np.float32))
    labels = {
        name: np.stack(column) if column else np.zeros((0, *LABELS[name]), np.float32)
        for name, column in columns.items()
    }
    size = (len(kept_vertices), len(rest), 3)
    return Scenes(
        np.stack(kept_vertices) if kept_vertices else np.zeros(size, np.float32),
        np.stack(kept_normals) if kept_normals else np.zeros(size, np.float32),
        labels,
        None if tailor is None else np.stack(kept_fields) if kept_fields else np.zeros((0, len(rest), 14), np.float32),
    )


_tailors: WeakKeyDictionary[BodyModel, Tailor] = WeakKeyDictionary()


def _tailor(body: BodyModel) -> Tailor:
    """The tailor of a body, made when it is first asked for."""
    if body not in _tailors:
        _tailors[body] = Tailor(body)
    return _tailors[body]


def _camera_tilts(rng: np.random.Generator, n: int, easy: np.ndarray) -> np.ndarray:
    """(n, 3, 3) OpenCV camera from y-up world: half a turn about x, then pitch and roll of a hand-held camera."""
    pitch = np.where(easy, rng.normal(0, 0.1, n), np.where(rng.random(n) < 0.2, 0.5, 0.2) * rng.normal(0, 1, n))
    roll = np.where(easy, 0.03, 0.1) * rng.normal(0, 1, n)
    half_turn = np.diag([1.0, -1.0, -1.0])
    c, s, o, one = np.cos(pitch), np.sin(pitch), np.zeros(n), np.ones(n)
    R_pitch = np.stack([one, o, o, o, c, -s, o, s, c], -1).reshape(n, 3, 3)
    c, s = np.cos(roll), np.sin(roll)
    R_roll = np.stack([c, -s, o, s, c, o, o, o, one], -1).reshape(n, 3, 3)
    return R_roll @ R_pitch @ half_turn


def _chain(global_orient: np.ndarray, local: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """(n, 24, 3, 3) global rotations of the kinematic tree."""
    R = np.empty((len(local), 24, 3, 3))
    R[:, 0] = global_orient
    for j in range(1, 24):
        R[:, j] = R[:, parents[j]] @ local[:, j - 1]
    return R


def _place(
    vertices: np.ndarray, easy: bool, rng: np.random.Generator, settings: SceneSettings, tries: int = 8
) -> _Placed | None:
    """Draw cameras and places until enough of the person is in the frame; None when none of the tries will do."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    extent = float(np.linalg.norm(vertices.max(0) - vertices.min(0)))
    wanted = settings.min_visible if (not easy and rng.random() < settings.truncated) else 0.97
    low, high = np.deg2rad(settings.fov_deg)
    for _ in range(tries):
        long_side = 1000
        short_side = int(long_side * rng.choice([0.5625, 0.6667, 0.75, 1.0]))
        size_hw = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
        fov = rng.uniform(max(low, 0.6), min(high, 1.1)) if easy else rng.uniform(low, high)
        camera = Camera.from_focal(0.5 * long_side / np.tan(fov / 2), size_hw)
        share = np.exp(rng.uniform(np.log(0.2), np.log(0.95 if wanted > 0.9 else 1.7)))
        distance = max(camera.fx * extent / (share * short_side), 0.5 * extent + 0.35)
        spread = 0.15 if easy else 0.5
        target = np.array(size_hw[::-1]) * (0.5 + rng.uniform(-spread, spread, 2))
        ray = np.array([(target[0] - camera.cx) / camera.fx, (target[1] - camera.cy) / camera.fy, 1.0])
        shift = ray / np.linalg.norm(ray) * distance - centre
        points = vertices + shift
        if points[:, 2].min() < 0.2:
            continue
        px = camera.project(points)
        inside = ((px > 0) & (px < np.array(size_hw[::-1]))).all(1)
        visible = float(inside.mean())
        if visible < wanted:
            continue
        # A detector boxes what it sees, an annotator often the whole person: both occur.
        seen = px[inside] if rng.random() < 0.6 else np.clip(px, -0.2 * long_side, 1.2 * long_side)
        low_px, high_px = seen.min(0), seen.max(0)
        size = high_px - low_px
        middle = (low_px + high_px) / 2 + rng.normal(0, settings.box_jitter, 2) * size
        size = size * np.exp(rng.normal(0, settings.box_jitter, 2))
        box, crop_hw = np.concatenate([middle - size / 2, size]), (settings.crop_size,) * 2
        try:
            crop = make_crop(camera, box, crop_hw, margin=settings.room)
        except ValueError:
            continue  # a ray at the edge of a wide lens: the same refusal inference would make
        if not settings.perspective_rotation:  # only now, so that both ways refuse the same places
            crop = make_crop(camera, box, crop_hw, margin=settings.room, perspective_rotation=False)
        return _Placed(camera, shift, crop, visible)
    log.debug("no place found for a pose after %d tries", tries)
    return None
