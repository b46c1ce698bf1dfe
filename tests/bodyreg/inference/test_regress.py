"""Crops to bodies: units, frames, the flip test, and weights that belong to another body."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import project
from bodyreg.checkpoints import load_model, save_weights
from bodyreg.inference.folder import load_regressor
from bodyreg.inference.regress import Regressor, check_body, choose_device
from bodyreg.inverse_kinematics import inverse_kinematics
from bodyreg.models.perspose import normalise_image
from bodyreg.models.registry import ModelSettings, build

K_CROP = np.array([[[110.0, 0, 32], [0, 110, 32], [0, 0, 1]], [[60.0, 0, 30], [0, 60, 35], [0, 0, 1]]])


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def test_joints_project_to_where_they_were_seen_in_pixels_of_the_crop(regressor, crops):
    estimate = regressor.predict(crops, K_CROP)
    seen = project(estimate.xyz, torch.from_numpy(K_CROP).float())
    assert torch.allclose(seen, estimate.uv, atol=1e-3)
    assert (estimate.uv.mean((0, 1)) - 32).abs().max() < 32  # not in pixels of some other crop


def test_the_body_is_the_one_inverse_kinematics_finds(regressor, crops):
    estimate = regressor.predict(crops, K_CROP)
    images = normalise_image(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    with torch.no_grad():
        decoded = regressor.model.predict(images, torch.from_numpy(K_CROP).float(), flip_test=True)
        joints = (decoded.xyz + decoded.xyz0)[:, :24]
        solved = inverse_kinematics(regressor.body, joints, decoded.ortho_twist, decoded.beta, decoded.leaf_rot)
        posed = regressor.body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)
    for mine, other in (
        (estimate.R_local, solved.R_local),
        (estimate.transl, solved.transl),
        (estimate.betas, solved.betas),
        (estimate.joints24, posed.joints),
    ):
        assert torch.allclose(mine, other, atol=1e-5)
    eye = torch.eye(3).expand(2, 24, 3, 3)
    assert torch.allclose(estimate.R_local @ estimate.R_local.mT, eye, atol=1e-4)


def test_flip_test_makes_mirrored_crops_give_mirrored_joints(regressor, crops):
    K_mirrored = K_CROP.copy()
    K_mirrored[:, 0, 2] = 64 - K_CROP[:, 0, 2]
    plain = regressor.predict(crops, K_CROP).uv[:, 0]
    mirrored = regressor.predict(np.ascontiguousarray(crops[:, :, ::-1]), K_mirrored).uv[:, 0]
    assert torch.allclose(plain[:, 0], 64 - mirrored[:, 0], atol=1e-3)
    assert torch.allclose(plain[:, 1], mirrored[:, 1], atol=1e-3)


def test_locate_is_one_plain_pass(regressor, crops, tiny_weights, free_body):
    plain = Regressor(load_model(tiny_weights), free_body, "cpu", flip_test=False)
    expected = plain.predict(crops, K_CROP).uv[:, :24].numpy()
    np.testing.assert_allclose(regressor.locate(crops, K_CROP), expected, atol=1e-4)


def test_bfloat16_stays_near_single_precision(regressor, crops, tiny_weights, free_body):
    half = Regressor(load_model(tiny_weights), free_body, "cpu", bfloat16=True)
    difference = half.locate(crops, K_CROP) - regressor.locate(crops, K_CROP)
    assert 0 < np.abs(difference).max() < 2.0


def test_crops_of_another_form_are_refused(regressor, crops):
    with pytest.raises(ValueError, match="uint8"):
        regressor.predict(crops.astype(np.float32), K_CROP)
    with pytest.raises(ValueError, match="Give"):
        regressor.predict(crops[:, :40], K_CROP)


@pytest.mark.parametrize(("trained", "name"), [("smpl", "free"), ("free", "smpl"), ("free", "unknown")])
def test_weights_of_another_body_are_refused(trained, name):
    with pytest.raises(ValueError, match=f"(?i)trained on .*{trained}") as caught:
        check_body(trained, name)
    assert "--body" in str(caught.value)
    check_body(trained, trained)


def test_weights_of_smpl_never_meet_the_free_body(tiny_smpl_weights, free_body):
    with pytest.raises(ValueError, match="trained on SMPL"):
        Regressor(load_model(tiny_smpl_weights), free_body, "cpu")


def test_a_body_of_other_shape_numbers_is_refused(tiny_weights):
    with pytest.raises(ValueError, match="num_betas=10"):
        Regressor(load_model(tiny_weights), BodyModel.load("free", num_betas=4), "cpu")


def test_a_kid_column_is_not_taken_for_the_last_shape_component(tmp_path, make_smpl_arrays, monkeypatch):
    """A file of ten components with a child template gives eleven numbers, of which the last means something else."""
    settings = ModelSettings(widths=[8, 8, 16, 16], depths=[1, 1, 1, 1], map_channels=8, crop_size=64, num_betas=11)
    save_weights(tmp_path / "eleven.safetensors", build(settings), settings, body="smpl")
    monkeypatch.setenv("BODYREG_DATA", str(tmp_path))
    load = partial(load_regressor, weights=tmp_path / "eleven.safetensors", body="smpl", device="cpu")

    arrays = make_smpl_arrays(ring=6888, components=10)
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **arrays)
    with pytest.raises(ValueError, match="child template.*at least 11 components"):
        load()
    del arrays["kid_template"]
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **arrays)
    with pytest.raises(ValueError, match="11 betas.*10 shape components.*file with more"):
        load()
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **make_smpl_arrays(ring=6888, components=12))
    body = load().body
    assert body.name == "smpl" and body.num_betas == 11 and not body.has_kid


@pytest.mark.parametrize("name", ["cuda:99", "warp9"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(ValueError, match=name):
        choose_device(name)
    assert choose_device("auto").type in ("cpu", "cuda")
