"""Networks by name."""

import pytest
import torch

from bodyreg.models.registry import MODELS, ModelSettings, build, default_settings


def test_default_settings_are_fresh_copies_of_what_each_model_names():
    for name in (name for name, entry in MODELS.items() if entry.kind == "regressor"):
        settings = default_settings(name)
        assert settings.name == name and settings == MODELS[name].defaults
        settings.widths[0] += 1
        assert settings != default_settings(name)


def test_every_entry_says_what_it_is():
    for entry in MODELS.values():
        assert entry.summary.endswith(".") and entry.source and entry.kind in ("regressor", "detector", "lifter")


def test_settings_shape_the_network():
    small = build(ModelSettings(widths=[8, 8, 16, 16], depths=[1, 1, 1, 1], map_channels=8, num_betas=6))
    assert small.shape_layer.out_features == 6 and small.hm_layer.in_channels == 8
    deaf = build(ModelSettings(widths=[8] * 4, depths=[1] * 4, map_channels=8, perspective_encoding=False))
    assert not deaf.use_encoding and small.use_encoding


def test_default_is_small_enough_for_a_processor():
    with torch.device("meta"):
        model = build(ModelSettings())
    assert 2 * sum(p.numel() for p in model.parameters()) < 15 * 2**20  # bytes in half precision


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="no model named 'perspose_smal'. Did you mean 'perspose_small'"):
        build(ModelSettings(name="perspose_smal"))
    with pytest.raises(ValueError, match="Known: perspose_small"):
        default_settings("resnet")
    with pytest.raises(ValueError, match="videopose3d is a lifter"):
        default_settings("videopose3d")


@pytest.mark.parametrize("change", [{"widths": [8, 8]}, {"depths": [1] * 5}])
def test_wrong_number_of_stages_is_an_error(change):
    with pytest.raises(ValueError, match="Give four, one a stage"):
        build(ModelSettings(**change))
