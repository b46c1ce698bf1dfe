"""Predictions of other systems: every customary layout gives the same joints, hostile and unclear files are refused."""

from __future__ import annotations

import json
import os
import pickle

import joblib
import numpy as np
import pytest
import torch

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.evaluation import protocols
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.predictions import read_predictions
from bodyreg.evaluation.truth import StoredMeshes
from bodyreg.files import UnsafeFileError


def no_body(gender: str) -> BodyModel:
    raise AssertionError("joints need no body")


@pytest.fixture
def joints(h36m_truth):
    return h36m_truth.source.joints.numpy()


@pytest.fixture
def names(h36m_truth):
    return list(h36m_truth.source.samples.names)


def error_of(source, truth) -> float:
    return 1000 * evaluate(source, truth, "h36m-mesh-p1").errors["MPJPE"]


def write(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".joblib":
        joblib.dump(content, path, compress=3)
    else:
        with path.open("wb") as file:
            pickle.dump(content, file, protocol=2)
    return path


def layouts(joints, names):
    order = np.random.default_rng(0).permutation(len(names))
    left = skeletons.convert(joints, "h36m-17", "h36m-17-left")
    yield "a.npz", {"joints": joints[order], "joint_set": "h36m-17", "names": np.array(names)[order]}, {}
    yield "b.npz", {"pred_joints": 1000 * joints.reshape(len(joints), -1), "imgname": np.array(names)}, {
        "joint_set": "h36m-17", "units": "mm"}
    by_name = dict(zip(names, joints.tolist(), strict=True))
    yield "c.json", {"joint_set": "h36m-17", "predictions": by_name}, {}
    yield "d.pkl", {n: {"xyz_17": j} for n, j in zip(names, left, strict=True)}, {}  # HybrIK's, left leg first
    records = [{"img_path": n, "joints3d": j} for n, j in zip(names, joints, strict=True)]
    yield "e.joblib", records, {"joint_set": "h36m-17"}
    yield "f.npz", {"joints": joints}, {"joint_set": "h36m-17"}  # without names, in the truth's order


@pytest.mark.parametrize("case", range(6))
def test_customary_layouts(case, joints, names, h36m_truth, tmp_path):
    file, content, options = list(layouts(joints, names))[case]
    source = read_predictions(write(tmp_path / file, content), no_body, **options)
    assert error_of(source, h36m_truth) < 1e-3


def test_44_joints_of_4d_humans(tmp_path):
    joints = np.random.default_rng(0).normal(size=(3, 44, 3)).astype(np.float32)
    content = {"pred_keypoints_3d": joints, "imgname": ["a", "b", "c"]}
    source = read_predictions(write(tmp_path / "x.pkl", content), no_body)
    assert source.joint_set == "spin-44"
    found = source.points(np.array([1]), protocols.get("pw3d-j44-hmr2")).joints
    np.testing.assert_allclose(found[0], joints[1])


def test_meshes_and_parameters_are_posed_on_the_body(tmp_path, free_body):
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.2, (2, 72)).astype(np.float32), rng.normal(size=(2, 10)).astype(np.float32)
    with torch.no_grad():
        posed = free_body(betas, pose[:, 3:], pose[:, :3])
    protocol, rows = protocols.get("pw3d-j14"), np.arange(2)
    expected = StoredMeshes(posed.vertices, free_body, read_names("ab")).points(rows, protocol)
    files = {
        "mesh.npz": {"vertices": posed.vertices.numpy()},
        "smpl.pkl": {name: {"smpl": {"pose": pose[k], "betas": betas[k]}} for k, name in enumerate("ab")},
        "split.npz": {"global_orient": pose[:, :3], "body_pose": pose[:, 3:], "betas": betas},
    }
    for name, content in files.items():
        found = read_predictions(write(tmp_path / name, content), lambda gender: free_body).points(rows, protocol)
        np.testing.assert_allclose(found.joints, expected.joints, atol=1e-5)
        np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-5)


def read_names(names):
    from bodyreg.evaluation.accumulate import Samples

    return Samples.of(names)


def test_an_order_is_never_guessed(joints, names, tmp_path):
    path = write(tmp_path / "x.npz", {"joints": joints, "names": np.array(names)})
    with pytest.raises(ValueError, match="17 joints a person and does not say.*h36m-17, h36m-17-left"):
        read_predictions(path, no_body)
    with pytest.raises(ValueError, match="'smpl-24' has 24"):
        read_predictions(path, no_body, joint_set="smpl-24")
    with pytest.raises(ValueError, match="Did you mean 'h36m-17"):
        read_predictions(path, no_body, joint_set="h36m17")
    odd = write(tmp_path / "odd.npz", {"joints": joints[:, :13]})
    with pytest.raises(ValueError, match="No joint set of ours has so many"):
        read_predictions(odd, no_body)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_nothing_in_a_pickle_is_run(tmp_path, suffix):
    with pytest.raises(UnsafeFileError, match="system"):
        read_predictions(write(tmp_path / f"x{suffix}", {"joints": Evil()}), no_body)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.json", {"scores": [1, 2]}, "no predictions under a known name"),
        ("x.json", [1, 2], "not all records"),
        ("x.json", 3, "holds a int"),
        ("x.json", [{"joints": [[0, 0, 0]] * 14}, {"joints": [[0, 0, 0]] * 14, "score": 1}], "Record 1 .* other keys"),
        ("x.json", {"joints": [[[0, 0, 0]] * 14, [[0, 0, 0]] * 13]}, "differs in shape"),
        ("x.json", {"joints": [[[0, 0]] * 14]}, r"shape \(1, 14, 2\)"),
        ("x.npz", {"joints": np.zeros((2, 14, 3)), "names": np.array(["a"])}, "names 1 samples and holds 2"),
        ("x.npz", {"pose": np.zeros((2, 72))}, "no betas"),
        ("x.npz", {"pose": np.zeros((2, 66)), "betas": np.zeros((2, 10))}, "66 numbers a person"),
    ],
)
def test_files_that_hold_something_else(tmp_path, file, content, message):
    with pytest.raises(ValueError, match=message):
        read_predictions(write(tmp_path / file, content), no_body)


def test_formats_units_and_files_that_are_not_there(tmp_path):
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.txt").write_text("")
    faults = (("x.json", "not a readable JSON"), ("x.txt", "not read from '.txt'"), ("y.npz", "no file of"))
    for name, message in faults:
        with pytest.raises(ValueError, match=message):
            read_predictions(tmp_path / name, no_body)
    with pytest.raises(ValueError, match="m, cm, mm"):
        read_predictions(tmp_path / "x.json", no_body, units="inch")
