"""The folder job with the SPIN/HMR regressor: a checkpoint of the published form on a body of SMPL's form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.body import BodyModel
from bodyreg.checkpoints import LoadedModel, load_model, save_weights
from bodyreg.inference.folder import infer_folder, load_regressor
from bodyreg.inference.hmr import HMRRegressor
from bodyreg.inference.results import read_person
from bodyreg.models.hmr import HMROutput
from bodyreg.models.registry import build, default_settings
from bodyreg.rotations import matrix_from_aa, mirror_matrix
from bodyreg.skeletons import get as joint_set

SETTINGS = default_settings("dsr")
SETTINGS.backbone = "resnet18"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    state = {name.split(".", 1)[1]: value for name, value in build(SETTINGS).state_dict().items()}
    path = tmp_path_factory.mktemp("published") / "model.pt"
    torch.save({"model": state}, path)
    return path


@pytest.fixture
def smpl(make_smpl_arrays):
    return BodyModel.from_arrays(make_smpl_arrays(components=10), name="smpl", num_betas=10)


class Knows(torch.nn.Module):
    """Says the same of every crop, and the mirror image of every mirrored one: those whose left half is darker."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.R = matrix_from_aa(0.3 * torch.randn(24, 3, generator=generator))
        self.betas, self.weak = torch.randn(10, generator=generator), torch.tensor([0.8, 0.1, -0.05])

    def forward(self, image):
        darker = image[..., : image.shape[-1] // 2].mean((1, 2, 3)) < image[..., image.shape[-1] // 2 :].mean((1, 2, 3))
        R = mirror_matrix(self.R[list(joint_set("smpl-24").mirror)])
        weak = self.weak * torch.tensor([1.0, -1.0, 1.0])
        return HMROutput(
            torch.where(darker[:, None, None, None], R, self.R), self.betas.expand(len(image), -1),
            torch.where(darker[:, None], weak, self.weak),
        )  # fmt: skip


@pytest.mark.parametrize("flip_test", [False, True])
def test_the_weak_camera_becomes_a_place_where_it_says(smpl, flip_test) -> None:
    knows = Knows()
    regressor = HMRRegressor(LoadedModel(knows, SETTINGS, "hash", "smpl"), smpl, "cpu", flip_test=flip_test)
    crops = np.zeros((2, 224, 224, 3), np.uint8)
    crops[:, :, :112] = 200
    K = np.array([[[500.0, 0, 112], [0, 500, 112], [0, 0, 1]], [[5e6, 0, 40], [0, 5e6, 90], [0, 0, 1]]])
    estimate = regressor.predict(crops, K)
    posed = smpl(knows.betas[None], knows.R[None, 1:], knows.R[None, 0])
    s, tx, ty = knows.weak
    flat = s * (posed.joints[0, :, :2] + torch.stack([tx, ty])) * 112 + 112
    # From far away the true camera is the weak one, wherever its axis is.
    np.testing.assert_allclose(estimate.uv[1, :24], flat.detach(), atol=0.5)
    np.testing.assert_allclose(estimate.transl[0, 2], 2 * 500 / (224 * 0.8), rtol=1e-4)
    np.testing.assert_allclose(estimate.R_local[0], knows.R, atol=1e-5)
    np.testing.assert_allclose(regressor.locate(crops, K), estimate.uv[:, :24], atol=1e-3)


def test_a_scale_of_nothing_still_gives_a_body(smpl) -> None:
    knows = Knows()
    knows.weak = torch.tensor([-0.3, 0.0, 0.0])
    regressor = HMRRegressor(LoadedModel(knows, SETTINGS, "hash", "smpl"), smpl, "cpu")
    estimate = regressor.predict(np.zeros((1, 224, 224, 3), np.uint8), np.diag([500.0, 500, 1])[None])
    assert all(bool(value.isfinite().all()) for value in estimate) and float(estimate.transl[0, 2]) > 0


def test_a_folder_with_published_weights(tmp_path, checkpoint, smpl, save_photo, monkeypatch) -> None:
    monkeypatch.setattr("bodyreg.models.published_hmr.default_settings", lambda name: SETTINGS)
    monkeypatch.setattr("bodyreg.checkpoints.default_settings", lambda name: SETTINGS)
    save_photo(tmp_path / "in" / "one.png", (160, 100))
    boxes = {"one.png": [np.array([10.0, 20, 30, 60])]}
    with pytest.raises(ValueError, match="--body smpl"):
        infer_folder(tmp_path / "in", tmp_path / "out", model="dsr", weights=checkpoint)
    monkeypatch.setattr(BodyModel, "load", lambda *a, **k: smpl)
    regressor = load_regressor("dsr", checkpoint, "smpl", device="cpu")
    assert isinstance(regressor, HMRRegressor)
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, boxes=boxes, focal_px=120.0, formats=["npz", "obj"],
        overlay=False, threads=1,
    )  # fmt: skip
    assert (summary.people, summary.count("done")) == (1, 1)
    person = read_person(tmp_path / "out" / "one_0.npz")
    assert person.model_name == "dsr" and np.isfinite(person.transl).all()
    np.testing.assert_allclose(person.R_crop_from_cam, np.eye(3), atol=1e-9)


def test_weights_of_ours_on_the_free_body(tmp_path) -> None:
    torch.manual_seed(0)
    model = build(SETTINGS).eval()
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, body="free")
    loaded = load_model(tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(loaded.model(image).R_local, model(image).R_local, atol=0.02)
    assert isinstance(load_regressor("dsr", tmp_path / "w.safetensors", "free", device="cpu"), HMRRegressor)
