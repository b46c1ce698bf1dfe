import pytest
import torch

from bodyreg.encoding import mirror_intrinsics, perspective_encoding

K = torch.tensor([[[500.0, 3.0, 120.0], [0, 480.0, 70.0], [0, 0, 1]], [[90.0, 0, -400.0], [0, 95.0, 900.0], [0, 0, 1]]])


def test_cells_hold_the_ray_through_their_centre():
    pe = perspective_encoding(K, (96, 128), stride=8)
    assert pe.shape == (2, 2, 12, 16)
    for i, j in [(0, 0), (3, 7), (11, 15)]:
        pixel = torch.tensor([8 * (j + 0.5), 8 * (i + 0.5), 1.0])
        ray = torch.linalg.solve(K.double(), pixel.double().expand(2, 3))
        torch.testing.assert_close(pe[:, :, i, j].double(), ray[:, :2], atol=1e-6, rtol=1e-6)


def test_mirrored_camera_gives_the_mirrored_map():
    pe, mirrored = perspective_encoding(K, (64, 96)), perspective_encoding(mirror_intrinsics(K, 96), (64, 96))
    torch.testing.assert_close(mirrored, pe.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mirror_intrinsics(mirror_intrinsics(K, 96), 96), K)


def test_unknown_cameras_get_zero_even_when_their_placeholder_is_nan():
    bad = K.clone()
    bad[1] = float("nan")
    pe = perspective_encoding(bad, (64, 64), known=torch.tensor([True, False]))
    assert pe[0].abs().max() > 0 and (pe[1] == 0).all()


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        perspective_encoding(K, (65, 64))
    with pytest.raises(ValueError, match="shape"):
        perspective_encoding(K[0], (64, 64))
