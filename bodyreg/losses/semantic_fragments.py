"""Semantic maps from the nearest faces at each pixel: the way through PyTorch3D's rasteriser, which has no such blend.

Our own back ends blend all faces in one pass (`renderers.soft`). PyTorch3D gives the faces at a pixel; its own softmax
knows another background and no cut in depth, so that what follows is blended here by the same formula.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.blending import Picture, blend_silhouette
from renderers.rasterize import rasterize
from renderers.soft import Blend

__all__ = ["MOST_FACES", "blend_fragments"]

MOST_FACES = 150
"""Faces kept at a pixel, the most that PyTorch3D's CUDA kernels keep. Farther ones are lost."""


def blend_fragments(
    face_verts: Tensor,
    attributes: Tensor,
    faces_per_mesh: list[int],
    *,
    image_size: int,
    blend: Blend,
    backend: str = "pytorch3d",
    most: int = MOST_FACES,
) -> Picture:
    """What `renderers.soft.soft_render` gives before a background of zeros, from at most `most` faces at a pixel.

    As with `Blend.detach_bary`, only distances move edges: depths take gradient from the corners' depths alone.

    Args:
        face_verts: (F, 3, 3) packed corners. attributes: (F, D), one value a face.
        faces_per_mesh, image_size, backend: as in `renderers.rasterize.rasterize`. blend: the weights.
    """
    fragments = rasterize(
        face_verts, faces_per_mesh, image_size=image_size, blur_radius=blend.blur, perspective_correct=True,
        faces_per_pixel=min(most, max(faces_per_mesh)), backend=backend,
    )  # fmt: skip
    hit = fragments.pix_to_face >= 0
    face = fragments.pix_to_face.clamp(min=0)
    corner_z = face_verts[:, :, 2][face]
    with torch.no_grad():
        on_screen = fragments.bary.clamp(min=0) * corner_z  # perspective-correct coordinates back to the screen's
        on_screen = on_screen / on_screen.sum(-1, keepdim=True).clamp(min=1e-12)
    z = 1 / torch.where(hit[..., None], on_screen / corner_z, torch.full_like(on_screen, 1 / 3)).sum(-1)
    coloured = hit & (z >= blend.znear) & (z <= blend.zfar) if blend.cut_depth else hit
    span = blend.zfar - blend.znear
    limit = blend.zfar - blend.background_zeta * span  # depth at which a face counts as the background does
    nearest = torch.where(coloured, z, torch.full_like(z, torch.inf)).amin(-1, keepdim=True).clamp(max=limit)
    # Differences of depths instead of differences of zeta: float32 zeta near 1 is too coarse to divide by gamma.
    depth = torch.exp(torch.where(coloured, nearest - z, torch.zeros_like(z)) / (blend.gamma * span))
    weight = torch.where(coloured, torch.sigmoid(-fragments.dists / blend.sigma) * depth, torch.zeros_like(z))
    rest = torch.exp((nearest - limit) / (blend.gamma * span)).clamp(min=blend.background_least)
    share = weight / (weight.sum(-1, keepdim=True) + rest)
    # Sums over a table of faces: attributes gathered at every fragment would be as many times larger as there are maps.
    colour = F.embedding_bag(face.flatten(0, 2), attributes, mode="sum", per_sample_weights=share.flatten(0, 2))
    return Picture(colour.view(*hit.shape[:3], -1), blend_silhouette(fragments, blend.sigma))
