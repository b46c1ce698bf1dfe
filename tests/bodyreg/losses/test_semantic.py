"""Semantic losses: a displaced body comes back, loose clothes pull nothing, and nothing is ever NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from semantic_doll import SIZE_HW, WEAK, K, doll, labels_of, seen

from bodyreg.cameras import transl_from_spin
from bodyreg.losses.semantic import (
    PRESETS,
    SemanticSettings,
    dsr_losses,
    face_attributes,
    ndc_vertices,
    render_semantics,
)
from bodyreg.losses.semantic_targets import semantic_targets

N = 112


@pytest.fixture(scope="module")
def scene():
    vertices, faces, prior = doll()
    return vertices, faces, prior, labels_of(vertices, faces, prior, N)


def losses(scene, weak, preset, labels=None, vertices=None, **changes):
    own, faces, prior, mine = scene
    options = replace(PRESETS[preset], **{"image_size": N, **changes})
    points = seen(own if vertices is None else vertices, weak, options.nearest)
    return dsr_losses(points, faces, prior, (mine if labels is None else labels).expand(len(weak), -1, -1), options)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("parts", [("mc",), ("c",), ("mc", "c")], ids="+".join)
def test_a_displaced_body_is_recovered_to_four_millimetres(scene, preset, parts) -> None:
    small = labels_of(*scene[:3], 64)
    shift = torch.tensor([[0.08, -0.06]]).requires_grad_()
    optimiser = torch.optim.Adam([shift], lr=8e-3)
    targets = semantic_targets(small)
    for _ in range(60):
        found = losses(scene, torch.cat([WEAK[:, :1], shift], 1), preset, small, image_size=64)
        optimiser.zero_grad()
        sum(getattr(found, part) for part in parts).backward()
        optimiser.step()
    assert bool(targets.mc_valid.all())
    assert float(shift.detach().norm()) < 0.004, shift


def test_distances_pull_a_body_back_from_where_nothing_overlaps(scene) -> None:
    shift = torch.tensor([[0.35, 0.0]]).requires_grad_()
    overlap = losses(scene, torch.cat([WEAK[:, :1], shift], 1), "corrected", mc_form="image").mc
    distance = losses(scene, torch.cat([WEAK[:, :1], shift], 1), "corrected", mc_form="distance").mc
    assert float(overlap.detach()) > 0.8
    (along_x,) = torch.autograd.grad(distance, shift)
    assert float(along_x[0, 0]) > 0  # a step against the gradient brings it back


def test_clothes_wider_than_the_body_pull_nothing_outwards(scene) -> None:
    vertices, faces, prior, labels = scene
    wide = vertices.clone()
    wide[:, [0, 2]] *= 1.25
    clothes = labels_of(wide, faces, prior, N)
    inside = losses(scene, WEAK, "corrected", clothes)
    # Where clothes are wider the released form asks the body to fill them; the corrected one costs next to nothing.
    grown = {}
    for preset in PRESETS:
        thin = torch.zeros(1, requires_grad=True)
        body = vertices * torch.stack([1 + thin[0], torch.tensor(1.0), 1 + thin[0]])
        found = losses(scene, WEAK, preset, clothes, body)
        (grown[preset],) = torch.autograd.grad(found.c, thin)
    assert float(grown["reference"]) < -0.01  # it would grow
    assert abs(float(grown["corrected"])) < 0.1 * abs(float(grown["reference"])) or float(grown["corrected"]) > 0
    outgrown = losses(scene, WEAK, "corrected", clothes, wide * 1.2)
    assert float(outgrown.c) > float(inside.c) + 0.1


def test_the_nearest_surface_hides_what_is_behind(scene) -> None:
    vertices, faces, prior, _ = scene
    arm = vertices.clone()
    behind = torch.arange(len(vertices)) // 42 == 2  # the left arm, moved behind the trunk
    arm[behind] += torch.tensor([-0.32, 0.0, 0.4])
    valid = torch.tensor([[False, False, True, False, False]])
    shown = {}
    for preset, options in PRESETS.items():
        points = seen(arm, WEAK, options.nearest)
        maps = render_semantics(points, faces, face_attributes(prior, valid), replace(options, image_size=N))
        shown[preset] = float(maps.mc.max())
    assert shown["corrected"] < 0.05 < 0.3 < shown["reference"]


def test_a_true_camera_and_a_weak_one_agree_on_what_both_can_say(scene) -> None:
    vertices, faces, prior, labels = scene
    options = replace(PRESETS["corrected"], image_size=N)
    weak = seen(vertices, WEAK, nearest=True)
    transl = transl_from_spin(WEAK)
    near = ndc_vertices(vertices[None] + transl[:, None], K, SIZE_HW, pivot=transl[:, 2])
    a, b = (dsr_losses(points, faces, prior, labels, options) for points in (weak, near))
    assert torch.allclose(a.mc, b.mc, atol=1e-5) and torch.allclose(a.c, b.c, atol=1e-5)


def test_three_metres_away_the_released_blend_weighs_as_at_its_own_distance(scene) -> None:
    vertices, faces, prior, labels = scene
    K_near = torch.tensor([[[300.0, 0, 112], [0, 300, 112], [0, 0, 1]]])
    place = torch.tensor([[0.0, 0.0, 3.0]])
    points = ndc_vertices(vertices[None], K_near, SIZE_HW, place, pivot=place[:, 2])
    found = dsr_losses(points, faces, prior, labels, replace(PRESETS["reference"], image_size=N))
    assert bool(found.rendered.all()) and 0 < float(found.mc) < 0.95
    assert torch.allclose(points[..., 2].mean(1), torch.tensor([49.6]), atol=0.1)


def test_what_cannot_be_compared_is_left_out_and_named(scene) -> None:
    vertices, faces, prior, labels = scene
    options = replace(PRESETS["reference"], image_size=N)
    weak = torch.cat([WEAK, WEAK, torch.tensor([[-0.5, 0, 0], [0.9, 300.0, 0], [0.9, float("nan"), 0]]), WEAK])
    pictures = labels.repeat(6, 1, 1)
    pictures[1] = 0  # nobody in the parsing picture
    pictures[5] = 255  # no parsing picture
    weak.requires_grad_()
    found = dsr_losses(seen(vertices, weak, False), faces, prior, pictures, options)
    assert found.mc_counted.tolist() == found.c_counted.tolist() == [True, False, False, False, False, False]
    one = dsr_losses(seen(vertices, WEAK, False), faces, prior, labels, options)
    assert torch.allclose(found.mc, one.mc / 6) and torch.allclose(found.c, one.c / 6)
    (gradient,) = torch.autograd.grad(found.mc + found.c, weak)
    assert bool(gradient[0].isfinite().all()) and float(gradient[0].abs().sum()) > 0

    nobody = dsr_losses(seen(vertices, weak[1:], False), faces, prior, pictures[1:], options)
    assert nobody.mc.tolist() == nobody.c.tolist() == 0 and not bool(nobody.rendered.any())
    nobody.mc.backward()


def test_random_steps_are_never_nan(scene) -> None:
    run_random_steps(scene, steps=100, seed=0)


def run_random_steps(scene, steps: int, seed: int) -> int:
    """Losses and gradients of wild bodies against wild pictures; how many samples were rendered."""
    vertices, faces, prior, labels = scene
    rng = np.random.default_rng(seed)
    rendered = 0
    for step in range(steps):
        options = replace(PRESETS[sorted(PRESETS)[step % 2]], image_size=int(rng.integers(8, 40)),
                          sigma=float(10 ** rng.uniform(-7, -3)), gamma=float(10 ** rng.uniform(-3, 0)),
                          depth_scale=float(10 ** rng.uniform(-4, -1)),
                          mc_form=str(rng.choice(["row", "image", "distance"])),
                          mc_region=str(rng.choice(["labels", "silhouette", "person"])))  # fmt: skip
        batch = 2
        weak = torch.from_numpy(rng.normal([0.9, 0, 0], [0.5, 1.0, 1.0], (batch, 3))).float()
        body = vertices * float(rng.choice([0.0, 0.1, 1.0, 3.0])) + torch.from_numpy(
            rng.normal(0, rng.choice([0, 0.02, 0.5]), (batch, *vertices.shape))
        ).float()
        if rng.random() < 0.1:
            body[0, 0] = float(rng.choice([np.nan, np.inf, 1e30]))
        picture = labels.repeat(batch, 1, 1)
        kind = rng.integers(4)
        if kind == 0:
            picture = torch.from_numpy(rng.integers(0, 20, picture.shape).astype(np.uint8))
        elif kind == 1:
            picture[:] = int(rng.choice([0, 5, 14, 255]))
        body.requires_grad_(), weak.requires_grad_()
        points = seen_each(body, weak, options.nearest)
        found = dsr_losses(points, faces, prior, picture, options)
        grads = torch.autograd.grad(found.mc + found.c, [body, weak], allow_unused=True)
        for value in (found.mc, found.c, found.mc_each, found.c_each):
            assert bool(value.isfinite().all()), step
        for value in grads:
            assert value is None or bool(value[found.rendered].isfinite().all()), step
        rendered += int(found.rendered.sum())
    assert rendered > steps / 4
    return rendered


def seen_each(body, weak, nearest):
    transl = transl_from_spin(weak)
    pivot = transl[:, 2] if nearest else None
    return ndc_vertices(body, K.expand(len(weak), -1, -1), SIZE_HW, transl, pivot=pivot)


def test_a_prior_of_another_body_and_labels_that_are_none_are_refused(scene) -> None:
    vertices, faces, prior, labels = scene
    points, options = seen(vertices, WEAK, False), PRESETS["reference"]
    with pytest.raises(ValueError, match="faces"):
        dsr_losses(points, faces, prior[:-1], labels, options)
    with pytest.raises(ValueError, match="label 20"):
        dsr_losses(points, faces, prior, labels.clamp(max=1) * 20, options)


def test_settings_name_presets_and_warm_up() -> None:
    settings = SemanticSettings(preset="reference", sigma=1e-4, start_epoch=1, warmup_steps=4)
    assert settings.options() == replace(PRESETS["reference"], sigma=1e-4)
    factors = [settings.factor(epoch, steps) for epoch, steps in ((0, 9), (1, 9), (2, 0), (2, 9))]
    assert factors == [0, 0, 0.25, 1]
    with pytest.raises(ValueError, match="preset"):
        SemanticSettings(preset="paper").options()
    with pytest.raises(ValueError, match="mc_form"):
        SemanticSettings(mc_form="iou").options()
