import numpy as np
import pytest

from bodyreg.data.motion import Motion, split_clips
from bodyreg.data.synthetic.arm_poses import ARM_STYLES, sample_arms
from bodyreg.data.synthetic.leg_poses import LEG_STYLES, sample_lower_bodies
from bodyreg.data.synthetic.poses import KINDS, PoseSampler
from priors.joint_limits import MIRROR, NAMES, joint_limits
from priors.rotations import matrix_from_aa

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# A rough T-posed skeleton in SMPL's frame, metres.
LEFT = {
    1: (0.06, -0.09, 0),
    4: (0.1, -0.47, 0),
    7: (0.09, -0.87, -0.04),
    10: (0.12, -0.93, 0.08),
    13: (0.08, 0.43, -0.02),
}
LEFT |= {16: (0.19, 0.45, -0.03), 18: (0.45, 0.44, -0.05), 20: (0.7, 0.44, -0.05), 22: (0.79, 0.44, -0.05)}
CENTRE = {
    0: (0, 0, 0),
    3: (0, 0.12, -0.03),
    6: (0, 0.26, -0.03),
    9: (0, 0.31, 0),
    12: (0, 0.52, -0.03),
    15: (0, 0.61, 0.02),
}
REST = np.zeros((24, 3))
for joint, point in (LEFT | CENTRE).items():
    REST[joint] = point
for joint, (x, y, z) in LEFT.items():
    REST[joint + 1] = (-x, y, z)
HIP, KNEE, ANKLE, TOES, CHEST, NECK, SHOULDER, ELBOW, WRIST = 1, 4, 7, 10, 9, 12, 16, 18, 20


def joints_of(body_pose, R_root=None):
    """(n, 24, 3) joints by forward kinematics, root at the origin."""
    n = len(body_pose)
    local = matrix_from_aa(np.asarray(body_pose, dtype=np.float64))
    R = [np.broadcast_to(np.eye(3), (n, 3, 3)) if R_root is None else R_root]
    points = [np.zeros((n, 3))]
    for j in range(1, 24):
        parent = PARENTS[j]
        points.append(points[parent] + R[parent] @ (REST[j] - REST[parent]))
        R.append(R[parent] @ local[:, j - 1])
    return np.stack(points, axis=1)


def body_of_arms(arms):
    body = np.zeros((len(arms), 23, 3))
    for side, name in enumerate(("left", "right")):
        for i, part in enumerate(("collar", "shoulder", "elbow", "wrist", "hand")):
            body[:, NAMES.index(f"{name}_{part}")] = arms[:, side, i]
    return body


def body_of_legs(lower):
    body = np.zeros((len(lower.legs), 23, 3))
    for side, name in enumerate(("left", "right")):
        for i, part in enumerate(("hip", "knee", "ankle", "foot")):
            body[:, NAMES.index(f"{name}_{part}")] = lower.legs[:, side, i]
    return body


def make_motion(frames=60, name="001_01", seed=0):
    poses = np.random.default_rng(seed).normal(scale=0.15, size=(frames, 24, 3)).astype(np.float32)
    return Motion(poses, np.zeros((frames, 3), np.float32), 30.0, "neutral", np.zeros(10, np.float32), name)


@pytest.fixture(scope="module")
def sampler():
    return PoseSampler([make_motion()])


def test_batches_are_valid_and_repeatable(sampler):
    batch = sampler.sample(600, np.random.default_rng(0))
    assert batch.body_pose.shape == (600, 23, 3) and batch.body_pose.dtype == np.float32
    assert batch.global_orient.shape == (600, 3, 3) and batch.kind.shape == (600,)
    np.testing.assert_allclose(
        batch.global_orient @ batch.global_orient.swapaxes(1, 2), np.eye(3)[None].repeat(600, 0), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(batch.global_orient), 1, atol=1e-5)
    assert joint_limits().violation(batch.body_pose).max() < 1e-4
    shares = np.bincount(batch.kind, minlength=len(KINDS)) / 600
    np.testing.assert_allclose(shares, np.array(list(KINDS.values())), atol=0.06)
    assert set(batch.kind_names) == set(KINDS)
    again = sampler.sample(600, np.random.default_rng(0))
    np.testing.assert_array_equal(again.body_pose, batch.body_pose)
    np.testing.assert_array_equal(again.global_orient, batch.global_orient)
    assert sampler.sample(0, np.random.default_rng(0)).body_pose.shape == (0, 23, 3)


def test_most_people_stand_upright_and_face_anywhere(sampler):
    batch = sampler.sample(2000, np.random.default_rng(0))
    up = batch.global_orient[:, 1, 1]
    assert (up > 0.7).mean() > 0.8
    assert 0.01 < (up < 0).mean() < 0.08
    facing = batch.global_orient[batch.kind != list(KINDS).index("easy"), 2, 2]
    assert 0.35 < (facing > 0).mean() < 0.65
    easy = batch.global_orient[batch.kind == list(KINDS).index("easy")]
    assert (easy[:, 2, 2] > 0.3).mean() > 0.95 and (easy[:, 1, 1] > 0.85).all()


