"""Dense supervision: only the mask counts outside the person."""

import pytest
import torch

from bodyreg.losses.dense import dense_loss


@pytest.fixture
def true():
    torch.manual_seed(0)
    target = torch.randn(2, 7, 6, 6)
    target[:, 0] = (torch.rand(2, 6, 6) > 0.5).float()
    return target


def sure(true):
    """The truth as a confident prediction."""
    predicted = true.clone()
    predicted[:, 0] = 40 * (2 * true[:, 0] - 1)
    return predicted


def test_truth_costs_nothing(true):
    assert float(dense_loss(sure(true), true)) == pytest.approx(0, abs=1e-6)


def test_what_is_outside_the_person_does_not_count(true):
    predicted = sure(true)
    predicted[:, 1:] += 10 * (1 - true[:, :1])
    assert float(dense_loss(predicted, true)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels, factor", [(slice(1, 4), 1), (slice(4, 7), 3)])
def test_weights_of_normals_and_positions(true, channels, factor):
    predicted = sure(true)
    predicted[:, channels] += 0.1
    assert float(dense_loss(predicted, true)) == pytest.approx(0.1 * factor, rel=1e-4)


def test_an_unsure_mask_costs_log_two(true):
    predicted = true.clone()
    predicted[:, 0] = 0
    assert float(dense_loss(predicted, true)) == pytest.approx(0.6931, abs=1e-3)
