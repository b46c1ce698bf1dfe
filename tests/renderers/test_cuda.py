"""The CUDA kernels, on a GPU where there is one, else in Triton's interpreter, against the naive back end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from renderers import backends
from renderers.clipping import clip_faces
from renderers.rasterize import rasterize
from renderers.soft import Blend, soft_render, soft_silhouette

if backends.why_missing("cuda") is not None:
    pytest.skip(f"the kernels cannot be imported: {backends.why_missing('cuda')}", allow_module_level=True)

from renderers.backends.cuda_geometry import SIDE, bin_faces, sum_slots

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE = (9, 40)  # more than one tile, none of them whole
BLENDS = {
    "default": Blend(sigma=1e-3, gamma=3e-2, zfar=8.0),
    "sharp": Blend(sigma=1e-4, gamma=1e-4),
    "on the screen": Blend(sigma=1e-3, gamma=3e-2, perspective=False, cull="all"),
    "softras": Blend.softras(1e-3, 3e-2, near=1.2, far=2.2, fill_back=False),
    "softras, true gradients": Blend(
        sigma=1e-3, gamma=0.1, zfar=5.0, screen_attributes=True, unit_weights=True, background_zeta=2e-3
    ),
}


def meshes(seed: int = 2) -> tuple[torch.Tensor, list[int]]:
    gen = torch.Generator().manual_seed(seed)
    place = torch.rand(8, 1, 3, generator=gen) * torch.tensor([7.0, 1.0, 1.2]) + torch.tensor([-3.5, -0.5, 1.2])
    return place + (torch.rand(8, 3, 3, generator=gen) - 0.5) * torch.tensor([3.0, 2.0, 0.8]), [5, 0, 3]


def test_some_of_the_meshes_are_cut_in_two() -> None:
    assert (clip_faces(meshes()[0], 1.3, perspective=True).neighbour >= 0).any()


def gradients(images, leaves) -> list[torch.Tensor]:
    gen = torch.Generator().manual_seed(1)
    loss = sum((x.cpu() * torch.randn(x.shape, generator=gen).to(x.dtype)).sum() for x in images)
    return list(torch.autograd.grad(loss, leaves))


def painted(backend: str, blend: Blend, z_clip: float | None, per_corner: bool, channels: int = 3):
    """Picture, and its gradients to faces and values, in double precision; float32 but for the naive back end."""
    dtype, device = (torch.float64, "cpu") if backend == "naive" else (torch.float32, DEVICE)
    faces, counts = meshes()
    gen = torch.Generator().manual_seed(7)
    values = torch.rand((8, 3, channels) if per_corner else (8, channels), generator=gen)
    leaves = faces.to(dtype).requires_grad_(), values.to(dtype).requires_grad_()
    moved = [leaf.to(device) for leaf in leaves]
    background = torch.rand(channels, generator=gen).to(moved[0])
    options = dict(image_size=SIZE, blend=blend, z_clip=z_clip, backend=backend)
    picture = soft_render(*moved, background, counts, **options)
    return [x.detach().double().cpu() for x in (*picture, *gradients(picture, leaves))]


# Each set of rules once, cut and whole, with values of corners and of faces: the interpreter is slow.
@pytest.mark.parametrize(
    ("name", "z_clip", "per_corner"),
    [
        ("default", None, True),
        ("default", 1.3, False),
        ("sharp", None, False),
        ("on the screen", 1.3, True),
        ("softras", None, False),
        ("softras, true gradients", 1.3, True),
    ],
)
def test_painting_agrees_with_the_naive_back_end(name, z_clip, per_corner) -> None:
    truth = painted("naive", BLENDS[name], z_clip, per_corner)
    for a, b in zip(painted("cuda", BLENDS[name], z_clip, per_corner), truth, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max())), rtol=0)
    assert 0.02 < truth[1].mean() < 0.9


@pytest.mark.parametrize(("z_clip", "cull"), [(None, True), (1.3, False)])
def test_silhouettes_agree_with_the_naive_back_end(z_clip, cull) -> None:
    results = []
    for backend, dtype in (("naive", torch.float64), ("cuda", torch.float32)):
        faces, counts = meshes(2)
        leaf = faces.to(dtype).requires_grad_()
        moved = leaf.to(DEVICE if backend == "cuda" else "cpu")
        options = dict(image_size=SIZE, sigma=1e-3, z_clip=z_clip, cull_backfaces=cull)
        alpha = soft_silhouette(moved, counts, backend=backend, **options)
        results.append([x.detach().double().cpu() for x in (alpha, *gradients([alpha], [leaf]))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4 * max(1.0, float(a.abs().max())), rtol=0)


@pytest.mark.parametrize(
    ("perspective", "clip", "blur", "k", "z_clip"),
    [(True, False, 0.0, 1, None), (True, True, 2e-2, 5, 1.3), (False, False, 2e-2, 5, None)],
)
def test_fragments_agree_to_the_bit(perspective, clip, blur, k, z_clip) -> None:
    faces, counts = meshes(4)
    faces[1] = faces[0]  # equal depth: the lower face is first
    options = dict(image_size=SIZE, blur_radius=blur, faces_per_pixel=k, z_clip=z_clip)
    options |= dict(perspective_correct=perspective, clip_barycentric=clip)
    truth = rasterize(faces, counts, backend="naive", **options)
    ours = rasterize(faces.to(DEVICE), counts, backend="cuda", **options)
    for a, b in zip(ours, truth, strict=True):
        assert torch.equal(a.cpu(), b)


@pytest.mark.parametrize("fixed_order", [False, True])
def test_fragment_gradients_in_any_and_in_fixed_order(fixed_order) -> None:
    grads = []
    for backend, dtype in (("naive", torch.float64), ("cuda", torch.float32)):
        faces, counts = meshes(4)
        leaf = faces.to(dtype).requires_grad_()
        moved = leaf.to(DEVICE if backend == "cuda" else "cpu")
        out = rasterize(moved, counts, image_size=SIZE, blur_radius=1e-2, faces_per_pixel=4, backend=backend)
        hit = out.pix_to_face >= 0
        torch.use_deterministic_algorithms(fixed_order)
        try:
            grads.append(gradients([torch.where(hit, x, 0) for x in (out.zbuf, out.dists)], [leaf])[0].double())
        finally:
            torch.use_deterministic_algorithms(False)
    assert (grads[0] - grads[1]).abs().max() <= 1e-5 * grads[0].abs().max()


def test_tiles_list_every_face_that_reaches_them_once_and_in_order() -> None:
    faces, counts = meshes(5)
    tiles = bin_faces(faces.to(DEVICE), counts, SIZE, 1e-2, 0)
    begin = tiles.begin.tolist()
    per_tile = [tiles.face[a:z].tolist() for a, z in zip(begin[:-1], begin[1:], strict=True)]
    assert all(a == sorted(set(a)) for a in per_tile) and begin[-1] == tiles.entries > len(faces)
    across, count = tiles.grid
    fragments = rasterize(faces, counts, image_size=SIZE, blur_radius=1e-2, faces_per_pixel=8, backend="naive")
    for image, row, column, slot in (fragments.pix_to_face >= 0).nonzero().tolist():
        tile = image * count + row // SIDE * across + column // SIDE
        assert int(fragments.pix_to_face[image, row, column, slot]) in per_tile[tile]
    assert sum_slots(torch.ones(tiles.entries, 2, device=DEVICE), tiles)[:, 0].tolist() == [
        sum(f in listed for listed in per_tile) for f in range(len(faces))
    ]


def test_empty_meshes_give_background() -> None:
    faces = torch.zeros(0, 3, 3, device=DEVICE, requires_grad=True)
    background = torch.tensor([0.2, 0.4], device=DEVICE)
    for counts in ([0, 0], []):
        picture = soft_render(
            faces, torch.zeros(0, 3, 2, device=DEVICE), background, counts, image_size=5, backend="cuda"
        )
        assert picture.colour.shape == (len(counts), 5, 5, 2)
        assert (picture.colour == background).all() and (picture.alpha == 0).all()
        alpha = soft_silhouette(faces, counts, image_size=5, z_clip=0.1, backend="cuda")
        fragments = rasterize(faces, counts, image_size=5, backend="cuda")
        assert (fragments.pix_to_face == -1).all() and (fragments.zbuf == -1).all()
        (alpha.sum() + picture.colour.sum() + fragments.zbuf.sum()).backward()


def test_one_channel_and_values_that_ask_for_no_gradient() -> None:
    truth = painted("naive", BLENDS["default"], None, True, channels=1)
    faces, counts = meshes()
    leaf = faces.requires_grad_()
    gen = torch.Generator().manual_seed(7)
    values, background = (torch.rand(shape, generator=gen).to(DEVICE) for shape in ((8, 3, 1), (1,)))
    options = dict(image_size=SIZE, blend=BLENDS["default"], backend="cuda")
    picture = soft_render(leaf.to(DEVICE), values, background, counts, **options)
    (found,) = gradients(picture, [leaf])
    torch.testing.assert_close(found.double(), truth[2], atol=1e-4 * float(truth[2].abs().max()), rtol=0)


def test_without_a_gpu_nothing_asks_for_a_driver() -> None:
    code = (
        "import torch\nfrom renderers import backends\nfrom renderers.rasterize import rasterize\n"
        "print(backends.available()['cuda'])\n"
        "try:\n    rasterize(torch.ones(1, 3, 3), backend='cuda')\nexcept ValueError as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "There is no CUDA device" in done.stdout and "TRITON_INTERPRET=1" in done.stdout


def test_kernels_compile_for_a_gpu_without_one() -> None:
    # The interpreter takes what the compiler refuses; the compiler needs no GPU.
    script = Path(__file__).parents[2] / "scripts" / "compile_kernels.py"
    command = [sys.executable, str(script), "--arch", "90", "--only", "silhouette", "paint"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")
    ]
    assert len(rows) == 9 and all(stack == "0" for _, _, stack, _ in rows[1:]), "registers spill"
