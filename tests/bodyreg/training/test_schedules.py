"""Learning rates over time and which parameters decay."""

from __future__ import annotations

import pytest
from torch import nn

from bodyreg.training.schedules import bn_momentum, cosine_rate, decay_groups, exponential_rate, stepped_rate


def test_the_rate_rises_in_the_first_epoch_and_falls_in_steps():
    rate = lambda epoch: stepped_rate(epoch, 2.0, 3)  # noqa: E731
    assert rate(0) == pytest.approx(0.02) and rate(0.5) == pytest.approx(1.02)
    assert [rate(e) for e in (1, 3.999, 4, 6.999, 7)] == pytest.approx([2, 2, 1.5, 1.5, 1.125])
    for epoch, period in ((-0.1, 3), (1, 0)):
        with pytest.raises(ValueError, match="period"):
            stepped_rate(epoch, 1.0, period)


def test_only_weights_of_several_axes_decay():
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 1))
    module[2].weight.requires_grad_(False)
    module.bias = nn.Parameter(module[0].weight.detach().clone())  # a bias of four axes is a bias nevertheless
    decay, plain = decay_groups(module, 0.1)
    assert decay["names"] == ["0.weight"] and decay["weight_decay"] == 0.1
    assert set(plain["names"]) == {"bias", "0.bias", "1.weight", "1.bias", "2.bias"} and plain["weight_decay"] == 0
    assert decay["params"][0] is module[0].weight


def test_exponential_rate_halves_instead_of_decaying():
    rates = [1.0]
    for epoch in range(1, 12):  # after each epoch, counted from one
        rates.append(rates[-1] * (0.5 if epoch % 5 == 0 else 0.95))
    assert [exponential_rate(e, 1.0, 0.95, 5) for e in range(12)] == pytest.approx(rates)
    assert exponential_rate(7, 2.0, 0.99) == pytest.approx(2.0 * 0.99**7)


def test_cosine_rate_and_momentum_reach_both_ends():
    assert cosine_rate(0, 80, 0.01, 1e-5) == pytest.approx(0.01) and cosine_rate(80, 80, 0.01, 1e-5) == pytest.approx(
        1e-5
    )
    assert bn_momentum(0, 80) == pytest.approx(0.1) and bn_momentum(80, 80) == pytest.approx(0.001)
