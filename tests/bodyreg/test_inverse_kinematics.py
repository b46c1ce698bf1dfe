import numpy as np
import pytest
import torch

from bodyreg import inverse_kinematics as ik
from bodyreg.body import BodyModel
from bodyreg.rotations import matrix_from_aa

# A person's rest joints, metres, y up: enough of a skeleton for an arbitrary small mesh to carry it.
REST = torch.tensor([
    [0.00, -0.24, 0.03], [0.07, -0.33, 0.02], [-0.06, -0.33, 0.02], [0.00, -0.13, -0.01], [0.11, -0.71, 0.01],
    [-0.11, -0.71, 0.01], [0.01, 0.01, 0.01], [0.09, -1.12, -0.03], [-0.10, -1.12, -0.03], [0.01, 0.07, 0.03],
    [0.12, -1.18, 0.09], [-0.12, -1.17, 0.09], [0.00, 0.28, -0.02], [0.08, 0.19, 0.00], [-0.08, 0.19, -0.01],
    [0.01, 0.37, 0.03], [0.17, 0.22, -0.01], [-0.17, 0.22, -0.02], [0.43, 0.21, -0.04], [-0.43, 0.21, -0.05],
    [0.68, 0.22, -0.05], [-0.68, 0.22, -0.06], [0.76, 0.21, -0.06], [-0.77, 0.21, -0.06],
], dtype=torch.float64)  # fmt: skip


@pytest.fixture(scope="module")
def body():
    """A toy body whose joints are 24 of its 26 vertices; the first beta scales it, the second moves single joints."""
    rng = np.random.default_rng(0)
    v = np.concatenate([REST.numpy(), [[0.0, 0.5, 0.1], [0.0, 0.5, -0.1]]])
    shapedirs = np.stack([0.05 * v, 0.005 * rng.standard_normal(v.shape)], axis=-1)
    J_regressor = np.concatenate([np.eye(24), np.zeros((24, 2))], axis=1)
    arrays = {
        "v_template": v, "shapedirs": shapedirs, "posedirs": np.zeros((26, 3, 207)), "J_regressor": J_regressor,
        "weights": np.concatenate([np.eye(24), np.eye(24)[[15, 15]]]),
        "kintree_table": np.array([ik.PARENTS, range(24)]), "f": np.array([[15, 24, 25], [24, 15, 25]]),
    }  # fmt: skip
    return BodyModel.from_arrays(arrays, num_betas=2, name="unknown", dtype=torch.float64)


def posed(body, batch=6, seed=0, beta0=None):
    g = torch.Generator().manual_seed(seed)
    aa = 0.5 * torch.randn(batch, 24, 3, dtype=torch.float64, generator=g)
    aa[:, 0] *= 3
    # The pelvis and the upper spine are rigid in the skeleton's eyes only if their children hang together.
    R = matrix_from_aa(aa)
    betas = torch.randn(batch, 2, dtype=torch.float64, generator=g)
    if beta0 is not None:
        betas[:, 0] = beta0
    offset = torch.randn(batch, 3, dtype=torch.float64, generator=g)
    transl = torch.tensor([0.2, 0.1, 4.0], dtype=torch.float64) + offset
    out = body(betas, R[:, 1:], R[:, 0], transl)
    twist = ik.ortho_twist(body.rest_joints(betas), out.R_global)
    return R, betas, transl, out.joints, twist, R[:, list(ik.LEAF_JOINTS)]


def test_exact_joints_and_twists_give_back_the_pose(body):
    R, betas, transl, joints, twist, leaf = posed(body)
    result = ik.inverse_kinematics(body, joints, 3 * twist, betas, leaf, search=False)
    # The swing of the pelvis is rounded up to half a milliradian at least; everything else is exact.
    torch.testing.assert_close(result.R_local, R, atol=1e-3, rtol=0)
    torch.testing.assert_close(result.transl, transl, atol=1e-3, rtol=0)
    back = body(result.betas, result.R_local[:, 1:], result.R_local[:, 0], result.transl)
    torch.testing.assert_close(back.joints, joints, atol=1e-3, rtol=0)


def test_the_search_finds_the_size_of_the_body(body):
    R, betas, transl, joints, twist, leaf = posed(body, beta0=torch.tensor([-2.0, -1.3, 0.0, 0.7, 1.9, 0.1]))
    wrong = betas.clone()
    wrong[:, 0] = 9.0
    result = ik.inverse_kinematics(body, joints, twist, wrong, leaf)
    torch.testing.assert_close(result.betas, betas, atol=1e-6, rtol=0)


