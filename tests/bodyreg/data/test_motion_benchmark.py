"""The motion benchmark: what its cameras see, its noise, its two sides, and the same again from the same motion."""

from __future__ import annotations

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.data.lifter_sets import read_lifter_set
from bodyreg.data.motion import split_clips
from bodyreg.data.motion_benchmark import NOISE, detector_noise, prepare_motion, rig
from bodyreg.evaluation.lifters import score_lifter_set
from bodyreg.files import safe_load_object_npz
from bodyreg.lifter_weights import LoadedLifter
from bodyreg.models.lifters.registry import LifterSettings, build_lifter

NAMES = [f"{i:03d}_01" for i in range(12)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of few, short clips, some of them on either side."""
    root, out = tmp_path_factory.mktemp("motion"), tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    train, test = split_clips(NAMES, 0.3)
    for name in (*train[:2], *test[:1]):
        poses = np.zeros((9, 72), np.float32)
        poses[:, 0] = np.pi / 2  # upright in a world whose z is up
        poses[:, 3:] = 0.2 * rng.normal(size=69)
        trans = np.outer(np.arange(9), [0.1, 0, 0]).astype(np.float32)
        np.savez(root / f"{name}_poses.npz", poses=poses, trans=trans, betas=np.zeros(10), gender="neutral",
                 mocap_framerate=60.0)  # fmt: skip
    return root, prepare_motion(root, out, body=BodyModel.load("free"), cameras=2, held_out=0.3), train[:2], test[:1]


def test_train_and_test_clips_are_apart(made):
    _, paths, train, test = made
    about = read_lifter_set(paths["gt"]).about
    assert about.train == train and about.test == test and about.fps == 30
    assert about.protocol == "motion-lift-17" and NOISE in read_lifter_set(paths["noisy"]).about.note


def test_every_person_is_upright_and_in_view(made):
    prepared = read_lifter_set(made[1]["gt"])
    names = skeletons.get("h36m-17")
    for sequence in prepared.sequences([*made[2], *made[3]]):
        assert len(sequence) == 5  # 60 pictures a second became 30
        assert np.abs(sequence.keypoints).max() < 1
        head, foot = sequence.joints[:, names.index("head")], sequence.joints[:, names.index("left_ankle")]
        assert (foot[:, 1] - head[:, 1] > 1.0).all()  # y points down
        assert (sequence.joints[:, 0, 2] > 2).all()


def test_the_joints_project_to_the_exact_key_points(made):
    prepared = read_lifter_set(made[1]["gt"])
    for (clip, action, index), points in prepared.keypoints.items():
        camera = prepared.cameras[clip][index]
        seen = camera.pixels(camera.camera_from_world(prepared.joints[clip, action]))
        np.testing.assert_allclose(seen, points, atol=1e-2)


def test_videopose_files_hold_the_same(made):
    _, paths, train, _ = made
    joints = safe_load_object_npz(paths["3d"])["positions_3d"]
    points = safe_load_object_npz(paths["2d_noisy"])["positions_2d"]
    prepared, action = read_lifter_set(paths["noisy"]), train[0].split("_")[0]
    np.testing.assert_array_equal(joints[train[0]][action], prepared.joints[train[0], action])
    np.testing.assert_array_equal(points[train[0]][action][1], prepared.keypoints[train[0], action, 1])


def test_noise_is_as_large_as_stated_and_lasts():
    points = np.zeros((4000, 17, 2))
    points[:, 3, 1] = 400.0  # the person is 400 pixels tall
    errors = detector_noise(points, np.random.default_rng(0)) / 400
    names = skeletons.get("h36m-17")
    # Every hundredth error is five times as large: the variance is 0.99 + 0.25 of the stated one.
    expected = 0.016 * np.sqrt(0.99 + 0.01 * 25)
    assert errors[:, names.index("left_wrist")].std() == pytest.approx(expected, rel=0.1)
    assert errors[:, 0].std() == pytest.approx(expected * 0.006 / 0.016, rel=0.1)
    x = errors[:, 0, 0]
    assert 0.2 < np.corrcoef(x[1:], x[:-1])[0, 1] < 0.5


def test_the_same_motion_makes_the_same_set(made, tmp_path):
    root, paths, *_ = made
    again = prepare_motion(root, tmp_path, body=BodyModel.load("free"), cameras=2, held_out=0.3)
    first, second = (read_lifter_set(p["noisy"]).keypoints for p in (paths, again))
    for key, points in first.items():
        np.testing.assert_array_equal(points, second[key])


def test_cameras_stand_apart_and_see_all_of_a_long_walk():
    joints = np.zeros((50, 17, 3))
    joints[..., 0] = np.linspace(-4, 4, 50)[:, None]
    joints[..., 2] = np.linspace(0, 1.8, 17)
    cameras = rig(joints, 4, np.random.default_rng(0))
    places = np.stack([camera.centre for camera in cameras])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]) > 3
    for camera in cameras:
        assert 0 < camera.pixels(camera.camera_from_world(joints)).min() < 1000


def test_a_lifter_is_scored_on_it(made):
    settings = LifterSettings("videopose3d", "small", options={"channels": 8})
    loaded = LoadedLifter(build_lifter(settings).eval(), settings, "0" * 64, {})
    result = score_lifter_set(loaded, made[1]["noisy"])
    assert result.protocol.name == "motion-lift-17" and result.samples == 10
    assert set(result.errors) == {"MPJPE", "PA-MPJPE", "N-MPJPE", "MPJVE"} and result.errors["MPJPE"] > 0.1
    assert result.errors["PA-MPJPE"] < result.errors["MPJPE"]
    other = LifterSettings("videopose3d", "small", "coco-17", options={"channels": 8})
    with pytest.raises(ValueError, match="same joint sets"):
        score_lifter_set(LoadedLifter(build_lifter(other).eval(), other, "", {}), made[1]["noisy"])


def test_what_makes_no_benchmark(made, tmp_path):
    with pytest.raises(ValueError, match="Give one to four"):
        prepare_motion(made[0], tmp_path, body=BodyModel.load("free"), cameras=5)
    with pytest.raises(ValueError, match="another held-out share"):
        prepare_motion(made[0], tmp_path, body=BodyModel.load("free"), held_out=0.0)
