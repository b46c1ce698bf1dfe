"""Weights on disk: what was saved comes back, and damaged, foreign and hostile files are refused with a reason."""

import json
import struct
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from bodyreg.checkpoints import default_weights, load_model, read_header, save_weights
from bodyreg.models.registry import ModelSettings, build

SETTINGS = ModelSettings(widths=[8, 8, 16, 16], depths=[1, 1, 1, 1], map_channels=8, crop_size=64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(SETTINGS)


@pytest.fixture
def saved(model, tmp_path):
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, seed=7, trained_steps=20)
    return tmp_path / "w.safetensors"


def rewrite(path, change_tensors=None, **header):
    """The same file with another header or other tensors."""
    tensors, old = load_file(path), read_header(path)
    if change_tensors is not None:
        change_tensors(tensors)
    save_file(tensors, path, metadata={name: value for name, value in {**old, **header}.items() if value is not None})
    return path


def test_saved_weights_come_back_in_half_precision(model, saved):
    loaded = load_model(saved)
    assert loaded.settings == SETTINGS and loaded.body == "free" and not loaded.model.training
    ours = loaded.model.state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith("dense_layer."):
            expected = value.half().float() if value.is_floating_point() else value
            assert torch.equal(ours[name], expected) and ours[name].dtype == value.dtype
    assert loaded.model.dense_layer is None and not any(p.requires_grad for p in loaded.model.parameters())
    assert {value.dtype for value in load_file(saved).values()} <= {torch.float16, torch.int64}


def test_loaded_network_runs_as_the_saved_one(model, saved):
    loaded = load_model(saved)
    image, K = torch.rand(1, 3, 64, 64), torch.tensor([[[80.0, 0, 32], [0, 80, 32], [0, 0, 1]]])
    model.eval()
    with torch.inference_mode():
        one, two = model.predict(image, K), loaded.model.predict(image, K)
    model.train()
    assert torch.allclose(one.xyz, two.xyz, atol=0.02)


def test_header_holds_the_facts(saved):
    header = read_header(saved)
    assert (header["seed"], header["trained_steps"], header["format"]) == ("7", "20", "bodyreg-1")
    assert json.loads(header["settings"]) == asdict(SETTINGS)
    assert len(load_model(saved).weights_hash) == 64


@pytest.mark.parametrize("fact", ["format", "settings"])
def test_facts_cannot_replace_what_the_header_needs(model, tmp_path, fact):
    # `settings` is a parameter of the function too, so Python itself refuses it twice.
    with pytest.raises((ValueError, TypeError), match=fact):
        save_weights(tmp_path / "w.safetensors", model, SETTINGS, **{fact: "x"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_weights_beyond_half_precision_are_not_saved(tmp_path, value):
    model = build(SETTINGS)
    model.shape_layer.bias.data[3] = value
    with pytest.raises(ValueError, match="'shape_layer.bias' are not finite in half precision. .* diverged"):
        save_weights(tmp_path / "w.safetensors", model, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_file_that_is_not_there_or_not_ours(tmp_path):
    with pytest.raises(ValueError, match="There is no weights file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="No weights ship for the model 'nonsense'"):
        default_weights("nonsense")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="carries no settings of bodyreg"):
        load_model(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x80\x04\x95cos\nsystem", struct.pack("<Q", 2**60), struct.pack("<Q", 40) + b'{"a": 1']
)
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        load_model(tmp_path / "w.safetensors")


def test_cut_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        load_model(saved)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ("", "no readable settings"),
        ("[1, 2]", "no readable settings"),
        ("{", "no readable settings"),
        ("[" * 100_000, "no readable settings"),
        ('{"colour": 1}', "unknown names"),
        ('{"widths": "wide"}', "sets widths"),
        ('{"widths": [48, 96, 192, 1000000]}', "sets widths"),
        ('{"widths": [0, 8, 8, 8]}', "sets widths"),
        ('{"widths": [8.5, 8, 8, 8]}', "sets widths"),
        ('{"depths": [1, 1, 1, 9000]}', "sets depths"),
        ('{"depths": [8000, 8000, 8000, 8000]}', "more than 256 blocks"),
        ('{"depths": [1, 1]}', "Give four"),
        ('{"num_betas": 1e400}', "sets num_betas"),
        ('{"num_betas": true}', "sets num_betas"),
        ('{"crop_size": -64}', "sets crop_size"),
        ('{"margin": NaN}', "sets margin"),
        ('{"perspective_encoding": "yes"}', "sets perspective_encoding"),
        ('{"name": "../../etc/passwd"}', "no model named"),
        ('{"widths": [8192, 8192, 8192, 8192], "depths": [60, 60, 60, 60]}', "does not fit the model"),
    ],
)
def test_hostile_settings_are_refused_before_anything_large_is_built(saved, settings, reason):
    with pytest.raises(ValueError, match=reason):
        load_model(rewrite(saved, settings=settings))


@pytest.mark.parametrize("body", ["../body.pkl", "http://x", ""])
def test_body_is_one_of_the_known(saved, body):
    with pytest.raises(ValueError, match="unknown body"):
        load_model(rewrite(saved, body=body))


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda t: t.pop("hm_layer.bias"), "missing .'hm_layer.bias'"),
        (lambda t: t.update(more=torch.zeros(1)), "unknown .'more'"),
        (lambda t: t.update({"hm_layer.bias": torch.zeros(3)}), "shape or type .'hm_layer.bias'"),
        (lambda t: t.update({"hm_layer.bias": torch.zeros(25, dtype=torch.int32)}), "shape or type .'hm_layer.bias'"),
        (lambda t: t["hm_layer.bias"].fill_(float("nan")), "not finite in .'hm_layer.bias'"),
    ],
)
def test_tensors_must_fit_exactly(saved, change, reason):
    with pytest.raises(ValueError, match=reason):
        load_model(rewrite(saved, change))
