"""Detectors' key points as lifters take them, and the missing ones."""

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.data.lifter_points import fill_missing, h36m_from_coco, repaired_legs, to_input_set

rng = np.random.default_rng(0)


def people(frames: int, joint_set: str) -> np.ndarray:
    points = rng.uniform(100, 900, (frames, len(skeletons.get(joint_set)), 3))
    points[..., 2] = 0.9
    return points


def test_limbs_keep_their_places_and_the_middle_line_lies_between():
    points = people(4, "coco-17")
    found, scores = h36m_from_coco(points[..., :2], points[..., 2])
    coco, h36m = skeletons.get("coco-17"), skeletons.get("h36m-17")
    for name in ("left_wrist", "right_knee", "left_hip", "right_ankle", "left_shoulder"):
        np.testing.assert_array_equal(found[:, h36m.index(name)], points[:, coco.index(name), :2])
    hips = points[:, [coco.index("left_hip"), coco.index("right_hip")], :2].mean(1)
    np.testing.assert_allclose(found[:, 0], hips)
    np.testing.assert_allclose(scores, 0.9)


@pytest.mark.parametrize("joint_set", ["coco-17", "openpose-25"])
def test_mirrored_people_give_mirrored_joints(joint_set):
    points = people(3, joint_set)
    mirrored = points[:, list(skeletons.get(joint_set).mirror)] * [-1, 1, 1]
    found = to_input_set(points, joint_set, "h36m-17")
    again = to_input_set(mirrored, joint_set, "h36m-17")[:, list(skeletons.get("h36m-17").mirror)] * [-1, 1, 1]
    np.testing.assert_allclose(again, found, atol=1e-9)


def test_what_is_guessed_from_a_missing_point_is_missing():
    points = people(2, "coco-17")
    points[0, skeletons.get("coco-17").index("left_hip"), 2] = 0
    scores = to_input_set(points, "coco-17", "h36m-17")[..., 2]
    missing = {skeletons.get("h36m-17").joints[j] for j in np.flatnonzero(scores[0] == 0)}
    assert missing == {"left_hip", "pelvis", "torso"} and (scores[1] > 0).all()


def test_other_sets_are_converted_by_name_or_refused():
    points = people(2, "h36m-17-left")
    found = to_input_set(points, "h36m-17-left", "h36m-17")
    np.testing.assert_array_equal(found[:, 4], points[:, 1])
    with pytest.raises(ValueError, match="'lsp-14' has no pelvis"):
        to_input_set(people(2, "lsp-14"), "lsp-14", "h36m-17")


def test_gaps_are_bridged_and_ends_repeated():
    points = people(6, "h36m-17")
    points[:, 3, 0] = [0, 10, 0, 0, 40, 0]
    points[[0, 2, 3, 5], 3, 2] = 0
    points[2, 3, 0] = np.nan
    filled = fill_missing(points)
    np.testing.assert_allclose(filled[:, 3, 0], [10, 10, 20, 30, 40, 40])
    np.testing.assert_array_equal(filled[:, 3, 2] > 0, [False, True, False, False, True, False])
    np.testing.assert_array_equal(filled[:, 4], points[:, 4])


def test_a_joint_never_seen_takes_the_middle_and_nothing_seen_is_an_error():
    points = people(3, "h36m-17")
    points[:, 9, 2] = 0
    filled = fill_missing(points)
    np.testing.assert_allclose(filled[:, 9, :2], np.delete(points, 9, 1)[..., :2].mean(1))
    points[..., 2] = 0
    with pytest.raises(ValueError, match="Give detections"):
        fill_missing(points)


def test_unsure_legs_collapse_upwards():
    points, scores = people(2, "h36m-17")[..., :2], np.ones((2, 17))
    scores[0, [3, 6]] = 0.1
    fixed = repaired_legs(points, scores)
    np.testing.assert_array_equal(fixed[0, [3, 6]], points[0, [2, 5]])
    np.testing.assert_array_equal(fixed[1], points[1])
