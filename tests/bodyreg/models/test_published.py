"""Published weights: the documented mapping, nothing executed, what stays random is named, misfits are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.checkpoints import load_model
from bodyreg.files import sha256_file
from bodyreg.models.published import load_hrnet_coco, load_published_perspose, perspose_state
from bodyreg.models.registry import build, default_settings
from bodyreg.pickles import UnsafeFileError


@pytest.fixture(scope="module")
def narrow():
    settings = default_settings("perspose")
    settings.widths, settings.modules, settings.depths = [4, 6, 8, 10], [1, 1, 2], [1, 1, 1, 1]
    settings.head_widths, settings.vector_channels = [2, 3, 4, 5], 24
    return settings


def as_published(model, prefix: str = "") -> dict:
    """A checkpoint of the authors' form: weights under `model` with SMPL's arrays, and a trainer's leftovers."""
    state = {prefix + name: value for name, value in model.state_dict().items()}
    state[f"{prefix}smpl.v_template"] = torch.zeros(6890, 3)
    state[f"{prefix}smpl.vertex_joint_selector.extra_joints_idxs"] = torch.arange(21)
    return {
        "model": state, "epoch": 16, "best_metric": np.float64(0.06), "scaler": {"scale": 65536.0},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 3e-4, "betas": (0.9, 0.999)}]},
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoints_load_strictly_without_smpl(tmp_path, narrow, prefix):
    torch.manual_seed(0)
    model = build(narrow).eval()
    torch.save(as_published(model, prefix), tmp_path / "ckpt.pth")
    assert not any("smpl" in name for name in perspose_state(tmp_path / "ckpt.pth"))
    loaded = load_published_perspose(tmp_path / "ckpt.pth", narrow)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    image, K = torch.randn(1, 3, 64, 64), torch.tensor([[[300.0, 0, 32], [0, 300, 32], [0, 0, 1]]])
    with torch.no_grad():
        for a, b in zip(model.predict(image, K), loaded.predict(image, K), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_any_missing_unknown_or_misshapen_entry_is_refused(tmp_path, narrow):
    checkpoint = as_published(build(narrow))
    del checkpoint["model"]["rho0_layer.bias"]
    checkpoint["model"]["lost.weight"] = torch.zeros(2)
    checkpoint["model"]["hm_layer.bias"] = torch.zeros(24)
    torch.save(checkpoint, tmp_path / "ckpt.pth")
    with pytest.raises(ValueError, match=r"1 missing \(rho0_layer.bias\); 1 unknown \(lost.weight\); 1 of another"):
        load_published_perspose(tmp_path / "ckpt.pth", narrow)


def test_the_loader_of_every_weights_file_knows_whose_these_are(tmp_path, narrow, monkeypatch):
    torch.save(as_published(build(narrow)), tmp_path / "ckpt_3dpw_16epochs.pth")
    monkeypatch.setattr("bodyreg.checkpoints.default_settings", lambda name: narrow)
    loaded = load_model(tmp_path / "ckpt_3dpw_16epochs.pth")
    assert (loaded.body, loaded.settings) == ("smpl", narrow)
    assert loaded.weights_hash == sha256_file(tmp_path / "ckpt_3dpw_16epochs.pth")


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path, narrow):
    torch.save({**as_published(build(narrow)), "args": _Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UnsafeFileError):
        load_published_perspose(tmp_path / "trap.pth", narrow)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        load_published_perspose(tmp_path / "list.pth", narrow)


def coco_state(backbone, prefix: str) -> dict[str, torch.Tensor]:
    """What HRNet's key point network has: no head, and only the finest output of the last module."""
    last = f"stage4.{len(backbone.stage4) - 1}.fuse_layers."
    state = {
        prefix + name: torch.full_like(value, 7)
        for name, value in backbone.state_dict().items()
        if not name.startswith(("incre_", "downsamp_", "final_feat", f"{last}1", f"{last}2", f"{last}3"))
    }
    return {**state, f"{prefix}final_layer.weight": torch.zeros(17, 4, 1, 1)}


@pytest.mark.parametrize("prefix", ["", "hrnet."])
def test_coco_weights_start_the_backbone_and_the_rest_is_named(tmp_path, narrow, prefix):
    backbone = build(narrow).backbone
    torch.save(coco_state(backbone, prefix), tmp_path / "pose_hrnet.pth")
    report = load_hrnet_coco(backbone, tmp_path / "pose_hrnet.pth")
    sevens = {name for name, value in backbone.state_dict().items() if (value == 7).all()}
    assert set(report.copied) == sevens
    assert set(report.random) == set(backbone.state_dict()) - sevens
    parts = {".".join(name.split(".")[: 4 if name.startswith("stage") else 1]) for name in report.random}
    stage4 = {f"stage4.1.fuse_layers.{k}" for k in (1, 2, 3)}
    assert parts == {"incre_modules", "downsamp_modules", "final_feat_layer"} | stage4


def test_coco_weights_of_another_width_are_refused(tmp_path, narrow):
    wide = default_settings("perspose")
    wide.widths, wide.modules, wide.depths = [4, 6, 8, 12], narrow.modules, narrow.depths
    torch.save(coco_state(build(wide).backbone, ""), tmp_path / "pose_hrnet.pth")
    with pytest.raises(ValueError, match="does not fit this HRNet: .* of another shape"):
        load_hrnet_coco(build(narrow).backbone, tmp_path / "pose_hrnet.pth")
