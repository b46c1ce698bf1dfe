"""The fused soft renderers: against blends of all fragments, back ends against each other, true gradients."""

from __future__ import annotations

import pytest
import torch

from renderers import blending
from renderers.rasterize import rasterize
from renderers.soft import Blend, soft_render, soft_silhouette

SIZE = (18, 35)  # neither side a whole number of tiles
BLENDS = {
    "default": Blend(sigma=1e-3, gamma=3e-2, zfar=8.0),
    "sharp": Blend(sigma=1e-4, gamma=1e-4),
    "beyond the far plane": Blend(sigma=1e-3, gamma=0.2, znear=0.1, zfar=2.0),
    "on the screen": Blend(sigma=1e-3, gamma=3e-2, perspective=False, cull="all"),
    "softras": Blend.softras(1e-3, 3e-2, near=1.2, far=3.0, fill_back=False),
    "softras, true gradients": Blend(
        sigma=1e-3, gamma=0.1, zfar=5.0, screen_attributes=True, unit_weights=True, background_zeta=2e-3
    ),
}


def soup(count: int, seed: int, kind: str = "mixed") -> torch.Tensor:
    """(F, 3, 3) float32 random faces; mixed: slivers, edge-on, coincident copies, behind the camera, outside."""
    gen = torch.Generator().manual_seed(seed)
    faces = torch.rand(count, 1, 3, generator=gen) * torch.tensor([3.6, 2.0, 2.0]) + torch.tensor([-1.8, -1.0, 1.0])
    faces = faces + 0.8 * (torch.rand(count, 3, 3, generator=gen) - 0.5)
    if kind == "mixed":
        faces[0::9, 1] = faces[0::9, 0] + 1e-3 * torch.rand(faces[0::9, 0].shape, generator=gen)
        faces[1::9, 2] = (faces[1::9, 0] + faces[1::9, 1]) / 2
        faces[3::9] = faces[2:-1:9][: len(faces[3::9])]
        faces[5::9, :, :2] += 3
        faces[6::9, 0, 2] -= 4
        faces[7::9, 1, :2] = faces[7::9, 0, :2]  # edge-on
    return faces


