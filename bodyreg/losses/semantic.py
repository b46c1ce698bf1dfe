"""Differentiable semantic rendering: a body is rendered as clothing labels and compared with a parsed picture.

"Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (Dwivedi, Athanasiou, Kocabas, Black;
ICCV 2021). DSR-MC asks the regions whose outline is the body's (shoes, arms, face) to overlap the picture's; DSR-C asks
the body to stay inside its clothes. Each face carries a distribution over labels, the clothing prior. One pass of the
renderer blends the union of a sample's minimally clothed labels and all groups at once.

Two presets. "reference" is what the authors released, quirks included: intersection over union row by row, a blend in
which near and far faces count almost alike, probabilities in place of logits, DSR-C only for samples with valid DSR-MC
labels. "corrected" is what is meant: one intersection over union a picture, the nearest surface wins, and DSR-C costs
nothing where clothes are wider than the body. (That mirrored pictures exchange left and right labels is the data's
business: `bodyreg.data.parsing`.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bodyreg.losses.semantic_fragments import blend_fragments
from bodyreg.losses.semantic_pixels import (
    distance_loss,
    image_iou_loss,
    inside_loss,
    label_cross_entropy,
    row_iou_loss,
)
from bodyreg.losses.semantic_targets import MIN_PIXELS, SemanticTargets, mask_distance, semantic_targets
from priors.clothing_labels import C_GROUP_MATRIX, LABELS, MC_COLUMNS
from renderers.blending import TINY
from renderers.cameras import ndc_camera_from_opencv
from renderers.soft import Blend, soft_render

__all__ = [
    "PRESETS",
    "SemanticLosses",
    "SemanticMaps",
    "SemanticOptions",
    "SemanticSettings",
    "dsr_losses",
    "face_attributes",
    "ndc_vertices",
    "render_semantics",
]

CENTRE_DEPTH = 49.6
"""Depth of the pelvis in DSR's camera for a person that fills nine tenths of the crop, metres."""
_NEAREST = 0.05  # metres before the camera that every vertex must keep
_FARTHEST_NDC = 50.0


@dataclass(frozen=True)
class SemanticOptions:
    """How maps are rendered and compared."""

    image_size: int = 224
    """Side of the rendered maps, pixels; label maps are sampled to it."""
    sigma: float = 1e-5
    """Softness of edges, squared NDC."""
    gamma: float = 0.1
    """Softness of depth, relative to 99 m, where `nearest` is off."""
    nearest: bool = False
    """The surface in front hides those behind; off, near and far ones shine through each other."""
    depth_scale: float = 0.02
    """Metres behind the nearest surface at which a face counts 1 / e, where `nearest` is on."""
    mc_form: str = "row"
    """DSR-MC: "row" or "image" intersection over union, or "distance"."""
    mc_region: str = "labels"
    """What DSR-MC renders and compares: "labels"; "silhouette", the whole body against the labels' mask (DSR's
    baseline); "person", the whole body against the whole person."""
    c_inside: bool = False
    """DSR-C asks only that the body stay inside its clothes; off, maps are classified as logits."""
    min_pixels: int = MIN_PIXELS
    """A label or group counts above this many pixels of a picture 224 wide."""
    c_needs_mc: bool = True
    """Samples without valid DSR-MC label have no DSR-C either."""
    mean_over_all: bool = True
    """Losses are means over the batch; off, over the samples that count."""


PRESETS: dict[str, SemanticOptions] = {
    "reference": SemanticOptions(),
    "corrected": SemanticOptions(
        nearest=True, mc_form="image", c_inside=True, c_needs_mc=False, mean_over_all=False, sigma=3e-5
    ),
}


