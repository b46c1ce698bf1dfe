import numpy as np
import pytest
import torch

from bodyreg import crops
from bodyreg.cameras import Camera
from bodyreg.crops import crop_image, make_crop, rotate_smpl, unrotate_smpl
from bodyreg.rotations import SMALLEST_SWING, matrix_from_aa

CAMERA = Camera(np.array([[300.0, 0, 170], [0, 330.0, 110], [0, 0, 1]]), (240, 320))
BOX = np.array([220.0, 60.0, 70.0, 150.0])


def project(K, points):
    return crops.apply_homography(K, points[:, :2] / points[:, 2:])


def points_near(camera, box, n=20, seed=0):
    """Points whose projections lie within the box, at 2 to 5 metres."""
    rng = np.random.default_rng(seed)
    px = box[:2] + rng.random((n, 2)) * box[2:]
    return crops.rays_from_px(camera.K, px) * rng.uniform(2, 5, (n, 1))


@pytest.mark.parametrize("options", [
    {}, {"margin": 1.3}, {"perspective_rotation": False}, {"in_plane_rad": 0.4}, {"aim_px": np.array([185.0, 100.0])},
    {"scale": 0.8, "perspective_rotation": False}, {"in_plane_rad": -0.5, "scale": 1.2}, {"reference_pixels": True},
])  # fmt: skip
def test_crop_camera_agrees_with_the_homography(options):
    crop = make_crop(CAMERA, BOX, (256, 192), **options)
    points = points_near(CAMERA, BOX)
    expected = crop.crop_px_from_full_px(project(CAMERA.K, points))
    np.testing.assert_allclose(project(crop.K_crop, crop.crop_from_cam(points)), expected, atol=1e-8)
    np.testing.assert_allclose(crop.full_px_from_crop_px(expected), project(CAMERA.K, points), atol=1e-8)
    np.testing.assert_allclose(crop.cam_from_crop(crop.crop_from_cam(points)), points, atol=1e-12)
    assert crop.K_crop[0, 0] == pytest.approx(crop.K_crop[1, 1])


def test_box_centre_lands_in_the_middle_and_the_box_fits():
    crop = make_crop(CAMERA, BOX, (256, 192))
    np.testing.assert_allclose(crop.crop_px_from_full_px(BOX[:2] + BOX[2:] / 2), [96, 128], atol=1e-4)
    np.testing.assert_allclose(crop.K_crop[:2, 2], [96, 128], atol=1e-9)
    corners = BOX[:2] + BOX[2:] * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    mapped = crop.crop_px_from_full_px(corners)
    assert (mapped > -1e-9).all() and (mapped < [192 + 1e-9, 256 + 1e-9]).all()
    # tight: some corner touches a border
    assert min(np.abs(mapped).min(), np.abs(mapped - [192, 256]).min()) < 1e-9


def test_without_rotation_the_frame_stays_and_the_principal_point_moves():
    crop = make_crop(CAMERA, BOX, (256, 256), perspective_rotation=False)
    np.testing.assert_array_equal(crop.R_crop_from_cam, np.eye(3))
    np.testing.assert_allclose(crop.crop_px_from_full_px(BOX[:2] + BOX[2:] / 2), [128, 128])
    assert crop.K_crop[0, 2] < 0


def test_margin_magnifies_less():
    tight, loose = (make_crop(CAMERA, BOX, (256, 256), perspective_rotation=False, margin=m) for m in (1.0, 1.2))
    assert tight.K_crop[0, 0] / loose.K_crop[0, 0] == pytest.approx(1.2)


def test_training_crop_holds_all_points_and_is_tight():
    points = points_near(CAMERA, BOX)
    crop = make_crop(CAMERA, BOX, (256, 256), points_cam=points, in_plane_rad=0.3)
    px = project(crop.K_crop, crop.crop_from_cam(points))
    assert (px > -1e-9).all() and (px < 256 + 1e-9).all()
    assert np.abs(px - 128).max() == pytest.approx(128)


def test_points_behind_the_camera_are_clipped_instead_of_wrapping_round():
    points = np.concatenate([points_near(CAMERA, BOX), [[0.5, 0.0, -0.1]]])
    crop = make_crop(CAMERA, BOX, (256, 256), points_cam=points)
    assert np.isfinite(crop.crop_from_full).all()
    clipped = crops.clip_rays(np.array([[1.0, 0, -2], [0, 0, -1], [0, 1, 3]]))
    np.testing.assert_allclose(clipped[2], [0, 1, 3])
    np.testing.assert_allclose(np.arctan2(1, clipped[0, 2]), crops.MAX_RAY_ANGLE)
    np.testing.assert_allclose(clipped[1], [0, 0, 1])