def values(faces: torch.Tensor, per_corner: bool = True, channels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(7)
    shape = (len(faces), 3, channels) if per_corner else (len(faces), channels)
    return torch.rand(shape, generator=gen).to(faces), torch.rand(channels, generator=gen).to(faces)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize("z_clip", [None, 1.1])
def test_it_is_the_blend_of_all_fragments(backend, z_clip) -> None:
    faces = soup(40, 0)
    attributes, background = values(faces)
    blend = BLENDS["default"]
    fragments = rasterize(
        faces, [25, 15], image_size=SIZE, blur_radius=blend.blur, faces_per_pixel=40, z_clip=z_clip, backend="naive"
    )
    painted = blending.interpolate_corners(fragments, attributes)
    depths = dict(sigma=blend.sigma, gamma=blend.gamma, zfar=blend.zfar)
    truth = blending.blend_softmax(fragments, painted, background, **depths)
    options = dict(image_size=SIZE, z_clip=z_clip, backend=backend)
    ours = soft_render(faces, attributes, background, [25, 15], blend=blend, **options)
    alpha = soft_silhouette(faces, [25, 15], sigma=blend.sigma, **options)
    for a, b in ((ours.colour, truth.colour), (ours.alpha, truth.alpha), (alpha, truth.alpha)):
        # Along the cut of a face in two, fragments pick the half by rounding; nowhere else do the two differ.
        assert ((a - b).abs() > 2e-5).float().mean() <= (0 if z_clip is None else 0.01)
    assert 0.05 < truth.alpha.mean() < 0.95


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize("z_clip", [None, 1.1])
@pytest.mark.parametrize("per_corner", [True, False])
def test_compiled_and_naive_in_double_precision_agree(name, z_clip, per_corner) -> None:
    blend, results = BLENDS[name], []
    for backend, dtype, threads in (
        ("naive", torch.float64, None),
        ("cpu", torch.float32, 1),
        ("cpu", torch.float32, 3),
    ):
        faces = soup(50, 2, "plain").to(dtype)
        attributes, background = values(faces, per_corner)
        leaves = faces.requires_grad_(), attributes.requires_grad_()
        options = dict(image_size=SIZE, z_clip=z_clip, backend=backend, threads=threads)
        picture = soft_render(*leaves, background, [30, 0, 20], blend=blend, **options)
        gen = torch.Generator().manual_seed(0)
        loss = sum((x * torch.randn(x.shape, generator=gen).to(x)).sum() for x in picture)
        results.append([x.detach() for x in (*picture, *torch.autograd.grad(loss, leaves))])
    for truth, ours, more_threads in zip(*results, strict=True):
        assert torch.equal(ours, more_threads)
        torch.testing.assert_close(ours.double(), truth, atol=2e-4 * max(1.0, float(truth.abs().max())), rtol=0)


def test_tiny_faces_and_faint_fronts_agree_to_the_last_digits() -> None:
    # Faces whose area is not far above the 1e-8 that is added to it, and, between them, a near face that barely
    # touches a pixel before a far one that fills it.
    gen = torch.Generator().manual_seed(4)
    place = torch.rand(60, 1, 3, generator=gen) * torch.tensor([1.6, 0.8, 0.2]) + torch.tensor([-0.8, -0.4, 2.0])
    faces = place + (torch.rand(60, 3, 3, generator=gen) - 0.5) * torch.tensor([2e-3, 1e-3, 4e-3])
    wall = torch.tensor([[-9.0, -9.0, 2.35], [9.0, -9.0, 2.35], [0.0, 12.0, 2.35]])
    faces = torch.cat([faces, wall[None]])
    attributes, background = values(faces)
    results = []
    for backend, dtype in (("naive", torch.float64), ("cpu", torch.float32)):
        leaf = faces.to(dtype).requires_grad_()
        colour, _ = soft_render(leaf, attributes.to(dtype), background.to(dtype), image_size=SIZE, backend=backend)
        upstream = torch.rand(colour.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
        results.append((colour.detach().double(), torch.autograd.grad(colour, leaf, upstream)[0].double()))
    (colour, grad), (ours, our_grad) = results
    assert (ours - colour).abs().max() <= 1e-4
    assert (our_grad - grad).abs().max() <= 1e-3 * grad.abs().max()


@pytest.mark.parametrize("name", BLENDS)
def test_naive_gradients_against_finite_differences(name) -> None:
    blend = BLENDS[name]
    if blend.detach_bary:
        blend = Blend(**{**blend.__dict__, "detach_bary": False})
    faces = soup(5, 3, "plain").double() * torch.tensor([0.5, 0.9, 1.0])
    attributes, background = values(faces, channels=2)

    def pictures(f: torch.Tensor, a: torch.Tensor):
        picture = soft_render(f, a, background, image_size=(3, 4), blend=blend, z_clip=0.9)
        return *picture, soft_silhouette(f, image_size=(3, 4), sigma=blend.sigma, z_clip=0.9)

    leaves = faces.requires_grad_(), attributes.requires_grad_()
    assert torch.autograd.gradcheck(pictures, leaves, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_silhouette_gradients_agree_and_do_not_depend_on_threads() -> None:
    results = []
    for backend, dtype, threads in (
        ("naive", torch.float64, None),
        ("cpu", torch.float32, 1),
        ("cpu", torch.float32, 4),
    ):
        leaf = soup(60, 4, "plain").to(dtype).requires_grad_()
        options = dict(image_size=SIZE, sigma=1e-3, z_clip=1.1, cull_backfaces=True)
        alpha = soft_silhouette(leaf, [40, 20], backend=backend, threads=threads, **options)
        gen = torch.Generator().manual_seed(0)
        results.append(
            (alpha.detach(), torch.autograd.grad((alpha * torch.randn(alpha.shape, generator=gen)).sum(), leaf)[0])
        )
    for truth, ours, more_threads in zip(*results, strict=True):
        assert torch.equal(ours, more_threads)
        torch.testing.assert_close(ours.double(), truth, atol=1e-4 * max(1.0, float(truth.abs().max())), rtol=0)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize("z_clip", [None, 0.3])
def test_hard_cases_give_finite_pictures_and_gradients(backend, z_clip) -> None:
    for seed, blend in enumerate(BLENDS.values()):
        leaf = soup(60, seed).requires_grad_()
        attributes, background = values(leaf)
        picture = soft_render(
            leaf, attributes, background, image_size=SIZE, blend=blend, z_clip=z_clip, backend=backend
        )
        alpha = soft_silhouette(leaf, image_size=SIZE, z_clip=z_clip, backend=backend)
        (picture.colour.sum() + picture.alpha.sum() + alpha.sum()).backward()
        for x in (*picture, alpha):
            assert torch.isfinite(x).all() and x.min() >= 0 and x.max() <= 1 + 1e-5
        assert torch.isfinite(leaf.grad).all() and (leaf.grad != 0).any()


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_empty_meshes_give_background(backend) -> None:
    faces = torch.zeros(0, 3, 3, requires_grad=True)
    background = torch.tensor([0.2, 0.4])
    for counts in ([0, 0], []):
        picture = soft_render(faces, torch.zeros(0, 3, 2), background, counts, image_size=5, backend=backend)
        assert picture.colour.shape == (len(counts), 5, 5, 2)
        assert (picture.colour == background).all() and (picture.alpha == 0).all()
        soft_silhouette(faces, counts, image_size=5, z_clip=0.1, backend=backend).sum().backward()


def test_deep_stacks_keep_the_faces_that_cover() -> None:
    # Many blurred faces in front whose edges end short of the pixel, one far face that covers it.
    near = torch.tensor([[0.02, 0.5, 1.0], [0.9, 0.5, 1.0], [0.02, 0.9, 1.0]])
    far = torch.tensor([[-3.0, -3, 2], [3, -3, 2], [0, 3, 2]])
    faces = torch.stack([near] * 30 + [far])
    alpha = soft_silhouette(faces, image_size=16, sigma=1e-4)
    assert alpha[0, 8, 8] > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": torch.zeros(3, 2)}, "attributes have shape"),
        ({"background": torch.zeros(3)}, "background has shape"),
        ({"attributes": torch.zeros(4, 3, 2).double()}, "Give both alike"),
        ({"blend": Blend(gamma=0.0)}, "gamma 0.0"),
        ({"blend": Blend(cull="back")}, "no culling 'back'"),
        ({"backend": "gpu"}, "no back end 'gpu'"),
        ({"faces_per_mesh": [1]}, "adds up to 1 of 4"),
    ],
)
def test_wrong_input_is_named(change, message) -> None:
    given = dict(face_verts=torch.ones(4, 3, 3), attributes=torch.zeros(4, 3, 2), background=torch.zeros(2)) | change
    with pytest.raises(ValueError, match=message):
        soft_render(**given)
