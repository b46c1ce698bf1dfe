"""Maps from the nearest faces at each pixel are those of all faces, with their gradients, in both presets."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from semantic_doll import WEAK, doll, labels_of, seen

from bodyreg.losses import semantic
from bodyreg.losses.semantic import PRESETS, dsr_losses
from bodyreg.losses.semantic_fragments import blend_fragments

N = 48


@pytest.fixture(scope="module")
def scene():
    vertices, faces, prior = doll()
    return vertices, faces, prior, labels_of(vertices, faces, prior, N)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("rasteriser", ["cpu", *(["pytorch3d"] if find_spec("pytorch3d") else [])])
def test_losses_through_pytorch3d_are_ours(scene, preset, rasteriser, monkeypatch) -> None:
    """Within 5e-4, for two people at once; without PyTorch3D its place is taken by our own rasteriser."""
    vertices, faces, prior, labels = scene
    options = replace(PRESETS[preset], image_size=N)
    calls = []

    def stand_in(*given, backend, **options):
        calls.append(backend)
        return blend_fragments(*given, backend=rasteriser, **options)

    monkeypatch.setattr(semantic, "blend_fragments", stand_in)
    weak = torch.cat([WEAK, WEAK]) + torch.tensor([[0, 0.02, -0.01], [-0.1, 0.0, 0.03]])
    found = {}
    for backend in ("cpu", "pytorch3d"):
        own = vertices.clone().requires_grad_()
        losses = dsr_losses(
            seen(own, weak, options.nearest), faces, prior, labels.expand(2, -1, -1), options, backend=backend
        )
        (gradient,) = torch.autograd.grad(losses.mc + losses.c, own)
        found[backend] = losses, gradient
    assert calls == ["pytorch3d"]
    ours, theirs = found["cpu"][0], found["pytorch3d"][0]
    assert torch.allclose(ours.mc_each, theirs.mc_each, atol=5e-4)
    assert torch.allclose(ours.c_each, theirs.c_each, atol=5e-4)
    assert bool(theirs.rendered.all()) and float(theirs.mc.detach()) > 0
    assert float((found["cpu"][1] - found["pytorch3d"][1]).norm()) < 5e-3 * float(found["cpu"][1].norm())
