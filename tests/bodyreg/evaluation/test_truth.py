"""Truth from each kind of file: stored joints, lifter sets, SPIN's npz; what a file does not tell is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from bodyreg import skeletons
from bodyreg.data.image_names import dataset_of, parts_of_name
from bodyreg.data.lifter_cameras import h36m_cameras
from bodyreg.data.lifter_sets import About, LifterSet, write_lifter_set
from bodyreg.data.spin import write_spin
from bodyreg.evaluation import protocols
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.truth import StoredJoints, open_truth


def nobody(gender):
    raise AssertionError("joints need no body")


def test_names_of_both_lineages():
    assert parts_of_name("S9_Directions_1.54138969_000001.jpg") == ("S9_Directions_1.54138969", "Directions", "S9", 1)
    moon = "images/s_11_act_16_subact_02_ca_03/s_11_act_16_subact_02_ca_03_000065.jpg"
    assert parts_of_name(moon) == ("s_11_act_16_subact_02_ca_03", "WalkTogether", "S11", 65)
    assert parts_of_name("imageFiles/downtown_00/image_00012.jpg") == ("downtown_00", "", "", 12)
    assert parts_of_name("set/TS1/imageSequence/img_000007.jpg") == ("TS1", "", "", 7)
    assert dataset_of("3dpw_test.npz") == "pw3d" and dataset_of("mpi_inf_3dhp_valid.npz") == "mpi3dhp"
    assert dataset_of("x.npz") is None


def test_stored_joints(tmp_path, h36m_truth):
    samples = h36m_truth.source.samples
    path = tmp_path / "truth.npz"
    columns = {
        "joints": h36m_truth.source.joints.numpy(), "joint_set": "h36m-17", "names": np.array(samples.names),
        "sequences": np.array(samples.sequences), "actions": np.array(samples.actions), "frames": samples.frames,
    }  # fmt: skip
    np.savez(path, **columns)
    with pytest.raises(ValueError, match="Say it with --dataset"):
        open_truth(path, nobody)
    truth = open_truth(path, nobody, dataset="h36m")
    result = evaluate(h36m_truth.source, truth, "h36m-lift-17[pred_root=subtract]")
    assert result.errors["MPJPE"] == 0 and len(result.groups) == 2
    np.savez(path, joints=columns["joints"], dataset="h36m")
    with pytest.raises(ValueError, match="Give `joints`, `joint_set` and `names`"):
        open_truth(path, nobody)
    with pytest.raises(ValueError, match="no data set file"):
        open_truth(tmp_path / "none.npz", nobody)


def test_joints_in_spins_layout_are_read_by_name(tmp_path):
    rng = np.random.default_rng(0)
    S = np.concatenate([rng.normal(0, 0.4, (3, 24, 3)), np.ones((3, 24, 1))], 2)
    names = np.array([f"TS1/imageSequence/img_{k:06d}.jpg" for k in range(3)])
    path = write_spin(tmp_path / "mpi_inf_3dhp_valid.npz",
                      {"imgname": names, "center": np.ones((3, 2)), "scale": np.ones(3), "S": S})  # fmt: skip
    truth = open_truth(path, nobody)
    assert truth.dataset == "mpi3dhp" and set(truth.source.samples.scenes) == {"green screen"}
    for name, rows in (("mpi3dhp-cross-16", [14, 2, 1, 0, 3, 4, 5, 16, 12, 18, 9, 10, 11, 8, 7, 6]),
                       ("mpi3dhp-mesh-17", [14, 2, 1, 0, 3, 4, 5, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6])):  # fmt: skip
        found = truth.source.points(np.arange(3), protocols.get(name)).joints
        np.testing.assert_allclose(found, S[:, rows, :3], atol=1e-6)


def test_lifter_sets_name_every_valid_frame(tmp_path):
    rng = np.random.default_rng(0)
    cameras = {"S9": h36m_cameras()["S9"][:2]}
    mirror = skeletons.get("h36m-17").mirror
    about = About("h36m", "gt", "h36m-17", "h36m-17", 50.0, ["S1"], ["S9"], 0, mirror, mirror,
                  [c.name for c in cameras["S9"]], "h36m-lift-17")  # fmt: skip
    world = rng.normal(0, 0.5, (4, 17, 3)).astype(np.float32)
    keys = [("S9", "Eating 1", k) for k in range(2)]
    keypoints = {key: rng.uniform(0, 1000, (4, 17, 2)) for key in keys}
    valid = {("S9", "Eating 1"): np.array([True, True, False, True])}
    prepared = LifterSet(about, cameras, keypoints, {("S9", "Eating 1"): world}, valid)
    path = write_lifter_set(tmp_path / "set.npz", prepared)
    truth = open_truth(path, nobody)
    samples = truth.source.samples
    assert truth.dataset == "h36m" and samples.names[:3] == tuple(f"S9/Eating 1/0/{k}" for k in (0, 1, 3))
    assert len(samples) == 6 and set(samples.actions) == {"Eating"} and len(set(samples.sequences)) == 2
    camera = np.concatenate([c.camera_from_world(world)[[0, 1, 3]] for c in cameras["S9"]])
    rooted = StoredJoints(camera - camera[:, :1], "h36m-17", samples)
    result = evaluate(rooted, truth, "h36m-lift-17")
    assert result.errors["MPJPE"] < 1e-5 and result.errors["MPJVE"] < 1e-5
