"""Soft pictures in one pass over all faces: silhouettes, label maps and colours without a limit of faces per pixel.

Keeping the K nearest faces of a pixel drops those that cover it as soon as many blurred neighbours lie in front (on a
body of 14 000 faces at 224 pixels a hundred and more do). The blends need no order, so here every face within the blur
radius counts, no (N, H, W, K) tensor exists, and the backward pass computes anew what it needs.

Formulas: PyTorch3D's (Ravi et al., 2020) by default; `Blend.softras` gives those of Soft Rasterizer (Liu et al., ICCV
2019). Barycentric coordinates are clipped before they are corrected for perspective, which keeps gradients true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from renderers.backends import choose, operation
from renderers.blending import TINY, Picture, blur_for
from renderers.clipping import Clipped, clip_faces
from renderers.rasterize import check_faces


@dataclass(frozen=True)
class Blend:
    """How faces are weighted against each other and against the background.

    A face covers a pixel with probability p = sigmoid(-+ distance^2 / sigma) and counts in the colour with weight
    p exp(zeta / gamma), zeta = (zfar - depth) / (zfar - znear).
    """

    sigma: float = 1e-4
    """Softness of edges, squared NDC."""
    gamma: float = 1e-4
    """Softness of depth."""
    znear: float = 1.0
    zfar: float = 100.0
    blur_radius: float | None = None
    """Squared NDC distance at which a face ends; by default where p falls to 1e-4."""
    perspective: bool = True
    """Depth is interpolated perspective-correctly; False: linearly on the screen."""
    background_zeta: float = TINY
    """zeta of the background."""
    background_least: float = TINY
    """The least weight of the background relative to the nearest face's depth weight."""
    cut_depth: bool = False
    """Faces nearer than znear or farther than zfar cover, but give no colour."""
    cull: str = "none"
    """Faces seen from behind: "none" keeps them, "colour" lets them cover without giving colour, "all" drops them."""
    front_clockwise: bool = False
    """A face is seen from the front where its corners run clockwise as displayed, not counter-clockwise."""
    screen_attributes: bool = False
    """Attributes are interpolated linearly on the screen, not perspective-correctly."""
    unit_weights: bool = False
    """Barycentric coordinates are clipped to [0, 1] instead of to at least 0, before they are scaled to sum 1."""
    detach_bary: bool = False
    """No gradient passes from depth and attributes to the position on the screen; only distances move edges."""

    @classmethod
    def softras(
        cls,
        sigma: float = 1e-5,
        gamma: float = 1e-4,
        *,
        near: float = 1.0,
        far: float = 100.0,
        eps: float = 1e-3,
        dist_eps: float = 1e-4,
        fill_back: bool = True,
    ) -> Blend:
        """The rules of Soft Rasterizer's kernels (Euclidean distance, softmax colours, product alpha).

        Its axes are x right, y up: negate x before you come here. They are left-handed, so that a face turned outwards
        runs clockwise as displayed.
        """
        return cls(
            sigma=sigma,
            gamma=gamma,
            znear=near,
            zfar=far,
            blur_radius=blur_for(sigma, dist_eps),
            background_zeta=2 * eps,
            background_least=0.0,
            cut_depth=True,
            cull="none" if fill_back else "colour",
            front_clockwise=True,
            screen_attributes=True,
            unit_weights=True,
            detach_bary=True,
        )

    @property
    def blur(self) -> float:
        return blur_for(self.sigma) if self.blur_radius is None else self.blur_radius


class Scene(NamedTuple):
    """What a back end takes: checked and cut faces."""

    face_verts: Tensor
    """(F, 3, 3)."""
    counts: list[int]
    """Faces of each mesh."""
    neighbour: Tensor | None
    """(F,) the other half of a face that was cut in two, else -1."""
    size_hw: tuple[int, int]


