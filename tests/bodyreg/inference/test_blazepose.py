"""People and key points found by BlazePose, against the truth of the drawn demonstration scenes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.data.folder import read_image
from bodyreg.inference import blazepose
from bodyreg.inference.detect import overlap
from bodyreg.inference.people import find_people
from bodyreg.inference.pictures import read_inputs

PHOTOS = Path(__file__).resolve().parents[3] / "scripts" / "demo_photos"
BOXES = json.loads((PHOTOS / "boxes.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def two_people():
    return read_image(PHOTOS / "two_people.jpg").rgb


@pytest.fixture(scope="module")
def found(two_people):
    return blazepose.find(two_people, 0.5)


def test_everyone_is_found_once_and_boxed(found):
    boxes = np.array(BOXES["two_people.jpg"])
    assert len(found) == 2
    for person in found:
        assert overlap(person.box_xywh, boxes)[0].max() > 0.75 and person.score > 0.9


def test_key_points_lie_where_the_joints_are(found):
    scene = json.loads((PHOTOS / "scenes_truth.json").read_text(encoding="utf-8"))["two_people.jpg"]
    body, K = BodyModel.load("free"), np.array(scene["K"])
    names = ("left_elbow", "right_elbow", "left_knee", "right_knee", "left_ankle", "right_ankle")
    own, theirs = ([skeletons.get(one).index(name) for name in names] for one in ("smpl-24", "coco-17"))
    for truth in scene["people"]:
        arrays = [np.asarray(truth[key], np.float32)[None] for key in ("betas", "body_pose", "global_orient", "transl")]
        joints = body(arrays[0], arrays[1].reshape(1, 23, 3), arrays[2], arrays[3]).joints[0].numpy() @ K.T
        pixels = joints[own, :2] / joints[own, 2:]
        x, y, w, h = truth["box_xywh"]
        person = max(found, key=lambda one: overlap(one.box_xywh, np.array([[x, y, w, h]]))[0][0])
        apart = np.linalg.norm(person.keypoints.points[theirs, :2] - pixels, axis=1)
        assert np.median(apart) < 0.05 * max(w, h)


def test_a_person_lying_on_the_side_is_found_and_stood_upright(two_people):
    x, y, w, h = (int(v) for v in BOXES["two_people.jpg"][0])
    square = two_people[y - 20 : y + h + 20, x - 100 : x - 60 + h]
    turned = np.ascontiguousarray(np.rot90(square))
    (person,) = blazepose.find(turned, 0.5)
    head, ankles = person.keypoints.points[0, :2], person.keypoints.points[15:17, :2].mean(0)
    assert ankles[0] - head[0] > 0.6 * max(turned.shape[:2])  # feet to the right of the head


def test_results_do_not_depend_on_the_thread(two_people, found):
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(blazepose.find, two_people, 0.5).result()
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.keypoints.points, other.keypoints.points)


def test_small_people_are_found_where_nobody_is_large(two_people):
    wide = np.full((1440, 1920, 3), 120, np.uint8)
    wide[900:1260, 700:1180] = cv2.resize(two_people, (480, 360), interpolation=cv2.INTER_AREA)
    boxes = np.array(BOXES["two_people.jpg"]) / 2 + [700, 900, 0, 0]
    people = blazepose.find(wide, 0.5)
    assert all(overlap(box, np.stack([person.box_xywh for person in people]))[0].max() > 0.6 for box in boxes)


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 500), (500, 3), (225, 225)])
def test_pictures_of_any_shape_are_searched(size_hw):
    assert blazepose.find(np.zeros((*size_hw, 3), np.uint8), 0.5) == []


def test_auto_finds_people_with_key_points(two_people):
    people = find_people(two_people)
    assert [person.how for person in people] == ["pose", "pose"]
    assert all(person.keypoints is not None and person.keypoints.joint_set == "coco-17" for person in people)


def test_a_network_of_ones_own_must_be_named():
    with pytest.raises(ValueError, match="train_detector"):
        read_inputs(people="net")
