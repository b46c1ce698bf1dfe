"""Lifters over sequences: windows, flips, overlaps, lengths, and input that cannot be lifted."""

import pytest
import torch
from torch import nn

from bodyreg import skeletons
from bodyreg.models.lifters.registry import LifterSettings, build_lifter
from bodyreg.models.lifters.sequence import SequenceLifter, mirrored

MIRROR = skeletons.get("h36m-17").mirror


def lifter(name: str, preset: str = "small", **options) -> SequenceLifter:
    torch.manual_seed(0)
    settings = LifterSettings(name, preset, options=options)
    return SequenceLifter(build_lifter(settings).eval(), settings)


class Copy(nn.Module):
    """Gives each frame's own key points as its pose, so that windows can be followed."""

    def forward(self, keypoints):
        return torch.cat([keypoints[..., :2], keypoints[..., :1] ** 2], -1)


def copier(frames: int) -> SequenceLifter:
    copying = lifter("mixste", width=16)
    copying.network, copying.frames = Copy(), frames
    return copying


@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (8, 3), (9, 0), (40, 0), (41, 4), (100, 8)])
def test_every_frame_gets_the_pose_of_its_own_frame(length, overlap):
    keypoints = torch.randn(length, 17, 2)
    torch.testing.assert_close(copier(9).sequence(keypoints, overlap=overlap), Copy()(keypoints)[:, :, :3])


def test_flip_averaging_makes_the_output_mirror_consistent():
    keypoints = torch.randn(30, 17, 2)
    for name in ("videopose3d", "mixste"):
        network = lifter(name)
        poses = network.sequence(keypoints)
        again = mirrored(network.sequence(mirrored(keypoints, MIRROR)), MIRROR)
        torch.testing.assert_close(again, poses, atol=1e-5, rtol=0)
        assert (network.sequence(keypoints, flip_test=False) - poses).abs().max() > 1e-4


def test_dense_networks_equal_a_window_around_every_frame():
    network, keypoints = lifter("videopose3d"), torch.randn(50, 17, 2)
    by_window = network.sequence(keypoints, centred=True)
    torch.testing.assert_close(network.sequence(keypoints), by_window, atol=1e-5, rtol=0)
    torch.testing.assert_close(network.sequence(keypoints, batch_size=1), by_window, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["videopose3d", "convformer", "mixste", "hot_mixste", "tpc_mixste", "motionagformer"])
@pytest.mark.parametrize("length", [1, 7])
def test_lifters_take_sequences_of_any_length(name, length):
    network = lifter(name)
    keypoints = 0.5 * torch.randn(length, 17, 3)
    poses = network.sequence(keypoints, flip_test=False)
    assert poses.shape == (length, 17, 3) and poses.isfinite().all()
    torch.testing.assert_close(network.sequence(keypoints, flip_test=False), poses)  # the same on every run


def test_gla_gcn_gives_no_nan_at_any_length():
    network = lifter("gla_gcn", "27", channels=8)
    for length in (1, 2, 3, 6, 26):
        assert network.sequence(torch.randn(length, 17, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (torch.zeros(5, 15, 2), "Convert them to that joint set"),
        (torch.zeros(5, 17, 4), "Convert them to that joint set"),
        (torch.zeros(0, 17, 2), "has no frames"),
        (torch.full((5, 17, 2), torch.nan), "confidence 0 instead"),
    ],
)
def test_input_that_cannot_be_lifted(keypoints, message):
    with pytest.raises(ValueError, match=message):
        lifter("videopose3d").sequence(keypoints)