def test_kinds_can_be_chosen():
    sampler = PoseSampler([make_motion()], weights={"motion": 1, "legs": 1})
    assert set(sampler.sample(100, np.random.default_rng(0)).kind_names) == {"motion", "legs"}
    for weights in ({"flying": 1.0}, {"motion": 0.0}, {"motion": -1, "legs": 3}):
        with pytest.raises(ValueError, match="weights of pose kinds"):
            PoseSampler([make_motion()], weights=weights)


def test_motion_frames_come_back_or_mirrored():
    motion = make_motion(frames=3)
    sampler = PoseSampler([motion], weights={"motion": 1})
    body, tilt = sampler.draw_frames(200, np.random.default_rng(0))
    knee, other = NAMES.index("left_knee"), NAMES.index("right_knee")
    seen = {round(float(x), 4) for x in body[:, knee, 0]}
    kept = joint_limits().clamp(motion.poses[:, 1:])
    assert seen == {round(float(x), 4) for x in kept[:, [knee, other], 0].ravel()}
    np.testing.assert_allclose(np.linalg.det(tilt), 1, atol=1e-5)
    # The heading is taken out, the tilt stays.
    np.testing.assert_allclose(tilt[:, 0, 2], 0, atol=1e-6)
    up = matrix_from_aa(motion.poses[:, 0])[:, 1, 1]
    assert {round(float(x), 4) for x in tilt[:, 1, 1]} == {round(float(x), 4) for x in up}
    # Joints of a mirrored frame are the mirror image of the frame's.
    flipped = next(i for i in range(200) if abs(body[i, knee, 0] - body[0, other, 0]) < 1e-6)
    image = joints_of(body[[0]], tilt[[0]]) * np.array([-1, 1, 1])
    swap = np.concatenate([[0], MIRROR + 1])
    np.testing.assert_allclose(joints_of(body[[flipped]], tilt[[flipped]]), image[:, swap], atol=1e-5)


def test_wrist_turn_moves_into_the_elbow_and_the_hand_stays():
    poses = np.zeros((1, 24, 3), np.float32)
    poses[:, 20] = (1.4, 0.0, 0.0)
    poses[:, 18] = (0.0, -0.8, 0.0)
    motion = make_motion(1)
    motion = Motion(poses, motion.trans, 30.0, "neutral", motion.betas, "a")
    body, _ = PoseSampler([motion], weights={"motion": 1}).draw_frames(50, np.random.default_rng(0))
    left = body[np.abs(body[:, NAMES.index("left_elbow"), 1]) > 0.5][0]
    elbow, wrist = left[NAMES.index("left_elbow")], left[NAMES.index("left_wrist")]
    np.testing.assert_allclose(wrist, (0.56, 0, 0), atol=1e-3)
    np.testing.assert_allclose(
        matrix_from_aa(elbow) @ matrix_from_aa(wrist),
        matrix_from_aa(poses[0, 18]) @ matrix_from_aa(poses[0, 20]),
        atol=1e-3,
    )


def test_split_of_a_folder(tmp_path):
    names = [f"{i:03}_01" for i in range(30)]
    for i, name in enumerate(names):
        poses = np.zeros((4, 72), np.float32)
        poses[:, 12] = 0.01 * (i + 1)  # x of the left knee tells the clip
        np.savez(tmp_path / f"{name}_poses.npz", poses=poses, trans=np.zeros((4, 3)), mocap_framerate=30.0)
    train, held_out = split_clips(names)
    assert held_out
    for split, chosen in (("train", train), ("held_out", held_out), ("all", names)):
        sampler = PoseSampler(tmp_path, split=split, weights={"motion": 1})
        body, _ = sampler.draw_frames(2000, np.random.default_rng(0))
        knees = body[:, [NAMES.index("left_knee"), NAMES.index("right_knee")], 0].max(1)
        assert set((knees * 100).round().astype(int) - 1) == {names.index(name) for name in chosen}
    with pytest.raises(ValueError, match="split"):
        PoseSampler(tmp_path, split="test")
    one = tmp_path / f"{train[0]}_poses.npz"
    with pytest.raises(ValueError, match="No clip"):
        PoseSampler(one, split="held_out")


def test_works_without_motion():
    batch = PoseSampler().sample(50, np.random.default_rng(0))
    assert np.isfinite(batch.body_pose).all() and np.abs(batch.body_pose).mean() > 0.05
    with pytest.raises(ValueError, match="z up"):
        PoseSampler([])


@pytest.mark.parametrize("style", ARM_STYLES)
def test_elbows_and_shoulders_keep_their_limits(style):
    arms = sample_arms(200, np.random.default_rng(0), style=style)
    assert joint_limits().violation(body_of_arms(arms))[:, 15:19].max() < 0.05


