"""The stream: labels that inverse kinematics turns back into the body, batches that depend on their number alone."""

from itertools import islice

import numpy as np
import pytest
import torch

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.compose import View
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import SceneSettings, make_scenes
from bodyreg.data.synthetic.shards import load_shard, render_buffers, save_shard
from bodyreg.data.synthetic.stream import ShardStream, list_shards, view_labels
from bodyreg.inverse_kinematics import LEAF_JOINTS, inverse_kinematics
from bodyreg.skeletons import get as joint_set


@pytest.fixture(scope="module")
def stream(shard_folder, free_body):
    return make(shard_folder, free_body)


def make(folder, body, **options):
    return ShardStream(folder, body, **{"crop_size": 64, "batch_size": 5, "bank_size": 2, "seed": 3} | options)


def equal(one, two):
    assert set(one) == set(two)
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def viewed(people):
    """Labels of every person in turned and zoomed views, every second one mirrored."""
    rng = np.random.default_rng(2)
    zooms, turns = rng.uniform(1, 1.5, len(people.shard)), rng.uniform(-0.6, 0.6, len(people.shard))
    views = [View(float(z), float(t), bool(k % 2)) for k, (z, t) in enumerate(zip(zooms, turns, strict=True))]
    return views, view_labels(people.shard.labels, views, 96, 64)


