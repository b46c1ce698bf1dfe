"""The border between OpenCV's frame and the rasteriser's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from renderers.cameras import (
    ndc_camera_from_fov,
    ndc_camera_from_opencv,
    ndc_camera_from_spin,
    ndc_camera_from_weak_perspective,
    ndc_from_px,
    opencv_from_ndc_camera,
    px_from_ndc,
)

SIZES = [(48, 64), (64, 48), (30, 30)]


def scene(size_hw: tuple[int, int], batch: int = 3):
    rng = np.random.default_rng(sum(size_hw))
    R = np.stack([cv2.Rodrigues(rng.normal(0, 1, 3))[0] for _ in range(batch)])
    t = rng.uniform([-0.3, -0.3, 3], [0.3, 0.3, 5], (batch, 3))
    K = np.tile(np.eye(3), (batch, 1, 1))
    K[:, 0, 0], K[:, 1, 1] = rng.uniform(40, 90, (2, batch))
    K[:, :2, 2] = rng.uniform(10, 40, (batch, 2))
    return R, t, K, rng.normal(0, 0.5, (batch, 20, 3))


@pytest.mark.parametrize("size_hw", SIZES)
def test_pixels_are_those_of_opencv(size_hw) -> None:
    R, t, K, points = scene(size_hw)
    camera = ndc_camera_from_opencv(*map(torch.tensor, (R, t, K)), size_hw)
    projected = camera.project(torch.tensor(points))
    px = px_from_ndc(projected, size_hw).numpy()
    for b in range(len(R)):
        theirs = cv2.projectPoints(points[b], cv2.Rodrigues(R[b])[0], t[b], K[b], None)[0][:, 0]
        np.testing.assert_allclose(px[b, :, :2], theirs, atol=1e-9)
        np.testing.assert_allclose(px[b, :, 2], (points[b] @ R[b].T + t[b])[:, 2], atol=1e-12)
        np.testing.assert_allclose(camera.centre()[b].numpy(), -R[b].T @ t[b], atol=1e-12)
    np.testing.assert_allclose(ndc_from_px(torch.tensor(px), size_hw).numpy(), projected.numpy(), atol=1e-12)
    np.testing.assert_allclose(camera.unproject(projected).numpy(), points, atol=1e-9)


@pytest.mark.parametrize("size_hw", SIZES)
def test_there_and_back(size_hw) -> None:
    given = [torch.tensor(x) for x in scene(size_hw)[:3]]
    for ours, theirs in zip(
        opencv_from_ndc_camera(ndc_camera_from_opencv(*given, size_hw), size_hw), given, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_shorter_side_spans_minus_one_to_one_with_x_left_and_y_up() -> None:
    corners = ndc_from_px(torch.tensor([[0.0, 0.0], [64.0, 48.0], [32.0, 24.0]]), (48, 64))
    torch.testing.assert_close(corners, torch.tensor([[64 / 48, 1.0], [-64 / 48, -1.0], [0.0, 0.0]]))


def test_weak_perspective_and_its_full_perspective_twin() -> None:
    weak = torch.tensor([[0.9, 0.1, -0.2], [0.6, -0.3, 0.05]], dtype=torch.float64)
    body = torch.randn(2, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    weak_px = px_from_ndc(ndc_camera_from_weak_perspective(weak).project(body), (224, 224))
    expected = 112 * (1 + weak[:, None, :1] * (body[..., :2] + weak[:, None, 1:]))
    torch.testing.assert_close(weak_px[..., :2], expected)
    spin_px = px_from_ndc(ndc_camera_from_spin(weak).project(body), (224, 224))
    depth = body[..., 2:] + (2 * 5000 / (224 * weak[:, 0] + 1e-9))[:, None, None]
    torch.testing.assert_close(spin_px[..., :2], 5000 * (body[..., :2] + weak[:, None, 1:]) / depth + 112)
    torch.testing.assert_close(spin_px[..., 2:], depth)
    assert (spin_px - weak_px)[..., :2].abs().max() < 4  # the long lens is nearly orthographic
    with pytest.raises(ValueError, match="orthographic"):
        opencv_from_ndc_camera(ndc_camera_from_weak_perspective(weak), (224, 224))


def test_field_of_view_reaches_the_border() -> None:
    camera = ndc_camera_from_fov(torch.eye(3)[None], torch.zeros(1, 3), torch.tensor([1.0]))
    edge = torch.tensor([[[0.0, float(np.tan(0.5)) * 2.0, 2.0]]])
    torch.testing.assert_close(camera.project(edge), torch.tensor([[[0.0, 1.0, 2.0]]]))
