"""Scenes: one camera chain from body to picture, the person where the frame says, and settings that are kept."""

import numpy as np
import pytest
import torch

from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import LABELS, SceneSettings, make_scenes


@pytest.fixture(scope="module")
def labels(people):
    return people.scenes.labels


def project(points, K):
    return points[..., :2] / points[..., 2:] * K[:, None, [0, 1], [0, 1]] + K[:, None, :2, 2]


def test_labels_have_the_shapes_they_are_said_to_have(people, labels):
    n = len(people.scenes.vertices)
    assert n > 15 and {name: value.shape for name, value in labels.items()} == {k: (n, *s) for k, s in LABELS.items()}
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in labels.values())


def test_crop_camera_and_picture_agree(labels):
    """Into the crop directly, or through the photograph's camera and the crop's homography: the same pixel."""
    J, R = labels["joints"], labels["R_crop_from_cam"]
    in_crop = project(J, labels["K_crop"])
    in_picture = project(J @ R, labels["K"])  # rows times R: the inverse rotation
    there = np.concatenate([in_picture, np.ones_like(in_picture[..., :1])], -1).astype(np.float64)
    back = np.einsum("nij,nkj->nki", labels["crop_from_full"].astype(np.float64), there)
    assert np.abs(back[..., :2] / back[..., 2:] - in_crop).max() < 2e-3
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.tile(np.eye(3), (len(R), 1, 1)), atol=1e-6)


def test_person_is_in_the_middle_of_the_crop_with_square_pixels(labels):
    K = labels["K_crop"]
    assert np.abs(K[:, :2, 2] - 48).max() < 1e-4 and np.abs(K[:, 0, 0] - K[:, 1, 1]).max() < 1e-3
    seen = project(labels["joints"], K)
    assert (np.abs(np.median(seen, 1) - 48) < 30).all()


def test_parameters_pose_the_body_onto_the_joints(free_body, labels):
    """Forward kinematics of the stored pose parameters reaches the stored joints, to a thousandth of a millimetre."""
    get = {name: torch.from_numpy(value) for name, value in labels.items()}
    out = free_body(get["betas"], get["body_pose"], get["R_global"][:, 0], get["transl"])
    assert (out.joints - get["joints"]).abs().max() < 1e-5
    assert (free_body.rest_joints(get["betas"]) - get["rest_joints"]).abs().max() < 1e-6


def test_visible_share_is_what_the_frame_shows(free_body, people, labels):
    get = {name: torch.from_numpy(value) for name, value in labels.items()}
    out = free_body(get["betas"], get["body_pose"], get["R_global"][:, 0], get["transl"]).vertices.numpy()
    px = project(out @ labels["R_crop_from_cam"], labels["K"])
    inside = ((px > 0) & (px < labels["image_hw"][:, None, ::-1])).all(-1).mean(1)
    np.testing.assert_allclose(inside, labels["visible"], atol=2e-3)
    assert labels["visible"].min() >= SceneSettings().min_visible


def test_clothes_are_near_the_body(free_body, people, labels):
    get = {name: torch.from_numpy(value) for name, value in labels.items()}
    bare = free_body(get["betas"], get["body_pose"], get["R_global"][:, 0], get["transl"]).vertices.numpy()
    off = np.linalg.norm(people.scenes.vertices - bare, axis=-1)
    assert 1e-4 < off.mean() < 0.03 and off.max() < 0.12


def test_field_of_view_is_within_its_range(labels):
    fov = np.rad2deg(2 * np.arctan(labels["image_hw"].max(1) / 2 / labels["K"][:, 0, 0]))
    assert fov.min() > 19.99 and fov.max() < 90.01 and np.ptp(fov) > 20


def test_same_seed_same_scenes_and_easy_scenes_are_whole(free_body):
    settings = SceneSettings(crop_size=64, easy=1.0)

    def make(seed):
        rng = np.random.default_rng(seed)
        return make_scenes(free_body, PoseSampler(None).sample(6, rng), rng, settings)

    one, two, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(one.vertices, two.vertices)
    assert not np.array_equal(one.labels["betas"], other.labels["betas"])
    assert one.labels["visible"].min() >= 0.97


def test_no_place_gives_no_scene(free_body):
    rng = np.random.default_rng(0)
    settings = SceneSettings(crop_size=64, truncated=1.0, easy=0.0, min_visible=1.1)
    scenes = make_scenes(free_body, PoseSampler(None).sample(2, rng), rng, settings)
    assert scenes.vertices.shape == (0, 6890, 3) and scenes.labels["joints"].shape == (0, 24, 3)
