"""Pixel losses against their sums written out, and their derivatives; targets against a walk over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.losses import semantic_pixels as pixels
from bodyreg.losses.semantic_targets import class_weights, mask_distance, semantic_targets
from priors.clothing_labels import C_GROUPS, LABELS, MC_COLUMNS


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(2, 8, 6, 5, generator=generator, dtype=torch.float64) / 8
    labels = torch.randint(0, 8, (2, 6, 5), generator=generator)
    weight = torch.rand(2, 8, generator=generator, dtype=torch.float64)
    return maps, labels, weight


def test_intersections_over_union_row_by_row_and_whole(maps) -> None:
    p, t = maps[0][:, 0] * 8, (maps[1] > 4).double()
    for b in range(2):
        rows = [
            sum(float(p[b, r, c] * t[b, r, c]) for c in range(5))
            / (sum(float(p[b, r, c] + t[b, r, c] - p[b, r, c] * t[b, r, c]) for c in range(5)) + 1e-6)
            for r in range(6)
        ]
        assert float(pixels.row_iou_loss(p, t)[b]) == pytest.approx(1 - sum(rows) / 6)
        union = float((p[b] + t[b] - p[b] * t[b]).sum()) + 1e-6
        assert float(pixels.image_iou_loss(p, t)[b]) == pytest.approx(1 - float((p[b] * t[b]).sum()) / union)


def test_derivatives(maps) -> None:
    maps, labels, weight = maps
    mask = (labels > 4).double()
    alpha = (maps.sum(1) * 0.9).requires_grad_()
    distance = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: pixels.row_iou_loss(p, mask), alpha)
    assert torch.autograd.gradcheck(lambda p: pixels.image_iou_loss(p, mask), alpha)
    assert torch.autograd.gradcheck(
        lambda p: pixels.distance_loss(p[:, None].expand(-1, 3, -1, -1), distance), alpha
    )
    shares = maps.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: pixels.label_cross_entropy(m, labels, weight), shares)
    covered = alpha.detach()
    assert torch.autograd.gradcheck(lambda m: pixels.inside_loss(covered, m, labels, weight), shares)


def test_nothing_rendered_has_no_derivative_and_no_weight_no_loss(maps) -> None:
    nothing = torch.zeros(1, 3, 4, 4, requires_grad=True)
    loss = pixels.distance_loss(nothing, torch.ones(1, 3, 4, 4))
    loss.sum().backward()
    assert float(loss) == 0 and bool(nothing.grad.isfinite().all())
    maps, labels, weight = maps
    assert pixels.label_cross_entropy(maps, labels, weight * 0).tolist() == [0, 0]
    unlabelled = torch.full_like(labels, -1)
    assert pixels.inside_loss(maps.sum(1), maps, unlabelled, weight).tolist() == [0, 0]


def test_a_body_inside_its_clothes_feels_no_pull_and_one_outside_does() -> None:
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    labels[..., :3] = 2
    alpha = torch.tensor([[[1.0, 0.5, 0.0, 0.5]]], requires_grad=True)
    shares = torch.zeros(1, 8, 1, 4)
    shares[:, 2] = 1
    loss = pixels.inside_loss(alpha, shares, labels, torch.ones(1, 8))
    (gradient,) = torch.autograd.grad(loss.sum(), alpha)
    assert gradient.flatten()[:3].abs().max() == 0 and float(gradient[0, 0, 3]) > 0.1


def test_a_body_that_fills_the_picture_does_not_outweigh_a_batch() -> None:
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[0, 16, 16], labels[1, 8:24, 8:24] = 2, 2  # a person of one pixel, and one of a quarter of the picture
    alpha = torch.full((2, 32, 32), 0.99, requires_grad=True)
    shares = torch.zeros(2, 8, 32, 32)
    shares[:, 2] = 1
    small, large = pixels.inside_loss(alpha, shares, labels, torch.ones(2, 8))
    assert float(small) < 7 and float(small) < 2 * float(large)
    (gradient,) = torch.autograd.grad(small + large, alpha)
    assert bool((gradient[labels == 0] > 0).all()) and float(gradient[0].sum()) < 2 * float(gradient[1].sum())


def test_targets_are_what_a_walk_over_the_pixels_finds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 5, 9, 13, 14, 15, 18, 255], p=[0.4, 0.001, 0.2, 0.2, 0.05, 0.1, 0.001, 0.028, 0.02],
                        size=(224, 224)).astype(np.uint8)  # fmt: skip
    targets = semantic_targets(torch.from_numpy(labels)[None])
    counts = [int((labels == k).sum()) for k in MC_COLUMNS]
    assert targets.mc_counts[0].tolist() == counts and targets.mc_valid[0].tolist() == [c > 60 for c in counts]
    assert not all(c > 60 for c in counts)
    members = {k: g for g, names in enumerate(C_GROUPS.values()) for k in names}
    valid = [k for k, c in zip(MC_COLUMNS, counts, strict=True) if c > 60]
    for r, c in rng.integers(0, 224, (200, 2)):
        assert int(targets.groups[0, r, c]) == members.get(int(labels[r, c]), -1)
        assert float(targets.mc_mask[0, r, c]) == float(labels[r, c] in valid)
        assert float(targets.person[0, r, c]) == float(0 < labels[r, c] < len(LABELS))


def test_class_weights_by_hand() -> None:
    counts = torch.tensor([[1000.0, 61, 60, 59, 0], [10, 10, 10, 10, 10], [60, 0, 0, 0, 0]])
    expected = torch.tensor([[0.06, 60 / 61, 0, 0, 0], [0] * 5, [0] * 5])
    assert torch.allclose(class_weights(counts), expected)


def test_smaller_pictures_need_fewer_pixels() -> None:
    labels = torch.zeros(1, 112, 112, dtype=torch.uint8)
    labels[0, 0, :16] = 14
    labels[0, 1, :15] = 15
    assert semantic_targets(labels).mc_valid[0].tolist() == [False, False, True, False, False]


def test_distance_to_a_mask() -> None:
    mask = torch.zeros(2, 5, 7)
    mask[0, 2, 3] = 1
    distance = mask_distance(mask)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    assert torch.allclose(distance[0], torch.hypot(rows - 2, columns - 3))
    assert bool(distance[1].isfinite().all())
