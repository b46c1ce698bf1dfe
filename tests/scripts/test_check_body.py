"""Many shapes and poses of the free body are sound, and the measure that says so sees a body that is not."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bodyreg.body import BodyModel
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.free_body import load_free_body

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_body.py"


@pytest.fixture(scope="module")
def check_body():
    spec = importlib.util.spec_from_file_location("check_body", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_random_shapes_are_sound(check_body):
    blocks = list(check_body.random_shapes(36, np.random.default_rng(1)))
    assert {(gender, kid) for gender, kid, _ in blocks} == {
        (g, k) for g in ("neutral", "male", "female") for k in (False, True)
    }
    for gender, kid, betas in blocks:
        body = BodyModel.load("free", gender, kid=kid)
        report = check_body.check(body, betas, np.zeros((len(betas), 23, 3), np.float32))
        assert report.faults(check_body.MAX_TURNED_REST) == []


def test_poses_of_the_prior_are_sound(check_body):
    rng = np.random.default_rng(2)
    poses = PoseSampler(weights={"motion": 1.0}).sample(24, rng).body_pose
    betas = rng.normal(0, 1, (24, 10)).clip(-2.5, 2.5).astype(np.float32)
    report = check_body.check(BodyModel.load("free"), betas, poses)
    assert report.faults(check_body.MAX_TURNED_POSED) == []
    assert report.turned.max() > 0  # creases do fold: the measure is not blind


def test_turning_the_whole_body_turns_no_face(check_body):
    body = BodyModel.load("free")
    pose = np.zeros((1, 23, 3), np.float32)
    pose[0, 2] = 0, 3.0, 0  # the upper body faces backwards
    report = check_body.check(body, np.zeros((1, 10), np.float32), pose)
    assert report.turned_rigid[0] == 0


def test_a_limb_turned_inside_out_is_seen(check_body):
    arrays = load_free_body("neutral")
    J, v = arrays["J_regressor"] @ arrays["v_template"], arrays["v_template"]
    shin = arrays["part_labels"] == 4
    flatten = np.zeros_like(v)
    flatten[shin, 0] = -2 * (v[shin, 0] - J[4, 0])  # with beta 1 the left shin is mirrored through its own middle
    body = BodyModel.from_arrays(arrays | {"shapedirs": flatten[..., None]}, name="free", num_betas=1)
    still = np.zeros((1, 23, 3), np.float32)
    assert check_body.check(body, np.zeros((1, 1), np.float32), still).faults(check_body.MAX_TURNED_REST) == []
    faults = check_body.check(body, np.ones((1, 1), np.float32), still).faults(check_body.MAX_TURNED_REST)
    assert [fault.split(" of their ")[0] for fault in faults] == [
        "1 of 1 bodies have more than 0.5%", "1 of 1 bodies have more than 0.3%",
    ]  # fmt: skip


def test_numbers_that_are_none_and_empty_bodies_are_seen(check_body):
    body = BodyModel.load("free")
    still = np.zeros((1, 23, 3), np.float32)
    with torch.no_grad():
        report = check_body.check(body, np.full((1, 10), np.nan, np.float32), still)
    assert "1 of 1 bodies have values that are not numbers." in report.faults(1.0)
    huge = check_body.check(body, np.eye(10, dtype=np.float32)[:1] * 40, still)
    assert any("cubic metres" in fault for fault in huge.faults(1.0))
