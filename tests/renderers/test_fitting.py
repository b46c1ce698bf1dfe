"""A mesh finds its place by gradient descent through the soft renderers, ours and PyTorch3D's where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from renderers import backends
from renderers.cameras import ndc_camera_from_opencv
from renderers.rasterize import rasterize
from renderers.soft import Blend, soft_render, soft_silhouette

SIZE = (64, 64)
# Steps with each softness. PyTorch3D takes about a second a step on a CPU, so it gets fewer.
STEPS = {"cpu": 60} | ({} if backends.why_missing("pytorch3d") else {"pytorch3d": 30})


def limbs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A trunk, an arm to one side and a head, about 1.6 m tall: vertices, faces, one label per face."""
    parts = []
    for scale, shift in (
        ((0.22, 0.55, 0.15), (0, 0.1, 0)),
        ((0.4, 0.09, 0.09), (0.45, -0.2, 0)),
        ((0.14,) * 3, (0, -0.6, 0)),
    ):
        ball = trimesh.creation.icosphere(subdivisions=1)
        parts.append(trimesh.Trimesh(ball.vertices * scale + shift, ball.faces, process=False))
    labels = np.concatenate([np.full(len(part.faces), i) for i, part in enumerate(parts)])
    whole = trimesh.util.concatenate(parts)
    return torch.tensor(whole.vertices).float(), torch.tensor(whole.faces), torch.tensor(labels)


def placed(verts: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Turned by pose[:3] about x, y and z (radians), moved by pose[3:]; 3 m before the camera, projected to NDC."""
    zero = torch.zeros(())
    a, b, c = pose[:3]
    skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero]).reshape(3, 3)
    world = verts @ torch.linalg.matrix_exp(skew).T + pose[3:]
    K = torch.tensor([[[80.0, 0, 32], [0, 80, 32], [0, 0, 1]]])
    camera = ndc_camera_from_opencv(torch.eye(3)[None], torch.tensor([[0.0, 0, 3]]), K, SIZE)
    return camera.project(world[None])[0]


@pytest.mark.parametrize("kind", ["silhouette", "labels"])
@pytest.mark.parametrize("backend", STEPS)
def test_a_body_moves_onto_its_target(backend, kind) -> None:
    verts, faces, labels = limbs()
    paint = torch.nn.functional.one_hot(labels, 3).float()
    goal = torch.zeros(6)

    def picture(pose: torch.Tensor, sigma: float) -> torch.Tensor:
        corners = placed(verts, pose)[faces]
        if kind == "silhouette":
            return soft_silhouette(corners, image_size=SIZE, sigma=sigma, backend=backend)
        blend = Blend(sigma=sigma, gamma=1e-3)
        shown = soft_render(corners, paint, torch.zeros(3), image_size=SIZE, blend=blend, backend=backend)
        return shown.colour * shown.alpha[..., None]

    def covered(pose: torch.Tensor) -> torch.Tensor:
        return rasterize(placed(verts, pose)[faces], image_size=SIZE, faces_per_pixel=1).pix_to_face >= 0

    def iou(pose: torch.Tensor) -> float:
        a, b = covered(pose), covered(goal)
        return float((a & b).sum() / (a | b).sum())

    pose = torch.tensor([0.0, 0.0, np.deg2rad(20), 0.08, -0.06, 0.0], dtype=torch.float32).requires_grad_()
    assert iou(pose.detach()) < 0.7
    descent = torch.optim.Adam([pose], lr=0.02)
    for sigma, rate in ((1e-3, 0.02), (1e-4, 0.005)):
        descent.param_groups[0]["lr"] = rate
        with torch.no_grad():
            target = picture(goal, sigma)
        for _ in range(STEPS[backend]):
            descent.zero_grad()
            (picture(pose, sigma) - target).square().mean().backward()
            descent.step()
    # PyTorch3D's gradients of label maps are not the true ones: its loop comes nearer (0.875 when run), not home.
    assert iou(pose.detach()) > (0.8 if (backend, kind) == ("pytorch3d", "labels") else 0.97)
