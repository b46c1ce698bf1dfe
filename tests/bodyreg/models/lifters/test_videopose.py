"""VideoPose3D: windows, lengths, and its two ways of computing."""

import pytest
import torch

from bodyreg.models.lifters.videopose import VideoPose3D


def small(**options) -> VideoPose3D:
    torch.manual_seed(0)
    return VideoPose3D(5, 4, filter_widths=(3, 1, 5), channels=6, **options).eval()


def test_strided_windows_equal_the_dilated_sequence():
    network, clip = small().double(), torch.randn(2, 20, 5, 2, dtype=torch.float64)
    assert network.receptive_field == 15
    windows = torch.cat([network(clip[:, t : t + 15]) for t in range(6)], 1)
    torch.testing.assert_close(network(clip), windows, rtol=0, atol=1e-12)


def test_each_pose_sees_its_window_and_nothing_else():
    network, clip = small(), torch.randn(1, 20, 5, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(clip)[:, 2].sum(), clip)
    seen = gradient.abs().sum((0, 2, 3)).nonzero().flatten()
    assert (seen.min(), seen.max()) == (2, 16)


def test_parameters_of_the_published_network():
    assert sum(p.numel() for p in VideoPose3D().parameters()) == 16_952_371
    single = VideoPose3D(16, 16, filter_widths=(1,) * 5, zero_root=True)
    assert sum(p.numel() for p in single.parameters()) == 8_485_933


def test_zero_root():
    joints = small(zero_root=True)(torch.randn(1, 15, 5, 2))
    assert joints.shape == (1, 1, 4, 3) and (joints[:, :, 0] == 0).all() and (joints[:, :, 1:] != 0).any()


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 14, 5, 2), "sees 15"), ((1, 15, 6, 2), r"\(batch, frames, 5, 2\)")]
)
def test_wrong_clips_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape))
