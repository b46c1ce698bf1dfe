"""Checks of PersPose's reference data; tolerances are those of the data's own table."""

from __future__ import annotations

import numpy as np
import perspose_network
import perspose_training
import torch
from perspose_common import close, tensor, toy_body

from bodyreg import crops, encoding, rotations, skeletons
from bodyreg import inverse_kinematics as ik
from bodyreg.cameras import Camera
from bodyreg.crops import make_crop, make_crop_without_camera
from bodyreg.data import annotations
from bodyreg.models import decoding
from bodyreg.models.perspose import normalise_image


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
    R0, t0 = ik.fit_pelvis(*i["pelvis_pts"].split(3, dim=1))
    close(R0, golden.out("pelvis_R"), tol, "pelvis R")
    close(t0.unsqueeze(-1), golden.out("pelvis_t"), tol, "pelvis t")
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
    pixels = torch.from_numpy(crops.crop_image(image, small)).permute(2, 0, 1)[None]
    picture = normalise_image(pixels.float() / 255)[0]
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
    for tag in sorted({name.split("/")[0] for name in golden.names()}):
        h, w = (int(n) for n in tag.split("x"))
        close(encoding.perspective_encoding(K, (h, w), known=known), golden.out(f"{tag}/pe"), 1e-6, tag)
        mirrored = encoding.mirror_intrinsics(K, w)
        pe = encoding.perspective_encoding(mirrored, (h, w), known=known)
        close(pe, golden.out(f"{tag}/pe_flipped"), 1e-6, f"{tag} mirrored")


def check_smpl_synth(golden) -> None:
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    body, h36m = toy_body(golden, torch.float32)
    posed = body(i["beta"], i["theta"][:, 1:], i["theta"][:, 0], i["transl"])
    rest = body.rest_joints(i["beta"])
    tol = 1e-5
    close(posed.joints, golden.out("joints24"), tol, "joints24")
    close(posed.joints, golden.out("joints24_fk"), tol, "forward kinematics")
    close(posed.vertices, golden.out("vertices"), tol, "vertices")
    close(body.regress(posed.vertices, h36m), golden.out("joints17"), tol, "joints17")
    close(rest, golden.out("rest_joints"), tol, "rest joints")
    close(body.rest_vertices(i["beta"]), golden.out("rest_vertices"), tol, "rest vertices")
    close(posed.R_global, golden.out("global_rotmats"), tol, "global rotations")
    R_local = torch.cat([posed.global_orient[:, None], posed.body_pose], dim=1)
    close(R_local, golden.out("relative_rotmats"), tol, "relative rotations")
    close(ik.rest_twist(rest), golden.out("rest_ortho_twist"), tol, "rest twists")
    close(ik.ortho_twist(rest, posed.R_global), golden.out("ortho_twist"), tol, "posed twists")


def check_ik(golden) -> None:
    assert tuple(golden.config["leaf_order"]) == ik.LEAF_JOINTS
    for precision, dtype, tol in (("f64", torch.float64, 1e-7), ("f32", torch.float32, 1e-4)):
        body, h36m = toy_body(golden, dtype)
        joints, twist, beta, leaf = (
            tensor(golden.inputs[f"{precision}/{name}"]) for name in ("joints", "ortho_twist", "beta", "leaf_rot")
        )
        rest = body.rest_joints(beta)
        for prefix, mode in (("xyprio", "xy"), ("bigdiff", "final")):
            solved = ik.solve(joints, rest, mode)
            for name, value in zip(("pose", "bones", "R0", "R9"), solved, strict=True):
                close(value, golden.out(f"{precision}/{prefix}_{name}"), tol, f"{precision} {prefix} {name}")
        theta = ik.compose(solved, rest, twist, leaf)
        close(theta, golden.out(f"{precision}/compose_theta"), tol, f"{precision} compose")
        result = ik.inverse_kinematics(body, joints, twist, beta, leaf)
        close(result.betas, golden.out(f"{precision}/ik_beta"), 0 if dtype == torch.float32 else 1e-7, "betas")
        close(result.betas[:, 0].float(), golden.out(f"{precision}/ik_beta")[:, 0].astype(np.float32), 0, "beta 0")
        close(result.R_local, golden.out(f"{precision}/ik_theta"), tol, f"{precision} theta")
        close(result.transl, golden.out(f"{precision}/ik_transl"), tol, f"{precision} transl")
        posed = body(result.betas, result.R_local[:, 1:], result.R_local[:, 0], result.transl)
        close(posed.joints, golden.out(f"{precision}/ik_joints"), tol, f"{precision} joints")
        close(posed.vertices, golden.out(f"{precision}/ik_vertices"), tol, f"{precision} vertices")
        close(body.regress(posed.vertices, h36m), golden.out(f"{precision}/ik_joints17"), tol, f"{precision} joints17")


