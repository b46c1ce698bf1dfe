"""Prepared sets of lifters, and the readers of what is distributed."""

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.data.lifter_cameras import h36m_cameras, humaneva_cameras
from bodyreg.data.lifter_sets import read_lifter_set, write_lifter_set
from bodyreg.data.pstmo import prepare_3dhp_lift
from bodyreg.data.videopose import prepare_h36m, prepare_humaneva
from bodyreg.files import MissingFileError, UnsafeFileError

rng = np.random.default_rng(0)
SYMMETRY = {"keypoints_symmetry": [list(skeletons.get("h36m-17").left), list(skeletons.get("h36m-17").right)]}


def objects(value) -> np.ndarray:
    return np.array(value, object)


def write_h36m(root, *, frames=6, extra=0, actions=("Walking 1",), cameras=4, joints=32, source="cpn_ft_h36m_dbb"):
    world = {s: {a: rng.normal(size=(frames, joints, 3)).astype(np.float32) for a in actions} for s in ("S1", "S9")}
    points = {
        s: {
            a: [rng.normal(500, 99, (frames + extra, 17, 2)).astype(np.float32) for _ in range(cameras)]
            for a in actions
        }
        for s in world
    }
    np.savez(root / "data_3d_h36m.npz", positions_3d=objects(world))
    np.savez(root / f"data_2d_h36m_{source}.npz", positions_2d=objects(points), metadata=objects(SYMMETRY))
    return world, points


def test_h36m_round_trip(tmp_path):
    world, points = write_h36m(tmp_path, extra=3)
    prepared = read_lifter_set(prepare_h36m(tmp_path, tmp_path / "set.npz"))
    assert prepared.about.train == ["S1"] and prepared.about.test == ["S9"] and prepared.about.fps == 50
    sequences = prepared.sequences(prepared.subjects("test"))
    assert [(s.action, s.camera, len(s)) for s in sequences] == [("Walking 1", c, 6) for c in range(4)]
    camera = h36m_cameras()["S9"][2]
    np.testing.assert_allclose(sequences[2].keypoints, camera.screen(points["S9"]["Walking 1"][2][:6]))
    np.testing.assert_array_equal(sequences[2].lens, camera.lens)
    seen = camera.camera_from_world(world["S9"]["Walking 1"])
    np.testing.assert_allclose(sequences[2].joints[:, 0], seen[:, 0], atol=1e-6)
    np.testing.assert_allclose(sequences[2].joints[:, 1], seen[:, 1] - seen[:, 0], atol=1e-6)
    every_other = prepared.sequences(["S9"], actions=["Walk"], downsample=2)[0]
    assert len(every_other) == 3 and every_other.fps == 25
    again = read_lifter_set(write_lifter_set(tmp_path / "again.npz", prepared))
    assert again.about == prepared.about and set(again.keypoints) == set(prepared.keypoints)


def test_projected_key_points_need_no_second_file(tmp_path):
    write_h36m(tmp_path)
    prepared = read_lifter_set(prepare_h36m(tmp_path, tmp_path / "set.npz", "projected"))
    (sequence, *_) = prepared.sequences(["S1"])
    assert np.isfinite(sequence.keypoints).all() and prepared.about.source == "projected"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"extra": -1}, "5 frames of key points for 6"), ({"cameras": 3}, "3 cameras, and 4 are needed"),
     ({"joints": 20}, r"\(T, 32, 3\)")],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    write_h36m(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        prepare_h36m(tmp_path, tmp_path / "set.npz")


def test_what_is_missing_is_named_with_its_source(tmp_path):
    with pytest.raises(MissingFileError, match="data_3d_h36m.npz, data_2d_h36m_gt.npz.*VideoPose3D"):
        prepare_h36m(tmp_path, tmp_path / "set.npz", "gt")
    with pytest.raises(MissingFileError, match="data_test_3dhp.npz.*P-STMO"):
        prepare_3dhp_lift(tmp_path, tmp_path / "set.npz")


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    write_h36m(tmp_path)
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=objects({"S1": {"Walking": Evil()}}))
    with pytest.raises(UnsafeFileError, match="builtins.print"):
        prepare_h36m(tmp_path, tmp_path / "set.npz")


