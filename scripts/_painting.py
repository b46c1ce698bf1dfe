"""Whole pictures of painted people for the scripts that make them: ground, wall and sky, shadows, clothes and light."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.synthetic.compose import paint_person
from bodyreg.data.synthetic.outfits import body_atlas, inflate
from bodyreg.data.synthetic.scenes import Scenes
from bodyreg.data.synthetic.shards import render_buffers
from renderers.backends.cpu import vertex_normals

SUPERSAMPLE = 2


class Stand(NamedTuple):
    """A person on the ground: outfit (19,), betas (10,), body_pose (23, 3) axis-angle, R_world (3, 3) turn of the root
    in a world with y up (at the identity the person faces +z), place (x, z) of the pelvis on the ground in metres."""

    outfit: np.ndarray
    betas: np.ndarray
    body_pose: np.ndarray
    R_world: np.ndarray
    place: tuple[float, float]


class Placed(NamedTuple):
    """A person before the camera: SMPL parameters in the camera frame (axis-angle, metres) and the clothed vertices
    (V, 3) there."""

    betas: np.ndarray
    body_pose: np.ndarray
    R_root: np.ndarray
    transl: np.ndarray
    clothed: np.ndarray


def R_cam_from_world(pitch: float) -> np.ndarray:
    """(3, 3) OpenCV camera looking along -z of a y-up world, turned down by `pitch` radians."""
    c, s = np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([1.0, -1.0, -1.0])


def place(body: BodyModel, person: Stand, R: np.ndarray, eye_height: float) -> Placed:
    """Stand a person on the ground before a camera with rotation R (3, 3) from the world, `eye_height` metres up."""
    R_root = R @ person.R_world
    pose = {"betas": person.betas[None], "body_pose": person.body_pose[None], "global_orient": R_root[None]}
    pose = {name: torch.as_tensor(np.asarray(value), dtype=torch.float32) for name, value in pose.items()}
    with torch.no_grad():
        out = body(**pose)
    vertices, pelvis = out.vertices[0].numpy().astype(np.float64), out.joints[0, 0].numpy().astype(np.float64)
    rest = body.v_template.numpy()
    faces, part = body.faces.numpy().astype(np.int32), body.part_labels.numpy().astype(np.int64)
    atlas = body_atlas(body.rest_joints().numpy()[0], rest, body.landmarks)
    normals = vertex_normals(vertices.astype(np.float32), faces)
    clothed = inflate(vertices.astype(np.float32), normals, part, rest, atlas, person.outfit)
    lowest = (clothed @ R)[:, 1].min()
    shift = np.array([person.place[0], 0, person.place[1]]) - pelvis @ R
    shift[1] = -lowest - eye_height
    transl = R @ shift
    return Placed(person.betas, person.body_pose, R_root, transl, (clothed + transl).astype(np.float32))


def paint(
    picture: np.ndarray, body: BodyModel, people: list[Placed], outfits: list[np.ndarray], camera: Camera,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Draw people, the farthest first, over a picture (H, W, 3) uint8; all in the light of the first drawn."""
    h, w = camera.size_hw
    side = max(h, w)
    K = np.diag([SUPERSAMPLE, SUPERSAMPLE, 1.0]) @ camera.K
    faces, rest = body.faces.numpy(), body.v_template.numpy()
    order = sorted(range(len(people)), key=lambda i: -float(people[i].transl[2]))
    vertices = np.stack([people[i].clothed for i in order])
    normals = np.stack([vertex_normals(v, faces.astype(np.int32)) for v in vertices])
    labels = {"K_crop": np.stack([K] * len(order)).astype(np.float32),
              "outfit": np.stack([outfits[i] for i in order])}  # fmt: skip
    shard = render_buffers(
        Scenes(vertices, normals, labels), faces, rest, body.part_labels.numpy(), SUPERSAMPLE * side
    )
    atlas = body_atlas(body.rest_joints().numpy()[0], rest, body.landmarks)
    canvas = np.zeros((side, side, 3), np.float32)
    canvas[:h, :w] = picture
    light = None
    for i in range(len(order)):
        light = paint_person(canvas, shard, i, rng, atlas, like=light)
    return np.clip(canvas[:h, :w], 0, 255).astype(np.uint8)