def test_inverse_kinematics_of_the_labels_gives_the_body_back(viewed):
    """Plain and mirrored views alike: rotations to 1e-3, joints to a hundredth of a millimetre."""
    body = BodyModel.load("free").double()
    labels = {name: value.double() for name, value in viewed[1].items()}
    solved = inverse_kinematics(
        body, labels["joints"][:, :24], labels["twist"], labels["betas"], labels["leaf"], search=False
    )
    parents = [max(p, 0) for p in body.parents]
    local = labels["R_global"][:, parents].mT @ labels["R_global"]
    local[:, 0] = labels["R_global"][:, 0]
    assert torch.linalg.matrix_norm(solved.R_local - local).max() < 1e-3
    posed = body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)
    assert (posed.joints - labels["joints"][:, :24]).norm(dim=-1).max() < 2e-5
    torch.testing.assert_close(labels["leaf"], local[:, list(LEAF_JOINTS)], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def unturned(free_body):
    """The people of the fixture `people`, cut out without Perspective Rotation."""
    rng = np.random.default_rng(5)  # of that fixture
    settings = SceneSettings(crop_size=96, perspective_rotation=False)
    scenes = make_scenes(free_body, PoseSampler(None).sample(24, rng), rng, settings)
    rest = free_body.v_template.detach().numpy()
    return render_buffers(scenes, free_body.faces.numpy(), rest, free_body.part_labels.numpy(), 96)


def test_views_move_the_joints_in_the_picture_as_they_move_the_picture(people, viewed):
    """Through the label's camera a joint lies where the view puts the stored joint's pixel."""
    views, labels = viewed
    stored = people.shard.labels
    J, K = stored["joints"].astype(np.float64), stored["K_crop"]
    uv = J[..., :2] / J[..., 2:] * K[:, None, [0, 1], [0, 1]]
    mirror = np.array(joint_set("smpl-24").mirror)
    joints, K_view = labels["joints"][:, :24].numpy(), labels["K_crop"].numpy()
    shown = joints[..., :2] / joints[..., 2:] * K_view[:, None, [0, 1], [0, 1]] + K_view[:, None, :2, 2]
    for i, view in enumerate(views):
        c, s = np.cos(view.turn), np.sin(view.turn)
        expected = uv[i] @ np.array([[c, -s], [s, c]]).T * view.zoom * 64 / 96
        if view.mirrored:
            expected = expected[mirror] * [-1, 1]
        np.testing.assert_allclose(shown[i], expected + 32, atol=2e-3)


def test_without_perspective_rotation_labels_follow_the_view_too(unturned):
    """Off-centre principal points move with the picture: turned, zoomed, mirrored."""
    rng = np.random.default_rng(4)
    stored = unturned.labels
    views = [View(float(z), float(t), bool(k % 2)) for k, (z, t) in enumerate(rng.uniform([1, -1], [1.5, 1], (12, 2)))]
    labels = view_labels({name: value[:12] for name, value in stored.items()}, views, 96, 64)
    J, K = stored["joints"][:12].astype(np.float64), stored["K_crop"][:12].astype(np.float64)
    assert np.abs(K[:, :2, 2] - 48).max() > 20
    uv = J[..., :2] / J[..., 2:] * K[:, None, [0, 1], [0, 1]] + K[:, None, :2, 2] - 48
    mirror = np.array(joint_set("smpl-24").mirror)
    joints, K_view = labels["joints"][:, :24].numpy(), labels["K_crop"].numpy()
    shown = joints[..., :2] / joints[..., 2:] * K_view[:, None, [0, 1], [0, 1]] + K_view[:, None, :2, 2]
    for i, view in enumerate(views):
        c, s = np.cos(view.turn), np.sin(view.turn)
        expected = uv[i] @ np.array([[c, -s], [s, c]]).T * view.zoom * 64 / 96
        if view.mirrored:
            expected = expected[mirror] * [-1, 1]
        np.testing.assert_allclose(shown[i], expected + 32, atol=4e-3)


def test_both_kinds_of_crops_hold_the_same_people(people, unturned, free_body, tmp_path):
    """Each where its camera sees it, as far off the axis; a model of the other kind is refused."""
    turned = people.shard.labels
    np.testing.assert_array_equal(unturned.labels["betas"], turned["betas"])
    R = turned["R_crop_from_cam"]
    np.testing.assert_allclose(turned["joints"] @ R, unturned.labels["joints"], atol=1e-5)
    np.testing.assert_allclose(R.swapaxes(1, 2)[:, None] @ turned["R_global"], unturned.labels["R_global"], atol=1e-5)
    save_shard(tmp_path / "unturned.npz", unturned)
    stream = make(tmp_path, free_body, perspective_rotation=False)
    angle = np.arccos(np.clip(R[:, 2, 2], -1, 1))  # the ray of the box's centre becomes the axis
    off_axis = {row.tobytes(): a for row, a in zip(turned["betas"], angle, strict=True)}
    batch = stream.batch(0)
    for betas, a in zip(batch["betas"].numpy(), batch["off_axis_rad"].numpy(), strict=True):
        assert a == pytest.approx(off_axis[betas.tobytes()], abs=1e-3)
    with pytest.raises(ValueError, match="made without Perspective Rotation and the model has it"):
        make(tmp_path, free_body)


def test_last_joint_is_the_middle_of_the_hips(viewed, free_body):
    """A stand-in for the pelvis of Human3.6M's regressor: the same at rest on the free body, beside it in poses."""
    labels = viewed[1]
    joints = labels["joints"]
    assert joints.shape[1:] == (25, 3)
    assert torch.allclose(joints[:, 24], (joints[:, 1] + joints[:, 2]) / 2, atol=1e-5)
    local = labels["R_global"][:, [max(p, 0) for p in free_body.parents]].mT @ labels["R_global"]
    away = []
    for pose in (None, local[:, 1:]):
        with torch.no_grad():
            out = free_body(labels["betas"], pose)
        away.append((free_body.regress(out.vertices, "h36m-17")[:, 0] - out.joints[:, [1, 2]].mean(1)).norm(dim=-1))
    assert away[0].max() < 1e-5 and 0.005 < away[1].mean() < 0.04


def test_batches_are_complete_and_in_range(stream, free_body):
    batch = stream.batch(0)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "image": (5, 3, 64, 64), "dense": (5, 7, 16, 16), "K_crop": (5, 3, 3), "joints": (5, 25, 3),
        "leaf": (5, 5, 3, 3), "R_global": (5, 24, 3, 3),
        "rest_joints": (5, 24, 3), "twist": (5, 24, 3), "betas": (5, 10), "height": (5,),
        "fov_rad": (5,), "off_axis_rad": (5,),
    }  # fmt: skip
    assert batch["image"].dtype == torch.uint8 and batch["image"].float().std() > 5
    assert all(value.isfinite().all() for name, value in batch.items() if name != "image")
    rest = free_body(batch["betas"]).vertices
    assert torch.allclose(batch["height"], rest[..., 1].amax(1) - rest[..., 1].amin(1), atol=0.03)