def test_the_broken_recording_is_left_out(tmp_path):
    world, points = write_h36m(tmp_path)
    world["S11"] = {"Directions": world["S1"]["Walking 1"], "Directions 1": world["S1"]["Walking 1"]}
    points["S11"] = {"Directions 1": points["S1"]["Walking 1"]}
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=objects(world))
    np.savez(tmp_path / "data_2d_h36m_gt.npz", positions_2d=objects(points), metadata=objects(SYMMETRY))
    prepared = read_lifter_set(prepare_h36m(tmp_path, tmp_path / "set.npz", "gt"))
    assert {s.action for s in prepared.sequences(["S11"])} == {"Directions 1"}


def test_humaneva_with_detections_reads_coco_points(tmp_path):
    world = {"Train/S1": {"Walking 1 chunk0": rng.normal(size=(5, 15, 3))}, "Train/S4": {"Jog 1": np.zeros((4, 15, 3))}}
    points = {s: {a: [rng.normal(300, 9, (len(v), 17, 2))] * 3 for a, v in t.items()} for s, t in world.items()}
    coco = skeletons.get("coco-17")
    metadata = {"keypoints_symmetry": [list(coco.left), list(coco.right)]}
    np.savez(tmp_path / "data_3d_humaneva15.npz", positions_3d=objects(world))
    np.savez(tmp_path / "data_2d_humaneva15_detectron_pt_coco.npz", positions_2d=objects(points),
             metadata=objects(metadata))  # fmt: skip
    prepared = read_lifter_set(prepare_humaneva(tmp_path, tmp_path / "set.npz", "detectron_pt_coco"))
    assert prepared.about.input_set == "coco-17" and prepared.about.joint_set == "humaneva-15"
    assert set(prepared.cameras) == {"Train/S1"}  # nobody knows where S4's cameras stood
    (sequence, *_) = prepared.sequences(["Train/S1"])
    assert not sequence.lens.any() and sequence.size_wh == (640, 480)
    with pytest.raises(ValueError, match="lens of camera C1 is not known"):
        humaneva_cameras()["S1"][0].pixels(np.ones((1, 3)))


@pytest.mark.parametrize("key", ["0", 0])
def test_3dhp_takes_cameras_by_text_or_number(tmp_path, key):
    record = {"data_2d": rng.normal(1000, 9, (4, 17, 2)), "data_3d": rng.normal(0, 900, (4, 17, 3))}
    np.savez(tmp_path / "data_train_3dhp.npz", data=objects({"S1 Seq1": [{key: record}, 25]}))
    test = {"TS5": {**record, "valid": np.array([1.0, 0, 1, 1])}}
    np.savez(tmp_path / "data_test_3dhp.npz", data=objects(test))
    prepared = read_lifter_set(prepare_3dhp_lift(tmp_path, tmp_path / "set.npz"))
    assert prepared.about.root == 14 and prepared.subjects("train") == ["S1"]
    (sequence,) = prepared.sequences(["TS5"])
    assert sequence.size_wh == (1920, 1080) and sequence.valid.tolist() == [True, False, True, True]
    relative = (record["data_3d"] - record["data_3d"][:, 14:15]) / 1000
    np.testing.assert_allclose(sequence.joints[:, 3], relative[:, 3], atol=1e-6)


def test_wrong_requests_and_files(tmp_path):
    write_h36m(tmp_path)
    prepared = read_lifter_set(prepare_h36m(tmp_path, tmp_path / "set.npz"))
    with pytest.raises(ValueError, match="no subject S2. Known: S1, S9"):
        prepared.sequences(["S2"])
    with pytest.raises(ValueError, match="no actions that begin with"):
        prepared.sequences(["S1"], actions=["Sitting"])
    with pytest.raises(ValueError, match="Choose train or test"):
        prepared.subjects("val")
    with pytest.raises(ValueError, match="no prepared set .*bodyreg prepare motion"):
        read_lifter_set(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="is no prepared set of a lifter"):
        read_lifter_set(tmp_path / "other.npz")
