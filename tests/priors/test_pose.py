import numpy as np
import pytest

from priors.joint_limits import NAMES, joint_limits
from priors.pose import PosePrior


@pytest.fixture(scope="module")
def clusters():
    """Two tight clusters of poses: (600, 23, 3), the first a third of them."""
    rng = np.random.default_rng(0)
    poses = rng.normal(scale=0.05, size=(600, 23, 3))
    poses[:200, NAMES.index("left_knee"), 0] += 1.5
    poses[200:, NAMES.index("left_knee"), 0] += 0.5
    return poses


def naive_log_prob(prior, flat):
    total = 0.0
    for w, mean, L in zip(prior.weights, prior.means, prior.factors, strict=True):
        covariance = L.astype(np.float64) @ L.T
        d = flat - mean
        log = -0.5 * (d @ np.linalg.solve(covariance, d) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        total += w * np.exp(log)
    return np.log(total)


def test_fit_finds_the_clusters(clusters):
    prior = PosePrior.fit(clusters, 2, seed=1)
    assert sorted(prior.weights.round(2)) == [0.33, 0.67]
    knees = prior.means.reshape(2, 21, 3)[:, NAMES.index("left_knee"), 0]
    np.testing.assert_allclose(knees[np.argsort(prior.weights)], [1.5, 0.5], atol=0.02)
    assert prior.mean_pose.shape == (23, 3)
    again = PosePrior.fit(clusters, 2, seed=1)
    np.testing.assert_array_equal(again.factors, prior.factors)


def test_covariance_has_a_floor():
    poses = np.zeros((100, 23, 3))
    prior = PosePrior.fit(poses, 3, floor=0.05)
    spread = np.linalg.eigvalsh(prior.factors @ np.swapaxes(prior.factors, 1, 2))
    np.testing.assert_allclose(spread, 0.05**2, rtol=1e-6)


def test_log_prob_agrees_with_the_formula_and_prefers_the_data(clusters):
    prior = PosePrior.fit(clusters, 2, seed=0)
    expected = [naive_log_prob(prior, p[:21].ravel()) for p in clusters[:5]]
    np.testing.assert_allclose(prior.log_prob(clusters[:5]), expected, rtol=1e-6)
    np.testing.assert_allclose(prior.log_prob(clusters[:4].reshape(2, 2, 23, 3)), np.reshape(expected[:4], (2, 2)))
    np.testing.assert_allclose(prior.log_prob(clusters[:5, :21]), expected, rtol=1e-6)
    assert prior.log_prob(clusters).min() > prior.log_prob(clusters + 0.5).max()


def test_round_trip_through_a_file(tmp_path, clusters):
    prior = PosePrior.fit(clusters, 2)
    prior.save(tmp_path / "prior.npz")
    again = PosePrior.load(tmp_path / "prior.npz")
    np.testing.assert_allclose(again.log_prob(clusters[:20]), prior.log_prob(clusters[:20]), atol=0.3)
    np.savez(tmp_path / "other.npz", weights=np.ones(2))
    with pytest.raises(ValueError, match="PosePrior.save"):
        PosePrior.load(tmp_path / "other.npz")


def test_refuses_bad_input(clusters):
    with pytest.raises(ValueError, match="two poses a component"):
        PosePrior.fit(clusters, 500)
    with pytest.raises(ValueError, match="NaN"):
        PosePrior.fit(np.full((10, 23, 3), np.nan), 2)
    with pytest.raises(ValueError, match="21, 3"):
        PosePrior.fit(clusters, 2).log_prob(np.zeros((5, 24, 3)))


def test_the_shipped_prior_knows_people():
    prior = PosePrior.load()
    poses = prior.sample(500, np.random.default_rng(0))
    assert poses.shape == (500, 23, 3) and poses.dtype == np.float32
    assert joint_limits().violation(poses).max() < 1e-4
    assert not poses[:, 21:].any()
    assert prior.sample(5, np.random.default_rng(0), hands=0.2)[:, 21:].any()
    np.testing.assert_array_equal(poses, prior.sample(500, np.random.default_rng(0)))
    # Arms hang in the mean pose, and knees bend: signs of SMPL's axes.
    assert prior.mean_pose[NAMES.index("left_shoulder"), 2] < -0.4
    assert prior.mean_pose[NAMES.index("right_shoulder"), 2] > 0.4
    assert prior.mean_pose[NAMES.index("left_knee"), 0] > 0.2
    shuffled = np.random.default_rng(1).permuted(poses, axis=0)
    assert prior.log_prob(poses).mean() > prior.log_prob(shuffled).mean() + 10
    assert (
        prior.log_prob(poses).mean() > prior.log_prob(joint_limits().sample(500, np.random.default_rng(0))).mean() + 50
    )


def test_the_shipped_prior_is_small():
    from priors import pose

    assert pose._ASSET.stat().st_size < 1_500_000
