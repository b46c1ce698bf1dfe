"""Losses of lifters."""

import pytest
import torch

from bodyreg.losses import lifters


def pair():
    torch.manual_seed(0)
    return torch.randn(2, 4, 17, 3, dtype=torch.float64, requires_grad=True), torch.randn(2, 4, 17, 3).double()


def test_terms_against_loops():
    pred, true = pair()
    weights = lifters.joint_weights("h36m-17").double()
    position = sum(
        weights[j] * (pred[b, t, j] - true[b, t, j]).norm() for b in range(2) for t in range(4) for j in range(17)
    )
    torch.testing.assert_close(lifters.position(pred, true, weights), position / (2 * 4 * 17))
    steps = [(b, t, j) for b in range(2) for t in range(3) for j in range(17)]
    change = [pred[b, t + 1, j] - pred[b, t, j] for b, t, j in steps]
    wanted = [true[b, t + 1, j] - true[b, t, j] for b, t, j in steps]
    still = sum(weights[j] * c.square().sum() for (_, _, j), c in zip(steps, change, strict=True)) / (3 * len(steps))
    torch.testing.assert_close(lifters.temporal_consistency(pred, weights), still)
    torch.testing.assert_close(
        lifters.velocity(pred, true), sum((c - w).norm() for c, w in zip(change, wanted, strict=True)) / len(steps)
    )


def test_scale_free_term_ignores_scale():
    pred, true = pair()
    torch.testing.assert_close(lifters.n_mpjpe(pred, true), lifters.n_mpjpe(3 * pred, true))
    assert lifters.n_mpjpe(torch.zeros_like(true), true).isfinite()


def test_clips_of_one_frame_have_no_terms_that_compare_frames():
    pred, true = pair()
    terms = lifters.loss_terms(pred[:, :1], true[:, :1], {"mpjpe": 1, "velocity": 2, "temporal": 0.5, "n_mpjpe": 0})
    assert set(terms) == {"mpjpe"}


def test_squared_loss_has_the_loss_times_its_derivative():
    pred, true = pair()
    loss = lifters.position(pred, true)
    (plain,) = torch.autograd.grad(loss, pred, retain_graph=True)
    (scaled,) = torch.autograd.grad(lifters.squared(loss), pred)
    torch.testing.assert_close(scaled, loss.detach() * plain)


@pytest.mark.parametrize("term", [lifters.position, lifters.velocity, lifters.n_mpjpe])
def test_derivatives(term):
    pred, true = pair()
    small = pred[:1, :2, :3].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: term(p, true[:1, :2, :3]), small)


def test_weights_by_joint_set():
    assert lifters.joint_weights("mpi3dhp-17")[4] == 4 and len(lifters.joint_weights("humaneva-15")) == 15
    with pytest.raises(ValueError, match="Known: h36m-17"):
        lifters.joint_weights("coco-17")
