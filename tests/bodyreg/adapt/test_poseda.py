"""PoseDA's operators: what alignment promises, what the generators must keep, what the critics cannot see."""

import pytest
import torch

from bodyreg import lens
from bodyreg.adapt.poseda import kinematics
from bodyreg.adapt.poseda.alignment import align_position, draw_pairs, usable
from bodyreg.adapt.poseda.critics import Critic2d, Critic3d, ReplayPool
from bodyreg.adapt.poseda.generators import PoseGenerator

CAMERA = torch.tensor([1.5, 1.6, 0.05, -0.03])
# Metres between parent and child, roughly a person: hips, legs, trunk, head, arms.
_OFFSETS = torch.tensor(
    [
        [0.13, 0, 0], [0, 0.44, 0], [0, 0.44, 0], [-0.13, 0, 0], [0, 0.44, 0], [0, 0.44, 0], [0, -0.24, 0],
        [0, -0.26, 0], [0, -0.2, 0], [-0.15, 0, 0], [-0.28, 0, 0], [-0.25, 0, 0], [0.15, 0, 0], [0.28, 0, 0],
        [0.25, 0, 0],
    ]
)  # fmt: skip


def people(n: int, seed: int = 0, depth: tuple[float, float] = (3.0, 6.0)) -> torch.Tensor:
    """(n, 16, 3) random bodies before the camera, metres."""
    g = torch.Generator().manual_seed(seed)
    turned = _OFFSETS + 0.12 * torch.randn(n, 15, 3, generator=g)
    bones = -turned * _OFFSETS.norm(dim=-1, keepdim=True) / turned.norm(dim=-1, keepdim=True)
    z = depth[0] + (depth[1] - depth[0]) * torch.rand(n, generator=g)
    root = torch.stack([0.3 * torch.randn(n, generator=g), 0.2 * torch.randn(n, generator=g), z], -1)
    return kinematics.joints_from_bones(bones) + root[:, None]


def image(joints: torch.Tensor, camera: torch.Tensor = CAMERA) -> torch.Tensor:
    return lens.project_linear(joints, camera)


def box(points: torch.Tensor) -> torch.Tensor:
    return (points.amax(-2) - points.amin(-2)).sum(-1)


