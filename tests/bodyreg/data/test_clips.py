"""Clips: flips, reversal, shuffling, batches that resume, jittered targets."""

import numpy as np
import pytest

from bodyreg import lens, skeletons, windows
from bodyreg.data import clips
from bodyreg.data.lifter_cameras import h36m_cameras
from bodyreg.data.lifter_sets import LifterSequence

MIRROR = skeletons.get("h36m-17").mirror


def table(*lengths: int, root: int | None = 0) -> clips.ClipTable:
    rng, camera = np.random.default_rng(0), h36m_cameras()["S1"][0]
    found = []
    for length in lengths:
        joints = (0.3 * rng.normal(size=(length, 17, 3))).astype(np.float32)
        joints[:, 0] = [0.1, 0.2, 4]
        keypoints = camera.screen(camera.pixels(np.concatenate([joints[:, :1], joints[:, 1:] + joints[:, :1]], 1)))
        found.append(LifterSequence("S1", "Walk", 0, camera.size_wh, 50.0, keypoints, joints, camera.lens,
                                    np.ones(length, bool)))  # fmt: skip
    return clips.ClipTable(found, MIRROR, MIRROR, root)


def test_a_flipped_clip_is_what_the_mirrored_camera_sees():
    import torch

    source = table(9, root=None)
    plan = clips.training_windows(source.lengths, "chunks", 9, 9, flip=True)
    batch = source.clips(plan[plan[:, 3] == 1])
    joints = batch["joints"].copy()
    joints[:, :, 1:] += joints[:, :, :1]
    seen = lens.project(torch.from_numpy(joints), torch.from_numpy(batch["lens"])[:, None, None])
    np.testing.assert_allclose(seen, batch["keypoints"], atol=1e-5)


def test_targets_have_a_zero_root_unless_it_is_wanted():
    assert (table(4).clips(np.array([[0, 0, 4, 0, 0]]))["joints"][:, :, 0] == 0).all()
    assert (table(4, root=None).clips(np.array([[0, 0, 4, 0, 0]]))["joints"][:, :, 0, 2] == 4).all()


def test_reversed_clips_run_backwards_and_mirrored_ones_with_them():
    source = table(9)
    plan = clips.plan_windows(source.lengths, lambda n: windows.strided(n, 9, 9), flip=True, reverse=True)
    np.testing.assert_array_equal(plan[:, 3:], [[0, 0], [0, 1], [1, 1]])
    plain, backwards, mirrored = source.clips(plan)["joints"]
    np.testing.assert_array_equal(backwards, plain[::-1])
    np.testing.assert_array_equal(mirrored, clips.flip_points(plain[::-1], MIRROR))


def test_frames_around_a_frame_repeat_the_edge():
    batch = table(5, 3).clips(np.array([[1, 0, 1, 0, 0]]), pad=2, whole_target=False)
    assert batch["keypoints"].shape == (1, 5, 17, 2) and batch["joints"].shape == (1, 1, 17, 3)
    np.testing.assert_array_equal(batch["keypoints"][0, 0], batch["keypoints"][0, 2])


def test_batches_cover_an_epoch_once_and_resume_to_the_same_ones():
    source = table(40, 23)
    plan = clips.training_windows(source.lengths, "strided", 9, 3, flip=True)
    loader = clips.ClipBatches(source, plan, 4, seed=3)
    epoch = [batch["sequence"].tolist() for batch in loader]
    assert len(epoch) == len(loader) and sum(map(len, epoch)) == len(plan)
    loader.seek(len(loader) + 2)
    second = [batch["keypoints"] for batch in loader]
    other = clips.ClipBatches(source, plan, 4, seed=3)
    other.seek(len(other))
    for ours, theirs in zip(second, list(other)[2:], strict=True):
        np.testing.assert_array_equal(ours, theirs["keypoints"])
    first = np.concatenate([b["keypoints"].numpy() for b in other])
    assert not np.array_equal(
        first, np.concatenate([b["keypoints"].numpy() for b in clips.ClipBatches(source, plan, 4, seed=4)])
    )


def test_processes_share_an_epoch_without_overlap():
    source = table(41)
    plan = clips.training_windows(source.lengths, "frame", 1, 1, flip=False)
    shares = [clips.ClipBatches(source, plan, 7, rank=rank, world=2) for rank in (0, 1)]
    seen = [np.concatenate([b["joints"].numpy() for b in share])[:, 0, 1] for share in shares]
    assert len(seen[0]) == len(seen[1]) == 20
    assert len(np.unique(np.concatenate(seen), axis=0)) == 40


def test_jitter_turns_about_the_optical_axis_and_leaves_depth():
    joints = np.random.default_rng(0).normal(size=(2, 1, 17, 3))
    moved = clips.jitter_targets(joints, np.array([[5.0], [0.0]]), np.array([[1.05], [1.0]]))
    np.testing.assert_array_equal(moved[..., 2], joints[..., 2])
    np.testing.assert_array_equal(moved[1], joints[1])
    ratio = np.linalg.norm(moved[0, ..., :2], axis=-1) / np.linalg.norm(joints[0, ..., :2], axis=-1)
    np.testing.assert_allclose(ratio, 1.05)
    source = table(30)
    plan = clips.training_windows(source.lengths, "frame", 1, 1, flip=False)
    noisy = [b["joints"].numpy() for b in clips.ClipBatches(source, plan, 30, jitter=True)]
    again = [b["joints"].numpy() for b in clips.ClipBatches(source, plan, 30, jitter=True)]
    np.testing.assert_array_equal(noisy[0], again[0])
    plain = [b["joints"].numpy() for b in clips.ClipBatches(source, plan, 30)]
    assert 0 < np.abs(noisy[0] - plain[0]).max() < 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: table(), "one joint set"),
        (lambda: table(4, 0), "one joint set"),
        (lambda: clips.training_windows([9], "middle", 9, 9, flip=False), "Choose one of chunks"),
        (lambda: clips.training_windows([3], "strided", 9, 1, flip=False), "Use a shorter clip"),
        (lambda: clips.ClipBatches(table(4), np.zeros((1, 5), int), 0), "batches of 0"),
        (lambda: clips.ClipBatches(table(4), np.zeros((1, 5), int), 1, world=2), "for 2 processes"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
