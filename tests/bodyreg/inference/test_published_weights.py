"""The folder job with a checkpoint of PersPose's published form on a body of SMPL's form with eleven betas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.checkpoints import load_model
from bodyreg.crops import crop_image, make_crop, unrotate_smpl
from bodyreg.data.folder import read_image
from bodyreg.inference.export import export_results
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.regress import Regressor
from bodyreg.inference.results import read_person
from bodyreg.models.registry import build, default_settings
from bodyreg.rotations import aa_from_matrix, matrix_from_aa


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


def test_both_frames_come_out_and_an_unknown_focal_length_is_said(tmp_path, published, make_smpl_arrays, save_photo):
    """Without any focal length: the stated assumption, recorded; the rotated frame is what the network said."""
    body = BodyModel.from_arrays(make_smpl_arrays(components=16), name="smpl", num_betas=11)
    regressor = Regressor(published, body, "cpu")
    path = save_photo(tmp_path / "in" / "two.png", (160, 100))
    named = save_photo(tmp_path / "in" / "one_24_f35.png", (160, 100))
    boxes = {"two.png": [np.array([2.0, 20, 30, 60]), np.array([120.0, 10, 38, 80])],
             "one_24_f35.png": [np.array([60.0, 20, 30, 60])]}  # fmt: skip
    infer_folder(tmp_path / "in", tmp_path / "out", regressor=regressor, boxes=boxes, formats=["npz"], overlay=False,
                 threads=1)  # fmt: skip
    by_name = read_person(tmp_path / "out" / "one_24_f35_0.npz")
    assert by_name.focal_source == "file_name" and by_name.K[0, 0] == pytest.approx(24 / 36 * 160)
    written = export_results([tmp_path / "out"], tmp_path / "turned", ["npz", "obj"], body=body, frame="crop")
    assert len(written) == 6 and named.exists()
    camera = Camera.from_focal(np.hypot(100, 160), (100, 160))
    for k in range(2):
        saved, turned = (read_person(tmp_path / folder / f"two_{k}.npz") for folder in ("out", "turned"))
        assert saved.focal_source == "heuristic" and saved.frame != turned.frame and "crop" in turned.frame
        np.testing.assert_allclose(saved.K, camera.K)
        crop = make_crop(camera, saved.box_xywh, (64, 64), margin=1.2, reference_pixels=True)
        estimate = regressor.predict(crop_image(read_image(path).rgb, crop)[None], crop.K_crop[None])
        np.testing.assert_allclose(turned.transl, estimate.transl[0], atol=1e-3)
        R = matrix_from_aa(torch.from_numpy(turned.global_orient)).numpy()
        np.testing.assert_allclose(R, estimate.R_local[0, 0], atol=2e-3)
        np.testing.assert_allclose(turned.joints["smpl-24"] @ saved.R_crop_from_cam, saved.joints["smpl-24"], atol=1e-6)
        with pytest.raises(ValueError, match="in the frame"):
            turned.in_crop_frame()
        posed = body(turned.betas[None], turned.body_pose[None], turned.global_orient[None], turned.transl[None])
        mesh = trimesh.load(tmp_path / "turned" / f"two_{k}.obj", process=False)
        np.testing.assert_allclose(mesh.vertices, posed.vertices[0].numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="glb are in the photograph's frame always"):
        export_results([tmp_path / "out"], tmp_path / "turned", ["glb"], body=body, frame="crop")


def test_smpl_with_eleven_betas_is_asked_for(tmp_path, published, make_smpl_arrays, save_photo):
    save_photo(tmp_path / "in" / "one.png")
    with pytest.raises(ValueError, match="--body smpl"):
        infer_folder(tmp_path / "in", tmp_path / "out", model="perspose", weights=tmp_path / "ckpt.pth")
    ten = BodyModel.from_arrays(make_smpl_arrays(components=16), name="smpl", num_betas=10)
    with pytest.raises(ValueError, match="num_betas=11"):
        Regressor(published, ten, "cpu")