def ks_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Two-sample Kolmogorov-Smirnov distance."""
    at = torch.cat([a, b]).sort().values
    cdf = lambda x: torch.searchsorted(x.sort().values, at, right=True) / len(x)  # noqa: E731
    return float((cdf(a) - cdf(b)).abs().max())


def test_alignment_puts_the_root_on_the_targets_and_keeps_the_shape():
    source, target = people(50), image(people(50, seed=1))
    kept = target.clone()
    aligned = align_position(source, target, CAMERA)
    torch.testing.assert_close(image(aligned)[:, 0], target[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned - aligned[:, :1], source - source[:, :1], atol=1e-5, rtol=0)
    assert torch.equal(target, kept)
    extent = source[..., :2].amax(1) - source[..., :2].amin(1)
    weak = (CAMERA[:2] * extent).sum(-1) / aligned[:, 0, 2]
    torch.testing.assert_close(weak, box(target), rtol=1e-4, atol=0)


def test_aligned_images_are_distributed_like_the_targets():
    source, target = people(2000, depth=(2.0, 2.5)), image(people(2000, seed=1))
    before, wanted = box(image(source)), box(target)
    aligned = image(align_position(source, target[draw_pairs(2000, 2000)], CAMERA))
    assert ks_distance(before, wanted) > 0.5 and ks_distance(box(aligned), wanted) < 0.05
    assert ks_distance(aligned[:, 0, 0], target[:, 0, 0]) < 1e-2
    ratio = box(image(align_position(source, target, CAMERA))) / wanted
    assert 0.97 < float(ratio.median()) < 1.03 and 0.8 < float(ratio.quantile(0.01)) < float(ratio.quantile(0.99)) < 1.3
    fine = box(image(align_position(source, target, CAMERA, refine=5))) / wanted
    assert ((fine - 1).abs() < 0.01).float().mean() > 0.99


def test_alignment_to_its_own_images_changes_little():
    source = people(1500)
    aligned = align_position(source, image(source)[draw_pairs(1500, 1500)], CAMERA)
    assert ks_distance(box(image(aligned)), box(image(source))) < 0.05


def test_alignment_is_differentiable_and_degenerate_rows_are_told():
    source = people(4).requires_grad_()
    target = image(people(4, seed=1)).detach()
    target[1] = target[1, :1]
    aligned = align_position(source, target, CAMERA)
    assert usable(aligned.detach(), target).tolist() == [True, False, True, True]
    aligned[[0, 2, 3]].square().sum().backward()
    assert source.grad.isfinite().all()
    one = people(1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: align_position(s, target[:1].double(), CAMERA.double()), one)


def test_a_clip_keeps_its_own_motion():
    clip = people(3)[:, None] + torch.linspace(-0.2, 0.2, 5)[None, :, None, None]
    target = image(people(3, seed=1))
    aligned = align_position(clip, target, CAMERA)
    torch.testing.assert_close(image(aligned[:, 2])[:, 0], target[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned.diff(dim=1), clip.diff(dim=1), atol=1e-5, rtol=0)


def test_pairs_use_every_target_before_any_twice():
    few, many = draw_pairs(5, 9), draw_pairs(20, 9)
    assert len(set(few.tolist())) == 5 and sorted(many[:9].tolist()) == list(range(9))


@pytest.fixture(scope="module")
def augmented():
    torch.manual_seed(0)
    pose = people(64)
    generator = PoseGenerator(width=32).eval()
    with torch.no_grad():
        return pose, generator(pose), generator


def test_turned_bones_keep_lengths_the_trunk_and_the_root(augmented):
    pose, out, _ = augmented
    before, after = kinematics.bone_vectors(pose), kinematics.bone_vectors(out.angles)
    torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(after[:, 6:8], before[:, 6:8], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.angles[:, 0], pose[:, 0])
    assert -1e-5 < float(out.angle_change.min()) and 0.01 < float(out.angle_change.max()) <= 2


def test_changed_lengths_stay_within_the_limit_and_symmetric(augmented):
    _, out, _ = augmented
    before, after = (kinematics.bone_vectors(p) for p in (out.angles, out.lengths))
    ratio = after.norm(dim=-1) / before.norm(dim=-1)
    assert (ratio - 1).abs().max() <= 0.2 + 1e-5 and (ratio - 1).abs().max() > 1e-3
    torch.testing.assert_close(ratio[:, [0, 1, 2, 10, 11]], ratio[:, [3, 4, 5, 13, 14]], atol=1e-5, rtol=0)
    torch.testing.assert_close(ratio[:, 7], torch.ones(len(ratio)), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.nn.functional.normalize(after, dim=-1), torch.nn.functional.normalize(before, dim=-1), atol=1e-5, rtol=0
    )


def test_rotation_is_rigid_and_leaves_the_root_at_zero(augmented):
    _, out, generator = augmented
    before, after = (torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") for p in (out.lengths, out.pose))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    assert out.pose[:, 0].eq(0).all()
    rotvec = torch.randn(100, 3)
    R = kinematics.matrix_from_rotvec(rotvec)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(100), atol=1e-5, rtol=0)


def test_rotation_has_finite_derivatives_at_zero():
    zero = torch.zeros(1, 3, requires_grad=True)
    kinematics.matrix_from_rotvec(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_the_local_critic_sees_no_place_size_or_orientation():
    torch.manual_seed(0)
    critic, pose = Critic3d(32, 16).eval(), people(8)
    scores = critic(pose)
    R = kinematics.matrix_from_rotvec(torch.tensor([[0.4, -1.0, 0.7]]))[0]
    longer = kinematics.joints_from_bones(kinematics.bone_vectors(pose) * (1 + torch.rand(8, 15, 1)))
    for other in (pose + 3, longer, pose @ R.T):
        torch.testing.assert_close(critic(other), scores, atol=1e-4, rtol=0)
    assert scores.std(0).max() > 1e-4


def test_the_pool_never_outgrows_its_size_and_then_mixes():
    pool = ReplayPool(10)
    first = torch.arange(8.0)[:, None]
    assert torch.equal(pool(first), first) and len(pool) == 8
    returned = torch.cat([pool(100 + k + torch.arange(8.0)[:, None]) for k in range(0, 80, 8)])
    assert len(pool) == 10 and returned.shape == (80, 1)
    assert (returned < 100).any(), "nothing stored ever came back"


def test_published_sizes():
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    generator = PoseGenerator()
    parts = [count(m) for m in (generator.BAprocess, generator.BLprocess, generator.RTprocess)]
    assert parts == [302_125, 296_713, 582_662] and sum(parts) == 1_181_500
    assert count(Critic3d()) == 1_076_205 and count(Critic2d()) == 43_801
