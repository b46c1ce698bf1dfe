"""The folder job with a checkpoint of PersPose's published form on a body of SMPL's form with eleven betas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.checkpoints import load_model
from bodyreg.crops import crop_image, make_crop, unrotate_smpl
from bodyreg.data.folder import read_image
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.regress import Regressor
from bodyreg.inference.results import read_person
from bodyreg.models.registry import build, default_settings
from bodyreg.rotations import aa_from_matrix


@pytest.fixture
def published(tmp_path, monkeypatch):
    settings = default_settings("perspose")
    settings.widths, settings.modules, settings.depths = [4, 6, 8, 10], [1, 1, 1], [1, 1, 1, 1]
    settings.head_widths, settings.vector_channels, settings.crop_size = [2, 3, 4, 5], 24, 64
    monkeypatch.setattr("bodyreg.checkpoints.default_settings", lambda name: settings)
    torch.manual_seed(0)
    model = build(settings)
    for p in model.parameters():
        if p.ndim > 1:
            torch.nn.init.kaiming_normal_(p)
    state = {**model.state_dict(), "smpl.v_template": torch.zeros(6890, 3)}
    torch.save({"model": state, "epoch": 3, "best_metric": np.float64(0.1)}, tmp_path / "ckpt.pth")
    return load_model(tmp_path / "ckpt.pth")


def test_people_are_cut_and_brought_back_as_published(tmp_path, published, make_smpl_arrays, save_photo):
    body = BodyModel.from_arrays(make_smpl_arrays(components=16), name="smpl", num_betas=11)
    regressor = Regressor(published, body, "cpu")
    path = save_photo(tmp_path / "in" / "two.png", (160, 100))
    boxes = [np.array([10.0, 20, 30, 60]), np.array([100.0, 10, 40, 80])]
    summary = infer_folder(
        tmp_path / "in", tmp_path / "out", regressor=regressor, boxes={"two.png": boxes}, focal_px=120.0,
        formats=["npz"], overlay=False, threads=1,
    )  # fmt: skip
    assert (summary.people, summary.count("done")) == (2, 1)

    camera, photo = Camera.from_focal(120.0, (100, 160)), read_image(path)
    saved = [read_person(tmp_path / "out" / f"two_{k}.npz") for k in range(2)]
    for person in saved:
        crop = make_crop(camera, person.box_xywh, (64, 64), margin=1.2, reference_pixels=True)
        np.testing.assert_allclose(person.R_crop_from_cam, crop.R_crop_from_cam, atol=1e-9)
        estimate = regressor.predict(crop_image(photo.rgb, crop)[None], crop.K_crop[None])
        J0 = body.rest_joints(estimate.betas)[0, 0].double().numpy()
        R, transl = estimate.R_local[0, 0].double().numpy(), estimate.transl[0].double().numpy()
        R_cam, transl_cam = unrotate_smpl(R, transl, J0, crop.R_crop_from_cam)
        np.testing.assert_allclose(person.transl, transl_cam, atol=1e-3)
        np.testing.assert_allclose(person.betas, estimate.betas[0], atol=1e-4)
        orient = aa_from_matrix(torch.from_numpy(R_cam)).numpy()
        np.testing.assert_allclose(np.abs(person.global_orient), np.abs(orient), atol=1e-3)
    assert {tuple(person.box_xywh) for person in saved} == {tuple(box) for box in boxes}


def test_smpl_with_eleven_betas_is_asked_for(tmp_path, published, make_smpl_arrays, save_photo):
    save_photo(tmp_path / "in" / "one.png")
    with pytest.raises(ValueError, match="--body smpl"):
        infer_folder(tmp_path / "in", tmp_path / "out", model="perspose", weights=tmp_path / "ckpt.pth")
    ten = BodyModel.from_arrays(make_smpl_arrays(components=16), name="smpl", num_betas=10)
    with pytest.raises(ValueError, match="num_betas=11"):
        Regressor(published, ten, "cpu")
