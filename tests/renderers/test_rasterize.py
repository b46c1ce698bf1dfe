"""The raw rasteriser: coverage and order, back ends against each other, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderers.rasterize import Fragments, pixel_centres, rasterize

SIZE = (17, 24)


def soup(count: int, seed: int, kind: str = "mixed") -> torch.Tensor:
    """(F, 3, 3) float32 random faces; mixed: slivers, edge-on, coincident copies, behind the camera, outside."""
    gen = torch.Generator().manual_seed(seed)
    faces = torch.rand(count, 3, 3, generator=gen) * torch.tensor([2.6, 2.2, 3.0]) + torch.tensor([-1.3, -1.1, 0.8])
    if kind == "mixed":
        faces[0::9, 1] = faces[0::9, 0] + 1e-3 * torch.rand(faces[0::9, 0].shape, generator=gen)
        faces[1::9, 2] = (faces[1::9, 0] + faces[1::9, 1]) / 2
        faces[3::9] = faces[2:-1:9][: len(faces[3::9])]
        faces[5::9, :, :2] += 3
        faces[6::9, 0, 2] -= 4
    return faces


def same(a: Fragments, b: Fragments) -> None:
    for name, x, y in zip(Fragments._fields, a, b, strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("blur", "k"), [(0.0, 1), (0.0, 3), (1e-3, 1), (1e-3, 4), (2e-2, 30)])
@pytest.mark.parametrize("z_clip", [None, 0.5])
def test_compiled_and_naive_agree_to_the_bit(perspective, clip, blur, k, z_clip) -> None:
    faces = soup(40, seed=k)
    settings = dict(
        image_size=SIZE,
        blur_radius=blur,
        faces_per_pixel=k,
        perspective_correct=perspective,
        clip_barycentric=clip,
        z_clip=z_clip,
        cull_backfaces=k == 3,
    )
    naive = rasterize(faces, [25, 0, 15], backend="naive", **settings)
    assert (naive.pix_to_face >= 0).any()
    for threads in (1, 3):
        same(rasterize(faces, [25, 0, 15], backend="cpu", threads=threads, **settings), naive)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_rules_of_coverage(backend) -> None:
    # Two triangles of a square whose diagonal runs through pixel centres: the diagonal belongs to neither.
    corners = torch.tensor([[-0.5, -0.5, 1], [0.5, -0.5, 1], [0.5, 0.5, 1], [-0.5, 0.5, 1]])
    faces = corners[torch.tensor([[0, 1, 2], [0, 2, 3]])]
    hard = rasterize(faces, image_size=8, faces_per_pixel=2, backend=backend)
    hit = hard.pix_to_face[0, ..., 0] >= 0
    assert hit.sum() == 12 and not hit.diagonal().any()
    soft = rasterize(faces, image_size=8, faces_per_pixel=2, blur_radius=1e-4, backend=backend)
    on_edge = soft.pix_to_face[0].diagonal().T[2:6]
    assert (on_edge == torch.tensor([0, 1])).all()
    assert (soft.dists[0].diagonal().T[2:6] == 0).all()
    # Counter-clockwise as displayed (x left, y up) is the front.
    assert (rasterize(faces, image_size=8, cull_backfaces=True, backend=backend).pix_to_face < 0).all()
    turned = rasterize(faces.flip(1), image_size=8, cull_backfaces=True, backend=backend)
    assert (turned.pix_to_face >= 0).any()


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_orientation_depth_order_and_padding(backend) -> None:
    near = torch.tensor([[0.1, 0.1, 1.0], [0.9, 0.1, 1.0], [0.1, 0.9, 1.0]])  # left and up
    far = near * torch.tensor([1.0, 1.0, 2.0])
    out = rasterize(torch.stack([far, near, near]), image_size=(20, 20), faces_per_pixel=4, backend=backend)
    hit = out.pix_to_face[0, ..., 0] >= 0
    assert hit[:10, :10].any() and not hit[10:].any() and not hit[:, 10:].any()
    assert (out.pix_to_face[0][hit] == torch.tensor([1, 2, 0, -1])).all()
    torch.testing.assert_close(out.zbuf[0][hit], torch.tensor([1.0, 1, 2, -1]).expand(int(hit.sum()), 4))
    assert (out.bary[out.pix_to_face < 0] == -1).all() and (out.dists[out.pix_to_face < 0] == -1).all()
    assert (out.dists[out.pix_to_face >= 0] <= 0).all()


def test_fewer_faces_per_pixel_are_the_first_of_more() -> None:
    faces = soup(50, 1)
    many = rasterize(faces, image_size=SIZE, faces_per_pixel=20, blur_radius=1e-3)
    for k in (1, 3, 7):
        few = rasterize(faces, image_size=SIZE, faces_per_pixel=k, blur_radius=1e-3)
        same(few, Fragments(*(x[:, :, :, :k] for x in many)))


def test_a_batch_is_its_meshes_one_by_one() -> None:
    faces = soup(45, 2)
    counts, start = [20, 0, 25], 0
    batch = rasterize(faces, counts, image_size=SIZE, z_clip=0.5)
    for i, count in enumerate(counts):
        one = rasterize(faces[start : start + count], image_size=SIZE, z_clip=0.5)
        shifted = torch.where(one.pix_to_face >= 0, one.pix_to_face + start, -1)
        same(Fragments(shifted, *one[1:]), Fragments(*(x[i : i + 1] for x in batch)))
        start += count


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_empty_batches_give_background(backend) -> None:
    nothing = torch.zeros(0, 3, 3, requires_grad=True)
    out = rasterize(nothing, [0, 0], image_size=5, z_clip=0.1, backend=backend)
    assert out.pix_to_face.shape == (2, 5, 5, 8) and (out.pix_to_face == -1).all() and (out.zbuf == -1).all()
    out.zbuf.sum().backward()
    assert rasterize(nothing, [], image_size=5, backend=backend).pix_to_face.shape == (0, 5, 5, 8)


def test_hits_are_right_by_an_independent_count() -> None:
    # Point in triangle by angles, in float64, away from edges.
    faces = soup(30, 5, kind="plain")
    out = rasterize(faces, image_size=SIZE, faces_per_pixel=30, backend="cpu")
    x, y = np.meshgrid(pixel_centres(SIZE[1], SIZE[0]).double(), pixel_centres(SIZE[0], SIZE[1]).double())
    for f, corners in enumerate(faces.double().numpy()):
        rays = (corners[:, 0, None, None] - x) + 1j * (corners[:, 1, None, None] - y)
        winding = np.angle(np.roll(rays, -1, 0) / rays).sum(0) / (2 * np.pi)
        inside = abs(winding) > 0.5
        ours = (out.pix_to_face[0] == f).any(-1).numpy()
        assert (ours == inside).mean() > 0.995


CONFIGS = [(b, p, c) for b in (0.0, 4e-3) for p in (False, True) for c in (False, True)]


@pytest.mark.parametrize(("blur", "perspective", "clip"), CONFIGS)
def test_naive_gradients_against_finite_differences(blur, perspective, clip) -> None:
    faces = soup(5, 6, kind="plain").double()
    faces[:2, 0, 2] = 0.2  # cut by the near plane
    faces.requires_grad_()

    def values(f: torch.Tensor):
        out = rasterize(
            f,
            image_size=(4, 5),
            blur_radius=blur,
            faces_per_pixel=2,
            perspective_correct=perspective,
            clip_barycentric=clip,
            z_clip=0.5,
        )
        # Without clipping, blurred pixels extrapolate to values of any size.
        return tuple(torch.atan(x) for x in out[1:])

    assert torch.autograd.gradcheck(values, (faces,), eps=1e-7, atol=1e-4, rtol=1e-4)


def objective(faces: torch.Tensor, backend: str, threads: int | None = None, **settings) -> torch.Tensor:
    """Gradient of a fixed random projection of all valid values, where each weighs the same."""
    leaf = faces.clone().requires_grad_()
    out = rasterize(leaf, image_size=SIZE, backend=backend, threads=threads, **settings)
    gen = torch.Generator().manual_seed(0)
    hit = out.pix_to_face >= 0
    terms = [(x[hit] * torch.randn(x.shape, generator=gen)[hit].to(x)).sum() for x in out[1:]]
    torch.stack(terms).sum().backward()
    return leaf.grad


@pytest.mark.parametrize(("blur", "perspective", "clip"), CONFIGS)
def test_compiled_gradients_are_the_naive_ones_in_double_precision(blur, perspective, clip) -> None:
    settings = dict(
        blur_radius=blur, faces_per_pixel=5, perspective_correct=perspective, clip_barycentric=clip, z_clip=0.5
    )
    # Choices (which face, which side) are made in single precision by both; compare where they are the same.
    faces = soup(30, 7, kind="plain")
    a = rasterize(faces, image_size=SIZE, backend="naive", **settings).pix_to_face
    b = rasterize(faces.double(), image_size=SIZE, backend="naive", **settings).pix_to_face
    assert torch.equal(a, b)
    truth = objective(faces.double(), "naive", **settings)
    ours = objective(faces, "cpu", **settings)
    assert (ours - truth).abs().max() <= 2e-4 * truth.abs().max()
    for threads in (1, 4):
        assert torch.equal(objective(faces, "cpu", threads, **settings), ours)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize("z_clip", [None, 0.3])
def test_gradients_are_finite_on_hard_cases(backend, z_clip) -> None:
    for seed in range(3):
        grad = objective(soup(60, seed), backend, blur_radius=3e-3, faces_per_pixel=12, z_clip=z_clip)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize(
    ("faces", "settings", "message"),
    [
        (torch.zeros(3, 3), {}, "faces have shape"),
        (torch.zeros(3, 3, 3, dtype=torch.int64), {}, "floating point"),
        (torch.full((2, 3, 3), torch.nan), {}, "Face 0 has a corner that is not finite"),
        (torch.ones(3, 3, 3), {"faces_per_mesh": [1, 1]}, "adds up to 2 of 3"),
        (torch.ones(3, 3, 3), {"image_size": (0, 4)}, "image is 0 x 4"),
        (torch.ones(3, 3, 3), {"faces_per_pixel": 0}, "0 faces per pixel"),
        (torch.ones(3, 3, 3), {"backend": "gpu"}, "no back end 'gpu'"),
        (torch.ones(3, 3, 3).double(), {"backend": "cpu"}, "takes float32"),
    ],
)
def test_wrong_input_is_named(faces, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        rasterize(faces, **settings)