@dataclass
class SemanticSettings:
    """DSR's part of a training configuration; what is left null is the preset's."""

    preset: str = "corrected"
    """reference or corrected."""
    mc_weight: float = 0.1
    c_weight: float = 0.1
    start_epoch: int = 2
    """Both losses act in epochs after this one (numbered from 0); -1: always."""
    warmup_steps: int = 0
    """Steps over which both weights grow from 0 once they act."""
    prior: str | None = None
    """Clothing prior: a file, "skinning" for the plain one from skinning weights, or null for the one that ships."""
    image_size: int | None = None
    sigma: float | None = None
    gamma: float | None = None
    depth_scale: float | None = None
    mc_form: str | None = None
    mc_region: str | None = None
    min_pixels: int | None = None

    def options(self) -> SemanticOptions:
        """The preset with what is set here.

        Raises:
            ValueError: an unknown preset, form or region.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"There is no preset {self.preset!r}. Choose one of {', '.join(PRESETS)}.")
        given = ("image_size", "sigma", "gamma", "depth_scale", "mc_form", "mc_region", "min_pixels")
        changed = {name: getattr(self, name) for name in given if getattr(self, name) is not None}
        options = replace(PRESETS[self.preset], **changed)
        forms, regions = ("row", "image", "distance"), ("labels", "silhouette", "person")
        for name, known in (("mc_form", forms), ("mc_region", regions)):
            if getattr(options, name) not in known:
                raise ValueError(f"{name} is {getattr(options, name)!r}. Choose one of {', '.join(known)}.")
        return options

    def factor(self, epoch: int, steps_since_start: int = 0) -> float:
        """What the weights are multiplied by: 0 before the start, then rising to 1 over the warm-up."""
        if epoch <= self.start_epoch:
            return 0.0
        return min(1.0, (steps_since_start + 1) / self.warmup_steps) if self.warmup_steps > 0 else 1.0


class SemanticMaps(NamedTuple):
    """Rendered maps: mc (B, n, n) union of valid DSR-MC labels; groups (B, 8, n, n); alpha (B, n, n) coverage.

    With `SemanticOptions.nearest`, `groups` are shares among the faces at a pixel; else probabilities in which what is
    missing to 1 is background.
    """

    mc: Tensor
    groups: Tensor
    alpha: Tensor


class SemanticLosses(NamedTuple):
    """mc, c: scalars; mc_each, c_each (B,): of each sample, 0 where it does not count; rendered, mc_counted, c_counted
    (B,) bool: samples that were rendered, and that count. Samples are left out whose body is not finite, not in front
    of the camera or far outside the picture, and those without any label to compare."""

    mc: Tensor
    c: Tensor
    mc_each: Tensor
    c_each: Tensor
    rendered: Tensor
    mc_counted: Tensor
    c_counted: Tensor


def ndc_vertices(
    vertices: Tensor, K: Tensor, size_hw: tuple[int, int], transl: Tensor | None = None, *, pivot: Tensor | None = None
) -> Tensor:
    """Bodies in OpenCV cameras to what the renderer takes.

    Args:
        vertices: (B, V, 3) in the camera's axes, metres. K: (B, 3, 3) intrinsics of the crops, pixels.
        size_hw: of the crops that K speaks of; any size may be rendered.
        transl: (B, 3) added to the vertices: of a weak camera, `bodyreg.cameras.transl_from_spin`.
        pivot: (B,) depth, the pelvis's say, that is put at 49.6 m where faces are weighted by depth. DSR's weights are
            made for that distance; cameras that know the true one need it.

    Returns:
        (B, V, 3) x (left) and y (up) in NDC, and depth.
    """
    eye = torch.eye(3, dtype=vertices.dtype, device=vertices.device).expand(len(vertices), 3, 3)
    transl = vertices.new_zeros(len(vertices), 3) if transl is None else transl
    points = ndc_camera_from_opencv(eye, transl, K, size_hw).project(vertices)
    if pivot is None:
        return points
    return torch.cat([points[..., :2], points[..., 2:] - pivot[:, None, None] + CENTRE_DEPTH], -1)


def face_attributes(prior: Tensor, mc_valid: Tensor) -> Tensor:
    """(B, F, 9) what each face carries: the union of valid DSR-MC labels, and the eight groups.

    Args:
        prior: (F, 20) label probabilities. mc_valid: (B, 5) bool.
    """
    union = torch.einsum("fk,bk->bf", prior[:, list(MC_COLUMNS)], mc_valid.to(prior))
    groups = prior @ torch.tensor(C_GROUP_MATRIX).to(prior)
    return torch.cat([union[..., None], groups.expand(len(mc_valid), -1, -1)], -1)


def render_semantics(
    points: Tensor, faces: Tensor, attributes: Tensor, options: SemanticOptions, *, backend: str | None = None
) -> SemanticMaps:
    """Blend the attributes of all faces of a batch in one pass.

    Args:
        points: (B, V, 3) from `ndc_vertices`. faces: (F, 3). attributes: (B, F, 9) from `face_attributes`.
    """
    batch, count = len(points), len(faces)
    if options.nearest:
        blend = replace(
            Blend.softras(options.sigma, options.depth_scale / 99), cut_depth=False, background_zeta=TINY,
            background_least=TINY,
        )  # fmt: skip
    else:
        blend = Blend.softras(options.sigma, options.gamma)
    corners, values, counts = points[:, faces].flatten(0, 1), attributes.flatten(0, 1), [count] * batch
    if backend == "pytorch3d":
        picture = blend_fragments(corners, values, counts, image_size=options.image_size, blend=blend, backend=backend)
    else:
        picture = soft_render(
            corners, values, values.new_zeros(values.shape[-1]), counts, image_size=options.image_size, blend=blend,
            backend=backend,
        )  # fmt: skip
    colour = picture.colour.movedim(-1, 1)
    mc = colour[:, 0] * picture.alpha if options.nearest else colour[:, 0]
    return SemanticMaps(mc, colour[:, 1:], picture.alpha)


def dsr_losses(
    points: Tensor,
    faces: Tensor,
    prior: Tensor,
    labels: Tensor | SemanticTargets,
    options: SemanticOptions,
    *,
    backend: str | None = None,
) -> SemanticLosses:
    """DSR-MC and DSR-C of a batch, not yet weighted. Never NaN: what cannot be compared is left out and said so.

    Args:
        points: (B, V, 3) bodies from `ndc_vertices`. faces: (F, 3) int64.
        prior: (F, 20) label probabilities of the faces.
        labels: (B, H, W) uint8 label maps of the same crops, or their targets.
        backend: of the renderer.

    Raises:
        ValueError: a prior of another body, or labels that are none.
    """
    if prior.shape != (len(faces), len(LABELS)):
        raise ValueError(
            f"The clothing prior is {tuple(prior.shape)} and the body has {len(faces)} faces. Give ({len(faces)}, "
            f"{len(LABELS)}), made for this body's faces in their order."
        )
    targets = labels if isinstance(labels, SemanticTargets) else semantic_targets(labels, min_pixels=options.min_pixels)
    with torch.no_grad():
        flat = points.detach().flatten(1)
        usable = flat.isfinite().all(1) & (points.detach()[..., 2] > _NEAREST).all(1)
        usable &= (points.detach()[..., :2].abs() < _FARTHEST_NDC).flatten(1).all(1)
        by_labels = options.mc_region != "person"
        has_mc = targets.mc_valid.any(1) if by_labels else targets.person.flatten(1).any(1)
        has_c = (targets.class_weight > 0).any(1)
        if options.c_needs_mc:
            has_c &= targets.mc_valid.any(1)
        rendered = usable & (has_mc | has_c)
        rows = rendered.nonzero()[:, 0]
    zeros = points.new_zeros(len(points))
    if not len(rows):
        nothing = (points.nan_to_num(0, 0, 0) * 0).sum()
        none = torch.zeros_like(rendered)
        return SemanticLosses(nothing, nothing, zeros, zeros, none, none, none)
    chosen = points[rows]
    if chosen.requires_grad:
        chosen.register_hook(_drop_broken)
    targets = SemanticTargets(*(value[rows] for value in targets))
    maps = render_semantics(chosen, faces, face_attributes(prior, targets.mc_valid), options, backend=backend)
    mc_counted, c_counted = rendered & has_mc, rendered & has_c
    mc = zeros.index_put((rows,), torch.where(has_mc[rows], _mc(maps, targets, options), 0.0))
    c = zeros.index_put((rows,), torch.where(has_c[rows], _c(maps, targets, options), 0.0))
    return SemanticLosses(
        _mean(mc, mc_counted, options), _mean(c, c_counted, options), mc, c, rendered, mc_counted, c_counted
    )


def _mc(maps: SemanticMaps, targets: SemanticTargets, options: SemanticOptions) -> Tensor:
    size = options.image_size
    mask = _sampled(targets.person if options.mc_region == "person" else targets.mc_mask, size)
    probability = maps.mc if options.mc_region == "labels" else maps.alpha
    if options.mc_form == "distance":
        full = targets.person if options.mc_region == "person" else targets.mc_mask
        distance = _sampled(mask_distance(full), size) * (size / full.shape[-1])
        return distance_loss(*(x[:, None].expand(-1, 3, -1, -1) for x in (probability, distance)))
    return (row_iou_loss if options.mc_form == "row" else image_iou_loss)(probability, mask)


def _c(maps: SemanticMaps, targets: SemanticTargets, options: SemanticOptions) -> Tensor:
    groups = _sampled(targets.groups, options.image_size)
    if options.c_inside:
        return inside_loss(maps.alpha, maps.groups, groups, targets.class_weight)
    return label_cross_entropy(maps.groups, groups.clamp(min=0), targets.class_weight)


def _sampled(values: Tensor, size: int) -> Tensor:
    if values.shape[-2:] == (size, size):
        return values
    return F.interpolate(values[:, None].double(), (size, size), mode="nearest-exact")[:, 0].to(values.dtype)


def _mean(each: Tensor, counted: Tensor, options: SemanticOptions) -> Tensor:
    return each.sum() / (len(each) if options.mean_over_all else counted.sum().clamp(min=1))


def _drop_broken(gradient: Tensor) -> Tensor:
    # Faces seen edge-on can have derivatives beyond what single precision holds: such a sample gives none.
    finite = gradient.flatten(1).isfinite().all(1)
    return torch.where(finite[:, None, None], gradient, torch.zeros_like(gradient))
