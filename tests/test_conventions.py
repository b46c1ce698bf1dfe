"""The page of conventions says what the code does."""

import re
from pathlib import Path

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.cameras import Camera, resolve_camera
from bodyreg.rotations import matrix_from_6d, matrix_from_aa

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "conventions.md").read_text(encoding="utf-8")


def test_page_lists_every_joint_set():
    listed = re.search(r"name of their set: `([^`]*)`", PAGE).group(1).split()
    assert listed == list(skeletons.names())


def test_rotating_a_body_follows_the_formula_of_the_page():
    assert "R (J0 + `transl`) - J0" in PAGE
    body = BodyModel.load("free", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    betas, pose, root, transl = (torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (10, 69, 3, 3))
    R = matrix_from_aa(torch.tensor([[0.3, -0.8, 0.2]], dtype=torch.float64))
    before = body(betas, 0.3 * pose, matrix_from_aa(root), transl)
    J0 = body.rest_joints(betas)[:, 0]
    moved = (R @ (J0 + transl)[..., None])[..., 0] - J0
    after = body(betas, 0.3 * pose, R @ matrix_from_aa(root), moved)
    torch.testing.assert_close(after.vertices, before.vertices @ R[0].T, atol=1e-7, rtol=0)


def test_pixels_and_focal_lengths_follow_the_page():
    assert resolve_camera((300, 400)).fx == 500  # the diagonal
    assert Camera.from_f35(36, (400, 300)).fx == 400  # of the long side
    camera = Camera.from_focal(100.0, (300, 400))
    np.testing.assert_allclose(camera.project(np.array([[0.0, 0.0, 2.0], [-4.0, -3.0, 2.0]])), [[200, 150], [0, 0]])


def test_sixd_columns_are_interleaved():
    R = matrix_from_6d(torch.tensor([0.0, 1, 2, 0, 0, 0]))  # a1 = (0, 2, 0), a2 = (1, 0, 0)
    torch.testing.assert_close(R[:, 0], torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(R[:, 1], torch.tensor([1.0, 0, 0]))