def test_a_batch_depends_on_seed_and_number_alone(stream, shard_folder, free_body):
    again = make(shard_folder, free_body)
    later, first = again.batch(9), again.batch(0)  # in another order, past the end of the folder
    assert equal(first, stream.batch(0)) and equal(later, stream.batch(9))
    assert not equal(stream.batch(0), stream.batch(1))
    assert not equal(stream.batch(0), make(shard_folder, free_body, seed=4).batch(0))


def test_a_stream_started_later_goes_on_as_if_it_had_not_stopped(stream, shard_folder, free_body):
    whole = list(islice(stream, 6))
    resumed = list(islice(make(shard_folder, free_body, start=4), 2))
    assert all(equal(one, two) for one, two in zip(whole[4:], resumed, strict=True))


def test_processes_share_the_batches(stream, shard_folder, free_body):
    shares = [list(islice(make(shard_folder, free_body, rank=rank, world=2), 2)) for rank in (0, 1)]
    for step, (rank, k) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        assert equal(shares[rank][k], stream.batch(step))


@pytest.mark.parametrize("workers", [0, 2])
def test_painting_processes_change_nothing(stream, shard_folder, free_body, workers):
    share = make(shard_folder, free_body, start=1, rank=1, world=2)
    batches = list(share.upto(4, workers))
    assert len(batches) == 3
    assert all(equal(batch, stream.batch(number)) for number, batch in zip((3, 5, 7), batches, strict=True))


def test_an_epoch_shows_everyone_once_before_anyone_twice(people, shard_folder, free_body):
    n = len(people.shard)
    stream = make(shard_folder, free_body, batch_size=1, augment=False)
    betas = torch.cat([stream.batch(k)["betas"] for k in range(n)])
    assert len(torch.unique(betas, dim=0)) == n


def test_once_gives_everyone_once_and_no_more_than_asked(people, shard_folder, free_body):
    n = len(people.shard)
    stream = make(shard_folder, free_body, batch_size=7, augment=False)
    everyone = list(stream.once())
    assert sum(len(batch["betas"]) for batch in everyone) == n
    assert len(torch.unique(torch.cat([batch["betas"] for batch in everyone]), dim=0)) == n
    assert equal(everyone[0], stream.batch(0)) and equal(everyone[1], stream.batch(1))
    assert [len(batch["betas"]) for batch in stream.once(10)] == [7, 3]
    assert sum(len(batch["betas"]) for batch in stream.once(10_000)) == n


def test_easy_people_come_first(people, shard_folder, free_body, tmp_path):
    shard, stream = people.shard, make(shard_folder, free_body, easy_until=10, augment=False)
    easy = {row.tobytes() for row in shard.labels["betas"][shard.labels["visible"] > 0.95]}
    assert 0 < len(easy) < len(shard)
    seen = {row.numpy().tobytes() for k in range(8) for row in stream.batch(k)["betas"]}
    assert seen <= easy
    save_shard(tmp_path / "hard.npz", load_shard(shard_folder / "shard_0.npz"))
    hard = load_shard(tmp_path / "hard.npz")
    hard.labels["visible"][:] = 0.6
    save_shard(tmp_path / "hard.npz", hard)
    assert len(make(tmp_path, free_body, easy_until=3).batch(0)["betas"]) == 5  # nobody is easy: everybody counts


def test_unaugmented_pictures_are_upright_at_the_margin_of_inference(people, shard_folder, free_body):
    batch = make(shard_folder, free_body, augment=False, crop_size=96).batch(0)
    K = {row.numpy().tobytes(): k for row, k in zip(batch["betas"], batch["K_crop"], strict=True)}
    room = SceneSettings().room
    for betas, stored in zip(people.shard.labels["betas"], people.shard.labels["K_crop"], strict=True):
        if betas.tobytes() in K:
            assert float(K[betas.tobytes()][0, 0]) == pytest.approx(stored[0, 0] * room / 1.1, rel=1e-5)


def test_folder_without_shards_says_how_to_make_some(tmp_path):
    with pytest.raises(ValueError, match="holds no shards. Make some with `bodyreg prepare synthetic"):
        list_shards(tmp_path)
