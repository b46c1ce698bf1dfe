"""The metrics against fixed numbers, against naive numpy twins, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg import skeletons
from bodyreg.evaluation import metrics

FIXED_MM = 1e-6
THRESHOLDS = [5e-3 * i for i in range(31)]


@pytest.fixture(scope="module")
def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Six frames of 17 joints, not planar, so that a mirrored copy does not align."""
    f, j, c = np.meshgrid(np.arange(6.0), np.arange(17.0), np.arange(3.0), indexing="ij")
    g = 0.5 * np.sin(0.7 * f + 1.3 * j + 2.1 * c) + 0.2 * np.cos(0.4 * f + 0.3 * j * (c + 1))
    p = 0.9 * g + 0.06 * np.cos(0.5 * f + 0.9 * j + 1.7 * c)
    return torch.from_numpy(p), torch.from_numpy(g)


def both(example, root):
    return metrics.root_relative(example[0], root), metrics.root_relative(example[1], root)


def j14(example):
    return tuple(skeletons.convert(x, "h36m-17-left", "lsp-14") for x in example)


def test_mpjpe_17(example):
    assert metrics.mpjpe(*both(example, 0)).mean() * 1e3 == pytest.approx(105.001885, abs=FIXED_MM)
    assert metrics.mpjpe(*both(example, 14)).mean() * 1e3 == pytest.approx(118.441803, abs=FIXED_MM)


def test_pa_mpjpe(example):
    assert metrics.pa_mpjpe(*example).mean() * 1e3 == pytest.approx(79.010429, abs=FIXED_MM)
    assert metrics.pa_mpjpe(*j14(example)).mean() * 1e3 == pytest.approx(78.931340, abs=FIXED_MM)


def test_n_mpjpe(example):
    assert metrics.n_mpjpe(*both(example, 0)).mean() * 1e3 == pytest.approx(91.169127, abs=FIXED_MM)


def test_mpjve(example):
    assert metrics.mpjve(*both(example, 0)).mean() * 1e3 == pytest.approx(57.307037, abs=FIXED_MM)


def test_mpjpe_of_j14_shows_what_the_root_decides(example):
    pelvis = [x[:, 0] for x in example]
    p, g = (metrics.root_relative(x, root) for x, root in zip(j14(example), pelvis, strict=True))
    assert metrics.mpjpe(p, g).mean() * 1e3 == pytest.approx(109.418841, abs=FIXED_MM)
    p, g = (metrics.root_relative(x, (2, 3)) for x in j14(example))
    assert metrics.mpjpe(p, g).mean() * 1e3 == pytest.approx(93.555129, abs=FIXED_MM)


def test_pck_and_auc(example):
    p, g = both(example, 0)
    assert metrics.pck(p, g).mean() * 100 == pytest.approx(80.392157, abs=FIXED_MM)
    assert metrics.auc(p, g).mean() * 100 == pytest.approx(32.922201, abs=FIXED_MM)
    p, g = (x[:, :14] for x in both(example, 14))
    assert metrics.pck(p, g).mean() * 100 == pytest.approx(61.904762, abs=FIXED_MM)
    assert metrics.auc(p, g).mean() * 100 == pytest.approx(23.195084, abs=FIXED_MM)


def test_acceleration_error(example):
    p, g = both(example, 0)
    assert metrics.acceleration_error(p, g).mean() * 1e3 == pytest.approx(34.962489, abs=FIXED_MM)
    assert metrics.acceleration_error(p, g, fps=30).mean() == pytest.approx(31.466240, abs=FIXED_MM)


def test_mirrored_truth_does_not_align(example):
    _, g = example
    mirrored = g * torch.tensor([-1.0, 1.0, 1.0], dtype=g.dtype)
    assert metrics.pa_mpjpe(mirrored, g).mean() * 1e3 == pytest.approx(173.425484, abs=FIXED_MM)


# Naive twins: one sample at a time, plain loops, numpy.


def naive_pa(p: np.ndarray, g: np.ndarray) -> float:
    """The other lineage: both sets scaled to norm 1, the last singular direction flipped for a reflection."""
    mean = g.mean(0)
    p, g = p - p.mean(0), g - mean
    norm_p, norm_g = np.linalg.norm(p), np.linalg.norm(g)
    U, s, Vt = np.linalg.svd((g / norm_g).T @ (p / norm_p))
    R = U @ Vt
    if np.linalg.det(R) < 0:
        s[-1] *= -1
        U[:, -1] *= -1
        R = U @ Vt
    aligned = s.sum() * norm_g / norm_p * p @ R.T
    return float(np.mean([np.linalg.norm(aligned[j] - g[j]) for j in range(len(g))]))


def naive_scaled(p: np.ndarray, g: np.ndarray) -> float:
    s = sum(float(p[j] @ g[j]) for j in range(len(g))) / sum(float(p[j] @ p[j]) for j in range(len(g)))
    return naive_error(s * p, g)


