"""Ranger against itself written out for one number, and as an optimiser that finds a minimum."""

import math

import pytest
import torch

from bodyreg.training.ranger import Ranger


def by_hand(
    w: float, gradients: list[float], lr: float, b1: float, b2: float, eps: float, alpha: float, k: int
) -> float:
    m = v = 0.0
    slow, largest = w, 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        n = largest - 2 * t * b2**t / (1 - b2**t)
        if n > 5:
            r = math.sqrt((n - 4) * (n - 2) * largest / ((largest - 4) * (largest - 2) * n))
            w -= lr * r * (m / (1 - b1**t)) / ((math.sqrt(v) + eps) / math.sqrt(1 - b2**t))
        else:
            w -= lr * m / (1 - b1**t)
        if t % k == 0:
            slow += alpha * (w - slow)
            w = slow
    return w


def test_fifteen_steps_by_hand():
    gradients = [math.sin(3 * i) + 0.2 for i in range(15)]
    weight = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    optimiser = Ranger([weight], lr=0.03, betas=(0.9, 0.99), eps=1e-5, alpha=0.5, k=6)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
    assert weight.item() == pytest.approx(by_hand(0.7, gradients, 0.03, 0.9, 0.99, 1e-5, 0.5, 6), abs=1e-12)


def test_it_finds_a_minimum_and_its_state_travels():
    weights = torch.nn.Parameter(torch.full((4,), 3.0))
    optimiser = Ranger([weights], lr=0.2, weight_decay=1e-4)
    for _ in range(300):
        optimiser.zero_grad()
        ((weights - torch.arange(4.0)) ** 2).sum().backward()
        optimiser.step()
    torch.testing.assert_close(weights.detach(), torch.arange(4.0), atol=0.05, rtol=0)
    other = Ranger([torch.nn.Parameter(weights.detach().clone())], lr=0.05)
    other.load_state_dict(optimiser.state_dict())
    assert other.state[other.param_groups[0]["params"][0]]["step"] == 300


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"alpha": 2.0}, {"k": 0}, {"betas": (1.0, 0.9)}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="Ranger got"):
        Ranger([torch.nn.Parameter(torch.zeros(1))], **wrong)
