"""Blends of fragments against sums written out, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from renderers import blending
from renderers.rasterize import Fragments, rasterize


def some_fragments() -> Fragments:
    """One image of 1 x 3 pixels with two slots: two faces, one face, none."""
    return Fragments(
        torch.tensor([[[[1, 0], [0, -1], [-1, -1]]]]),
        torch.tensor([[[[2.0, 3.0], [3.0, -1.0], [-1.0, -1.0]]]], dtype=torch.float64),
        torch.tensor([[[[[0.2, 0.3, 0.5], [1.0, 0, 0]], [[0, 1.0, 0], [-1, -1, -1]], [[-1.0] * 3] * 2]]]).double(),
        torch.tensor([[[[-1e-4, 2e-4], [1e-4, -1.0], [-1.0, -1.0]]]], dtype=torch.float64),
    )


def test_attributes_are_barycentric_means_and_zero_in_empty_slots() -> None:
    corners = torch.arange(12, dtype=torch.float64).reshape(2, 3, 2)
    out = blending.interpolate_corners(some_fragments(), corners)
    assert out.shape == (1, 1, 3, 2, 2)
    torch.testing.assert_close(out[0, 0, 0], torch.stack([torch.tensor([8.6, 9.6]).double(), corners[0, 0]]))
    torch.testing.assert_close(out[0, 0, 1, 0], corners[0, 1])
    assert (out[0, 0, 2] == 0).all() and (out[0, 0, 1, 1] == 0).all()
    flat = blending.interpolate_faces(some_fragments(), corners[:, 0])
    assert (flat[0, 0, 0] == corners[[1, 0], 0]).all() and (flat[0, 0, 2] == 0).all()


def test_blends_are_the_sums_of_their_formulas() -> None:
    f, sigma, gamma = some_fragments(), 1e-4, 5e-3
    p = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(2.0)), 1 / (1 + math.exp(1.0))]
    alpha = blending.blend_silhouette(f, sigma)[0, 0]
    torch.testing.assert_close(alpha.tolist(), [1 - (1 - p[0]) * (1 - p[1]), p[2], 0.0])
    values = torch.tensor([[[[[1.0], [3.0]], [[5.0], [0.0]], [[0.0], [0.0]]]]]).double()
    background = torch.tensor([7.0]).double()
    soft = blending.blend_softmax(f, values, background, sigma=sigma, gamma=gamma, znear=1, zfar=101)
    w = [p[0], p[1] * math.exp((0.98 - 0.99) / gamma)]
    rest = 1e-10  # exp(-0.99 / gamma) is less
    expected = [(w[0] + 3 * w[1] + 7 * rest) / (sum(w) + rest), (5 * p[2] + 7 * rest) / (p[2] + rest), 7.0]
    torch.testing.assert_close(soft.colour[0, 0, :, 0].tolist(), expected)
    hard = blending.blend_hard(f, values, background)
    assert hard.colour[0, 0, :, 0].tolist() == [1, 5, 7] and hard.alpha[0, 0].tolist() == [1, 1, 0]
    sigmoid = blending.blend_sigmoid(f, values, sigma)
    assert sigmoid.colour[0, 0, :, 0].tolist() == [1, 5, 0]
    assert blending.depth_hard(f, 9.0)[0, 0].tolist() == [2, 3, 9]
    depth = blending.depth_soft(f, sigma, 9.0)[0, 0]
    torch.testing.assert_close(
        depth.tolist(), [2 * p[0] + 3 * p[1] + 9 * (1 - p[0] - p[1]), 3 * p[2] + 9 * (1 - p[2]), 9.0]
    )


def test_faces_beyond_the_far_plane_fade_into_the_background() -> None:
    f, background = some_fragments(), torch.tensor([7.0]).double()
    values = torch.ones(1, 1, 3, 2, 1).double()
    settings = dict(sigma=1e-4, gamma=1e-2)
    far = blending.blend_softmax(f, values, background, znear=0.1, zfar=1.0, **settings).colour[0, 0, :, 0]
    assert (far > 6.999).all()
    near = blending.blend_softmax(f, values, background, znear=1.0, zfar=100.0, **settings).colour[0, 0, :2, 0]
    assert (near < 1.001).all()


@pytest.mark.parametrize("zfar", [2.2, 50.0])
def test_gradients_against_finite_differences(zfar) -> None:
    gen = torch.Generator().manual_seed(1)
    faces = torch.rand(6, 3, 3, generator=gen, dtype=torch.float64) * 1.6 + torch.tensor([-0.8, -0.8, 1.0])
    corners = torch.rand(6, 3, 2, generator=gen, dtype=torch.float64)

    def picture(f: torch.Tensor, a: torch.Tensor):
        fragments = rasterize(f, image_size=4, blur_radius=blending.blur_for(2e-3), faces_per_pixel=4)
        values = blending.interpolate_corners(fragments, a)
        soft = blending.blend_softmax(
            fragments, values, a.new_tensor([0.3, 0.6]), sigma=2e-3, gamma=0.05, znear=0.5, zfar=zfar
        )
        return *soft, blending.depth_soft(fragments, 2e-3)

    assert torch.autograd.gradcheck(picture, (faces.requires_grad_(), corners.requires_grad_()), eps=1e-7, atol=1e-4)


def test_hard_labels_are_those_of_the_nearest_face_and_minus_one_where_there_is_none() -> None:
    probabilities = torch.tensor([[[0.1, 0.9], [0.8, 0.2]], [[0.7, 0.3], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert blending.labels_hard(some_fragments(), probabilities[None, None].double())[0, 0].tolist() == [1, 0, -1]