def naive_error(p: np.ndarray, g: np.ndarray) -> float:
    return sum(float(np.sqrt(((p[j] - g[j]) ** 2).sum())) for j in range(len(g))) / len(g)


def naive_pck(p: np.ndarray, g: np.ndarray, limit: float) -> float:
    return sum(1.0 for j in range(len(g)) if np.sqrt(((p[j] - g[j]) ** 2).sum()) < limit) / len(g)


def naive_auc(p: np.ndarray, g: np.ndarray) -> float:
    return sum(naive_pck(p, g, limit) for limit in THRESHOLDS) / len(THRESHOLDS)


@pytest.fixture(scope="module")
def random_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    g = 0.4 * rng.normal(size=(2, 7, 11, 3))
    return g + 0.1 * rng.normal(size=g.shape), g


@pytest.mark.parametrize(
    ("metric", "naive"),
    [
        (metrics.mpjpe, naive_error),
        (metrics.pa_mpjpe, naive_pa),
        (metrics.pa_pve, naive_pa),
        (metrics.pve, naive_error),
        (metrics.n_mpjpe, naive_scaled),
        (metrics.pck, lambda p, g: naive_pck(p, g, 0.15)),
        (metrics.auc, naive_auc),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_naive_twin(metric, naive, dtype, tolerance, random_pair):
    p, g = random_pair
    got = metric(torch.tensor(p, dtype=dtype), torch.tensor(g, dtype=dtype))
    expected = np.array([[naive(p[i, k], g[i, k]) for k in range(7)] for i in range(2)])
    assert got.dtype == dtype and got.shape == (2, 7)
    np.testing.assert_allclose(got.numpy(), expected, atol=tolerance)


def test_naive_twins_of_motion(random_pair):
    p, g = random_pair
    velocity = [[naive_error(p[i, t + 1] - p[i, t], g[i, t + 1] - g[i, t]) for t in range(6)] for i in range(2)]
    bend = [[[x[i, t] - 2 * x[i, t + 1] + x[i, t + 2] for x in (p, g)] for t in range(5)] for i in range(2)]
    acceleration = [[naive_error(*pair) for pair in row] for row in bend]
    tensors = torch.tensor(p), torch.tensor(g)
    np.testing.assert_allclose(metrics.mpjve(*tensors).numpy(), velocity, atol=1e-12)
    np.testing.assert_allclose(metrics.acceleration_error(*tensors).numpy(), acceleration, atol=1e-12)


# Alignment: what it must not depend on, and its edges.


def test_alignment_undoes_a_similarity_and_reports_it(random_pair):
    import roma

    p, g = (torch.tensor(x) for x in random_pair)
    R = roma.random_rotmat((2, 7), dtype=torch.float64)
    moved = 2.5 * p @ R.transpose(-1, -2) + torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(metrics.pa_mpjpe(moved, g), metrics.pa_mpjpe(p, g), atol=1e-9, rtol=0)
    fit = metrics.align(p, moved)
    torch.testing.assert_close(fit.R, R)
    torch.testing.assert_close(fit.scale, torch.full((2, 7), 2.5, dtype=torch.float64))
    torch.testing.assert_close(fit.aligned, moved)
    torch.testing.assert_close(fit.scale[..., None, None] * p @ fit.R.transpose(-1, -2) + fit.t[..., None, :], moved)


def test_alignment_without_scale(random_pair):
    p, g = (torch.tensor(x) for x in random_pair)
    fit = metrics.align(p, g, scale=False)
    assert (fit.scale == 1).all()
    distances = torch.cdist(p[0, 0], p[0, 0])
    torch.testing.assert_close(torch.cdist(fit.aligned[0, 0], fit.aligned[0, 0]), distances)


def test_coinciding_points_go_to_the_mean_of_the_truth(example):
    _, g = example
    p = torch.full_like(g, 0.7)
    expected = (g.mean(-2, keepdim=True) - g).norm(dim=-1).mean(-1)
    torch.testing.assert_close(metrics.pa_mpjpe(p, g), expected)


@pytest.mark.parametrize("flatten", [slice(2, 3), slice(1, 3)], ids=["planar", "on a line"])
def test_flat_points_align(example, flatten):
    _, g = example
    g = metrics.root_relative(g, 0)
    g[..., flatten] = 0
    assert metrics.pa_mpjpe(3 * g + 1, g).max() < 1e-9
    assert torch.linalg.det(metrics.align(3 * g + 1, g).R).min() > 0.999


def test_zero_prediction_has_a_scaled_error(example):
    _, g = example
    torch.testing.assert_close(metrics.n_mpjpe(torch.zeros_like(g), g), metrics.mpjpe(torch.zeros_like(g), g))


def test_nan_stays_with_its_sample(example):
    p, g = example[0].clone(), example[1]
    p[2, 5, 1] = torch.nan
    for metric in (metrics.mpjpe, metrics.pa_mpjpe, metrics.n_mpjpe):
        assert torch.isnan(metric(p, g)).tolist() == [False, False, True, False, False, False]
    assert metrics.pck(p, p.nan_to_num()).tolist() == pytest.approx([1, 1, 16 / 17, 1, 1, 1])


def test_threshold_is_strict():
    g = torch.zeros(1, 2, 3, dtype=torch.float64)
    p = torch.tensor([[[0.15, 0, 0], [np.nextafter(0.15, 0), 0, 0]]], dtype=torch.float64)
    assert metrics.pck(p, g).item() == 0.5
    assert metrics.auc(g, g).item() == pytest.approx(30 / 31)


def test_pve_subtracts_each_sides_root(random_pair):
    p, g = (torch.tensor(x) for x in random_pair)
    shift = torch.tensor([0.3, -4.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(
        metrics.pve(p + shift, g, p.mean(-2) + shift, g.mean(-2)), metrics.pve(p, g, p.mean(-2), g.mean(-2))
    )
    with pytest.raises(ValueError, match="one side's root"):
        metrics.pve(p, g, p.mean(-2))


@pytest.mark.parametrize("shape", [(0, 17, 3), (4, 0, 3)])
def test_nothing_to_score_is_an_error(shape):
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.mpjpe(torch.zeros(shape), torch.zeros(shape))


def test_shapes_are_checked(example):
    p, g = example
    with pytest.raises(ValueError, match=r"\(6, 17, 3\).*\(6, 14, 3\)"):
        metrics.mpjpe(p, g[:, :14])
    with pytest.raises(ValueError, match="compares 3 frames"):
        metrics.acceleration_error(p[:2], g[:2])


# Angles, challenge rules, smoothness, shape alone.


def test_rotation_errors_are_the_angles_between(random_pair):
    import roma

    R = roma.random_rotmat((3, 9), dtype=torch.float64)
    angles = torch.linspace(0, torch.pi, 27, dtype=torch.float64).view(3, 9)
    axes = torch.nn.functional.normalize(torch.tensor(random_pair[0][0, :3, :9]), dim=-1)
    turned = R @ roma.rotvec_to_rotmat(angles[..., None] * axes)
    torch.testing.assert_close(metrics.rotation_errors(turned, R), angles, atol=1e-7, rtol=0)
    whole = roma.random_rotmat(3, dtype=torch.float64)
    moved = whole[:, None].mT @ R
    torch.testing.assert_close(metrics.rotation_errors(moved, R, whole), torch.zeros(3, 9).double(), atol=1e-7, rtol=0)
    assert len(metrics.MPJAE_PARTS) == 9
    with pytest.raises(ValueError, match=r"\(\.\.\., P, 3, 3\)"):
        metrics.rotation_errors(R, R[:, :4])


def test_challenge_rules_count_the_threshold_itself():
    true = torch.zeros(1, 4, 3, dtype=torch.float64)
    pred = true.clone()
    pred[0, :, 0] = torch.tensor([0.0, 0.05, 0.0500001, 0.3], dtype=torch.float64)
    assert metrics.pck(pred, true, 0.05) == 0.25 and metrics.pck(pred, true, 0.05, inclusive=True) == 0.5
    shares = [sum(error <= limit / 1000 for error in (0.0, 0.05, 0.0500001, 0.3)) / 4 for limit in range(200)]
    expected = np.trapezoid(shares, dx=1) / 199
    assert metrics.auc_trapezoid(pred, true).item() == pytest.approx(expected, abs=1e-12)


def test_jitter_is_the_third_derivative():
    t = torch.arange(6, dtype=torch.float64) / 30
    points = (2.0 * t**3)[:, None, None].expand(6, 5, 3)
    torch.testing.assert_close(metrics.jitter(points, 30.0), torch.full((3,), 12 * 3**0.5, dtype=torch.float64))


def test_shape_error_ignores_place_and_size(random_pair):
    p, g = (torch.tensor(x) for x in random_pair)
    same = metrics.pve_t_sc(3.0 * g + 1.0, g)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0)
    torch.testing.assert_close(metrics.pve_t_sc(p, g), metrics.pve_t_sc(0.5 * p - 2.0, g))
    assert (metrics.pve_t_sc(p, g) > 0.01).all()


def test_a_similarity_moves_other_points_of_its_sample(random_pair):
    p, g = (torch.tensor(x) for x in random_pair)
    fit = metrics.align(p[..., :6, :], g[..., :6, :])
    torch.testing.assert_close(fit.apply(p[..., :6, :]), fit.aligned)
    assert fit.apply(p).shape == p.shape
