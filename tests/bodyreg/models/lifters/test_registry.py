"""Lifters by name: presets, options and what they build."""

import subprocess
import sys

import pytest
import torch

from bodyreg import skeletons
from bodyreg.models.lifters.registry import LIFTERS, LifterSettings, build_lifter, lifter_entry
from bodyreg.models.registry import MODELS, build


@pytest.mark.parametrize("name", LIFTERS)
def test_every_preset_builds_and_names_known_options(name):
    entry = lifter_entry(name)
    default = next(iter(entry.presets.values()))
    assert MODELS[name].kind == "lifter" and entry.summary.endswith(".") and entry.source
    for preset, options in entry.presets.items():
        assert set(options) <= set(default)
        settings = LifterSettings(name, preset)
        with torch.device("meta"):
            network = build(settings)
        assert sum(p.numel() for p in network.parameters()) > 0 and entry.frames(settings) >= 1


def test_options_win_over_the_preset_and_the_preset_over_the_first():
    settings = LifterSettings("videopose3d", "27", options={"channels": 8})
    assert lifter_entry("videopose3d").options(settings) == {
        "filter_widths": [3, 3, 3], "channels": 8, "dropout": 0.25
    }  # fmt: skip
    assert lifter_entry("videopose3d").frames(settings) == 27
    network = build_lifter(settings)
    assert network(torch.zeros(2, 27, 17, 2)).shape == (2, 1, 17, 3)


def test_joint_sets_size_the_network():
    settings = LifterSettings("videopose3d", "27", "coco-17", "humaneva-15", {"channels": 8})
    points = torch.zeros(1, 27, len(skeletons.get("coco-17")), 2)
    assert build_lifter(settings).eval()(points).shape == (1, 1, 15, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LifterSettings("videopose"), "Did you mean 'videopose3d'"),
        (LifterSettings("videopose3d", "9"), "no preset '9'. Known: 243"),
        (LifterSettings("videopose3d", options={"chanels": 8}), "Did you mean 'channels'"),
        (LifterSettings("videopose3d", options={"channels": 10**6}), "Give a value like 1024"),
        (LifterSettings("videopose3d", options={"channels": True}), "Give a value like 1024"),
        (LifterSettings("videopose3d", options={"filter_widths": ["3"]}), "Give a value like"),
        (LifterSettings("videopose3d", options={"filter_widths": [2, 3]}), "Give odd numbers"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_lifter(settings)


def test_listing_imports_no_torch():
    code = "import sys, bodyreg.models.lifters.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
