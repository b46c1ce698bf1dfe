import numpy as np
import pytest

from priors.shape import log_prob_betas, sample_betas


def test_truncated_normal():
    betas = sample_betas(20_000, np.random.default_rng(0), num_betas=3, limit=2.0)
    assert betas.shape == (20_000, 3) and betas.dtype == np.float32
    assert np.abs(betas).max() <= 2.0
    np.testing.assert_allclose(betas.mean(0), 0, atol=0.03)
    # standard deviation of N(0, 1) cut at 2
    np.testing.assert_allclose(betas.std(0), 0.8796, atol=0.02)
    assert (np.abs(betas) > 1.999).mean() < 0.001


def test_wide_spread_stays_within_the_limit():
    betas = sample_betas(2000, np.random.default_rng(0), std=1e6, limit=1.0)
    assert np.abs(betas).max() <= 1.0 and 0.5 < betas.std() < 0.65
    assert not sample_betas(5, np.random.default_rng(0), std=0.0).any()
    with pytest.raises(ValueError, match="positive limit"):
        sample_betas(5, np.random.default_rng(0), limit=0)


def test_log_prob():
    np.testing.assert_allclose(log_prob_betas(np.zeros((2, 10))), -5 * np.log(2 * np.pi))
    np.testing.assert_allclose(log_prob_betas(np.eye(3)) - log_prob_betas(np.zeros(3)), -0.5)
