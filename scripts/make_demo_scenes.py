"""Draw the rendered scenes among the demonstration photographs: `python scripts/make_demo_scenes.py [--out FOLDER]`.

Four pictures of painted free bodies, each with what photographs make hard: people at the edge of wide lenses, two
people at different distances, a camera held upright whose pixels lie on their side (EXIF orientation 6), a focal length
that only the file name tells. Beside them goes `scenes_truth.json`: cameras, boxes and SMPL parameters as drawn. Boxes
go into `boxes.json`, where those of other pictures are kept.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _painting import R_cam_from_world, Stand, paint, place, shadows, surroundings
from PIL import Image

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.synthetic.arm_poses import sample_arms
from bodyreg.data.synthetic.leg_poses import sample_lower_bodies
from bodyreg.data.synthetic.outfits import sample_outfits
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.rotations import aa_from_matrix

OUT = Path(__file__).resolve().parent / "demo_photos"
_ARMS = [[12, 15, 17, 19, 21], [13, 16, 18, 20, 22]]  # collar, shoulder, elbow, wrist, hand; index into the 23 joints
_LEGS = [[0, 3, 6, 9], [1, 4, 7, 10]]  # hip, knee, ankle, foot
_SPINE = [2, 5, 8]
_JPEG_QUALITY = 88


class Figure(NamedTuple):
    """legs and arms: names of pose styles; yaw: degrees, 0 faces the camera's side; place: (x, z) metres."""

    legs: str
    arms: str
    yaw: float
    place: tuple[float, float]
    seed: int


class SceneRecipe(NamedTuple):
    """size_hw: of the upright picture; f35: 35 mm-equivalent focal length; pitch: degrees downwards; height of the eye
    and distance of the wall in metres; exif: whether the file states the focal length; orientation: EXIF tag."""

    name: str
    size_hw: tuple[int, int]
    f35: int
    pitch: float
    eye: float
    wall: float
    seed: int
    figures: tuple[Figure, ...]
    exif: bool = True
    orientation: int = 1


SCENES = (
    SceneRecipe(
        "wide_left.jpg", (720, 960), 20, 5.0, 1.5, 7.0, 21,
        (Figure("standing", "up", 20, (-1.42, -2.3), 211),),
    ),
    SceneRecipe(
        "wide_right_18_f35.jpg", (720, 960), 18, 8.0, 1.6, 9.0, 22,
        (Figure("stride", "slanting", -50, (1.5, -2.15), 222),), exif=False,
    ),
    SceneRecipe(
        "two_people.jpg", (720, 960), 21, 6.0, 1.55, 8.0, 33,
        (Figure("standing", "akimbo", 25, (-1.05, -2.2), 331), Figure("lunge", "out", -35, (1.35, -2.8), 332)),
    ),
    SceneRecipe(
        "upright_phone.jpg", (960, 720), 20, 12.0, 1.7, 6.0, 34,
        (Figure("standing", "waving", -10, (0.6, -2.3), 341),), orientation=6,
    ),
)  # fmt: skip


def _stand(figure: Figure) -> Stand:
    rng = np.random.default_rng(figure.seed)
    body = PoseSampler(weights={"easy": 1.0}, tilt_std=0.0, fallen=0.0).sample(1, rng).body_pose[0]
    lower = sample_lower_bodies(1, rng, style=figure.legs)
    body[_LEGS] = lower.legs[0]
    body[_SPINE, 0] += lower.spine_bend[0] * np.array([0.45, 0.35, 0.20], np.float32)
    body[_ARMS] = sample_arms(1, rng, style=figure.arms)[0]
    c, s = np.cos(np.radians(figure.yaw)), np.sin(np.radians(figure.yaw))
    R_world = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ lower.R_pelvis[0]
    betas = rng.normal(0, 0.8, 10).clip(-1.5, 1.5)
    return Stand(sample_outfits(rng, 1)[0], betas, body, R_world, figure.place)


def draw(recipe: SceneRecipe, body: BodyModel) -> tuple[np.ndarray, dict[str, Any]]:
    """The upright picture (H, W, 3) uint8 RGB and its truth."""
    rng = np.random.default_rng(recipe.seed)
    camera = Camera.from_f35(recipe.f35, recipe.size_hw)
    R = R_cam_from_world(np.radians(recipe.pitch))
    stands = [_stand(figure) for figure in recipe.figures]
    people = [place(body, stand, R, recipe.eye) for stand in stands]
    picture = surroundings(rng, camera, R, recipe.eye, recipe.wall)
    picture = shadows(picture, body, people, camera, R, recipe.eye, tuple(rng.uniform(-0.7, 0.7, 2)))
    picture = paint(picture, body, people, [stand.outfit for stand in stands], camera, rng)
    truth = []
    for person in people:
        px = camera.project(person.clothed)
        low, high = np.nanmin(px, 0).clip(0), np.minimum(np.nanmax(px, 0), recipe.size_hw[::-1])
        R_root = aa_from_matrix(torch.from_numpy(person.R_root))
        truth.append({
            "box_xywh": [round(float(v), 1) for v in (*low, *(high - low))],
            "betas": _rounded(person.betas), "body_pose": _rounded(person.body_pose.reshape(69)),
            "global_orient": _rounded(R_root), "transl": _rounded(person.transl),
        })  # fmt: skip
    return picture, {
        "image_hw": list(recipe.size_hw), "K": camera.K.tolist(), "body_name": "free", "gender": "neutral",
        "frame": "OpenCV camera frame of the upright picture", "units": "metres, radians, pixels", "people": truth,
    }  # fmt: skip


def encode(picture: np.ndarray, recipe: SceneRecipe) -> bytes:
    """The JPEG file, its pixels laid down as the orientation tag says."""
    stored = np.rot90(picture) if recipe.orientation == 6 else picture
    exif = Image.Exif()
    if recipe.orientation != 1:
        exif[0x0112] = recipe.orientation
    if recipe.exif:
        exif.get_ifd(0x8769)[0xA405] = recipe.f35
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(
        stream, "JPEG", quality=_JPEG_QUALITY, optimize=True, exif=exif
    )
    return stream.getvalue()


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 6) for v in np.asarray(values).ravel()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the rendered demonstration scenes.")
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    body = BodyModel.load("free")
    boxes_file = out / "boxes.json"
    boxes = json.loads(boxes_file.read_text()) if boxes_file.exists() else {}
    truth = {}
    for recipe in SCENES:
        picture, truth[recipe.name] = draw(recipe, body)
        data = encode(picture, recipe)
        (out / recipe.name).write_bytes(data)
        boxes[recipe.name] = [person["box_xywh"] for person in truth[recipe.name]["people"]]
        print(f"{recipe.name}: {len(data) / 1000:.0f} kB, boxes {boxes[recipe.name]}")
    rows = ",\n".join(f'  "{name}": {json.dumps(rows)}' for name, rows in sorted(boxes.items()))
    boxes_file.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
    (out / "scenes_truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