def test_arms_go_where_their_names_say():
    rng = np.random.default_rng(0)
    at = {style: joints_of(body_of_arms(sample_arms(200, rng, style=style))) for style in ARM_STYLES}
    for left in (0, 1):  # right wrist, elbow, shoulder follow the left ones in SMPL's order
        side = 1 - 2 * left
        wrist = {style: p[:, WRIST + left] for style, p in at.items()}
        elbow = {style: p[:, ELBOW + left] for style, p in at.items()}
        assert (wrist["up"][:, 1] > 0.6).mean() > 0.9
        assert (side * wrist["out"][:, 0] > 0.55).all()
        assert (wrist["hanging"][:, 1] < 0.15).all()
        assert (wrist["reaching"][:, 2] > 0.15).mean() > 0.9
        assert (wrist["surrender"][:, 1] > elbow["surrender"][:, 1]).all()
        assert (wrist["folded"][:, 2] > 0.0).all() and (side * wrist["folded"][:, 0] < 0.2).all()
        assert (wrist["behind_back"][:, 2] < 0.05).mean() > 0.9
        assert (np.abs(wrist["akimbo"] - [side * 0.22, 0.06, 0.02]) < 0.2).all(1).mean() > 0.9
        assert (wrist["behind_head"][:, 1] > 0.5).all()
        # A bent elbow of a hanging arm carries the hand forward, never back.
        assert (wrist["holding"][:, 2] > elbow["holding"][:, 2] - 0.02).mean() > 0.95
    assert len({s for s in ARM_STYLES}) == len(at)
    with pytest.raises(ValueError, match="no arm style"):
        sample_arms(3, rng, style="tied")


@pytest.mark.parametrize("style", LEG_STYLES)
def test_legs_stay_within_reach_of_the_limits(style):
    lower = sample_lower_bodies(200, np.random.default_rng(0), style=style)
    excess = joint_limits().violation(body_of_legs(lower))
    assert excess[:, [3, 4]].max() < 0.02  # knees
    assert np.median(excess.max(1)) < 0.12
    assert (np.asarray(lower.style) == list(LEG_STYLES).index(style)).all()


def test_squats_balance_and_knees_bend_backward():
    for style in ("half_squat", "deep_squat", "squat_on_toes"):
        lower = sample_lower_bodies(300, np.random.default_rng(0), style=style)
        body = joint_limits().clamp(body_of_legs(lower))
        body[:, 2, 0] = lower.spine_bend
        p = joints_of(body, lower.R_pelvis)
        ankles, hips, chest = p[:, [7, 8]].mean(1), p[:, [1, 2]].mean(1), p[:, CHEST]
        assert (p[:, [4, 5], 2].mean(1) > ankles[:, 2]).mean() > 0.95  # knees ahead of the ankles
        assert (hips[:, 2] < p[:, [4, 5], 2].mean(1)).all()  # seat behind the knees
        mass = 0.3 * (hips + p[:, [4, 5]].mean(1)) / 2 + 0.7 * chest
        over_feet = mass[:, 2] - ankles[:, 2]
        assert ((over_feet > -0.12) & (over_feet < 0.28)).mean() > 0.9
    lower = sample_lower_bodies(200, np.random.default_rng(0), style="heel_to_buttock")
    p = joints_of(body_of_legs(lower), lower.R_pelvis)
    bent = lower.legs[:, :, 1, 0].argmax(1)
    rows = np.arange(200)
    knee, ankle = p[rows, KNEE + bent], p[rows, ANKLE + bent]
    assert (ankle[:, 2] < knee[:, 2]).mean() > 0.98


def test_feet_on_the_ground_are_level():
    lower = sample_lower_bodies(300, np.random.default_rng(0), style="half_squat")
    p = joints_of(body_of_legs(lower), lower.R_pelvis)
    drop = p[:, [7, 8], 1] - p[:, [10, 11], 1]
    np.testing.assert_allclose(drop, REST[7, 1] - REST[10, 1], atol=1e-5)
    forward = p[:, [10, 11], 2] - p[:, [7, 8], 2]
    assert (forward > 0.03).all()
    with pytest.raises(ValueError, match="no leg style"):
        sample_lower_bodies(3, np.random.default_rng(0), style="flying")


def test_deep_squats_kicks_and_wide_stances_are_there():
    rng = np.random.default_rng(0)
    deep = sample_lower_bodies(200, rng, style="deep_squat")
    p = joints_of(body_of_legs(deep), deep.R_pelvis)
    assert (p[:, [1, 2], 1].mean(1) - p[:, [7, 8], 1].mean(1) < 0.55).all()
    wide = sample_lower_bodies(200, rng, style="side_split")
    p = joints_of(body_of_legs(wide), wide.R_pelvis)
    assert (p[:, 7, 0] - p[:, 8, 0] > 0.8).mean() > 0.95
    lunge = sample_lower_bodies(200, rng, style="lunge")
    p = joints_of(body_of_legs(lunge), lunge.R_pelvis)
    assert (np.abs(p[:, 7, 2] - p[:, 8, 2]) > 0.4).mean() > 0.9
    assert 0.3 < (p[:, 7, 2] > p[:, 8, 2]).mean() < 0.7  # either leg leads
