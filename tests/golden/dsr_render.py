"""Checks of DSR's renders: maps, coverage, and gradients to vertices and camera, against the exact formula."""

from __future__ import annotations

import numpy as np
import torch
from dsr_common import close_relative
from perspose_common import close, tensor

from bodyreg.cameras import transl_from_spin
from bodyreg.losses.semantic import SemanticOptions, face_attributes, ndc_vertices, render_semantics
from priors.clothing_labels import MC_LABELS

_INFORMATION = "statistics of another renderer; the exact formula is the target"


def intrinsics(config, batch: int) -> tuple[torch.Tensor, tuple[int, int]]:
    size = config["orig_size"]
    K = torch.tensor([[config["focal"], 0, size / 2], [0, config["focal"], size / 2], [0, 0, 1.0]])
    return K.repeat(batch, 1, 1), (size, size)


def check_render(golden) -> None:
    config, i = golden.config, {name: tensor(array) for name, array in golden.inputs.items()}
    batch, faces = len(i["vertices"]), i["faces"].long()
    K, size_hw = intrinsics(config, batch)
    close_relative(transl_from_spin(i["weak_cam"], config["focal"], size_hw[0]), i["cam_t"], 1e-5, "translation")
    vertices, transl = i["vertices"].requires_grad_(), i["cam_t"].requires_grad_()
    points = ndc_vertices(vertices, K, size_hw, transl)
    axes = torch.tensor([-1.0, 1.0, 1.0])  # x right in the reference's, left in ours
    close(points * axes, golden.out("ndc_xyz"), 1e-4, "vertices")
    projection = golden.out("P")
    for k in range(batch):
        Rt = torch.cat([torch.diag(torch.tensor([1.0, -1.0, 1.0])), transl[k][:, None] * axes[[1, 0, 1]][:, None]], 1)
        close_relative(K[k] @ Rt, projection[k], 1e-5, "P")
    options = SemanticOptions(image_size=config["image_size"], sigma=config["sigma"], gamma=config["gamma"])
    maps = render_semantics(points, faces, i["face_prob"], options)
    rendered = torch.cat([maps.mc[:, None], maps.groups], 1)
    close(rendered, golden.out("exact_maps"), 5e-4, "maps")
    close(maps.alpha, golden.out("exact_alpha"), 5e-4, "alpha")
    loss = (rendered * i["loss_map_weights"]).mean() + (maps.alpha * i["loss_alpha_weights"]).mean()
    close_relative(loss, golden.out("exact_loss"), 1e-3, "loss")
    loss.backward()
    close_relative(vertices.grad, golden.out("exact_grad_vertices"), 1e-3, "gradient of vertices")
    close_relative(transl.grad, golden.out("exact_grad_cam_t"), 1e-3, "gradient of translation")
    for name in golden.names():
        if name.startswith(("pytorch3d_", "softras_")):
            golden.ignore(name, why=_INFORMATION)
    check_attributes(i["face_prob"], config)


def check_attributes(face_prob: torch.Tensor, config) -> None:
    """The stored attributes are sums over groups: their background and the rest add up to one."""
    close(face_prob[..., 1:].sum(-1), np.ones(face_prob.shape[:2], np.float32), 1e-5, "groups")
    for labels, column in zip(config["mc_valid"], face_prob[..., 0], strict=False):
        valid = torch.tensor([[name in labels for name in MC_LABELS]])
        prior = torch.zeros(len(column), 20)
        prior[:, 13] = 1  # a body of nothing but face
        expected = torch.full_like(column, float("face" in labels))
        close(face_attributes(prior, valid)[0, :, 0], expected.numpy(), 0, "union")


CHECKS = [("render_*", check_render)]
