"""The demonstration photographs: licences stated, boxes and truth that fit them, and a script that draws the scenes."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera, resolve_camera
from bodyreg.data.folder import list_images, read_image
from bodyreg.data.inputs import check_box, read_boxes
from renderers.shading import silhouette

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PHOTOS = SCRIPTS / "demo_photos"
TRUTH = json.loads((PHOTOS / "scenes_truth.json").read_text())


@pytest.fixture(scope="module")
def body():
    return BodyModel.load("free")


@pytest.fixture(scope="module")
def scenes():
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("make_demo_scenes", SCRIPTS / "make_demo_scenes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPTS))


def camera_of(photo):
    return resolve_camera(photo.rgb.shape[:2], exif_f35=photo.exif_f35, name=photo.path.name)


def posed(body, person):
    values = {k: torch.tensor([person[k]], dtype=torch.float32)
              for k in ("betas", "body_pose", "global_orient", "transl")}  # fmt: skip
    with torch.no_grad():
        return body(**values).vertices[0].numpy()


def test_every_picture_has_a_licence_and_boxes_inside_it():
    boxes = read_boxes(PHOTOS / "boxes.json")
    licences = (PHOTOS / "LICENSES.md").read_text()
    files = list_images(PHOTOS)
    assert {path.name for path in files} == set(boxes) and set(TRUTH) < set(boxes)
    for path in files:
        assert f"`{path.name}`" in licences and path.stat().st_size < 150_000
        size_hw = read_image(path).rgb.shape[:2]
        for box in boxes[path.name]:
            assert check_box(box, size_hw) is None
            assert box[:2].min() >= 0 and (box[:2] + box[2:] <= size_hw[::-1]).all()


@pytest.mark.parametrize("name", TRUTH)
def test_file_alone_tells_the_camera(name):
    photo = read_image(PHOTOS / name)
    camera = camera_of(photo)
    assert list(camera.size_hw) == TRUTH[name]["image_hw"]
    np.testing.assert_allclose(camera.K, TRUTH[name]["K"], atol=1e-9)
    assert 78 < np.degrees(2 * np.arctan(0.5 * max(camera.size_hw) / camera.fx)) <= 90


def test_scenes_hold_the_hard_cases():
    orientations = {name: read_image(PHOTOS / name).orientation for name in TRUTH}
    assert sorted(orientations.values()) == [1, 1, 1, 6]
    assert max(len(scene["people"]) for scene in TRUTH.values()) == 2
    assert {camera_of(read_image(PHOTOS / n)).focal_source for n in TRUTH} == {"exif", "file_name"}
    off_centre = [abs(p["box_xywh"][0] + p["box_xywh"][2] / 2 - scene["image_hw"][1] / 2) / scene["image_hw"][1]
                  for scene in TRUTH.values() for p in scene["people"]]  # fmt: skip
    assert sum(share > 0.3 for share in off_centre) >= 2 and sum(share > 0.2 for share in off_centre) == 5


@pytest.mark.parametrize("name", TRUTH)
def test_true_bodies_lie_on_the_people(name, body):
    """Boxes were made from the clothed body, which lies at most 5 cm outside the skin."""
    photo, scene = read_image(PHOTOS / name), TRUTH[name]
    K = np.array(scene["K"])
    for person in scene["people"]:
        vertices = posed(body, person)
        px = camera_of(photo).project(vertices)
        x, y, w, h = person["box_xywh"]
        cloth = 0.05 * K[0, 0] / vertices[:, 2].min()
        low, high = px.min(0), px.max(0)
        assert (low >= np.array([x, y]) - 0.5).all() and (low <= np.array([x, y]) + cloth).all()
        assert (high <= np.array([x + w, y + h]) + 0.5).all() and (high >= np.array([x + w, y + h]) - cloth).all()


@pytest.mark.parametrize("name", TRUTH)
def test_script_draws_the_pictures_that_are_here(name, scenes, body):
    recipe = next(r for r in scenes.SCENES if r.name == name)
    picture, truth = scenes.draw(recipe, body)
    data = scenes.encode(picture, recipe)
    here = read_image(PHOTOS / name).rgb.astype(float)
    fresh = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), float)
    assert np.abs(fresh - here).mean() < 1.0  # rounding may differ between machines, people may not
    for ours, theirs in zip(truth["people"], TRUTH[name]["people"], strict=True):
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], atol=2e-3 if key != "box_xywh" else 0.5)


def test_people_are_painted_where_the_camera_sees_them(scenes, body):
    import _painting

    recipe = scenes.SCENES[2]._replace(size_hw=(180, 240))
    camera = Camera.from_f35(recipe.f35, recipe.size_hw)
    R = _painting.R_cam_from_world(np.radians(recipe.pitch))
    stands = [scenes._stand(figure) for figure in recipe.figures]
    people = [_painting.place(body, stand, R, recipe.eye) for stand in stands]
    grey = np.full((180, 240, 3), 128, np.uint8)
    outfits = [stand.outfit for stand in stands]
    picture = _painting.paint(grey, body, people, outfits, camera, np.random.default_rng(0))
    drawn = (picture.astype(int) != 128).any(2)
    seen = silhouette([p.clothed for p in people], body.faces.numpy(), camera.K, camera.size_hw)
    assert (seen & ~drawn).sum() == 0  # what a pixel's centre sees is drawn
    near = cv2.dilate(seen.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (drawn & ~near).sum() == 0  # and beyond that only pixels that the outline cuts
    ground = [(p.clothed.astype(float) @ R)[:, 1].min() for p in people]
    np.testing.assert_allclose(ground, -recipe.eye, atol=1e-4)  # they stand on the ground
