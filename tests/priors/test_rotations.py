import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from priors.rotations import aa_from_matrix, aa_from_quaternion, matrix_from_aa, quaternion_from_aa, swing_twist


@pytest.fixture
def aa():
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(300, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.concatenate([rng.uniform(0, np.pi, 290), [0, 1e-12, 1e-7, 1e-4, np.pi - 1e-9] * 2])
    return axis * angle[:, None]


def test_agrees_with_scipy(aa):
    np.testing.assert_allclose(matrix_from_aa(aa), Rotation.from_rotvec(aa).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(matrix_from_aa(2 * aa), Rotation.from_rotvec(2 * aa).as_matrix(), atol=1e-12)
    assert matrix_from_aa(aa.astype(np.float32)).dtype == np.float32


def test_round_trips(aa):
    np.testing.assert_allclose(aa_from_matrix(matrix_from_aa(aa)), aa, atol=1e-7)
    np.testing.assert_allclose(aa_from_quaternion(quaternion_from_aa(aa)), aa, atol=1e-7)
    for half_turn in np.eye(3) * np.pi:
        np.testing.assert_allclose(np.abs(aa_from_matrix(matrix_from_aa(half_turn))), half_turn, atol=1e-7)


def test_swing_and_twist_compose(aa):
    axis = np.array([0.0, 0.6, 0.8])
    swing, twist = swing_twist(aa, axis)
    np.testing.assert_allclose(
        matrix_from_aa(swing) @ matrix_from_aa(twist[:, None] * axis), matrix_from_aa(aa), atol=1e-7
    )
    np.testing.assert_allclose(swing @ axis, 0, atol=1e-7)
    np.testing.assert_allclose(swing_twist(0.7 * axis, axis)[1], 0.7)