def test_the_search_over_the_batch_equals_a_loop_over_samples_and_values(body):
    *_, joints, twist, _ = posed(body, batch=3)
    joints = joints + 0.05 * torch.randn(joints.shape, dtype=joints.dtype, generator=torch.Generator().manual_seed(5))
    betas = torch.zeros(3, 2, dtype=torch.float64)
    found = ik.search_beta0(body, joints, betas)[:, 0]
    for k in range(3):
        costs = []
        for value in ik.BETA0_GRID:
            rest = body.rest_joints(torch.tensor([[value, 0.0]], dtype=torch.float64))
            reached = ik.solve(joints[k : k + 1], rest, "xy").joints
            costs.append((reached - joints[k : k + 1])[..., :2].norm(dim=-1).mean().item())
        assert found[k].item() == pytest.approx(ik.BETA0_GRID[int(np.argmin(costs))], abs=1e-6)


@pytest.mark.parametrize("mode", ["xy", "final"])
def test_bones_keep_their_length_whatever_is_aimed_at(body, mode):
    g = torch.Generator().manual_seed(1)
    rest = REST.expand(5, 24, 3)
    for aim in (torch.randn(5, 24, 3, dtype=torch.float64, generator=g), torch.zeros(5, 24, 3, dtype=torch.float64)):
        solved = ik.solve(aim, rest, mode)
        lengths = (rest - rest[:, ik.PARENTS]).norm(dim=-1)[:, 4:]
        torch.testing.assert_close(solved.bones.norm(dim=-1)[:, 4:], lengths)


def test_mode_xy_keeps_what_the_camera_sees(body):
    *_, joints, _, _ = posed(body)
    rest = body.rest_joints(torch.zeros(6, 2, dtype=torch.float64))
    nearer = joints.clone()
    nearer[:, 4:, 2] += 0.03 * torch.randn(6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    reached = {mode: ik.solve(nearer, rest, mode).joints for mode in ("xy", "final")}
    error = {mode: (joints24 - nearer)[..., :2].norm(dim=-1).mean() for mode, joints24 in reached.items()}
    assert error["xy"] < error["final"]


def test_result_is_rotations_for_any_input(body):
    g = torch.Generator().manual_seed(3)
    leaf = matrix_from_aa(torch.randn(8, 5, 3, dtype=torch.float64, generator=g))
    joints = torch.randn(8, 24, 3, dtype=torch.float64, generator=g)
    twist = torch.randn(8, 25, 3, dtype=torch.float64, generator=g)
    joints[1] = 0
    twist[2] = 0
    twist[3, 1:24] = (joints[3] - joints[3][list(ik.PARENTS)])[1:]
    R = ik.inverse_kinematics(body, joints, twist, torch.zeros(8, 2, dtype=torch.float64), leaf).R_local
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R), atol=1e-9, rtol=0)
    assert (torch.linalg.det(R) > 0).all()


def test_single_precision_agrees_with_double(body):
    R, betas, transl, joints, twist, leaf = posed(body, beta0=0.5)
    single = BodyModel.from_arrays(body_arrays(body), num_betas=2, name="unknown")
    a = ik.inverse_kinematics(body, joints, twist, betas, leaf)
    b = ik.inverse_kinematics(single, *(x.float() for x in (joints, twist, betas, leaf)))
    assert b.R_local.dtype == torch.float32
    torch.testing.assert_close(b.R_local.double(), a.R_local, atol=2e-4, rtol=0)
    torch.testing.assert_close(b.transl.double(), a.transl, atol=2e-4, rtol=0)


def body_arrays(body):
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    arrays = {name: getattr(body, name).numpy() for name in names}
    return arrays | {"kintree_table": np.array([ik.PARENTS, range(24)]), "f": body.faces.numpy()}


def test_a_broken_sample_stays_alone(body):
    R, betas, transl, joints, twist, leaf = posed(body)
    good = ik.inverse_kinematics(body, joints, twist, betas, leaf)
    joints[2, 13] = float("nan")
    bad = ik.inverse_kinematics(body, joints, twist, betas, leaf)
    keep = [0, 1, 3, 4, 5]
    torch.testing.assert_close(bad.R_local[keep], good.R_local[keep])
    assert not torch.isfinite(bad.R_local[2]).all()


