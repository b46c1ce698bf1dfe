"""The SPIN/HMR regressor: sizes of backbones, what the head does, published files in three layouts and wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.files import MissingFileError
from bodyreg.models import hmr
from bodyreg.models.published_hmr import holds_hmr, load_published_hmr
from bodyreg.models.registry import build, default_settings
from bodyreg.models.resnet import RESNETS, ResNet

# Parameters without the classifier, from the papers' tables of public weights.
COUNTS = {
    "resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032, "resnet101": 42_500_160,
    "resnet152": 58_143_808, "resnext50_32x4d": 22_979_904, "resnext101_32x8d": 86_742_336,
    "wide_resnet50_2": 66_834_240, "wide_resnet101_2": 124_837_696,
}  # fmt: skip


def test_backbones_have_the_published_sizes() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in ResNet(name).parameters()) for name in RESNETS}
    assert counts == COUNTS
    for make in (ResNet, hmr.hmr_backbone):
        with pytest.raises(ValueError, match="resnet50"):
            make("vgg16")


def test_mobilenet_is_the_published_network() -> None:
    """Size and entries of the public weights without their classifier; shortcuts and strides as in the paper."""
    with torch.device("meta"):
        state = hmr.hmr_backbone("mobilenet_v2").state_dict()
    assert sum(v.numel() for n, v in state.items() if n.endswith(("weight", "bias"))) == 2_223_872
    assert len(state) == 312
    shapes = {
        "features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1), "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.17.conv.2.weight": (320, 960, 1, 1), "features.18.1.running_var": (1280,),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    model = hmr.hmr_backbone("mobilenet_v2").eval()
    with torch.no_grad():
        assert tuple(model(torch.zeros(1, 3, 64, 96)).shape) == (1, model.channels, 2, 3)
    assert sum(getattr(block, "shortcut", False) for block in model.features) == 10


@pytest.mark.parametrize("name", hmr.BACKBONES)
def test_every_backbone_fits_the_head(name) -> None:
    with torch.device("meta"):
        model = hmr.HMR(name)
        assert model(torch.zeros(1, 3, 224, 224)).weak.shape == (1, 3)
    assert model.head.fc1.in_features == model.backbone.channels + 157


def test_strides() -> None:
    model = ResNet("resnet18").eval()
    with torch.no_grad():
        sizes = [tuple(f.shape[1:]) for f in model.stages(torch.zeros(1, 3, 64, 96))]
    assert sizes == [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]


def test_an_untrained_head_stays_near_its_means() -> None:
    torch.manual_seed(0)
    head = hmr.HMRHead(16).eval()
    with torch.no_grad():
        output = head(torch.rand(3, 16, 7, 7))
    upright = torch.eye(3).expand(24, 3, 3).clone()
    upright[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert torch.allclose(output.R_local, upright.expand(3, 24, 3, 3), atol=0.3)
    assert torch.allclose(output.weak, torch.tensor([0.9, 0, 0]), atol=0.3)


def test_three_rotations_are_turned_one_by_one() -> None:
    torch.manual_seed(0)
    head = hmr.HMRHead(4).eval()
    features = torch.rand(3, 4, 7, 7)
    with torch.no_grad():
        assert torch.allclose(head(features).R_local[1:2], head(features[1:2]).R_local, atol=1e-6)


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v2"])
def small(request):
    settings = default_settings("dsr")
    settings.backbone = request.param
    torch.manual_seed(0)
    return settings, build(settings).eval()


def layouts(model) -> dict[str, dict]:
    flat = {name.split(".", 1)[1]: value for name, value in model.state_dict().items()}
    lightning = {f"model.{name}": value for name, value in model.state_dict().items()}
    lightning |= {"model.smpl.smpl.betas": torch.zeros(1, 10), "smpl_native.faces": torch.zeros(4, 3)}
    return {
        "spin": {"model": flat, "epoch": 3},
        "lightning": {"state_dict": lightning, "global_step": 7},
        "eft": {name: value for name, value in flat.items() if not name.startswith("init_")},
    }


@pytest.mark.parametrize("layout", ["spin", "lightning", "eft"])
def test_published_layouts(tmp_path, small, layout, monkeypatch) -> None:
    settings, model = small
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path / "data"))
    torch.save(layouts(model)[layout], tmp_path / "w.pt")
    if layout == "eft":  # the means come from the user's file
        with pytest.raises(MissingFileError, match="smpl_mean_params"):
            load_published_hmr(tmp_path / "w.pt", settings)
        (tmp_path / "data").mkdir()
        start = hmr.MeanParameters.neutral()
        np.savez(tmp_path / "data" / "smpl_mean_params.npz", **{n: v.numpy() for n, v in start._asdict().items()})
    loaded = load_published_hmr(tmp_path / "w.pt", settings)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert holds_hmr(layouts(model)[layout]) and not holds_hmr({"model": {"hm_layer.weight": torch.zeros(1)}})


def test_files_that_do_not_fit_are_refused(tmp_path, small) -> None:
    settings, model = small
    start = hmr.MeanParameters.neutral()
    for change, message in (
        (lambda s: s.pop("fc2.bias"), "missing"), (lambda s: s.update(extra=torch.zeros(1)), "unknown"),
        (lambda s: s.update({"fc2.bias": torch.zeros(3)}), "another shape"),
    ):  # fmt: skip
        state = dict(layouts(model)["spin"]["model"])
        change(state)
        torch.save({"model": state}, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=message):
            load_published_hmr(tmp_path / "w.pt", settings, start)


def test_mean_parameters_of_another_kind_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "smpl_mean_params.npz", pose=np.zeros(72), shape=np.zeros(10), cam=np.zeros(3))
    with pytest.raises(ValueError, match="pose"):
        hmr.mean_parameters(tmp_path)


def test_other_crops_are_refused() -> None:
    settings = default_settings("dsr")
    settings.crop_size = 192
    with pytest.raises(ValueError, match="224"):
        build(settings)
