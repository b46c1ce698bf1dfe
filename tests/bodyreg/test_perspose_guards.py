"""Inputs at which the published PersPose breaks or silently gives nonsense: here they are served or refused by name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from bodyreg.cameras import Camera
from bodyreg.crops import crop_image, make_crop, perspective_rotation_matrix
from bodyreg.data.perspose_crops import PersPoseCrops
from bodyreg.data.sample import SampleTable, write_table
from bodyreg.encoding import perspective_encoding
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe
from bodyreg.inverse_kinematics import LEAF_JOINTS, inverse_kinematics, ortho_twist
from bodyreg.losses.perspose import PersPoseWeights, perspose_losses, total_loss
from bodyreg.models.decoding import unproject
from bodyreg.models.registry import build, default_settings
from bodyreg.rotations import matrix_from_aa
from bodyreg.training.perspose import targets_of

CAMERA = Camera.from_focal(100.0, (120, 160))


@pytest.fixture(scope="module")
def network():
    settings = default_settings("perspose")
    settings.widths, settings.modules, settings.depths = [4, 4, 4, 4], [1, 1, 1], [1, 1, 1, 1]
    settings.head_widths, settings.vector_channels = [2, 2, 2, 2], 16
    torch.manual_seed(0)
    model = build(settings).eval()
    for p in model.backbone.parameters():
        if p.ndim > 1:
            torch.nn.init.kaiming_normal_(p)
    return model


def sample(**changes) -> dict:
    row = {
        "image": "one.png", "size_hw": (120, 160), "box_xywh": [60.0, 20, 40, 80], "K": CAMERA.K, "gender": "neutral",
        "theta": np.zeros((24, 3)), "betas": np.zeros(11), "transl": [0.0, 0.2, 3.0], "seen": True,
    }  # fmt: skip
    return row | changes


def crops_of(folder, body, rows, kind="smpl") -> PersPoseCrops:
    cv2.imwrite(str(folder / "one.png"), np.full((120, 160, 3), 90, np.uint8))
    table = SampleTable(write_table(folder / "set.npz", "pw3d", "train", kind, rows))
    return PersPoseCrops([table], [folder], {"neutral": body}, 64, augment=False)


# ---- rays at 90 degrees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [0.0, -0.5, 1e-9])
def test_labels_in_or_behind_the_plane_of_the_turned_camera_are_clipped(z):
    points = np.array([[0.0, 0.3, 2.0], [0.2, -0.9, 2.0], [1.0, 0.0, z]])
    crop = make_crop(CAMERA, np.array([70.0, 30, 20, 60]), (64, 64), points_cam=points)
    assert np.isfinite(crop.crop_from_full).all() and np.isfinite(crop.K_crop).all()
    # One degree inside the plane: 57 focal lengths from the axis, and the crop holds it.
    assert crop.K_crop[0, 0] == pytest.approx(32 / np.tan(np.deg2rad(89)), rel=0.05)
    rays = perspective_encoding(torch.from_numpy(crop.K_crop)[None], (64, 64))
    assert rays.isfinite().all()


def test_a_box_whose_corner_is_at_90_degrees_is_refused_and_one_within_is_served():
    wide = Camera.from_focal(10.0, (120, 160))
    with pytest.raises(ValueError, match="no camera turned to the centre sees it"):
        make_crop(wide, np.array([100.0, -300, 59, 700]), (64, 64))
    R = perspective_rotation_matrix(wide.K, np.array([159.0, 60.0]))  # 83 degrees off the axis
    np.testing.assert_allclose(R @ wide.unproject(np.array([159.0, 60.0])), [0, 0, 7.96], atol=0.01)
    crop = make_crop(wide, np.array([150.0, 50, 9, 20]), (64, 64))
    assert np.isfinite(crop.crop_from_full).all()


def test_a_person_beside_the_camera_does_not_break_training(tmp_path, free_body, caplog):
    crops = crops_of(tmp_path, free_body, [sample(transl=[3.0, 0.2, 0.0]), sample(transl=[0.0, 0.0, -2.0]), sample()])
    batch = torch.utils.data.default_collate([crops[0, k, 0] for k in range(3)])
    assert all(value.isfinite().all() for value in batch.values())
    assert bool(batch["is_smpl"][2])
    left_out = (~batch["is_smpl"]).nonzero().flatten().tolist()
    assert all(f"sample {k} " in caplog.text for k in left_out)


# ---- intrinsics without a focal length ------------------------------------------------------------------------------


@pytest.mark.parametrize("focal", [0.0, -500.0, np.nan])
def test_impossible_focal_lengths_are_refused_by_name(focal, tmp_path, free_body, caplog):
    K = np.array([[focal, 0, 80], [0, 500.0, 60], [0, 0, 1]])
    with pytest.raises(ValueError, match="focal|finite"):
        Camera(K, (120, 160))
    with pytest.raises(ValueError, match="focal|finite"):
        perspective_rotation_matrix(K, np.array([20.0, 30.0]))
    if np.isfinite(focal):  # one such sample is left out of a run, with a warning; NaN is no label at all
        item = crops_of(tmp_path, free_body, [sample(K=K)])[0, 0, 0]
        assert not item["is_smpl"] and not item["image"].any() and "focal" in caplog.text
    else:
        with pytest.raises(ValueError, match="not finite"):
            crops_of(tmp_path, free_body, [sample(K=K)])


# ---- boxes larger than the picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [True, False])
def test_boxes_larger_than_the_picture_show_all_of_it_in_a_black_frame(rotation):
    box = np.array([-80.0, -90, 320, 300])
    crop = make_crop(CAMERA, box, (64, 64), perspective_rotation=rotation)
    picture = crop_image(np.full((120, 160, 3), 200, np.uint8), crop)
    lit = (picture[..., 0] > 100).mean()
    assert 0.1 < lit < 0.35
    corners = crop.crop_px_from_full_px(np.array([[0.0, 0], [160, 0], [160, 120], [0, 120]]))
    assert crop.inside(corners).all()


def test_a_label_that_fills_more_than_the_picture_trains(tmp_path, free_body):
    crops = crops_of(tmp_path, free_body, [sample(transl=[0.0, 0.2, 0.55])])
    item = crops[0, 0, 0]
    assert item["is_smpl"] and all(value.isfinite().all() for value in item.values())
    assert item["image"].any()


# ---- a batch of exactly three ---------------------------------------------------------------------------------------


def test_three_people_are_solved_as_each_alone(free_body):
    """The published cross products run along the batch when it has three entries."""
    g = torch.Generator().manual_seed(1)
    R = matrix_from_aa(0.5 * torch.randn(3, 24, 3, generator=g))
    betas = torch.randn(3, 10, generator=g)
    posed = free_body(betas, R[:, 1:], R[:, 0], torch.tensor([[0.0, 0.0, 4.0]]).repeat(3, 1))
    twist = ortho_twist(free_body.rest_joints(betas), posed.R_global)
    aim = posed.joints + 0.01 * torch.randn(3, 24, 3, generator=g)
    inputs = (aim, twist, betas, R[:, list(LEAF_JOINTS)])
    together = inverse_kinematics(free_body, *inputs)
    for k in range(3):
        alone = inverse_kinematics(free_body, *(x[k : k + 1] for x in inputs))
        for one, all_three in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_three[k], atol=2e-5, rtol=0)


def test_three_crops_are_predicted_as_each_alone(network):
    g = torch.Generator().manual_seed(2)
    image = torch.randn(3, 3, 64, 64, generator=g)
    K = torch.tensor([[120.0, 0, 32], [0, 120.0, 32], [0, 0, 1]]).repeat(3, 1, 1)
    K[:, 0, 2] += torch.tensor([0.0, 5.0, -9.0])
    with torch.no_grad():
        together = network.predict(image, K)
        for k in range(3):
            for one, all_three in zip(network.predict(image[k : k + 1], K[k : k + 1]), together, strict=True):
                torch.testing.assert_close(one[0], all_three[k], atol=1e-4, rtol=1e-4)


# ---- all-zero poses -------------------------------------------------------------------------------------------------


def test_zero_poses_make_labels_losses_and_gradients_without_nan(tmp_path, free_body, network):
    """No rotation anywhere: every swing is between parallel vectors, every axis-angle without an axis."""
    crops = crops_of(tmp_path, free_body, [sample() for _ in range(3)])
    batch = torch.utils.data.default_collate([crops[0, k, 0] for k in range(3)])
    targets = targets_of(batch)
    assert batch["is_smpl"].all() and (targets.twist.norm(dim=-1) > 0.99).all()
    raw = network(torch.zeros(3, 3, 64, 64), batch["K_crop"])
    decoded = unproject(network.read(raw), targets.K_crop)
    decoded = decoded._replace(beta=decoded.beta[:, : batch["betas"].shape[1]])
    total = total_loss(perspose_losses(decoded, targets), PersPoseWeights())
    total.backward()
    assert total.isfinite()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    network.zero_grad()


def test_zero_poses_are_solved_and_zero_predictions_are_scored(free_body):
    rest = free_body.rest_joints(torch.zeros(2, 10))
    aim = torch.stack([rest[0], torch.zeros(24, 3)]).requires_grad_()
    R = torch.eye(3).expand(2, 24, 3, 3)
    solved = inverse_kinematics(free_body, aim, ortho_twist(rest, R), torch.zeros(2, 10), R[:, : len(LEAF_JOINTS)])
    # The method rounds turns of the pelvis up to half a milliradian; short bones make a hundredth of it.
    torch.testing.assert_close(solved.R_local[0], R[0], atol=2e-2, rtol=0)
    assert solved.R_local.isfinite().all() and solved.transl.isfinite().all()
    (solved.R_local.sum() + solved.transl.sum()).backward()
    assert aim.grad.isfinite().all()
    true = rest.detach()
    spread = (true - true.mean(1, keepdim=True)).norm(dim=-1).mean(1)
    torch.testing.assert_close(pa_mpjpe(torch.zeros_like(true), true), spread)
    assert mpjpe(torch.zeros_like(true), true).isfinite().all()
