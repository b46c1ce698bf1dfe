"""Checks of PersPose's reference data; tolerances are those of the data's own table."""

from __future__ import annotations

import numpy as np
import torch

from bodyreg import crops, encoding, rotations
from bodyreg.cameras import Camera
from bodyreg.crops import make_crop, make_crop_without_camera

PENDING = {
    "losses*": "training losses and metrics come with the PersPose training item",
    "metrics*": "training losses and metrics come with the PersPose training item",
    "network_*": "the published layout comes with the PersPose network item",
    "keys_shapes*": "the published layout comes with the PersPose network item",
    "schedule*": "the training recipe comes with the PersPose training item",
    "sampler*": "the training recipe comes with the PersPose training item",
}


def close(actual, expected, atol: float, what: str) -> None:
    """Arrays agree within atol, and neither holds NaN."""
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, reference {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    assert error <= atol, f"{what}: off by {error:.3g}, allowed {atol:g}"


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def check_geometry(golden) -> None:
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    tol = 1e-9
    aa = i["axisang"]
    close(rotations.rodrigues_quaternion(aa), golden.out("axisang2quat"), tol, "axisang2quat")
    R = rotations.rodrigues(aa)
    close(R, golden.out("batch_rodrigues"), tol, "batch_rodrigues")
    close(rotations.quaternion_from_matrix(R), golden.out("mat2quat"), tol, "mat2quat")
    q = tensor(golden.out("mat2quat"))
    close(rotations.aa_from_quaternion(q), golden.out("quat2axisang"), tol, "quat2axisang")
    close(rotations.matrix_from_6d(i["rot6d"], eps=1e-6), golden.out("rot6d_to_rotmat"), 1e-6, "rot6d")
    close(rotations.swing(i["swing_v1"], i["swing_v2"]), golden.out("cal_swing"), tol, "swing")
    close(rotations.swing_angle(i["swing_v1"], i["swing_v2"]), golden.out("cal_radian"), tol, "swing angle")
    source, target = i["svd_vecs"].split(3, dim=1)
    close(rotations.kabsch(source, target), golden.out("svd_R"), tol, "kabsch")
    for name in ("twist_angle", "twist_swing"):
        golden.ignore(name, why="a classic swing-twist split that the method does not use")


def check_perspective_rotation(golden) -> None:
    i, config = golden.inputs, golden.config
    w, h = config["image_size_wh"]
    image = i["image"]
    for case in config["cases"]:
        K, box = i[f"{case}/K"], i[f"{case}/bbox"]
        coco = bool(i[f"{case}/is_coco"])
        if coco:
            crop = make_crop_without_camera(box, (h, w), reference_pixels=True)
        else:
            camera = Camera(K, image.shape[:2])
            crop = make_crop(camera, box, (h, w), reference_pixels=True)
            back = crop.cam_from_crop(crop.crop_from_cam(i["points3d"]))
            close(back, golden.out(f"{case}/points3d_unrot"), 1e-9, f"{case} points back")
        close(crop.R_crop_from_cam, golden.out(f"{case}/rotation_3d"), 1e-9, f"{case} R")
        close(crop.crop_from_full, golden.out(f"{case}/perspective_2d"), 1e-9, f"{case} M")
        close(crop.K_crop, golden.out(f"{case}/K_crop"), 1e-9, f"{case} K_crop")
        close(crop.crop_from_cam(i["points3d"]), golden.out(f"{case}/points3d_rot"), 1e-9, f"{case} points")
        points_px = crops.apply_homography(K, i["points3d"][:, :2] / i["points3d"][:, 2:])
        points_crop = crop.crop_px_from_full_px(points_px)
        close(points_crop, golden.out(f"{case}/points2d_crop"), 1e-9, f"{case} pixels")
        close(crop.inside(points_crop), golden.out(f"{case}/points2d_valid"), 0, f"{case} inside")
        if case in config["image_cases"]:
            ours = crops.crop_image(image, crop).astype(float)
            assert np.abs(ours - golden.out(f"{case}/crop_u8")).mean() < 1, f"{case}: picture"

    K, box = i["right/K"], i["right/bbox"]
    small = make_crop(Camera(K, image.shape[:2]), box, (64, 48), reference_pixels=True)
    close(small.K_crop, golden.out("right_48x64/K_crop"), 1e-9, "right_48x64 K_crop")
    close(small.crop_from_full, golden.out("right_48x64/perspective_2d"), 1e-9, "right_48x64 M")
    picture = crops.normalised_image(crops.crop_image(image, small))
    level = 1 / 255 / 0.225
    assert np.abs(picture.numpy() - golden.out("right_48x64/image_tensor")).mean() < level, "right_48x64 picture"

    for case in config["hps_cases"]:
        check_labels(golden, case, image.shape[:2], (h, w))


def check_labels(golden, case: str, image_hw, size_hw) -> None:
    i = {name.removeprefix(f"{case}/"): array for name, array in golden.inputs.items() if name.startswith(f"{case}/")}
    out = lambda name: golden.out(f"{case}/{name}")  # noqa: E731
    crop = make_crop(
        Camera(i["K"], image_hw),
        i["bbox"],
        size_hw,
        reference_pixels=True,
        points_cam=i["vertices"],
        in_plane_rad=np.deg2rad(float(i["rot_deg"])),
        in_plane_about_image_centre=True,
    )
    close(crop.R_crop_from_cam, out("rotation_3d"), 1e-9, f"{case} R")
    close(crop.crop_from_full, out("perspective_2d"), 1e-9, f"{case} M")
    close(crop.K_crop, out("K_crop"), 1e-9, f"{case} K_crop")
    for name in ("joints24", "joints17", "vertices", "ortho_twist"):
        close(crop.crop_from_cam(i[name]), out(name), 1e-9, f"{case} {name}")
    J0 = i["joints24"][0] - i["transl"]
    R0 = rotations.rodrigues(tensor(i["theta"][0])).numpy()
    R0_crop, transl_crop = crops.rotate_smpl(R0, i["transl"], J0, crop.R_crop_from_cam)
    theta = i["theta"].copy()
    theta[0] = rotations.aa_from_matrix(tensor(R0_crop)).numpy()
    close(theta, out("theta"), 1e-9, f"{case} theta")
    close(transl_crop, out("transl"), 1e-9, f"{case} transl")
    # The reference stores the turned body as axis-angle and comes back through its own rounded exponential.
    R0_crop = rotations.rodrigues(tensor(out("theta")[0])).numpy()
    R0_back, transl_back = crops.unrotate_smpl(R0_crop, transl_crop, J0, crop.R_crop_from_cam)
    theta[0] = rotations.aa_from_matrix(tensor(R0_back)).numpy()
    close(theta, out("theta_unrot"), 1e-9, f"{case} theta back")
    close(transl_back, out("transl_unrot"), 1e-9, f"{case} transl back")
    # The reference poses its mesh anew from these parameters; a rigid motion of the first mesh is the same.
    turn = rotations.rodrigues(tensor(out("theta_unrot")[0])).numpy() @ R0.T
    back = (i["vertices"] - J0 - i["transl"]) @ turn.T + J0 + transl_back
    close(back, out("vertices_unrot"), 1e-9, f"{case} vertices back")


def check_perspective_encoding(golden) -> None:
    K = tensor(golden.inputs["K"])
    known = torch.tensor([name != "coco" for name in golden.inputs["dataset_name"]])
    for tag in sorted({name.split("/")[0] for name in golden.out_names}):
        h, w = (int(n) for n in tag.split("x"))
        close(encoding.perspective_encoding(K, (h, w), known=known), golden.out(f"{tag}/pe"), 1e-6, tag)
        mirrored = encoding.mirror_intrinsics(K, w)
        pe = encoding.perspective_encoding(mirrored, (h, w), known=known)
        close(pe, golden.out(f"{tag}/pe_flipped"), 1e-6, f"{tag} mirrored")


CHECKS = [
    ("geometry*", check_geometry),
    ("perspective_rotation*", check_perspective_rotation),
    ("perspective_encoding*", check_perspective_encoding),
]
