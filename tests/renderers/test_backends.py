"""The registry of back ends, and every back end that draws here against the naive one on meshes made to break them."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch

from renderers import backends, blending
from renderers.rasterize import Fragments, rasterize
from renderers.soft import Blend, soft_render, soft_silhouette

HERE = [name for name, lack in backends.available().items() if lack is None]
TRUE_GRADIENTS = [name for name in HERE if name not in ("naive", "pytorch3d")]
SIZE = (11, 19)


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" and torch.cuda.is_available() else "cpu"


def hard_meshes() -> tuple[torch.Tensor, list[int]]:
    """(14, 3, 3) faces of three meshes: the second has none, the third lies outside the image."""
    gen = torch.Generator().manual_seed(3)
    faces = torch.rand(14, 3, 3, generator=gen) * torch.tensor([2.6, 1.8, 2.0]) + torch.tensor([-1.3, -0.9, 1.0])
    faces[1, 1] = faces[1, 0] + torch.tensor([2e-3, 1e-3, 0.0])  # sliver
    faces[2, 2] = (faces[2, 0] + faces[2, 1]) / 2  # edge-on
    faces[3, 1, :2] = faces[3, 0, :2]  # edge-on, two corners in one place
    faces[5] = faces[4]  # coincident copy
    faces[6] = faces[4].flip(0)  # and from behind
    faces[7, 0, 2] = -0.4  # through the near plane, one corner behind the camera
    faces[8, :2, 2] = 0.2  # two corners before the near plane
    faces[9, :, 2] -= 5  # behind the camera
    faces[10] = faces[10, :1]  # a point
    faces[11:, :, :2] += 6  # outside
    return faces, [11, 0, 3]


def same_signatures(what: backends.Operation) -> set[tuple[str, ...]]:
    names = [name for name in backends.BACKENDS if backends.why_missing(name) is None]
    return {tuple(inspect.signature(backends.operation(name, what)).parameters) for name in names}


def test_all_back_ends_take_the_same_arguments() -> None:
    for what in ("rasterize_fragments", "silhouette", "paint"):
        assert len(same_signatures(what)) == 1


def test_the_back_end_follows_device_and_precision(monkeypatch) -> None:
    def choice(device: str, dtype: torch.dtype) -> str:
        return backends.choose(SimpleNamespace(device=SimpleNamespace(type=device), dtype=dtype))  # type: ignore[arg-type]

    assert choice("cpu", torch.float32) == "cpu"
    assert {choice("cpu", torch.float64), choice("cuda", torch.float64), choice("mps", torch.float32)} == {"naive"}
    assert choice("cuda", torch.float32) == ("naive" if backends.why_missing("cuda") else "cuda")
    for module in [name for name in sys.modules if name.startswith(("renderers.backends.cuda", "triton"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert choice("cuda", torch.float32) == "naive"
    with pytest.raises(ValueError, match=r"cuda cannot be imported: .*triton.*pip install triton"):
        rasterize(torch.ones(1, 3, 3), backend="cuda")
    assert "triton" in str(backends.available()["cuda"])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "renderers.backends.pytorch3d", raising=False)
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    for draw in (rasterize, soft_silhouette):
        with pytest.raises(ValueError, match=r"pytorch3d cannot be imported: .*INSTALL.md"):
            draw(torch.ones(1, 3, 3), backend="pytorch3d")
    lacking = backends.available()
    assert tuple(lacking) == backends.BACKENDS and lacking["naive"] is None and lacking["cpu"] is None
    assert "pytorch3d" in str(lacking["pytorch3d"])
    with pytest.raises(ValueError, match="no back end 'gpu'. Choose one of naive, cpu, cuda, pytorch3d"):
        backends.why_missing("gpu")


def fragments_of(backend: str, faces: torch.Tensor, counts: list[int], **settings) -> Fragments:
    out = rasterize(faces.to(device_of(backend)), counts, image_size=SIZE, backend=backend, **settings)
    return Fragments(*(x.cpu() for x in out))


@pytest.mark.parametrize("backend", [name for name in HERE if name != "naive"])
@pytest.mark.parametrize("z_clip", [None, 0.5])
@pytest.mark.parametrize(("blur", "k", "perspective"), [(0.0, 1, True), (4e-3, 3, True), (4e-3, 6, False)])
def test_fragments_of_hard_meshes_are_the_naive_ones(backend, blur, k, perspective, z_clip) -> None:
    faces, counts = hard_meshes()
    settings = dict(blur_radius=blur, faces_per_pixel=k, perspective_correct=perspective, z_clip=z_clip)
    truth = fragments_of("naive", faces, counts, **settings)
    ours = fragments_of(backend, faces, counts, **settings)
    assert torch.equal(ours.pix_to_face, truth.pix_to_face) and (truth.pix_to_face >= 0).any()
    assert (truth.pix_to_face[1:] < 0).all()
    for a, b in zip(ours[1:], truth[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", [name for name in HERE if name != "pytorch3d"])
@pytest.mark.parametrize("z_clip", [None, 0.5])
def test_hard_meshes_give_finite_gradients(backend, z_clip) -> None:
    faces, counts = hard_meshes()
    leaf = faces.requires_grad_()
    out = fragments_of(backend, leaf, counts, blur_radius=4e-3, faces_per_pixel=4, z_clip=z_clip)
    sum(x.sum() for x in out[1:]).backward()
    values = torch.rand(len(leaf), 3, 2, generator=torch.Generator().manual_seed(0)).to(device_of(backend))
    corners = leaf.to(device_of(backend))
    options = dict(image_size=SIZE, z_clip=z_clip, backend=backend)
    picture = soft_render(corners, values, values[0, 0], counts, blend=Blend(sigma=1e-3, gamma=1e-2), **options)
    alpha = soft_silhouette(corners, counts, sigma=1e-3, **options)
    for image in (*picture, alpha):
        assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1 + 1e-5
        image.sum().backward(retain_graph=True)
    assert torch.isfinite(leaf.grad).all() and (leaf.grad[0] != 0).any()
    assert (leaf.grad[9:] == 0).all(), "behind the camera, a point, or outside"


@pytest.mark.parametrize("backend", TRUE_GRADIENTS)
@pytest.mark.parametrize(("blur", "perspective", "clip"), [(0.0, True, False), (4e-3, True, True), (4e-3, False, True)])
def test_gradients_are_the_naive_ones_in_double_precision(backend, blur, perspective, clip) -> None:
    faces, _ = hard_meshes()
    # Not those whose gradients grow without bound or are none, nor those where rounding chooses: between the halves of
    # a cut face along their cut, and between a face and its reversed copy.
    plain = [0, 4, 5, 8]
    options = dict(blur_radius=blur, faces_per_pixel=3, perspective_correct=perspective, clip_barycentric=clip)
    grads = []
    for name, dtype in (("naive", torch.float64), (backend, torch.float32)):
        leaf = faces[plain].to(dtype).requires_grad_()
        out = fragments_of(name, leaf, [4], z_clip=0.5, **options)
        gen = torch.Generator().manual_seed(0)
        hit = out.pix_to_face >= 0
        sum((x * torch.randn(x.shape, generator=gen).to(x))[hit].sum() for x in out[1:]).backward()
        grads.append(leaf.grad.double())
    assert (grads[0] - grads[1]).abs().max() <= 1e-4 * grads[0].abs().max()


def test_naive_gradients_of_blends_against_finite_differences() -> None:
    # Of what follows the fragments; the fragments and the fused pictures have such tests of their own.
    faces = hard_meshes()[0][[0, 4, 8]].double().requires_grad_()
    values = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    flat = values.detach()[:, 0].clone().requires_grad_()
    background = torch.zeros(2, dtype=torch.float64)

    def pictures(f: torch.Tensor, v: torch.Tensor, per_face: torch.Tensor):
        out = rasterize(f, image_size=(4, 5), blur_radius=4e-2, faces_per_pixel=3, z_clip=0.5)
        painted = blending.interpolate_corners(out, v)
        soft = blending.blend_softmax(out, painted, background, sigma=1e-2, gamma=1e-1)
        hard = blending.blend_hard(out, painted, background)
        surface = blending.interpolate_faces(out, per_face)
        sigmoid = blending.blend_sigmoid(out, surface, 1e-2)
        return *soft, hard.colour, *sigmoid, blending.depth_hard(out), blending.depth_soft(out, 1e-2)

    assert torch.autograd.gradcheck(pictures, (faces, values, flat), eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("perspective", [True, False])
def test_naive_gradients_of_face_values_against_finite_differences(perspective) -> None:
    faces = hard_meshes()[0][[0, 4, 7, 8]].double().requires_grad_()
    values = torch.rand(4, 2, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    blend = Blend(sigma=1e-2, gamma=1e-1, perspective=perspective, cull="colour")

    def picture(f: torch.Tensor, v: torch.Tensor):
        return tuple(soft_render(f, v, torch.zeros(2).double(), image_size=(4, 5), blend=blend, z_clip=0.5))

    assert torch.autograd.gradcheck(picture, (faces, values), eps=1e-7, atol=1e-4, rtol=1e-3)
