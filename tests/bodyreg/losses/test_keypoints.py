"""Losses on joints in the picture, against their formulas written out."""

import math

import pytest
import torch

from bodyreg.losses.keypoints import heatmap_cross_entropy, masked_mean, uv_distance


def test_masked_mean_counts_only_what_the_mask_shows():
    x, mask = torch.tensor([[1.0, 2.0], [30.0, 4.0]]), torch.tensor([[True, True], [False, True]])
    assert float(masked_mean(x, mask)) == pytest.approx(7 / 3)
    assert float(masked_mean(x, torch.tensor([[1.0], [0.5]]))) == pytest.approx((3 + 17) / 3)  # weights, broadcast
    assert float(masked_mean(x, torch.zeros(2, 2))) == 0


def test_heatmap_cross_entropy_is_least_at_the_target_and_equals_its_entropy_there():
    sigma, uv = 1.5, torch.tensor([[[8.3, 7.9]]])
    grid = torch.arange(16) + 0.5
    gauss = -((grid[None, :] - 8.3) ** 2 + (grid[:, None] - 7.9) ** 2) / (2 * sigma**2)
    at_target = heatmap_cross_entropy(gauss[None, None], uv, torch.ones(1, 1), sigma)
    entropy = math.log(2 * math.pi * math.e * sigma**2)
    assert float(at_target) == pytest.approx(entropy, rel=2e-3)
    for worse in (torch.zeros(1, 1, 16, 16), gauss.roll(1, 0)[None, None], 2 * gauss[None, None]):
        assert heatmap_cross_entropy(worse, uv, torch.ones(1, 1), sigma) > at_target + 0.01


def test_heatmap_cross_entropy_is_the_double_sum():
    torch.manual_seed(0)
    logits, uv = torch.randn(2, 3, 5, 6), torch.rand(2, 3, 2) * 5
    mask = torch.tensor([[1.0, 0, 1], [1, 1, 0]])
    total = 0.0
    for b in range(2):
        for j in range(3):
            weight = torch.tensor([[
                math.exp(-((x + 0.5 - uv[b, j, 0]) ** 2 + (y + 0.5 - uv[b, j, 1]) ** 2) / (2 * 0.8**2))
                for x in range(6)] for y in range(5)])  # fmt: skip
            log_share = logits[b, j] - logits[b, j].exp().sum().log()
            total += float(mask[b, j] * -(weight / weight.sum() * log_share).sum())
    assert float(heatmap_cross_entropy(logits, uv, mask)) == pytest.approx(total / 4, rel=1e-5)


def test_uv_distance_has_a_dead_zone_and_a_mask():
    true = torch.zeros(1, 3, 2)
    uv = torch.tensor([[[3.0, 4.0], [0.3, 0.4], [100.0, 0.0]]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(uv_distance(uv, true, mask)) == pytest.approx(5.5 / 2)
    assert float(uv_distance(uv, true, mask, dead_zone=1.0)) == pytest.approx(4 / 2)


def test_derivatives_are_finite_at_the_truth():
    uv = torch.zeros(1, 2, 2, requires_grad=True)
    uv_distance(uv, torch.zeros(1, 2, 2), torch.ones(1, 2)).backward()
    assert uv.grad.isfinite().all()
