"""Bodies refined to key points: they go where the key points are, and stay where these are noise or not there."""

import numpy as np
import pytest
import torch

from bodyreg.adapt.masks import parsing_term, silhouette_term, windows
from bodyreg.adapt.meshes import BodyParameters, MeshSettings, _Points, _Prior, refine_bodies
from bodyreg.body import BodyModel
from bodyreg.cameras import project
from bodyreg.losses.semantic import ndc_vertices
from priors.pose import PosePrior
from renderers.soft import soft_silhouette

K = torch.tensor([[500.0, 0, 200], [0, 500, 200], [0, 0, 1]])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load("free")


def people(n: int, seed: int = 0, wrong: float = 1.0) -> tuple[BodyParameters, BodyParameters]:
    """True bodies four metres away, and a prediction of them."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(*shape, generator=generator)

    upright = torch.tensor([[torch.pi, 0, 0]]) + 0.2 * some(n, 3)
    true = BodyParameters(upright, 0.15 * some(n, 69), 0.5 * some(n, 10), torch.tensor([0, 0, 4.0]) + 0.1 * some(n, 3))
    off = [0.1 * some(n, 3), 0.12 * some(n, 69), 0.3 * some(n, 10), torch.tensor([0.05, 0.05, 0.15]) * some(n, 3)]
    return true, BodyParameters(*(value + wrong * by for value, by in zip(true, off, strict=True)))


def posed(body, parameters):
    with torch.no_grad():
        return body(**parameters._asdict())


def points_of(body, parameters, joint_set="openpose-25"):
    out = posed(body, parameters)
    return project(out.joints if joint_set == "smpl-24" else body.regress(out.vertices, joint_set), K)


def error(body, parameters, true):
    """(B,) mean distance of joints relative to the pelvis, millimetres."""
    a, b = posed(body, parameters).joints, posed(body, true).joints
    return 1000 * ((a - a[:, :1]) - (b - b[:, :1])).norm(dim=-1).mean(1)


def refine(body, start, points, joint_set="openpose-25", confidence=None, **options):
    confidence = torch.ones(points.shape[:2]) if confidence is None else confidence
    return refine_bodies(body, start, points, confidence, K, joint_set=joint_set, **options)


@pytest.mark.parametrize("joint_set", ["openpose-25", "coco-17", "smpl-24"])
def test_a_slightly_wrong_body_is_brought_onto_clean_key_points(body, joint_set):
    true, start = people(8)
    out = refine(body, start, points_of(body, true, joint_set), joint_set)
    assert out.refined.all()
    assert (out.after_px < 3).all() and (out.before_px > 3 * out.after_px).all()
    assert error(body, out.parameters, true).mean() < 0.75 * error(body, start, true).mean()


def test_with_a_loose_anchor_the_picture_is_met_exactly(body):
    true, start = people(3, wrong=0.3)
    loose = MeshSettings(
        iterations=150, joint_m=3.0, pose_rad=0.5, prior_weight=1e-4, least_noise_px=0.1, lr=0.05, outlier=1e3
    )
    out = refine(body, start, points_of(body, true), settings=loose)
    assert (out.after_px < 0.2).all()


def noisy(body, true, px, seed=0):
    clean = points_of(body, true)
    crop = 1.25 * (clean.amax(1) - clean.amin(1)).amax(1)
    generator = torch.Generator().manual_seed(seed)
    return clean + px * crop[:, None, None] / 256 * torch.randn(clean.shape, generator=generator)


def test_noise_of_four_pixels_helps_and_of_fifteen_does_not_harm(body):
    true, start = people(24, seed=1, wrong=1.5)
    before = error(body, start, true).mean()
    four, fifteen = (refine(body, start, noisy(body, true, px)) for px in (4, 15))
    assert error(body, four.parameters, true).mean() < 0.9 * before
    assert error(body, fifteen.parameters, true).mean() <= before
    assert fifteen.noise_px.mean() > 1.5 * four.noise_px.mean()


def test_one_wild_key_point_counts_for_nothing(body):
    true, start = people(4)
    clean = points_of(body, true)
    wild = clean.clone()
    wild[:, 4] += 300
    good, bad = refine(body, start, clean), refine(body, start, wild)
    moved = (posed(body, good.parameters).joints - posed(body, bad.parameters).joints).norm(dim=-1)
    # all but the arm whose wrist it is
    rest = [j for j in range(24) if j not in (19, 21, 23)]
    assert 1000 * moved[:, rest].mean() < 15


def test_people_without_key_points_come_back_as_they_are(body):
    true, start = people(5)
    points, confidence = points_of(body, true), torch.ones(5, 25)
    confidence[1] = 0
    confidence[2, 2:] = 0
    points[3] = torch.nan
    points[4, :5] = torch.nan
    out = refine(body, start, points, confidence=confidence)
    assert out.refined.tolist() == [True, False, False, False, True]
    for before, after in zip(start, out.parameters, strict=True):
        assert torch.equal(before[1:4], after[1:4]) and after.isfinite().all()
    assert out.after_px[1:4].isnan().all() and out.after_px[[0, 4]].isfinite().all()


def test_a_prediction_that_is_not_finite_harms_nobody_else(body):
    true, start = people(3)
    points = points_of(body, true)
    broken = start._replace(betas=start.betas.clone())
    broken.betas[1] = torch.inf
    out, alone = refine(body, broken, points), refine(body, BodyParameters(*(v[:1] for v in start)), points[:1])
    assert out.refined.tolist() == [True, False, True]
    torch.testing.assert_close(out.parameters.body_pose[:1], alone.parameters.body_pose, atol=2e-3, rtol=0)


def test_twice_gives_the_same_numbers(body):
    true, start = people(2)
    points = points_of(body, true)
    first, second = (refine(body, start, points, settings=MeshSettings(iterations=5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def test_a_sure_joint_is_held(body):
    true, start = people(4, wrong=2.0)
    points = points_of(body, true)
    sure = torch.full((4, 24), torch.nan)
    sure[:, 20] = 0.005  # the left wrist
    out = [posed(body, refine(body, start, points, spread=s).parameters).joints for s in (None, sure)]
    begun = posed(body, start).joints
    free, held = (((x - x[:, :1]) - (begun - begun[:, :1]))[:, 20].norm(dim=-1).mean() for x in out)
    assert held < 0.3 * free


def test_sets_without_a_regressor_are_taken_by_name(body):
    true, start = people(2)
    ours = points_of(body, true)
    from bodyreg import skeletons

    theirs = skeletons.convert(ours, "openpose-25", "openpose-18")
    out = refine(body, start, theirs, "openpose-18")
    assert out.refined.all() and (out.after_px < out.before_px).all()


@pytest.mark.parametrize("joint_set", ["openpose-25", "coco-17"])
def test_few_vertices_say_what_all_of_them_say(body, joint_set):
    true, _ = people(3)
    out = posed(body, true)
    points = _Points(body, joint_set)
    with torch.no_grad():
        R_local = torch.cat([out.global_orient[:, None], out.body_pose], 1)
        joints, named = points(true.betas, R_local, true.transl)
    torch.testing.assert_close(joints, out.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(named, body.regress(out.vertices, joint_set), atol=1e-5, rtol=0)


def test_the_prior_is_the_priors_up_to_a_constant():
    prior = PosePrior.load()
    poses = prior.sample(6, np.random.default_rng(0)).astype(np.float64)
    ours = _Prior(prior, torch.zeros(1, dtype=torch.float64))(torch.from_numpy(poses).flatten(1))
    theirs = -prior.log_prob(poses)
    np.testing.assert_allclose(np.diff(ours.numpy()), np.diff(theirs), atol=1e-6)


@pytest.mark.parametrize("change", [
    {"points": (2, 24, 2)}, {"confidence": (2, 24)}, {"K": (3, 3, 3)}, {"spread": (2, 23)}, {"settings": {"lr": 0.0}},
    {"settings": {"joint_m": -1.0}}, {"joint_set": "openpose-26"},
])  # fmt: skip
def test_wrong_input_is_told(body, change):
    _, start = people(2)
    with pytest.raises(ValueError, match=r"\. (Give|Leave|Did)"):
        refine_bodies(
            body, start, torch.zeros(change.get("points", (2, 25, 2))), torch.ones(change.get("confidence", (2, 25))),
            torch.eye(3).expand(change.get("K", (2, 3, 3))), joint_set=change.get("joint_set", "openpose-25"),
            spread=torch.ones(change["spread"]) if "spread" in change else None,
            settings=MeshSettings(**change.get("settings", {})),
        )  # fmt: skip


# ---- pictures -------------------------------------------------------------------------------------------------------


def mask_of(body, parameters, size=400):
    """(size, size) uint8 pixels that a body covers."""
    points = ndc_vertices(posed(body, parameters).vertices, K[None], (size, size))
    return (soft_silhouette(points[0][body.faces], image_size=size, sigma=1e-7)[0] > 0.5).numpy().astype(np.uint8)


def test_a_silhouette_draws_a_body_that_stands_beside_it(body):
    true, _ = people(1)
    start = true._replace(transl=true.transl + torch.tensor([0.12, 0.0, 0.0]))
    mask = mask_of(body, true)
    rows, columns = np.nonzero(mask)
    box = np.array([[columns.min(), rows.min(), np.ptp(columns), np.ptp(rows)]], float)
    term = silhouette_term(body, windows([mask], box, K[None].double().numpy()))
    costs = [float(term(posed(body, p).vertices, torch.tensor([0]))) for p in (true, start)]
    assert costs[0] < 0.25 < costs[1]
    # three key points of the head, seen with hardly any confidence: what moves the body is the mask
    confidence = torch.zeros(1, 25)
    confidence[0, [0, 15, 16]] = 0.01
    out = refine(
        body,
        start,
        points_of(body, start),
        confidence=confidence,
        image_term=term,
        settings=MeshSettings(iterations=20),
    )
    assert float(term(posed(body, out.parameters).vertices, torch.tensor([0]))) < 0.6 * costs[1]


def test_people_without_a_mask_or_behind_the_camera_cost_nothing(body):
    true, _ = people(2)
    given = windows(
        [None, np.ones((400, 400), np.uint8)], np.array([[100.0, 100, 150, 200]] * 2), K.expand(2, 3, 3).numpy()
    )
    vertices = posed(body, true).vertices.clone()
    vertices[1, :, 2] -= 5
    assert silhouette_term(body, given)(vertices, torch.tensor([0, 1])).tolist() == [0.0, 0.0]


def test_windows_see_what_the_photograph_shows():
    picture = np.zeros((100, 120), np.uint8)
    picture[40:60, 50:70] = 7
    found = windows([picture], np.array([[50.0, 40, 20, 20]]), K[None].double().numpy(), size=26)
    assert (found.values[0, 3:23, 3:23] == 7).all() and (found.values[0] == 7).sum() == 400
    # the box's corner, four metres away, lies three window pixels from the window's
    corner = torch.linalg.inv(K) @ torch.tensor([50.0, 40, 1]) * 4
    torch.testing.assert_close(project(corner[None, None], found.K)[0, 0], torch.tensor([3.0, 3.0]), atol=1e-3, rtol=0)


def test_labels_that_fit_cost_less_than_labels_beside(body):
    true, _ = people(1)
    beside = true._replace(transl=true.transl + torch.tensor([0.25, 0.0, 0.0]))
    mask = mask_of(body, true)
    rows, columns = np.nonzero(mask)
    box = np.array([[columns.min(), rows.min(), np.ptp(columns), np.ptp(rows)]], float)
    given = windows([np.where(mask > 0, 5, 0).astype(np.uint8)], box, K[None].double().numpy())
    term = parsing_term(body, given)
    fits, not_ = (float(term(posed(body, p).vertices, torch.tensor([0]))) for p in (true, beside))
    assert 0 <= fits < not_
