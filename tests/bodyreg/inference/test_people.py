"""People: the detector on a drawn pedestrian, its modes, given boxes and key points, refinement."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from bodyreg.data.inputs import Keypoints
from bodyreg.inference.people import find_people, given_people, refine_box, refined, whole_picture

PEDESTRIAN = (430.0, 150.0, 110.0, 330.0)


def scene(*, person: bool = True, shift: int = 0) -> np.ndarray:
    """(600, 800, 3): a standing figure, right of the middle, before a plain wall with a shaded floor."""
    rgb = np.full((600, 800, 3), 190, np.uint8)
    rgb[440:] = 150
    if person:
        x0, y0, w, h = PEDESTRIAN
        x0 += shift

        def at(u: float, v: float) -> tuple[int, int]:
            return round(x0 + u * w), round(y0 + v * h)

        cv2.ellipse(rgb, at(0.5, 0.08), (round(0.14 * w), round(0.075 * h)), 0, 0, 360, (90, 60, 50), -1)
        cv2.fillPoly(rgb, [np.array([at(0.2, 0.19), at(0.8, 0.19), at(0.72, 0.52), at(0.28, 0.52)])], (40, 50, 110))
        for side in (0, 1):
            mirror = [lambda u: u, lambda u: 1 - u][side]
            cv2.line(rgb, at(mirror(0.2), 0.22), at(mirror(0.1), 0.52), (45, 55, 115), round(0.13 * w))
            cv2.line(rgb, at(mirror(0.37), 0.5), at(mirror(0.3), 0.96), (40, 40, 45), round(0.2 * w))
    return cv2.GaussianBlur(rgb, (5, 5), 0)


def iou(a, b) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(np.add(a[:2], a[2:]), np.add(b[:2], b[2:]))
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / (a[2] * a[3] + b[2] * b[3] - shared))


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_detector_finds_a_standing_figure_and_takes_its_margins_off(scale):
    rgb = cv2.resize(scene(), None, fx=scale, fy=scale)
    (person,) = find_people(rgb, "hog")
    assert person.how == "hog" and person.score > 0.75
    assert iou(person.box_xywh / scale, np.array(PEDESTRIAN)) > 0.6


def test_a_figure_at_the_border_is_found():
    people = find_people(scene(shift=240), "hog")
    assert len(people) == 1 and abs(people[0].box_xywh[:2] + people[0].box_xywh[2:] / 2 - [725, 315]).max() < 30


def test_nobody_found():
    assert find_people(scene(person=False), "hog") == []
    people = find_people(scene(person=False), "auto")
    assert [person.how for person in people] == ["whole"]
    np.testing.assert_array_equal(people[0].box_xywh, [0, 0, 800, 600])


def test_whole_looks_for_nobody():
    assert [person.how for person in find_people(scene(), "whole")] == ["whole"]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (900, 2), (40, 30)])
def test_tiny_and_thin_pictures_pass_through_the_detector(size):
    assert find_people(np.zeros((*size, 3), np.uint8), "hog") == []


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="Choose one of"):
        find_people(scene(), "best")
    for bad in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="Give"):
            find_people(bad)


def test_given_boxes_are_sorted_and_bad_ones_get_a_reason():
    boxes = [
        np.array(b, float)
        for b in ([10, 10, 20, 20], [0, 0, 90, 90], [math.nan, 0, 5, 5], [200, 0, 9, 9], [5, 5, 0, 9])
    ]
    people, reasons = given_people((100, 100), boxes)
    assert [person.box_xywh[2] for person in people] == [90, 20]
    assert {person.how for person in people} == {"box"}
    assert [word in reason for word, reason in zip(("NaN", "outside", "degenerate"), reasons, strict=True)] == [
        True
    ] * 3


def test_given_keypoints_make_boxes_and_stay_with_the_person():
    points = np.zeros((25, 3))
    points[:3] = [[10, 20, 0.9], [30, 60, 0.8], [20, 40, 0.7]]
    people, reasons = given_people(
        (100, 100), keypoints=[Keypoints(points, "openpose-25"), Keypoints(0 * points, "openpose-25")]
    )
    np.testing.assert_allclose(people[0].box_xywh, [8, 16, 24, 48])
    assert people[0].how == "keypoints" and people[0].score == pytest.approx(0.8)
    assert people[0].keypoints.joint_set == "openpose-25"
    assert len(reasons) == 1 and "fewer than three" in reasons[0]


def test_refined_box_holds_the_joints_and_says_so():
    joints = np.array([[100.0, 50], [160, 250], [130, 150]])
    np.testing.assert_allclose(refine_box(joints, (400, 400), 1.2), [94, 30, 72, 240])
    person = refined(whole_picture((400, 400)), joints, (400, 400), 1.0)
    np.testing.assert_allclose(person.box_xywh, [100, 50, 60, 200])
    assert person.how == "whole+refined"


def test_refinement_keeps_the_old_box_where_the_joints_are_of_no_use():
    person = whole_picture((400, 400))
    for joints in (
        np.full((24, 2), np.nan),
        np.full((24, 2), 7.0),
        np.array([[900.0, 900], [950, 990]]),
        np.zeros((0, 2)),
    ):
        assert refined(person, joints, (400, 400)) is person


def test_refined_box_does_not_run_away():
    box = refine_box(np.array([[-5000.0, 10], [5000, 390]]), (400, 800))
    np.testing.assert_allclose(box[[0, 2]], [-200, 1200])