def test_gradient_of_the_solver_matches_finite_differences(body):
    *_, joints, twist, leaf = posed(body)
    g = torch.Generator().manual_seed(7)
    joints = joints + 0.02 * torch.randn(joints.shape, dtype=joints.dtype, generator=g)
    # A giant: the rounding, 1e-8 beside products of lengths, is not in the derivative, and here not in the value.
    inputs = [x.detach().requires_grad_() for x in (30 * joints, twist, 30 * REST.repeat(6, 1, 1))]
    weights = torch.randn(24, 3, 3, dtype=torch.float64, generator=g)

    def scores(joints, twist, rest):  # (6,), one a sample
        solved = ik.solve(joints, rest)
        return (ik.compose(solved, rest, twist, leaf) * weights).sum((1, 2, 3)) + solved.joints.sum((1, 2))

    gradients = torch.autograd.grad(scores(*inputs).sum(), inputs)
    for k, gradient in enumerate(gradients):
        for _ in range(5):
            step = torch.randn(gradient.shape, dtype=gradient.dtype, generator=g)
            ends = []
            for sign in (1, -1):
                moved = [x.detach() + (sign * 1e-6 * step if i == k else 0) for i, x in enumerate(inputs)]
                ends.append(scores(*moved))
            numeric = (ends[0] - ends[1]) / 2e-6
            torch.testing.assert_close((gradient * step).flatten(1).sum(1), numeric, atol=1e-5, rtol=1e-5)


def test_the_searched_number_passes_its_gradient_straight_through(body):
    """As if the number found had been the regressed one; forward it is the number found, to the last bit."""
    *_, joints, twist, leaf = posed(body, beta0=0.73)
    regressed = torch.full((6, 2), 0.4, dtype=torch.float64, requires_grad=True)
    found = ik.search_beta0(body, joints, regressed)
    on_grid = torch.tensor(ik.BETA0_GRID, dtype=torch.float32).double()
    assert torch.isin(found[:, 0].detach(), on_grid).all() and torch.equal(found[:, 1], regressed[:, 1])
    weights = torch.randn(6, 24, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

    def score(betas, **options):
        result = ik.inverse_kinematics(body, joints, twist, betas, leaf, **options)
        turned, moved = (result.R_local * weights).sum(), (result.transl * weights[:, 0, 0]).sum()
        return turned + moved + 3 * result.betas[:, 0].sum()

    (through,) = torch.autograd.grad(score(regressed), regressed)
    instead = found.detach().requires_grad_()
    (direct,) = torch.autograd.grad(score(instead, search=False), instead)
    torch.testing.assert_close(through, direct)
    assert (through[:, 0] != 3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aim", ["rest", "mirrored", "flat", "line", "point", "half turn"])
def test_gradients_are_finite_in_degenerate_poses(body, dtype, aim):
    rest = body.rest_joints(torch.zeros(1, 2, dtype=torch.float64))
    joints = {
        "rest": rest,
        "mirrored": -rest,
        "flat": rest * torch.tensor([1.0, 1.0, 0.0]),
        "line": rest * torch.tensor([0.0, 1.0, 0.0]),
        "point": torch.zeros_like(rest),
        "half turn": rest * torch.tensor([1.0, -1.0, -1.0]),
    }[aim].to(dtype)
    single = BodyModel.from_arrays(body_arrays(body), num_betas=2, name="unknown", dtype=dtype)
    joints = joints.clone().requires_grad_()
    twist = ik.rest_twist(rest).to(dtype).clone().requires_grad_()
    betas = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
    leaf = torch.eye(3, dtype=dtype).expand(1, 5, 3, 3).clone().requires_grad_()
    result = ik.inverse_kinematics(single, joints, twist, betas, leaf)
    weights = torch.randn(24, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    ((result.R_local * weights).sum() + result.transl.sum() + result.betas.sum()).backward()
    for x in (joints, twist, betas, leaf):
        assert torch.isfinite(x.grad).all()
    assert betas.grad[0, 0] != 0, "the searched number passes its gradient on"


def test_rest_twists_are_perpendicular_units():
    rest = REST[None].clone()
    rest[0, 22] = rest[0, 20] + torch.tensor([0.0, 0.0, 0.1])
    twist = ik.rest_twist(rest)
    bones = rest - rest[:, ik.PARENTS]
    torch.testing.assert_close((twist * bones).sum(-1), torch.zeros(1, 24, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(twist.norm(dim=-1), torch.ones(1, 24, dtype=torch.float64))


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode"):
        ik.solve(REST[None], REST[None], "depth")
