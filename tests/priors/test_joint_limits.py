import numpy as np
import pytest

from priors.joint_limits import MIRROR, NAMES, joint_limits, mirror
from priors.rotations import matrix_from_aa


@pytest.fixture
def wild():
    return np.random.default_rng(0).normal(scale=0.9, size=(40, 23, 3))


def pose(**joints):
    aa = np.zeros((23, 3))
    for name, value in joints.items():
        aa[NAMES.index(name)] = value
    return aa


def test_table_is_complete_and_symmetric(wild):
    limits = joint_limits()
    assert (limits.low < 0).all() and (limits.high > 0).all()
    np.testing.assert_allclose(np.linalg.norm(limits.twist_axis, axis=1), 1)
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(23))
    np.testing.assert_allclose(limits.violation(mirror(wild)), limits.violation(wild)[:, MIRROR], atol=1e-9)


def test_coordinates_compose_back(wild):
    limits = joint_limits()
    again = limits.compose(limits.coordinates(wild))
    np.testing.assert_allclose(matrix_from_aa(again), matrix_from_aa(wild), atol=1e-9)


def test_clamp_moves_only_what_violates(wild):
    limits = joint_limits()
    before = limits.violation(wild)
    clamped = limits.clamp(wild)
    assert before.max() > 0.5
    assert limits.violation(clamped).max() < 1e-9
    np.testing.assert_array_equal(clamped[before == 0], wild[before == 0])
    np.testing.assert_allclose(limits.clamp(clamped), clamped, atol=1e-9)


@pytest.mark.parametrize(
    ("natural", "impossible"),
    [
        ({"left_knee": (1.5, 0, 0)}, {"left_knee": (-0.6, 0, 0)}),
        ({"right_knee": (2.4, 0, 0)}, {"right_knee": (-0.6, 0, 0)}),
        ({"left_elbow": (0, -2.0, 0)}, {"left_elbow": (0, 0.6, 0)}),
        ({"right_elbow": (0, 2.0, 0)}, {"right_elbow": (0, -0.6, 0)}),
        ({"left_hip": (-1.8, 0, 0)}, {"left_hip": (1.4, 0, 0)}),
        ({"left_hip": (0, 0, 1.0)}, {"left_hip": (0, 0, -1.2)}),
        ({"right_shoulder": (0, 0, -1.4)}, {"right_shoulder": (0, -1.8, 0)}),
        ({"spine1": (0.8, 0, 0)}, {"spine1": (-1.2, 0, 0)}),
        ({"left_hand": (0, 0, -1.0)}, {"left_hand": (0, 0, 1.0)}),
    ],
)
def test_signs_follow_anatomy(natural, impossible):
    assert joint_limits().violation(pose(**natural)).max() == 0
    assert joint_limits().violation(pose(**impossible)).max() > 0.1


def test_samples_fill_the_ranges():
    limits = joint_limits()
    wide = limits.sample(4000, np.random.default_rng(0), concentration=1.0)
    assert limits.violation(wide).max() < 1e-5
    knee = limits.coordinates(wide)[:, NAMES.index("left_knee"), 0]
    assert np.rad2deg(knee.max()) > 145 and abs(np.rad2deg(np.median(knee)) - 74.5) < 5
    narrow = limits.sample(4000, np.random.default_rng(0), concentration=4.0)
    assert np.abs(narrow).mean() < 0.6 * np.abs(wide).mean()