def soft_silhouette(
    face_verts: Tensor,
    faces_per_mesh: Sequence[int] | None = None,
    *,
    image_size: int | tuple[int, int] = 256,
    sigma: float = 1e-4,
    blur_radius: float | None = None,
    cull_backfaces: bool = False,
    z_clip: float | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> Tensor:
    """(N, H, W) probability that any face covers the pixel, 1 - prod(1 - p), over all faces.

    Arguments as in `renderers.rasterize.rasterize`; `sigma` and `blur_radius` as in `Blend`.
    """
    blend = Blend(sigma=sigma, blur_radius=blur_radius, cull="all" if cull_backfaces else "none")
    scene, _ = _prepare(face_verts, faces_per_mesh, image_size, blend, z_clip)
    return operation(choose(face_verts, backend), "silhouette")(scene, blend, threads)


def soft_render(
    face_verts: Tensor,
    attributes: Tensor,
    background: Tensor,
    faces_per_mesh: Sequence[int] | None = None,
    *,
    image_size: int | tuple[int, int] = 256,
    blend: Blend | None = None,
    z_clip: float | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> Picture:
    """Blend attributes of all faces: colours, label probabilities, normals.

    Args:
        face_verts: (F, 3, 3) corners of the faces of all meshes, packed: x and y in NDC, view depth z.
        attributes: (F, 3, D) values at the corners, or (F, D) one value per face. Gradients are computed for them only
            where they ask for one.
        background: (D,) value of the background; takes no gradient.
        faces_per_mesh, image_size, z_clip, backend, threads: as in `renderers.rasterize.rasterize`.
        blend: the weights; PyTorch3D's defaults.

    Raises:
        ValueError: wrong shapes or types, vertices that are not finite, depths or softness out of order.
    """
    blend = blend or Blend()
    if attributes.ndim not in (2, 3) or len(attributes) != len(face_verts) or attributes.shape[1:-1] not in ((), (3,)):
        raise ValueError(
            f"The attributes have shape {tuple(attributes.shape)} for {len(face_verts)} faces. "
            "Give (F, 3, D) values at corners or (F, D) values of faces."
        )
    if background.shape != attributes.shape[-1:]:
        raise ValueError(
            f"The background has shape {tuple(background.shape)} and the attributes {attributes.shape[-1]} channels. "
            "Give one number for each."
        )
    if attributes.dtype != face_verts.dtype or attributes.device != face_verts.device:
        raise ValueError(
            f"The attributes are {attributes.dtype} on {attributes.device}, the faces {face_verts.dtype} on "
            f"{face_verts.device}. Give both alike."
        )
    scene, clipped = _prepare(face_verts, faces_per_mesh, image_size, blend, z_clip)
    if clipped is not None:
        attributes = attributes[clipped.face]
        if attributes.ndim == 3:
            attributes = torch.einsum("fjk,fjd->fkd", clipped.bary, attributes)
    background = background.detach().to(attributes)
    return operation(choose(face_verts, backend), "paint")(scene, attributes, background, blend, threads)


def _prepare(
    face_verts: Tensor,
    faces_per_mesh: Sequence[int] | None,
    image_size: int | tuple[int, int],
    blend: Blend,
    z_clip: float | None,
) -> tuple[Scene, Clipped | None]:
    size_hw = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    counts = [len(face_verts)] if faces_per_mesh is None else [int(n) for n in faces_per_mesh]
    check_faces(face_verts, counts, size_hw, blend.blur, 1)
    if not (blend.sigma > 0 and blend.gamma > 0 and blend.zfar > blend.znear):
        raise ValueError(
            f"sigma is {blend.sigma}, gamma {blend.gamma}, znear {blend.znear} and zfar {blend.zfar}. "
            "Give positive softness and zfar beyond znear."
        )
    if blend.cull not in ("none", "colour", "all"):
        raise ValueError(f"There is no culling {blend.cull!r}. Choose one of none, colour, all.")
    if z_clip is None:
        return Scene(face_verts, counts, None, size_hw), None
    clipped = clip_faces(face_verts, z_clip, perspective=blend.perspective)
    neighbour = clipped.neighbour if bool((clipped.neighbour >= 0).any()) else None
    return Scene(clipped.face_verts, clipped.counts(counts), neighbour, size_hw), clipped