def check_decode(golden) -> None:
    i, width = golden.inputs, golden.config["img_hw"][1]
    readouts = {}
    for name in ("pass", "flip"):
        heads = [tensor(i[f"{name}/{head}"]) for head in ("depth", "rho0", "twist", "shape", "leaf")]
        readout = decoding.read_heads(tensor(i[f"{name}/heatmap_logits_x64"]).float() / 64, *heads)
        readouts[name] = readout if name == "pass" else decoding.unmirror(readout, width)
        for field, value in readouts[name]._asdict().items():
            reference = golden.out(f"inner_{name}/{field}")
            tol = perspose_network.TOL_PX if field == "uv" else 1e-5
            close(value.reshape(reference.shape), reference, tol, f"{name} {field}")
        K = tensor(i["K"])
        f = (K[:, 0, 0] + K[:, 1, 1]) / 2
        close(f.reshape(-1, 1, 1), golden.out(f"inner_{name}/f"), 1e-5, "focal length")
    final = decoding.unproject(decoding.merge(readouts["pass"], readouts["flip"]), tensor(i["K"]))
    out = lambda name: golden.out(f"final/{name}")  # noqa: E731
    for name in ("uv", "depth", "xyz", "xyz0", "ortho_twist"):
        close(getattr(final, name), out(name), perspose_network.TOL_PX if name == "uv" else 1e-5, name)
    close(1000 * final.density, out("density"), 1e-5, "density, mm per px")
    close(final.leaf_rot.flatten(-2), out("leaf_rot"), 1e-5, "leaf rotations")

    body, h36m = toy_body(golden, torch.float32)
    result = ik.inverse_kinematics(body, final.xyz[:, :24] + final.xyz0, final.ortho_twist, final.beta, final.leaf_rot)
    close(result.betas, out("beta"), 1e-5, "beta")
    close(result.R_local, out("theta"), 1e-4, "theta")
    close(result.transl, out("transl"), 1e-4, "transl")
    posed = body(result.betas, result.R_local[:, 1:], result.R_local[:, 0], result.transl)
    close(posed.joints, out("smpl_joints24"), 1e-4, "joints24")
    close(posed.vertices, out("smpl_vertices"), 1e-4, "vertices")
    close(body.regress(posed.vertices, h36m), out("smpl_joints17"), 1e-4, "joints17")


def check_preprocess(golden) -> None:
    i, tol = golden.inputs, 1e-6
    body, _ = toy_body(golden, torch.float64)
    theta, transl, beta = tensor(i["theta_world"]), tensor(i["trans_world"]), tensor(i["beta"])
    J0 = body.rest_joints(beta)[:, 0]
    camera = tensor(i["cam_R"]), tensor(i["cam_t"])
    orient, transl_cam = annotations.camera_smpl_from_world(theta[:, :3], transl, J0, *camera)
    theta_cam = torch.cat([orient, theta[:, 3:]], dim=1)
    close(theta_cam, golden.out("theta_cam"), tol, "theta")
    close(transl_cam, golden.out("trans_cam"), tol, "translation")
    posed = body(beta, theta_cam[:, 3:], orient, transl_cam)
    close(posed.vertices, golden.out("vertices_cam"), tol, "vertices")
    boxes = [annotations.box_around(p, (h, w)) for p, (w, h) in zip(i["kps"], i["img_wh"], strict=True)]
    close(np.stack(boxes), golden.out("kp2bbox"), tol, "boxes")
    w, h = i["vis_wh"]
    seen = [annotations.visible_vertices(m[:, :2], m[:, 2], i["vis_faces"], (h, w)) for m in i["vis_uvd"]]
    assert np.array_equal(np.stack(seen), golden.out("vis")), "visibility"
    # The two index lists of 3DHP are what converting between the named joint sets does.
    lists = {
        "joint_index_3dhp_train_28_to_17": ("mpi3dhp-28", "mpi3dhp-17"),
        "joint_index_3dhp17_to_h36m17": ("mpi3dhp-17", "h36m-17"),
    }
    for name, (source, target) in lists.items():
        indices = np.arange(len(skeletons.get(source)), dtype=np.float64)[:, None]
        assert skeletons.convert(indices, source, target)[:, 0].astype(int).tolist() == golden.config[name], name


CHECKS = [
    *perspose_network.CHECKS,
    *perspose_training.CHECKS,
    ("preprocess*", check_preprocess),
    ("smpl_synth*", check_smpl_synth),
    ("decode*", check_decode),
    ("ik*", check_ik),
    ("geometry*", check_geometry),
    ("perspective_rotation*", check_perspective_rotation),
    ("perspective_encoding*", check_perspective_encoding),
]