def test_identity_crop_returns_the_picture_itself():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    camera = Camera.from_focal(100.0, (60, 80))
    np.testing.assert_array_equal(crop_image(image, make_crop(camera, [0, 0, 80, 60], (60, 80))), image)


def test_pixel_centres_are_kept_and_the_reference_switch_is_half_a_pixel_off():
    # A picture whose red value is its own x coordinate at pixel centres: reading a crop pixel tells where it came from.
    image = np.zeros((60, 80, 3), np.float32)
    image[..., 0] = np.arange(80) + 0.5
    camera = Camera.from_focal(100.0, (60, 80))
    for reference, shift in ((False, 0.0), (True, 0.5 - 0.125)):
        crop = make_crop(camera, [30, 22.5, 20, 15], (60, 80), reference_pixels=reference)
        centres = np.stack([np.arange(80) + 0.5, np.full(80, 30.5)], axis=1)
        came_from = crop.full_px_from_crop_px(centres)[:, 0]
        read = crop_image(image, crop)[30, :, 0]
        np.testing.assert_allclose(read - came_from, shift, atol=1 / 32)


def test_in_plane_turn_agrees_with_labels_only_about_the_principal_point():
    points = points_near(CAMERA, BOX)
    for reference in (False, True):
        turn = crops.in_plane_rotation(0.4, CAMERA.K, CAMERA.size_hw, about_image_centre=reference)
        moved = crops.apply_homography(turn.turned_from_full, project(CAMERA.K, points))
        gap = np.abs(moved - project(CAMERA.K, points @ turn.R_turned_from_cam.T)).max()
        assert gap > 1 if reference else gap < 1e-9


def test_centred_box_needs_no_turn_and_a_small_tilt_is_rounded_up():
    centred = make_crop(CAMERA, [130, 70, 80, 80], (256, 256))
    np.testing.assert_allclose(centred.R_crop_from_cam, np.eye(3), atol=1e-12)
    near = make_crop(CAMERA, [130.01, 70, 80, 80], (256, 256))
    angle = np.arccos((np.trace(near.R_crop_from_cam) - 1) / 2)
    assert angle == pytest.approx(SMALLEST_SWING, rel=1e-3)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_smpl_parameters_go_to_the_crop_and_back(kind):
    crop = make_crop(CAMERA, BOX, (256, 256))
    generator = torch.Generator().manual_seed(0)
    aa, transl, J0, v = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(4))
    R0, R = matrix_from_aa(aa), torch.from_numpy(crop.R_crop_from_cam)
    if kind == "numpy":
        R0, R, transl, J0, v = (x.numpy() for x in (R0, R, transl, J0, v))
    R1, transl1 = rotate_smpl(R0, transl, J0, R)
    posed = (R0 @ (v - J0)[..., None])[..., 0] + J0 + transl
    posed_in_crop = (R1 @ (v - J0)[..., None])[..., 0] + J0 + transl1
    np.testing.assert_allclose(posed_in_crop, crop.crop_from_cam(np.asarray(posed)), atol=1e-12)
    R2, transl2 = unrotate_smpl(R1, transl1, J0, R)
    np.testing.assert_allclose(R2, R0, atol=1e-12)
    np.testing.assert_allclose(transl2, transl, atol=1e-12)


def test_boxes_that_reach_round_the_camera_are_refused():
    wide = Camera.from_focal(20.0, (240, 320))
    with pytest.raises(ValueError, match="degrees from the ray through its centre"):
        make_crop(wide, [0, 0, 3000, 200], (256, 256))


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, float("nan"), 5, 5], [0, 0, 5]])
def test_degenerate_boxes_are_refused(box):
    with pytest.raises(ValueError, match="box"):
        make_crop(CAMERA, box, (256, 256))
    with pytest.raises(ValueError, match="box"):
        crops.make_crop_without_camera(box, (256, 256))


def test_other_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="focal"):
        crops.perspective_rotation_matrix(np.diag([-1.0, 1.0, 1.0]), np.zeros(2))
    with pytest.raises(ValueError, match="margin"):
        make_crop(CAMERA, BOX, (256, 256), margin=0.0)
    with pytest.raises(ValueError, match="crop size"):
        make_crop(CAMERA, BOX, (0, 256))
