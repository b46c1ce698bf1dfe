"""A doll of balls with clothing labels, seen through DSR's camera: what the tests of semantic losses render."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from bodyreg.cameras import transl_from_spin
from bodyreg.losses.semantic import ndc_vertices
from priors.clothing_labels import LABELS
from renderers.soft import Blend, soft_render

PARTS = {
    "upperclothes": ((0.19, 0.32, 0.12), (0, -0.15, 0)),
    "face": ((0.1, 0.13, 0.1), (0, -0.6, 0)),
    "leftArm": ((0.07, 0.3, 0.07), (0.32, -0.1, 0)),
    "rightArm": ((0.07, 0.3, 0.07), (-0.32, -0.1, 0)),
    "pants": ((0.18, 0.35, 0.1), (0, 0.45, 0)),
    "leftShoe": ((0.08, 0.07, 0.14), (0.11, 0.83, -0.04)),
    "rightShoe": ((0.08, 0.07, 0.14), (-0.11, 0.83, -0.04)),
}
WEAK = torch.tensor([[0.9, 0.0, 0.0]])
SIZE_HW = (224, 224)
K = torch.tensor([[[5000.0, 0, 112], [0, 5000, 112], [0, 0, 1]]])


def doll() -> tuple[Tensor, Tensor, Tensor]:
    """(V, 3) vertices, (F, 3) faces, (F, 20) prior, nine tenths on the part's label and the rest spread evenly."""
    ball, meshes, rows = trimesh.creation.icosphere(subdivisions=1), [], []
    for name, (scale, shift) in PARTS.items():
        meshes.append(trimesh.Trimesh(ball.vertices * scale + shift, ball.faces, process=False))
        row = np.full(len(LABELS), 0.1 / len(LABELS), np.float32)
        row[LABELS.index(name)] += 0.9
        rows.append(np.tile(row, (len(ball.faces), 1)))
    whole = trimesh.util.concatenate(meshes)
    prior = torch.from_numpy(np.concatenate(rows))
    return torch.tensor(whole.vertices).float(), torch.tensor(np.array(whole.faces)), prior


def seen(vertices: Tensor, weak: Tensor, nearest: bool) -> Tensor:
    """(B, V, 3) what the renderer takes, through SPIN's camera."""
    transl = transl_from_spin(weak)
    batch = len(weak)
    pivot = transl[:, 2] if nearest else None
    return ndc_vertices(vertices.expand(batch, -1, -1), K.expand(batch, -1, -1), SIZE_HW, transl, pivot=pivot)


def labels_of(vertices: Tensor, faces: Tensor, prior: Tensor, size: int, weak: Tensor = WEAK) -> Tensor:
    """(B, size, size) uint8 labels of the doll itself."""
    points = seen(vertices, weak, nearest=True)
    corners = points[:, faces].flatten(0, 1)
    picture = soft_render(
        corners, prior.repeat(len(weak), 1), torch.zeros(20), [len(faces)] * len(weak), image_size=size,
        blend=Blend.softras(1e-5, 1e-3),
    )  # fmt: skip
    share = picture.colour.clone()
    share[..., 0] = 1 - share[..., 1:].sum(-1)
    return share.argmax(-1).to(torch.uint8)
