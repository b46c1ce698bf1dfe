import numpy as np
import pytest

from bodyreg.data.motion import clip_name, list_motion, read_amass, split_clips
from priors.rotations import matrix_from_aa

Y_UP_FROM_Z_UP = matrix_from_aa(np.array([-np.pi / 2, 0, 0]))


def write_clip(path, frames=5, columns=72, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "poses": rng.normal(scale=0.4, size=(frames, columns)).astype(np.float32),
        "trans": rng.normal(size=(frames, 3)).astype(np.float32),
        "betas": np.arange(10, dtype=np.float32),
        "gender": np.str_("female"),
        "mocap_framerate": np.float32(30),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return arrays


def test_reads_and_turns_into_y_up(tmp_path):
    arrays = write_clip(tmp_path / "1_poses.npz")
    motion = read_amass(tmp_path / "1_poses.npz")
    assert (len(motion), motion.fps, motion.gender, motion.name, motion.up) == (5, 30.0, "female", "1", "y")
    np.testing.assert_array_equal(motion.betas, arrays["betas"])
    np.testing.assert_array_equal(motion.poses[:, 1:], arrays["poses"].reshape(5, 24, 3)[:, 1:])
    expected = Y_UP_FROM_Z_UP @ matrix_from_aa(arrays["poses"][:, :3].astype(np.float64))
    np.testing.assert_allclose(matrix_from_aa(motion.poses[:, 0]), expected, atol=1e-6)
    # what was up (z) is up (y)
    np.testing.assert_allclose(motion.trans[:, 1], arrays["trans"][:, 2], atol=1e-6)
    np.testing.assert_allclose(motion.trans[:, 2], -arrays["trans"][:, 1], atol=1e-6)


def test_keeps_z_up_on_request(tmp_path):
    arrays = write_clip(tmp_path / "a.npz")
    motion = read_amass(tmp_path / "a.npz", up="z")
    np.testing.assert_array_equal(motion.poses.reshape(5, 72), arrays["poses"])
    np.testing.assert_array_equal(motion.trans, arrays["trans"])
    with pytest.raises(ValueError, match="up axis"):
        read_amass(tmp_path / "a.npz", up="x")


@pytest.mark.parametrize("columns", [156, 165])
def test_hands_of_larger_models_are_dropped(tmp_path, columns):
    arrays = write_clip(tmp_path / "a.npz", columns=columns)
    motion = read_amass(tmp_path / "a.npz", up="z")
    np.testing.assert_array_equal(motion.poses[:, :22].reshape(5, 66), arrays["poses"][:, :66])
    assert not motion.poses[:, 22:].any()


def test_other_spellings(tmp_path):
    write_clip(
        tmp_path / "a.npz",
        gender=np.bytes_(b"male"),
        mocap_framerate=None,
        mocap_frame_rate=np.array([60.0]),
        betas=None,
    )
    motion = read_amass(tmp_path / "a.npz")
    assert (motion.gender, motion.fps, motion.betas.tolist()) == ("male", 60.0, [0.0] * 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "no array 'poses'"),
        ({"poses": np.zeros((5, 63))}, "72 .SMPL."),
        ({"poses": np.zeros((0, 72)), "trans": np.zeros((0, 3))}, "At least one frame"),
        ({"poses": np.full((5, 72), np.nan)}, "NaN"),
        ({"poses": np.array([["x"] * 72] * 5)}, "no numbers"),
        ({"trans": np.zeros((4, 3))}, "for 5 frames"),
        ({"mocap_framerate": None}, "no frame rate"),
        ({"mocap_framerate": np.float32(0)}, "positive"),
        ({"gender": np.str_("unknown")}, "gender"),
        ({"gender": np.array("male", dtype=object)}, "cannot be read"),
    ],
)
def test_refuses_broken_files(tmp_path, changes, message):
    write_clip(tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError, match=message):
        read_amass(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_refuses_what_is_no_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as motion"):
        read_amass(tmp_path / "a.npz")


def test_lists_clips_below_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b_poses.npz", "sub/a_poses.npz", "shape.npz"):
        write_clip(tmp_path / name)
    assert list_motion(tmp_path) == [tmp_path / "b_poses.npz", tmp_path / "sub" / "a_poses.npz"]
    assert list_motion(tmp_path / "b_poses.npz") == [tmp_path / "b_poses.npz"]
    with pytest.raises(ValueError, match="does not exist"):
        list_motion(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no npz"):
        list_motion(tmp_path / "empty")


def test_split_depends_on_the_name_alone():
    names = [f"{i:03}_01" for i in range(400)]
    train, held_out = split_clips(names)
    assert sorted(train + held_out) == names
    assert 0.1 < len(held_out) / len(names) < 0.2
    assert set(split_clips(names[:50])[1]) == set(held_out) & set(names[:50])
    assert split_clips([f"/data/{name}_poses.npz" for name in names])[1] == [f"/data/{n}_poses.npz" for n in held_out]
    assert clip_name("/data/001_02_poses.npz") == "001_02"
    assert split_clips(names, 0.0)[1] == [] and split_clips(names, 1.0)[0] == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_clips(names, 2)