def surroundings(
    rng: np.random.Generator, camera: Camera, R: np.ndarray, eye_height: float, wall: float
) -> np.ndarray:
    """(H, W, 3) uint8: tiled or plain ground, a wall `wall` metres away with doors and posters, sky above it."""
    h, w = camera.size_hw
    y, x = np.mgrid[0:h, 0:w] + 0.5
    rays = camera.unproject(np.stack([x, y], -1)) @ R  # rows are R^T r: world directions
    down = np.minimum(rays[..., 1], -1e-6)
    on_ground = rays * (eye_height / -down)[..., None]
    on_wall = rays * (wall / np.maximum(-rays[..., 2], 1e-6))[..., None]
    is_ground = (rays[..., 1] < 0) & (-on_ground[..., 2] < wall)
    up = on_wall[..., 1] + eye_height  # height above the ground
    top = rng.uniform(3.2, 5.0)
    sky = np.array([165, 195, 230.0]) * (1.05 - 0.25 * np.clip(rays[..., 1], 0, 1))[..., None]
    wall_colour = rng.uniform(130, 200) * rng.normal(1, 0.04, 3)
    ground_colour = rng.uniform(80, 150) * rng.normal(1, 0.05, 3)
    out = np.where((up < top)[..., None], wall_colour, sky)
    seam = ((up % 0.33) < 0.02) | (((on_wall[..., 0] + 0.5 * (np.floor(up / 0.33) % 2)) % 0.9) < 0.02)
    out = np.where(((up < top) & seam)[..., None], out * 0.88, out)
    for _ in range(5):
        left, low = rng.uniform(-1.6, 1.6) * wall, rng.choice([0.0, 0.9])
        right, high = left + rng.uniform(0.7, 1.6), low + rng.uniform(0.9, 2.0)
        panel = (on_wall[..., 0] > left) & (on_wall[..., 0] < right) & (up > low) & (up < min(high, top))
        out = np.where(panel[..., None], np.clip(rng.uniform(40, 180) + rng.normal(0, 22, 3), 0, 255), out)
    size = rng.uniform(0.5, 1.0)
    tile = (np.floor(on_ground[..., 0] / size) + np.floor(on_ground[..., 2] / size)) % 2
    ground = ground_colour * (1 - rng.uniform(0.06, 0.2) * tile)[..., None]
    out = np.where(is_ground[..., None], ground, out)
    grain = cv2.resize(rng.normal(0, 1, (h // 3, w // 3)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    blotch = cv2.resize(rng.normal(0, 1, (9, 12)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    out = out * (1 + 0.03 * grain + 0.05 * blotch)[..., None]
    return np.clip(cv2.GaussianBlur(out, (0, 0), 0.8), 0, 255).astype(np.uint8)


def shadows(
    picture: np.ndarray, body: BodyModel, people: list[Placed], camera: Camera, R: np.ndarray, eye_height: float,
    sun: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """Soft shadows on the ground; `sun` is how far (x, z) the shadow of one metre of height falls, metres."""
    shade = np.zeros(camera.size_hw, np.uint8)
    faces = body.faces.numpy()
    for person in people:
        world = person.clothed.astype(np.float64) @ R
        above = world[:, 1] + eye_height
        world[:, 0] += above * sun[0]
        world[:, 2] += above * sun[1]
        world[:, 1] = -eye_height
        px = camera.project(world @ R.T)
        seen = np.isfinite(px[faces]).all((1, 2))
        for triangle in (px[faces[seen]] * 16).astype(np.int32):
            cv2.fillConvexPoly(shade, triangle, 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(shade.astype(np.float32) / 255, (0, 0), 4)
    return np.clip(picture * (1 - 0.45 * soft[..., None]), 0, 255).astype(np.uint8)
