"""PyTorch3D as a back end, where it is installed: its C++ and CUDA rasteriser behind our arguments.

Fragments, their order and their values are its own. So are its gradients: with perspective correction and clipping
together they are far from the true ones, and other back ends should be preferred. Soft pictures are blended from at
most 150 faces per pixel (the most its CUDA kernels keep), not from all.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from pytorch3d import _C
from torch import Tensor

from renderers.blending import Picture, blend_silhouette, blend_softmax, interpolate_corners, interpolate_faces

if TYPE_CHECKING:
    from renderers.rasterize import Fragments, Settings
    from renderers.soft import Blend, Scene

MOST = 150
"""Faces per pixel of the soft pictures, and the most that CUDA takes."""


def rasterize_fragments(
    face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings, threads: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Back end of `renderers.rasterize.rasterize`: pix_to_face, zbuf, bary, dists. `threads` is left to PyTorch3D."""
    if face_verts.dtype != torch.float32 or face_verts.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"The faces are {face_verts.dtype} on {face_verts.device}. The pytorch3d back end takes float32 on the "
            "CPU or on CUDA."
        )
    if face_verts.is_cuda and settings.k > MOST:
        raise ValueError(f"{settings.k} faces per pixel were asked for. PyTorch3D keeps at most {MOST} on CUDA.")
    if not len(face_verts):
        return _nothing(face_verts, len(counts), settings)
    return _Rasterize.apply(face_verts, counts, neighbour, settings)


def silhouette(scene: Scene, blend: Blend, threads: int | None) -> Tensor:
    """Back end of `renderers.soft.soft_silhouette`."""
    return blend_silhouette(_soft_fragments(scene, blend, threads), blend.sigma)


def paint(scene: Scene, attributes: Tensor, background: Tensor, blend: Blend, threads: int | None) -> Picture:
    """Back end of `renderers.soft.soft_render`."""
    fragments = _soft_fragments(scene, blend, threads)
    interpolate = interpolate_corners if attributes.ndim == 3 else interpolate_faces
    depths = dict(sigma=blend.sigma, gamma=blend.gamma, znear=blend.znear, zfar=blend.zfar)
    return blend_softmax(fragments, interpolate(fragments, attributes), background, **depths)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, face_verts: Tensor, counts: list[int], neighbour: Tensor | None, settings: Settings):
        count = torch.tensor(counts, device=face_verts.device)
        if neighbour is None:
            neighbour = torch.full((len(face_verts),), -1, device=face_verts.device)
        out = _C.rasterize_meshes(
            face_verts.contiguous(),
            count.cumsum(0) - count,
            count,
            neighbour,
            settings.size_hw,
            settings.blur,
            settings.k,
            *_bins(face_verts, counts, settings.size_hw),
            settings.perspective,
            settings.clip,
            settings.cull,
        )
        ctx.save_for_backward(face_verts, out[0])
        ctx.settings = settings
        ctx.mark_non_differentiable(out[0])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Any, grad_z: Tensor, grad_bary: Tensor, grad_dists: Tensor):
        face_verts, pix_to_face = ctx.saved_tensors
        upstream = (grad.contiguous() for grad in (grad_z, grad_bary, grad_dists))
        options = ctx.settings.perspective, ctx.settings.clip
        grad = _C.rasterize_meshes_backward(face_verts.contiguous(), pix_to_face, *upstream, *options)
        return grad, None, None, None


def _bins(face_verts: Tensor, counts: list[int], size_hw: tuple[int, int]) -> tuple[int, int]:
    # Pixels along a bin's side, as its own front end chooses them, and room for all faces of a mesh in each bin, so
    # that none is dropped. The CPU has no bins.
    if not face_verts.is_cuda:
        return 0, 0
    side = max(size_hw)
    return 8 if side <= 64 else 2 ** max(math.ceil(math.log2(side)) - 4, 4), max(counts)


def _nothing(face_verts: Tensor, images: int, settings: Settings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # PyTorch3D refuses batches without faces. The sum of no corners keeps the graph whole.
    shape = (images, *settings.size_hw, settings.k)
    blank = torch.full(shape, -1.0, device=face_verts.device) + face_verts.sum()
    pix_to_face = torch.full(shape, -1, device=face_verts.device)
    return pix_to_face, blank, blank[..., None].expand(*shape, 3).clone(), blank.clone()


def _soft_fragments(scene: Scene, blend: Blend, threads: int | None) -> Fragments:
    from renderers.rasterize import Fragments, Settings
    from renderers.soft import Blend as Defaults

    default = Defaults()
    free = ("sigma", "gamma", "znear", "zfar", "blur_radius", "perspective", "cull")
    names = [field.name for field in fields(blend) if field.name not in free]
    changed = [name for name in names if getattr(blend, name) != getattr(default, name)]
    changed += ["cull"] if blend.cull == "colour" else []
    if changed:
        raise ValueError(
            f"PyTorch3D cannot blend with another {', '.join(changed)} than its own. Choose another back end."
        )
    k = max(1, min(MOST, max(scene.counts, default=1)))
    settings = Settings(scene.size_hw, blend.blur, k, blend.perspective, True, blend.cull == "all")
    return Fragments(*rasterize_fragments(scene.face_verts, scene.counts, scene.neighbour, settings, threads))
