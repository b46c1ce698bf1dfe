"""UAO on any lifter: it moves towards the 2D joints, leaves the network as found, and never gives NaN."""

import pytest
import torch
from torch import nn

from bodyreg import lens
from bodyreg.adapt.uao import UAOSettings, solve_root, uao_optimize
from bodyreg.models.lifters.gumlp import GUMLP

PINHOLE = torch.tensor([2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
H36M = torch.tensor([2.29, 2.287, 0.025, 0.029, -0.207, 0.2478, -0.0031, -0.00098, -0.00142])


class Flat(nn.Module):
    """A lifter that believes every joint lies in the root's plane, at a fixed scale; J joints, T or one frame."""

    def __init__(self, depth: float = 4.0, centre: bool = False) -> None:
        super().__init__()
        self.scale, self.centre = nn.Parameter(torch.tensor(depth / 2)), centre
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        if self.centre:
            x = x[:, x.shape[1] // 2, None]
        x = self.drop(x)
        joints = torch.cat([self.scale * (x - x[:, :, :1]), torch.zeros_like(x[..., :1])], -1)
        return joints


def people(b: int = 3, t: int = 1):
    """Random bodies of about a metre, four metres away, and their images."""
    generator = torch.Generator().manual_seed(0)
    joints = 0.4 * torch.randn(b, t, 17, 3, generator=generator)
    joints = joints - joints[:, :, :1]
    root = torch.tensor([0.2, -0.1, 4.0]) + 0.1 * torch.randn(b, t, 1, 3, generator=generator)
    return joints, root


def reprojection(result, keypoints, camera):
    points = result.after + result.root
    before = result.before + result.root
    return tuple(
        float((lens.project(p, camera.reshape(-1, 1, 1, 9)) - keypoints).norm(dim=-1).mean()) for p in (before, points)
    )


@pytest.mark.parametrize("camera", [PINHOLE, H36M])
def test_rays_undo_the_lens(camera):
    joints, root = people()
    points = joints + root
    rays = lens.rays(lens.project(points, camera), camera)
    torch.testing.assert_close(rays, points[..., :2] / points[..., 2:], atol=2e-6, rtol=0)


@pytest.mark.parametrize("camera", [PINHOLE, H36M])
def test_the_root_is_found_from_exact_joints(camera):
    joints, root = people()
    found = solve_root(joints, lens.project(joints + root, camera), camera)
    torch.testing.assert_close(found, root, atol=1e-3, rtol=0)


def test_a_root_is_never_behind_the_camera_even_without_information():
    joints, _ = people()
    for keypoints in (torch.zeros(3, 1, 17, 2), 5 * torch.ones(3, 1, 17, 2)):
        root = solve_root(joints, keypoints, PINHOLE)
        assert root.isfinite().all() and ((joints + root)[..., 2] > 0.19).all()


@pytest.mark.parametrize(
    ("flip", "scale"), [(True, None), (True, "flip"), (False, None), (False, torch.full((1, 1, 17, 1), -2.0))]
)
def test_reprojection_error_falls_for_an_imperfect_lifter(flip, scale):
    joints, root = people(4, 5)
    keypoints = lens.project(joints + root, PINHOLE)
    settings = UAOSettings(iterations=10, flip=flip)
    result = uao_optimize(Flat(5.0), keypoints, PINHOLE, root, root_source="gt", log_scale=scale, settings=settings)
    before, after = reprojection(result, keypoints, PINHOLE)
    assert after < before and result.root_source == "gt" and result.after.shape == joints.shape
    assert result.history.losses.shape == (10, 5) and len(result.history.z) == 11
    assert result.history.losses.isfinite().all()


def test_the_first_step_has_no_nan_at_zero_distance():
    joints, root = people()
    keypoints = lens.project(joints + root, PINHOLE)
    settings = UAOSettings(1, weight_proj=0.0)
    result = uao_optimize(Flat(), keypoints, PINHOLE, root, settings=settings)
    assert all(grad.eq(0).all() for grad in result.history.grad)
    assert torch.equal(result.history.z[1], keypoints)


def test_a_centre_frame_lifter_moves_its_whole_window():
    joints, root = people(2, 9)
    keypoints = lens.project(joints + root, PINHOLE)
    result = uao_optimize(Flat(centre=True), keypoints, PINHOLE)
    assert result.after.shape == (2, 1, 17, 3) and result.root_source == "solve"
    moved = (result.history.z[-1] - keypoints).abs().amax((2, 3))
    assert (moved[:, 4] > 1e-4).all() and (moved[:, :4] == 0).all()


def test_model_mode_flags_and_gradients_come_back():
    model = GUMLP(1, 32).train()
    next(model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    joints, root = people()
    keypoints = lens.project(joints + root, PINHOLE)
    with torch.no_grad():
        first = uao_optimize(model, keypoints, PINHOLE)
    assert model.training and [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    again = uao_optimize(model, keypoints, PINHOLE)
    assert torch.equal(first.after, again.after), "evaluation mode was not used"


def test_an_empty_batch_stays_empty():
    result = uao_optimize(Flat(), torch.zeros(0, 1, 17, 2), PINHOLE, torch.zeros(0, 1, 1, 3))
    assert result.after.shape == (0, 1, 17, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": torch.zeros(1, 17, 2)}, "Give \\(B, T, J, 2\\)"),
        ({"camera": torch.zeros(4)}, "The camera has shape"),
        ({"keypoints": torch.full((1, 1, 17, 2), float("nan"))}, "not finite"),
        ({"root": torch.zeros(1, 3)}, "The root has shape"),
        ({"root": "guess"}, "or 'solve'"),
        ({"log_scale": "mean"}, "log_scale is 'mean'"),
        ({"log_scale": "flip", "settings": UAOSettings(flip=False)}, "mirrored pass is off"),
        ({"settings": UAOSettings(lr=0.0)}, "lead nowhere"),
        ({"joint_set": "h36m-18"}, "no joint set"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    given = {"keypoints": torch.zeros(1, 1, 17, 2), "camera": PINHOLE} | changes
    with pytest.raises(ValueError, match=message):
        uao_optimize(Flat(), **given)


def test_gumlp_refuses_another_graph_and_takes_the_published_one():
    model = GUMLP(1, 32)
    state = model.state_dict()
    model.load_state_dict({**state, "A": model.GCN_MLP.blocks[0].gcn1.A.clone()}, strict=True)
    with pytest.raises(ValueError, match="another graph"):
        model.load_state_dict({**state, "A": torch.zeros(4, 17, 17)}, strict=True)
