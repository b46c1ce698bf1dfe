"""Losses on what becomes a body: units, masks, zeros at the truth."""

import math

import pytest
import torch

from bodyreg.inverse_kinematics import TWIST_JOINTS as SOLVER_TWISTS
from bodyreg.losses.smpl import TWIST_JOINTS, density_distance, depth_distance, leaf_distance, twist_distance
from bodyreg.rotations import matrix_from_aa


def test_twists_supervised_are_the_twists_used():
    assert TWIST_JOINTS == SOLVER_TWISTS


def test_depth_is_in_hundredths_of_the_height_relative_to_the_root():
    joints = torch.tensor([[[0.0, 0, 3.0], [1, 1, 3.5], [0, 0, 2.9]]])
    depth = torch.tensor([[[0.0], [0.4], [9.0]]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(depth_distance(depth, joints, torch.tensor([2.0]), mask)) == pytest.approx(100 * 0.1 / 2 / 2)
    truth = (joints[..., 2:] - joints[:, :1, 2:])
    assert float(depth_distance(truth, joints, torch.tensor([2.0]), torch.ones(1, 3))) == pytest.approx(0, abs=1e-6)


def test_density_is_in_millimetres_a_pixel_and_metre_of_height():
    found = density_distance(torch.tensor([[[0.01]], [[0.02]]]), torch.tensor([0.012, 0.02]), torch.tensor([2.0, 1.0]))
    assert float(found) == pytest.approx((1.0 + 0.0) / 2)


def test_twist_ignores_length_and_joints_without_one():
    torch.manual_seed(0)
    true = torch.nn.functional.normalize(torch.randn(2, 25, 3), dim=-1)
    other = true.clone()
    other[:, [0, 1, 2, 3, 12, 13, 14, 24]] *= -1
    assert float(twist_distance(other * 7, true)) == pytest.approx(0, abs=1e-6)
    other[:, 16] *= -1
    assert float(twist_distance(other, true)) == pytest.approx(2 / len(TWIST_JOINTS), rel=1e-5)


def test_leaf_distance_is_frobenius():
    turn = matrix_from_aa(torch.tensor([0.3, 0.0, 0.0]))
    leaves = torch.eye(3).expand(1, 5, 3, 3).clone()
    leaves[0, 2] = turn
    expected = math.sqrt(8) * math.sin(0.15) / 5  # |R - I| of a turn by a is sqrt(8) sin(a / 2)
    assert float(leaf_distance(leaves, torch.eye(3).expand(1, 5, 3, 3))) == pytest.approx(expected, rel=1e-5)
