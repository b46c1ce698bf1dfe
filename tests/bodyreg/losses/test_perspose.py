"""PersPose's losses: masks, dead zones, fillers, gradients; the logged figures vanish for a perfect prediction."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from bodyreg.losses.perspose import (
    COCO_JOINTS,
    MPI3DHP_JOINTS,
    PersPoseTargets,
    PersPoseWeights,
    mpi3dhp_targets,
    perspose_losses,
    smpl_targets,
    total_loss,
)
from bodyreg.models.decoding import Decoded
from bodyreg.rotations import matrix_from_aa
from bodyreg.training.perspose_figures import logged_figures

KINDS = ("is_smpl", "is_3dhp", "is_coco")


def targets_of(*kinds: str, bedlam: bool = False) -> PersPoseTargets:
    g = torch.Generator().manual_seed(5)
    n = len(kinds)

    def points(count: int) -> torch.Tensor:
        return torch.rand(n, count, 3, generator=g) - 0.5 + torch.tensor([0.0, 0.0, 4.0])

    masks = {kind: torch.tensor([k == kind for k in kinds]) for kind in KINDS}
    keypoints = torch.rand(n, 17, 3, generator=g) * 256
    keypoints[..., 2] = 2
    return PersPoseTargets(
        K_crop=torch.tensor([[800.0, 0, 128], [0, 800, 128], [0, 0, 1]]).expand(n, 3, 3), size_hw=(256, 256),
        height=torch.full((n,), 1.6), is_bedlam=masks["is_smpl"] & bedlam, joints24=points(24),
        pelvis17=points(1)[:, 0], twist=torch.randn(n, 24, 3, generator=g),
        leaf_rot=matrix_from_aa(torch.randn(n, 5, 3, generator=g)),
        betas=torch.randn(n, 11, generator=g), joints17_3dhp=points(17), keypoints_coco=keypoints, **masks,
    )  # fmt: skip


def perfect(t: PersPoseTargets) -> Decoded:
    """The prediction that agrees with every label that applies."""
    smpl, mpi = smpl_targets(t), mpi3dhp_targets(t)
    n, rows = len(t.height), list(MPI3DHP_JOINTS[1])
    uv, xyz, density = smpl.uv.clone(), smpl.points.clone(), smpl.density.clone()
    for k in range(n):
        if t.is_3dhp[k]:
            uv[k, rows], density[k, rows], xyz[k, rows] = mpi.uv[k], mpi.density[k], mpi.points[k]
        if t.is_coco[k]:
            uv[k, COCO_JOINTS[1]] = t.keypoints_coco[k, COCO_JOINTS[0], :2]
    xyz = xyz - xyz[:, :1]
    twist = torch.cat([t.twist, torch.ones(n, 1, 3)], 1)
    density = density / 1000
    return Decoded(uv, xyz[..., 2:], density[:, :1], density, xyz, xyz[:, :1], 3 * twist, t.leaf_rot, t.betas)


def test_a_perfect_prediction_costs_nothing_and_an_empty_batch_is_zero():
    t = targets_of("is_smpl", "is_3dhp", "is_coco", "is_smpl")
    losses = perspose_losses(perfect(t), t)
    assert list(losses) == [f.name for f in fields(PersPoseWeights)]
    assert all(abs(float(v)) < 1e-3 for v in losses.values()), losses
    nothing = perspose_losses(perfect(t), t._replace(**{kind: torch.zeros(4, dtype=torch.bool) for kind in KINDS}))
    assert all(float(v) == 0 for v in nothing.values())


@pytest.mark.parametrize(
    ("kind", "mine"),
    [
        ("is_smpl", {"uv", "depth", "rho0", "xyz", "twist", "beta", "leaf"}),
        ("is_3dhp", {"uv_3dhp", "depth_3dhp", "rho0_3dhp"}),
        ("is_coco", {"uv_coco"}),
    ],
)
def test_each_kind_of_sample_feeds_its_own_terms_alone(kind, mine):
    t = targets_of(kind, kind)
    d = perfect(t)
    g = torch.Generator().manual_seed(1)
    wrong = Decoded(*(x + 40 * torch.randn(x.shape, generator=g) for x in d))
    losses = perspose_losses(wrong, t)
    assert {name for name, value in losses.items() if float(value) > 0} == mine


def test_dead_zones():
    t = targets_of("is_3dhp", "is_coco")
    d = perfect(t)
    near = d._replace(uv=d.uv + torch.tensor([3.0, 4.0]) * 0.999)
    far = d._replace(uv=d.uv + torch.tensor([6.0, 8.0]))
    assert float(perspose_losses(near, t)["uv_coco"]) == 0 == float(perspose_losses(near, t)["uv_3dhp"])
    assert float(perspose_losses(far, t)["uv_coco"]) == pytest.approx(5, abs=1e-3)
    assert float(perspose_losses(far, t)["uv_3dhp"]) == pytest.approx(5, abs=1e-3)
    # 4 cm at a stature of 1.80 m is 3.56 cm at 1.60 m, beside the pelvis, which is one of the nine and always right.
    for centimetres, expected in ((3.5, 0.0), (10.0, 1.8 * (10 / 1.6 - 4 / 1.8) * 8 / 9)):
        depth = d.depth.clone()
        depth[0, :24] += centimetres / 100
        got = float(perspose_losses(d._replace(depth=depth), t)["depth_3dhp"])
        assert got == pytest.approx(expected, abs=1e-3)


def test_bedlam_counts_a_tenth_in_the_picture():
    plain, synthetic = targets_of("is_smpl", "is_smpl"), targets_of("is_smpl", "is_smpl", bedlam=True)
    mixed = plain._replace(is_bedlam=torch.tensor([True, False]))
    d = perfect(plain)
    uv = d.uv.clone()
    uv[0, :, 0] += 11
    off = d._replace(uv=uv)
    inside = smpl_targets(plain).mask.sum(1).double()
    for t, weights in ((plain, (1.0, 1.0)), (synthetic, (0.1, 0.1)), (mixed, (0.1, 1.0))):
        a, b = (w * n for w, n in zip(weights, inside, strict=True))
        assert float(perspose_losses(off, t)["uv"]) == pytest.approx(float(11 * a / (a + b)), rel=1e-4)


def test_fillers_of_other_samples_never_reach_the_gradient():
    t = targets_of("is_smpl", "is_coco")
    kept = torch.tensor([1.0, 0.0])[:, None, None]
    broken = t._replace(joints24=t.joints24 * kept, joints17_3dhp=t.joints17_3dhp * 0)
    d = Decoded(*(x.clone().requires_grad_() for x in perfect(t)))
    total_loss(perspose_losses(d, broken), PersPoseWeights(xyz=1.0)).backward()
    gradients = [x.grad for x in d if x.grad is not None]
    assert len(gradients) >= 6 and all(torch.isfinite(g).all() for g in gradients)


def test_terms_of_weight_zero_cannot_spoil_the_sum():
    losses = {f.name: torch.tensor(1.0) for f in fields(PersPoseWeights)} | {"xyz": torch.tensor(torch.nan)}
    assert float(total_loss(losses, PersPoseWeights())) == pytest.approx(7.12)


def test_logged_figures_vanish_for_a_perfect_prediction_and_see_a_shift():
    t = targets_of("is_smpl", "is_smpl")
    g = torch.Generator().manual_seed(2)
    joints17, vertices = torch.randn(2, 17, 3, generator=g), torch.randn(2, 40, 3, generator=g)
    figures = logged_figures(perfect(t), t, joints17, vertices, joints17, vertices)
    assert len(figures) == 21
    assert all(float(v) < 5e-2 for v in figures.values()), figures
    d = perfect(t)
    off = d._replace(depth=d.depth * 2 + 0.1, uv=d.uv + torch.tensor([3.0, 4.0]))
    figures = logged_figures(off, t, 1.5 * joints17, vertices + 0.5, joints17, vertices)
    assert float(figures["err_uv"]) == pytest.approx(5, abs=1e-3)
    assert float(figures["err_d"]) > 5 and float(figures["err_d_aligned"]) < 1e-3
    assert float(figures["MPJPE"]) > 0.1 and float(figures["PA_MPJPE"]) < 1e-5
