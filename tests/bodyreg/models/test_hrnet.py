"""HRNet: shapes at any width, gradients everywhere, initial values, refusals."""

from __future__ import annotations

import pytest
import torch

from bodyreg.models.hrnet import HRNet
from bodyreg.models.perspose import PersPose
from bodyreg.models.registry import ModelSettings, build, default_settings

NARROW = {
    "widths": (4, 8, 12, 16), "modules": (1, 2, 1), "blocks": (1, 2, 1), "head_widths": (2, 3, 4, 5),
    "vector_channels": 24, "stem_width": 8, "layer1_width": 4, "layer1_blocks": 2,
}  # fmt: skip


def test_shapes_follow_the_settings_also_for_oblong_crops():
    backbone = HRNet(**NARROW).eval()
    assert (backbone.encoding_channels, backbone.map_channels, backbone.vector_channels) == (16, 4, 24)
    features, vector = backbone(torch.randn(2, 3, 96, 64), torch.zeros(2, 16, 24, 16))
    assert features.shape == (2, 4, 24, 16)
    assert vector.shape == (2, 24)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    backbone = HRNet(**NARROW)
    for p in backbone.parameters():  # the published start is so small that gradients vanish in single precision
        if p.ndim > 1:
            torch.nn.init.kaiming_normal_(p)
    features, vector = backbone(torch.randn(2, 3, 64, 64), torch.zeros(2, 16, 16, 16))
    (features.square().sum() + vector.square().sum()).backward()
    # Biases before a batch norm cancel, hence only convolutions and norms are asked.
    silent = [n for n, p in backbone.named_parameters() if p.ndim != 1 and not p.grad.abs().max() > 0]
    assert silent == []


def test_the_encoding_changes_both_outputs():
    torch.manual_seed(0)
    backbone = HRNet(**NARROW).eval()
    for p in backbone.parameters():
        if p.ndim > 1:
            torch.nn.init.kaiming_normal_(p)
    image = torch.randn(1, 3, 64, 64)
    plain = backbone(image, torch.zeros(1, 16, 16, 16))
    told = backbone(image, torch.randn(1, 16, 16, 16))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(plain, told, strict=True))


def test_convolutions_start_small_and_without_bias():
    torch.manual_seed(0)
    backbone = HRNet(**NARROW | {"vector_channels": 2048})
    weight = backbone.final_feat_layer[0].weight
    assert weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not backbone.final_feat_layer[0].bias.any()


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        HRNet(**NARROW)(torch.zeros(1, 3, 100, 64), torch.zeros(1, 16, 25, 16))


@pytest.mark.parametrize("name", ["widths", "modules", "blocks", "head_widths"])
def test_wrong_counts_are_refused(name):
    with pytest.raises(ValueError, match=name):
        HRNet(**NARROW | {name: (4, 4)})


def test_the_registry_builds_the_published_and_narrower_members():
    settings = default_settings("perspose")
    assert (settings.crop_size, settings.num_betas, settings.reference_pixels) == (256, 11, True)
    settings.widths, settings.modules, settings.depths = [4, 8, 12, 16], [1, 1, 1], [1, 1, 1, 1]
    settings.head_widths, settings.vector_channels = [2, 3, 4, 5], 24
    model = build(settings).eval()
    assert isinstance(model, PersPose)
    K = torch.tensor([[[300.0, 0, 32], [0, 300, 32], [0, 0, 1]]])
    assert model.predict(torch.randn(1, 3, 64, 64), K).xyz.shape == (1, 25, 3)
    # Changing a copy must not change what the next caller gets.
    assert default_settings("perspose").widths == [48, 96, 192, 384]
    assert default_settings("perspose_small") == ModelSettings()
    with pytest.raises(ValueError, match="perspose"):
        default_settings("persposs")
