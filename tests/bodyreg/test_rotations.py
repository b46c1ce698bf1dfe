import math

import pytest
import torch

from bodyreg import rotations as rot


def random_aa(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_rotation(R, atol):
    eye = torch.eye(3, dtype=R.dtype)
    torch.testing.assert_close(R @ R.mT, eye.expand_as(R), atol=atol, rtol=0)
    assert (torch.linalg.det(R) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_conversions_return(dtype, shape):
    aa = random_aa(*shape, dtype=dtype)
    aa = aa / aa.norm(dim=-1, keepdim=True) * 2.5
    atol = 1e-5 if dtype == torch.float32 else 1e-12
    R = rot.matrix_from_aa(aa)
    assert R.dtype == dtype
    assert_rotation(R, atol)
    for back in (
        rot.aa_from_matrix(R),
        rot.aa_from_matrix(rot.matrix_from_6d(rot.sixd_from_matrix(R))),
        rot.aa_from_quaternion(rot.quaternion_from_matrix(R)),
        rot.aa_from_matrix(rot.matrix_from_quaternion(3 * rot.quaternion_from_matrix(R))),
    ):
        torch.testing.assert_close(back, aa, atol=atol, rtol=0)


def test_known_turn_about_z():
    R = rot.matrix_from_aa(torch.tensor([0.0, 0.0, math.pi / 2]))
    torch.testing.assert_close(R @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))


def test_6d_columns_are_interleaved():
    x = torch.tensor([1.0, 10, 2, 20, 3, 31])
    a1 = torch.tensor([1.0, 2, 3])
    torch.testing.assert_close(rot.matrix_from_6d(x)[:, 0], a1 / a1.norm())


def test_rounded_rodrigues_is_near_the_exact_one():
    aa = random_aa(50)
    R = rot.rodrigues(aa)
    assert_rotation(R, 1e-12)
    torch.testing.assert_close(R, rot.matrix_from_aa(aa), atol=1e-7, rtol=0)
    torch.testing.assert_close(rot.rodrigues(torch.zeros(3)), torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_swing_takes_one_direction_to_the_other(dtype):
    v1, v2 = random_aa(40, dtype=dtype), random_aa(40, dtype=dtype, seed=1)
    R = rot.swing(v1, v2)
    assert_rotation(R, 1e-5 if dtype == torch.float32 else 1e-12)
    moved = (R @ rot.unit(v1)[..., None])[..., 0]
    torch.testing.assert_close(moved, rot.unit(v2), atol=1e-6, rtol=0) if dtype == torch.float64 else None
    torch.testing.assert_close(moved, rot.unit(v2), atol=2e-3, rtol=0)
    axis = torch.linalg.cross(v1, v2)
    torch.testing.assert_close((R @ axis[..., None])[..., 0], axis, atol=1e-5, rtol=1e-5)


def test_swing_of_parallel_and_antiparallel_is_the_identity():
    v = torch.tensor([[0.3, -2.0, 1.0]], dtype=torch.float64)
    for other in (v, 4 * v, -v):
        torch.testing.assert_close(rot.swing(v, other)[0], torch.eye(3, dtype=torch.float64), atol=1e-10, rtol=0)


def test_tiny_tilts_are_rounded_up():
    v1 = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    v2 = torch.tensor([1e-6, 0, 1], dtype=torch.float64)
    angle = rot.aa_from_matrix(rot.swing(v1, v2)).norm().item()
    assert angle == pytest.approx(rot.SMALLEST_SWING, rel=1e-6)
    assert pytest.approx(4.8828e-4, rel=1e-4) == rot.SMALLEST_SWING


def test_swing_gradient_matches_finite_differences():
    v1, v2 = random_aa(4).requires_grad_(), random_aa(4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(rot.swing, (v1, v2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2.0, -1.0, 0.0, 1 + 1e-7])
def test_swing_gradient_is_finite_everywhere(scale):
    v1 = torch.tensor([[0.0, 0, 1], [1, 2, 3]], requires_grad=True)
    v2 = (v1.detach() * scale).requires_grad_()
    (rot.swing(v1, v2) * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
    for v in (v1, v2):
        assert torch.isfinite(v.grad).all()
        assert v.grad.abs().max() < 1e5


def test_mirroring_agrees_between_forms_and_undoes_itself():
    aa = random_aa(10)
    D = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    R = rot.matrix_from_aa(aa)
    torch.testing.assert_close(rot.mirror_matrix(R), D @ R @ D)
    torch.testing.assert_close(rot.matrix_from_aa(rot.mirror_aa(aa)), D @ R @ D)


def test_kabsch_recovers_a_rotation_and_never_reflects():
    R = rot.matrix_from_aa(random_aa(8))
    source = random_aa(8, 5, seed=1)
    torch.testing.assert_close(rot.kabsch(source, source @ R.mT), R)
    mirrored = source * torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    assert_rotation(rot.kabsch(source, mirrored), 1e-12)


def test_kabsch_of_nothing_is_the_identity_and_coplanar_vectors_have_a_gradient():
    torch.testing.assert_close(rot.kabsch(torch.zeros(2, 3, 3), torch.ones(2, 3, 3)), torch.eye(3).expand(2, 3, 3))
    source = torch.tensor([[2.0, 0, 0], [0, 1, 0], [1, 1, 0]], requires_grad=True)
    target = torch.tensor([[0.0, 2, 0], [-1, 0, 0], [-1, 1, 0]], requires_grad=True)
    R = rot.kabsch(source, target)
    torch.testing.assert_close(R, rot.matrix_from_aa(torch.tensor([0, 0, math.pi / 2])), atol=1e-6, rtol=0)
    (R * torch.arange(9.0).view(3, 3)).sum().backward()
    assert torch.isfinite(source.grad).all() and torch.isfinite(target.grad).all()


def test_unit_of_zero_is_zero_with_zero_gradient():
    v = torch.zeros(2, 3, requires_grad=True)
    rot.unit(v).sum().backward()
    assert (rot.unit(v) == 0).all() and (v.grad == 0).all()


def test_wrong_shapes_say_so():
    with pytest.raises(ValueError, match="aa has shape"):
        rot.matrix_from_aa(torch.zeros(4))
    with pytest.raises(ValueError, match="R has shape"):
        rot.aa_from_matrix(torch.zeros(3, 4))
