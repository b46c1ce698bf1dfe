"""Lifting by diffusion: schedule, sampling, aggregation of hypotheses, training."""

from __future__ import annotations

import pytest
import torch

from bodyreg.models.lifters import diffusion
from bodyreg.models.lifters.diffusion import Diffusion, KTPFormerDenoiser, MixSTEDenoiser


def tiny(denoiser=KTPFormerDenoiser, **options) -> Diffusion:
    torch.manual_seed(0)
    network = denoiser(9, width=16, depth=1)
    return Diffusion(network, **{"timesteps": 50, "sampling_timesteps": 3, "hypotheses": 4, **options}).eval()


def test_noise_grows_from_none_to_all():
    model = tiny()
    pose, noise = torch.full((2, 9, 17, 3), 0.5), torch.randn(2, 9, 17, 3)
    first, last = (model.q_sample(pose, torch.tensor([t, t]), noise) for t in (0, 49))
    assert (first - pose).abs().max() < 0.2 and (last - noise).abs().max() < 0.1
    assert model.time_pairs()[0][0] == 49 and model.time_pairs()[-1][1] == -1
    assert (model.noisy_input(10 * pose, torch.tensor([0, 0]), noise).abs() <= 1.1 + 1e-6).all()


@pytest.mark.parametrize("denoiser", [KTPFormerDenoiser, MixSTEDenoiser])
def test_samples_follow_their_noise_and_poses_are_reproducible(denoiser):
    model = tiny(denoiser)
    x = torch.randn(2, 9, 17, 2)
    with torch.no_grad():
        drawn = model.sample(x, generator=torch.Generator().manual_seed(3))
        again = model.sample(x, generator=torch.Generator().manual_seed(3))
        other = model.sample(x, generator=torch.Generator().manual_seed(4))
        assert drawn.shape == (2, 3, 4, 9, 17, 3)
        assert torch.equal(drawn, again) and not torch.equal(drawn, other)
        assert torch.equal(model(x), model(x)) and model(x).shape == (2, 9, 17, 3)
        with pytest.raises(ValueError, match="Noise 1 is lacking"):
            model.sample(x, noise=[torch.zeros(2, 4, 9, 17, 3)])


def test_mirrored_key_points_give_mirrored_poses():
    """What flip averaging in every step is for."""
    model = tiny(eta=0.0)
    x, start = torch.randn(1, 9, 17, 2), torch.randn(1, 4, 9, 17, 3)
    noise = [start, torch.zeros_like(start), torch.zeros_like(start)]
    mirrored = [model._flip(part) for part in noise]
    with torch.no_grad():
        a, b = model.sample(x, noise=noise), model.sample(model._flip(x), noise=mirrored)
    assert torch.allclose(model._flip(a), b, atol=1e-5)


def test_aggregations_choose_what_they_say():
    torch.manual_seed(0)
    truth = torch.randn(2, 5, 17, 3)
    hypotheses = truth[:, None] + torch.randn(2, 6, 5, 17, 3)
    root = torch.tensor([0.1, 0.2, 5.0]).expand(2, 5, 1, 3)

    def project(points):
        return points[..., :2] / points[..., 2:]

    x = project(truth + root)
    found = diffusion.reprojected_pose(hypotheses, x, root, project)
    errors = {
        "mean": (diffusion.mean_pose(hypotheses) - hypotheses.mean(1)).abs().max(),
        "joints": (diffusion.best_joints(hypotheses, truth) - truth).norm(dim=-1),
        "pose": (diffusion.best_pose(hypotheses, truth) - truth).norm(dim=-1),
    }
    assert errors["mean"] == 0
    each = (hypotheses - truth[:, None]).norm(dim=-1)
    assert torch.allclose(errors["joints"], each.amin(1))
    assert torch.allclose(errors["pose"].mean(-1), each.mean(-1).amin(1))
    for b, f, j in ((0, 0, 0), (1, 4, 16), (1, 2, 7)):
        distance = [(project(hypotheses[b, h, f, j] + root[b, f, 0]) - x[b, f, j]).norm() for h in range(6)]
        assert torch.equal(found[b, f, j], hypotheses[b, int(torch.stack(distance).argmin()), f, j])


def test_training_lowers_the_loss_and_needs_poses():
    model = tiny().train()
    x = torch.randn(8, 9, 17, 2)
    pose = torch.cat([x * 0.3, x[..., :1] * 0.1], dim=-1)
    with pytest.raises(ValueError, match="Pass the true pose"):
        model(x)
    optimiser, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(40):
        loss = (model(x, pose) - pose).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_more_steps_than_times_are_refused():
    with pytest.raises(ValueError, match="Take fewer sampling steps"):
        tiny(sampling_timesteps=51)
