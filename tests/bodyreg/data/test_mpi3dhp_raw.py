"""MPI-INF-3DHP as distributed: MATLAB and HDF5 miniatures go in, joints in the camera's frame come out."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io

from bodyreg import skeletons
from bodyreg.data import mpi3dhp_raw
from bodyreg.data.prepare import prepare_dataset
from bodyreg.data.sample import SampleTable
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.truth import StoredJoints, open_truth
from bodyreg.files import MissingFileError


def write_test(root, seed=0):
    """TS1 of five frames, two of them not valid, and TS5 of three, as MATLAB 7.3 stores them."""
    rng, truth = np.random.default_rng(seed), {}
    for name, valid in (("TS1", [1, 0, 1, 1, 0]), ("TS5", [1, 1, 1])):
        n = len(valid)
        joints = rng.normal(0, 400, (n, 17, 3)) + [0, 0, 3500]
        pixels = rng.uniform(100, 900, (n, 17, 2))
        (root / name).mkdir(parents=True)
        with h5py.File(root / name / "annot_data.mat", "w") as file:
            file["annot2"], file["annot3"] = pixels[:, None], joints[:, None]
            file["univ_annot3"] = 1.1 * joints[:, None]
            file["valid_frame"] = np.array(valid, np.float64)[:, None]
            file["activity_annotation"] = np.arange(1.0, n + 1)[:, None]
        truth[name] = joints, pixels, np.flatnonzero(valid)
    return truth


def test_valid_frames_of_the_test_set(tmp_path):
    truth = write_test(tmp_path)
    found = mpi3dhp_raw.read_test(tmp_path)
    assert found["sequence"].tolist() == ["TS1"] * 3 + ["TS5"] * 3 and found["frame"].tolist() == [0, 2, 3, 0, 1, 2]
    assert found["activity"].tolist()[:3] == ["Standing/Walking", "Sitting", "Reaching/Crouching"]
    joints, pixels, valid = truth["TS1"]
    np.testing.assert_allclose(found["joints"][:3], joints[valid] / 1000)
    np.testing.assert_allclose(found["univ_joints"][:3], 1.1 * joints[valid] / 1000)
    np.testing.assert_allclose(found["keypoints"][:3], pixels[valid])
    assert sum(mpi3dhp_raw.TEST_FRAMES.values()) == 2929


def test_the_folder_is_a_truth_of_universal_poses(tmp_path):
    truth = write_test(tmp_path)
    opened = open_truth(tmp_path, lambda gender: None)
    univ = np.concatenate([1.1 * joints[valid] / 1000 for joints, _, valid in truth.values()])
    rooted = univ - univ[:, 14:15]
    source = StoredJoints(rooted, "mpi3dhp-17", opened.source.samples)
    result = evaluate(source, opened, "mpi3dhp-lift-17")
    assert result.samples == 6 and result.errors["MPJPE"] < 1e-6 and result.errors["PCK"] == 1
    by_scene = evaluate(source, opened, "mpi3dhp-lift-17[aggregate=scenes]")
    assert {(name, n) for name, n, _ in by_scene.groups} == {("green screen", 3), ("outdoor", 3)}


def test_prepared_test_set_has_the_published_cameras(tmp_path):
    truth = write_test(tmp_path)
    table = SampleTable(prepare_dataset("3dhp-raw", tmp_path, tmp_path / "out"))
    first, last = table[0], table[5]
    assert (first.image, first.size_hw) == ("TS1/imageSequence/img_000001.jpg", (2048, 2048))
    assert last.size_hw == (1080, 1920) and last.K[0, 0] == pytest.approx(1684.0, abs=0.05)
    assert first.K[0, 0] == pytest.approx(1499.2, abs=0.05) and first.K[0, 2] == 1024
    expected = skeletons.convert(truth["TS1"][0][0] / 1000, "mpi3dhp-17", "h36m-17")
    np.testing.assert_allclose(first.joints17, expected, atol=1e-5)


CALIBRATION = "Skeletool Camera Calibration File V1.0\n" + "".join(
    f"name {v}\n  sensor 10 10\n  size 2048 2048\n  animated 0\n"
    f"  intrinsic {1490 + v} 0 1024 0 0 {1490 + v} 1020 0 0 0 1 0 0 0 0 1\n"
    "  extrinsic 1 0 0 100 0 1 0 200 0 0 1 300 0 0 0 1\n  radial 0\n"
    for v in range(9)
)


def write_train(root, seed=0):
    rng = np.random.default_rng(seed)
    folder = root / "S4" / "Seq2"
    folder.mkdir(parents=True)
    cells = {"annot2": np.empty((14, 1), object), "annot3": np.empty((14, 1), object)}
    for v in range(14):
        cells["annot2"][v, 0] = rng.uniform(10, 2000, (21, 56))
        cells["annot3"][v, 0] = rng.normal(0, 300, (21, 84)) + 3000 * (np.arange(84) % 3 == 2)
    cells["annot2"][0, 0][10, 3] = -5  # a joint outside the picture
    scipy.io.savemat(folder / "annot.mat", cells)
    (folder / "camera.calibration").write_text(CALIBRATION)
    return cells


def test_training_frames_every_tenth_of_chest_high_cameras(tmp_path):
    cells = write_train(tmp_path)
    table = SampleTable(prepare_dataset("mpi3dhp_raw", tmp_path, tmp_path, split="train"))
    assert len(table) == 8 * 3 - 1
    names = [row.image for row in table]
    assert "S4/Seq2/imageFrames/video_0/frame_000011.jpg" not in names
    row = table[names.index("S4/Seq2/imageFrames/video_8/frame_000021.jpg")]
    joints = cells["annot3"][8, 0][20].reshape(28, 3) / 1000
    np.testing.assert_allclose(row.joints17, skeletons.convert(joints, "mpi3dhp-28", "h36m-17"), atol=1e-6)
    assert row.K[0, 0] == 1498 and row.K[1, 2] == 1020 and row.height == pytest.approx(1.6546)


def test_incomplete_and_wrong_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="TS\\*/annot_data.mat"):
        mpi3dhp_raw.read_test(tmp_path)
    (tmp_path / "TS1").mkdir()
    (tmp_path / "TS1" / "annot_data.mat").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match="not a test annotation"):
        mpi3dhp_raw.read_test(tmp_path)
    write_train(tmp_path / "a")
    (tmp_path / "a" / "S4" / "Seq2" / "camera.calibration").write_text("\n".join(["x 1"] * 8))
    with pytest.raises(ValueError, match="Line 6 .* no intrinsic of 16 numbers"):
        prepare_dataset("3dhp-raw", tmp_path / "a", tmp_path, split="train")
    (tmp_path / "a" / "S4" / "Seq2" / "annot.mat").write_bytes(b"no mat")
    with pytest.raises(ValueError):
        prepare_dataset("3dhp-raw", tmp_path / "a", tmp_path, split="train")
