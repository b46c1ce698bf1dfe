"""Weights of lifters: there and back, and files that are not what they seem."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bodyreg.lifter_weights import default_lifter, load_lifter, named_settings, save_lifter
from bodyreg.models.lifters.registry import LifterSettings, build_lifter

SETTINGS = LifterSettings("gla_gcn", "27", options={"channels": 8})


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_lifter(SETTINGS).eval()


def test_there_and_back(tmp_path, network):
    save_lifter(tmp_path / "w.safetensors", network, SETTINGS, trained_steps=3)
    loaded = load_lifter(tmp_path / "w.safetensors")
    points = torch.randn(2, 27, 17, 2)
    torch.testing.assert_close(loaded.network(points), network(points), atol=0, rtol=0)
    assert loaded.settings == SETTINGS and loaded.facts == {"trained_steps": "3"} and not loaded.network.training
    save_lifter(tmp_path / "h.safetensors", network, SETTINGS, half=True)
    half = load_lifter(tmp_path / "h.safetensors").network(points)
    torch.testing.assert_close(half, network(points), atol=5e-3, rtol=0)


def test_published_checkpoints_need_a_name_and_load_strictly(tmp_path, network):
    state = {"module." + name: value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "model_pos": state}, tmp_path / "w.bin")
    with pytest.raises(ValueError, match="Name it"):
        load_lifter(tmp_path / "w.bin")
    assert load_lifter(tmp_path / "w.bin", SETTINGS).settings == SETTINGS
    with pytest.raises(ValueError, match="does not fit the lifter"):
        load_lifter(tmp_path / "w.bin", LifterSettings("gla_gcn", "27", options={"channels": 12}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[1]", "no readable settings"), ('{"name": "gla_gcn", "colour": 3}', "no readable settings"),
        ('{"name": "nothing"}', "no lifter named"), ('{"name": "gla_gcn", "options": {"depth": 2}}', "has no option"),
        (json.dumps({"name": "gla_gcn", "options": {"channels": 16}}), "does not fit the lifter"),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(tmp_path, network, settings, message):
    header = {"format": "bodyreg-lifter-1", "settings": settings}
    save_file(network.state_dict(), str(tmp_path / "w.safetensors"), metadata=header)
    with pytest.raises(ValueError, match=message):
        load_lifter(tmp_path / "w.safetensors")


def test_other_files_are_refused(tmp_path, network):
    with pytest.raises(ValueError, match="no weights file"):
        load_lifter(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        load_lifter(tmp_path / "w.safetensors")
    save_file(network.state_dict(), str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="holds no lifter"):
        load_lifter(tmp_path / "x.safetensors")
    with torch.no_grad():
        network.fc.weight[:] = torch.nan
    with pytest.raises(ValueError, match="has diverged"):
        save_lifter(tmp_path / "y.safetensors", network, SETTINGS)


def test_names_with_presets():
    assert named_settings("mixste:81") == LifterSettings("mixste", "81")
    assert named_settings("stgcn").joint_set == "h36m-16"
    with pytest.raises(ValueError, match="no preset '9'"):
        named_settings("mixste:9")


def test_the_shipped_lifter_is_small_and_its_card_speaks_of_it():
    path = default_lifter()
    loaded = load_lifter(path)
    card = path.with_suffix(".md").read_text()
    assert path.stat().st_size <= 2 * 2**20 and loaded.weights_hash in card
    assert f"{int(loaded.facts['trained_steps']):,} steps" in card


def test_the_shipped_lifter_lifts():
    """A person who stands before a level camera comes out upright, about as tall as people are."""
    from bodyreg.models.lifters.sequence import SequenceLifter

    # h36m-17 on the screen: hips at 0, a person of 0.7 units from head to foot.
    y = [0, 0, 0.17, 0.34, 0, 0.17, 0.34, -0.1, -0.2, -0.25, -0.32, -0.19, -0.08, 0.02, -0.19, -0.08, 0.02]
    x = [0, -0.05, -0.05, -0.05, 0.05, 0.05, 0.05, 0, 0, 0, 0, 0.07, 0.09, 0.1, -0.07, -0.09, -0.1]
    loaded = load_lifter(default_lifter())
    points = torch.stack([torch.tensor(x), torch.tensor(y)], -1).expand(9, 17, 2)
    pose = SequenceLifter(loaded.network, loaded.settings).sequence(points)[4]
    height = pose[[3, 6], 1].mean() - pose[10, 1]
    assert 1.2 < height < 2.0 and pose[5, 0] > pose[2, 0]  # who looks at us has the left on our right
