"""Lit colours: the reflection model by hand, and the three ways of shading where they must agree."""

from __future__ import annotations

import pytest
import torch
import trimesh

from renderers import lighting
from renderers.blending import interpolate_corners
from renderers.lighting import Light, Material, lit
from renderers.rasterize import rasterize

SQUARE = torch.tensor([[-0.8, -0.8, 2.0], [0.8, -0.8, 2.0], [0.8, 0.8, 2.0], [-0.8, 0.8, 2.0]])
FACES = torch.tensor([[0, 2, 1], [0, 3, 2]])


def test_reflection_by_hand() -> None:
    white = torch.ones(1, 3)
    point, normal = torch.zeros(1, 3), torch.tensor([[0.0, 0, -2]])
    light = Light(location=torch.tensor([0.0, 0, -5]))
    facing = lit(point, normal, white, torch.tensor([[0.0, 0, -1]]), light, Material(shininess=8))
    torch.testing.assert_close(facing, torch.ones(1, 3))  # 0.5 + 0.3 + 0.2
    aside = lit(point, normal, white, torch.tensor([[1.0, 0, 0]]), light)
    torch.testing.assert_close(aside, torch.full((1, 3), 0.8))
    behind = lit(point, -normal, white / 2, torch.tensor([[0.0, 0, -1]]), light)
    torch.testing.assert_close(behind, torch.full((1, 3), 0.25))
    slanted = lit(point, normal, white, torch.tensor([[0.0, 1, 0]]), Light(direction=torch.tensor([0.0, 3**0.5, -1])))
    torch.testing.assert_close(slanted, torch.full((1, 3), 0.65))
    with pytest.raises(ValueError, match="neither location nor direction"):
        lit(point, normal, white, point, Light())


def test_normals_point_where_corners_run_counter_clockwise() -> None:
    # In x left, y up, z forward, the side seen counter-clockwise by the camera faces it: towards smaller z.
    assert torch.equal(lighting.face_normals(SQUARE, FACES)[:, 2], torch.tensor([-1.0, -1.0]))
    assert torch.equal(lighting.vertex_normals(SQUARE, FACES)[:, 2], -torch.ones(4))


def test_all_three_shadings_agree_on_an_even_plane_and_differ_on_none_empty() -> None:
    fragments = rasterize(SQUARE[FACES], image_size=8, faces_per_pixel=1, perspective_correct=False)
    colours = torch.tensor([0.2, 0.4, 0.6]).expand(4, 3)
    light = Light(direction=torch.tensor([[0.0, 0.6, -0.8]]), specular=(0.0, 0.0, 0.0))
    scene = (fragments, SQUARE, FACES, colours, torch.zeros(1, 3), light)
    pictures = [shade(*scene) for shade in (lighting.shade_phong, lighting.shade_flat, lighting.shade_gouraud)]
    hit = fragments.pix_to_face[..., 0] >= 0
    expected = colours[0] * (0.5 + 0.3 * 0.8)
    assert hit.any()
    for picture in pictures:
        torch.testing.assert_close(picture[hit][:, 0], expected.expand(int(hit.sum()), 3))


def test_gradients_against_finite_differences() -> None:
    gen = torch.Generator().manual_seed(0)
    verts = (SQUARE.double() + 0.2 * torch.rand(4, 3, generator=gen, dtype=torch.float64)).requires_grad_()
    colours = torch.rand(4, 3, generator=gen, dtype=torch.float64).requires_grad_()
    light = Light(location=torch.tensor([[0.5, 1.0, -1.0]]).double())

    def pictures(v: torch.Tensor, c: torch.Tensor):
        fragments = rasterize(v[FACES], image_size=3, faces_per_pixel=1)
        scene = (fragments, v, FACES, c, torch.zeros(1, 3).double(), light, Material(shininess=4))
        return tuple(f(*scene) for f in (lighting.shade_phong, lighting.shade_flat, lighting.shade_gouraud))

    assert torch.autograd.gradcheck(pictures, (verts, colours), eps=1e-7, atol=1e-5)


def test_hard_normals_of_a_ball_are_its_directions_and_let_gradients_pass() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    unit, faces = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces)
    verts = (0.6 * unit + torch.tensor([0.0, 0.0, 3.0])).requires_grad_()
    fragments = rasterize(verts[faces], image_size=24, faces_per_pixel=2, perspective_correct=False)
    normals = lighting.normals_hard(fragments, verts, faces)
    hit = fragments.pix_to_face[..., 0] >= 0
    truth = interpolate_corners(fragments, unit[faces])[..., 0, :]
    assert hit.any() and (normals[~hit] == 0).all()
    assert (torch.nn.functional.cosine_similarity(normals, truth, dim=-1)[hit] > 0.999).all()
    assert (normals[hit].norm(dim=-1) - 1).abs().max() < 1e-5
    normals[..., 0].sum().backward()
    assert torch.isfinite(verts.grad).all() and (verts.grad != 0).any()
