"""The adapter to PyTorch3D, with the naive rasteriser in the place of its extension: what is handed over and what is
refused. Where PyTorch3D itself is installed, test_backends.py, test_fitting.py and the golden files run it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from renderers import backends
from renderers.backends import naive
from renderers.rasterize import Settings, rasterize
from renderers.soft import Blend, soft_render, soft_silhouette

SIZE = (9, 14)


def rasterize_meshes(faces, first, count, neighbour, size, blur, k, bin_size, room, perspective, clip, cull):
    assert first.tolist() == [0, 4] and count.tolist() == [4, 3] and (bin_size, room) == (0, 0)
    settings = Settings(tuple(size), blur, k, perspective, clip, cull)
    return naive.rasterize_fragments(faces.detach(), count.tolist(), neighbour, settings, None)


def rasterize_meshes_backward(faces, pix_to_face, grad_z, grad_bary, grad_dists, perspective, clip):
    # Of depth alone, where it is linear on the screen: all that the test asks for.
    assert not perspective and not clip and not grad_bary.any() and not grad_dists.any()
    settings = Settings(SIZE, 0.0, pix_to_face.shape[-1], False, False, False)
    with torch.enable_grad():
        leaf = faces.detach().requires_grad_()
        z = naive.rasterize_fragments(leaf, [4, 3], None, settings, None)[1]
        return torch.autograd.grad((z * grad_z)[pix_to_face >= 0].sum(), leaf)[0]


@pytest.fixture(autouse=True)
def pretend(monkeypatch):
    package, extension = ModuleType("pytorch3d"), ModuleType("pytorch3d._C")
    package.__path__ = []  # type: ignore[attr-defined]
    extension.rasterize_meshes = rasterize_meshes  # type: ignore[attr-defined]
    extension.rasterize_meshes_backward = rasterize_meshes_backward  # type: ignore[attr-defined]
    package._C = extension  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch3d", package)
    monkeypatch.setitem(sys.modules, "pytorch3d._C", extension)
    monkeypatch.delitem(sys.modules, "renderers.backends.pytorch3d", raising=False)
    yield
    sys.modules.pop("renderers.backends.pytorch3d", None)


def meshes() -> tuple[torch.Tensor, list[int]]:
    gen = torch.Generator().manual_seed(0)
    return torch.rand(7, 3, 3, generator=gen) * torch.tensor([2.8, 1.8, 1.0]) + torch.tensor([-1.4, -0.9, 1.0]), [4, 3]


def test_fragments_and_gradients_come_back() -> None:
    assert backends.available()["pytorch3d"] is None
    grads = []
    for backend in ("pytorch3d", "naive"):
        faces, counts = meshes()
        leaf = faces.requires_grad_()
        options = dict(image_size=SIZE, faces_per_pixel=3, perspective_correct=False, backend=backend)
        out = rasterize(leaf, counts, **options)
        torch.where(out.pix_to_face >= 0, out.zbuf, 0).square().sum().backward()
        grads.append((out.pix_to_face, leaf.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


@pytest.mark.parametrize("z_clip", [None, 1.2])
def test_soft_pictures_are_blends_of_its_fragments(z_clip) -> None:
    faces, counts = meshes()
    if z_clip is not None:
        counts = [4, 3]
        faces[..., 2] += 1  # nothing is cut, so that the counts stay
    values = torch.rand(7, 3, 2, generator=torch.Generator().manual_seed(1))
    for given in (values, values[:, 0]):
        blend = Blend(sigma=1e-3, gamma=1e-2, perspective=False)
        options = dict(image_size=SIZE, blend=blend, z_clip=z_clip)
        ours = soft_render(faces, given, torch.zeros(2), counts, backend="naive", **options)
        theirs = soft_render(faces, given, torch.zeros(2), counts, backend="pytorch3d", **options)
        for a, b in zip(theirs, ours, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    alpha = soft_silhouette(faces, counts, image_size=SIZE, sigma=1e-3, z_clip=z_clip, backend="pytorch3d")
    torch.testing.assert_close(alpha, ours.alpha, atol=1e-5, rtol=0)


def test_what_it_cannot_do_is_refused() -> None:
    faces, counts = meshes()
    with pytest.raises(ValueError, match="takes float32"):
        rasterize(faces.double(), counts, backend="pytorch3d")
    for blend, name in ((Blend.softras(), "screen_attributes"), (Blend(cull="colour"), "cull")):
        with pytest.raises(ValueError, match=f"cannot blend with another .*{name}"):
            soft_render(faces, torch.zeros(7, 1), torch.zeros(1), counts, blend=blend, backend="pytorch3d")


def test_batches_without_faces_give_background() -> None:
    faces = torch.zeros(0, 3, 3, requires_grad=True)
    out = rasterize(faces, [0, 0], image_size=5, backend="pytorch3d")
    assert out.pix_to_face.shape == (2, 5, 5, 8) and (out.pix_to_face == -1).all() and (out.bary == -1).all()
    out.zbuf.sum().backward()
