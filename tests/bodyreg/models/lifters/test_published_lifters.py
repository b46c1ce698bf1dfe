"""Published lifter checkpoints: every layout loads strictly, nothing in them runs, misfits are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.models.lifters.published import lifter_state, load_published_lifter
from bodyreg.models.lifters.registry import LIFTERS, LifterSettings, build_lifter
from bodyreg.pickles import UnsafeFileError

SMALL = LifterSettings("ktpformer", "small", options={"frames": 9, "width": 16, "depth": 2})


def as_published(state: dict, key: str | None, prefix: str) -> dict:
    """A checkpoint as training scripts write it: random state, learning rate and optimiser beside the weights."""
    state = {prefix + name: value for name, value in state.items()}
    if key is None:
        return state
    return {
        key: state, "epoch": 120, "lr": 8e-5, "random_state": np.random.RandomState(1234),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 8e-5}]},
    }  # fmt: skip


@pytest.mark.parametrize("key", ["model_pos", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_layout_loads_strictly_and_gives_the_same_poses(tmp_path, key, prefix):
    torch.manual_seed(0)
    model = build_lifter(SMALL).eval()
    torch.save(as_published(model.state_dict(), key, prefix), tmp_path / "best_epoch.bin")
    loaded = load_published_lifter(tmp_path / "best_epoch.bin", SMALL)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.randn(2, 9, 17, 2)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))  # the graphs, which no file holds, are there too


@pytest.mark.parametrize("name", [name for name in LIFTERS if "small" in LIFTERS[name].presets])
def test_every_small_lifter_loads_from_a_file(tmp_path, name):
    settings = LifterSettings(name, "small")
    model = build_lifter(settings).eval()
    torch.save(as_published(model.state_dict(), "model_pos", "module."), tmp_path / "w.bin")
    loaded = load_published_lifter(tmp_path / "w.bin", settings)
    tensors = [*loaded.parameters(), *loaded.buffers()]
    assert tensors and not any(value.is_meta for value in tensors)


def test_a_silent_partial_load_is_impossible(tmp_path):
    state = build_lifter(SMALL).state_dict()
    renamed = {f"net.{name}": value for name, value in state.items()}
    torch.save(as_published(renamed, "model_pos", ""), tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"does not fit the lifter 'ktpformer': \d+ missing .* \d+ unknown"):
        load_published_lifter(tmp_path / "a.bin", SMALL)
    del state["head.1.bias"]
    torch.save(as_published(state, "model_pos", "module."), tmp_path / "b.bin")
    with pytest.raises(ValueError, match=r"1 missing \(head.1.bias\)"):
        load_published_lifter(tmp_path / "b.bin", SMALL)
    other = LifterSettings("ktpformer", "small", options={"frames": 12, "width": 16, "depth": 2})
    torch.save(as_published(build_lifter(SMALL).state_dict(), "model_pos", ""), tmp_path / "c.bin")
    with pytest.raises(ValueError, match="of another shape"):
        load_published_lifter(tmp_path / "c.bin", other)


def test_the_random_state_is_inert(tmp_path, monkeypatch):
    """No generator of numpy's is built: the global names in the file lead to a stand-in."""
    torch.save(as_published(build_lifter(SMALL).state_dict(), "model_pos", ""), tmp_path / "a.bin")
    for name in ("__randomstate_ctor", "__bit_generator_ctor"):
        monkeypatch.setattr(f"numpy.random._pickle.{name}", lambda *_: pytest.fail("numpy was called"))
    assert lifter_state(tmp_path / "a.bin")


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_code_in_the_place_of_the_random_state_is_refused(tmp_path):
    checkpoint = {**as_published(build_lifter(SMALL).state_dict(), "model_pos", ""), "random_state": _Trap()}
    torch.save(checkpoint, tmp_path / "a.bin")
    with pytest.raises(UnsafeFileError):
        load_published_lifter(tmp_path / "a.bin", SMALL)
