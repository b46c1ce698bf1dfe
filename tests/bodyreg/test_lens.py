"""Lens, quaternions and screen coordinates of the lifting data sets."""

import torch

from bodyreg import lens
from bodyreg.rotations import matrix_from_quaternion, unit


def camera(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    q = unit(torch.randn(4, generator=generator, dtype=torch.float64))
    return q, torch.randn(3, generator=generator, dtype=torch.float64)


def test_rotation_is_that_of_the_matrix_and_world_and_camera_are_inverse():
    q, centre = camera()
    points = torch.randn(5, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(lens.rotate(q, points), points @ matrix_from_quaternion(q).T)
    seen = lens.camera_from_world(points, q, centre)
    torch.testing.assert_close(lens.world_from_camera(seen, q, centre), points)


def test_screen_and_pixels_are_inverse_and_the_middle_is_zero():
    pixels = torch.tensor([[0.0, 0.0], [500.0, 501.0], [1000.0, 1002.0]], dtype=torch.float64)
    screen = lens.screen_from_pixels(pixels, (1000, 1002))
    torch.testing.assert_close(screen, torch.tensor([[-1, -1.002], [0, 0], [1, 1.002]], dtype=torch.float64))
    torch.testing.assert_close(lens.pixels_from_screen(screen, (1000, 1002)), pixels)


def test_projection_commutes_with_the_screen():
    points = torch.randn(6, 3, dtype=torch.float64) * 0.3 + torch.tensor([0, 0, 4.0], dtype=torch.float64)
    numbers = torch.tensor([1145.0, 1143, 512, 515, -0.2, 0.24, -0.003, -0.001, -0.0014], dtype=torch.float64)
    pixels = lens.project(points, numbers)
    screen = lens.project(points, lens.screen_lens(numbers, (1000, 1002)))
    torch.testing.assert_close(screen, lens.screen_from_pixels(pixels, (1000, 1002)))
    straight = torch.cat([numbers[:4], torch.zeros(5, dtype=torch.float64)])
    torch.testing.assert_close(lens.project(points, straight), lens.project_linear(points, numbers))


def test_wild_points_stay_finite_and_bounded():
    numbers = torch.tensor([2.0, 2.0, 0, 0, 0, 0, 0, 0, 0])
    assert (lens.project(torch.tensor([[9.0, -9.0, 1.0]]), numbers) == torch.tensor([2.0, -2.0])).all()


def test_depths_and_image_points_give_the_joints_back():
    root = torch.tensor([[0.3, -0.2, 4.0]], dtype=torch.float64)
    relative = torch.cat([torch.zeros(1, 1, 3), 0.4 * torch.randn(1, 4, 3)], 1).double()
    numbers = torch.tensor([2.3, 2.2, 0.02, 0.03, 0, 0, 0, 0, 0], dtype=torch.float64)
    points = relative + root[:, None]
    uvd = torch.cat([lens.project_linear(points, numbers), relative[..., 2:]], -1)
    torch.testing.assert_close(lens.joints_from_uvd(uvd, root, numbers), relative)


def test_projection_has_the_right_derivative():
    points = (torch.randn(3, 3, dtype=torch.float64) * 0.2 + torch.tensor([0, 0, 3.0])).double().requires_grad_()
    numbers = torch.tensor([1.2, 1.1, 0.1, 0.2, -0.2, 0.24, -0.003, -0.01, -0.02], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: lens.project(p, numbers), points)
