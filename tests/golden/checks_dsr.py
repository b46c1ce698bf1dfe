"""Checks of DSR's reference data; tolerances are those of the data's own table."""

from __future__ import annotations

import zlib

import dsr_data
import dsr_render
import dsr_training
import numpy as np
import torch
from dsr_common import ToyBody
from perspose_common import close, tensor

from bodyreg import rotations, skeletons
from bodyreg.body_joints import _OPENPOSE, _SUPERSET
from bodyreg.cameras import fit_translation, project, transl_from_spin
from bodyreg.data import spin, spin_crops
from bodyreg.models.hmr import CROP_PX, FOCAL_PX, HMR, HMRHead, MeanParameters
from bodyreg.models.perspose import IMAGENET_MEAN, IMAGENET_STD, normalise_image
from bodyreg.models.published_hmr import load_published_hmr
from bodyreg.models.registry import default_settings
from priors import clothing_labels as clothing


def check_geometry(golden) -> None:
    i = {name: tensor(array) for name, array in golden.inputs.items()}
    focal, size = golden.config["focal"], golden.config["img_res"]
    for name in ("rot6d", "rot6d_degenerate"):
        close(rotations.matrix_from_6d(i[name]), golden.out(name), 1e-5, name)
    close(rotations.rodrigues(i["axis_angle"]), golden.out("rodrigues"), 1e-5, "rodrigues")
    close(rotations.matrix_from_quaternion(i["quat"]), golden.out("quat_to_rotmat"), 1e-5, "quaternion")
    R = i["rotmats"]
    for name, back in (("rotmat_to_quat", rotations.matrix_from_quaternion), ("rotmat_to_aa", rotations.rodrigues)):
        ours = {"rotmat_to_quat": rotations.quaternion_from_matrix, "rotmat_to_aa": rotations.aa_from_matrix}[name](R)
        reference = back(tensor(golden.out(name)))
        close(back(ours), reference.numpy(), 1e-5, name)
    golden.ignore("rot2aa_trace", why="the reference's helper by the trace, which gives NaN at half turns; not rebuilt")
    expected = golden.out("weak_to_persp")
    ours = transl_from_spin(i["weak_cam"], focal, size)
    scale = np.abs(expected).clip(1)  # depths reach 1e13 where s is 0
    close(ours.numpy() / scale, expected / scale, 1e-5, "translation")
    K = torch.eye(3).repeat(len(i["points"]), 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = i["cam_center"]
    points = i["points"] @ i["rotation"].mT + i["translation"][:, None]
    close(project(points, K), golden.out("projected"), 1e-3, "projection")
    joints, keypoints = (i[name][:, 25:] for name in ("joints49", "kp49_pixels"))
    close(fit_translation(joints, keypoints, focal, size), golden.out("estimated_translation"), 1e-3, "fit")


def check_toy_body(golden) -> None:
    toy = ToyBody(golden)
    body, cam = toy.model(), tensor(golden.inputs["cam"])
    betas = tensor(golden.inputs["betas"])
    for name, suffix in (("rotmat", ""), ("axis_angle", "_from_aa")):
        R = tensor(golden.inputs[name])
        R = rotations.rodrigues(R) if R.ndim == 3 else R
        posed = body(betas, R[:, 1:], R[:, 0])
        close(posed.vertices, golden.out(f"vertices{suffix}"), 1e-5, f"vertices{suffix}")
        close(toy.joints49(posed), golden.out(f"joints49{suffix}"), 1e-5, f"joints49{suffix}")
        if suffix:
            continue
        native = torch.cat([posed.joints, posed.vertices[:, toy.picks()]], 1)
        close(native, golden.out("native_joints45"), 1e-5, "native joints")
        transl = transl_from_spin(cam, golden.config["focal"], golden.config["img_res"])
        close(transl, golden.out("cam_t"), 1e-5, "cam_t")
        K = torch.diag(torch.tensor([golden.config["focal"], golden.config["focal"], 1.0]))
        pixels = project(toy.joints49(posed) + transl[:, None], K)
        close(pixels, golden.out("joints2d_pix"), 1e-3, "pixels")
        close(pixels / (golden.config["img_res"] / 2), golden.out("joints2d_norm"), 1e-5, "crop coordinates")


def check_head(golden) -> None:
    state = {name: tensor(array) for name, array in golden.state.items()}
    head = HMRHead(golden.config["num_input_features"])
    head.load_state_dict(state, strict=True)
    head.eval()
    features = tensor(golden.inputs["features_u8"]).float() / 8
    start = tuple(tensor(golden.inputs[f"init_{name}"]) for name in ("pose", "shape", "cam"))
    with torch.no_grad():
        cases = {f"iter{k}": head(features, iterations=k) for k in range(1, golden.config["n_iter_default"] + 1)}
        cases["custom"] = head(features, start)
    for case, output in cases.items():
        for name, value in zip(("pose", "shape", "cam"), output, strict=True):
            key = f"custominit_pred_{name}" if case == "custom" else f"pred_{name}_{case}"
            close(value, golden.out(key), 1e-5, key)


def filled(model: HMR, seed: int) -> dict[str, torch.Tensor]:
    """State of the network, flat as SPIN publishes it, by the recipe of `hmr_full_recipe`."""
    state = {}
    for full, like in model.state_dict().items():
        name = full.split(".", 1)[1]
        shape = tuple(like.shape)
        if name.startswith("init_"):
            continue
        z = np.random.RandomState((seed + zlib.crc32(name.encode())) % 2**32).standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(z)
        elif name.endswith("running_mean"):
            value = 0.1 * z
        elif len(shape) == 4:
            value = z * np.sqrt(2 / np.prod(shape[1:]))
        elif len(shape) == 2:
            value = z * (0.02 if name.startswith("dec") else 1) / np.sqrt(shape[1])
        else:
            value = 0.6 + 0.1 * z if name.endswith(".weight") else 0.05 * z
        state[name] = torch.as_tensor(np.asarray(value, value.dtype if value.dtype == np.int64 else np.float32))
    return state


def check_full_network(golden) -> None:
    model = HMR(golden.config["backbone"])
    state = filled(model, golden.config["seed"])
    flat = {f"{'head' if f'head.{n}' in model.state_dict() else 'backbone'}.{n}": v for n, v in state.items()}
    inits = {f"head.{name}": tensor(golden.inputs[name]) for name in ("init_pose", "init_shape", "init_cam")}
    model.load_state_dict({**flat, **inits}, strict=True)
    model.eval()
    image = normalise_image(tensor(golden.inputs["image_u8"]).permute(0, 3, 1, 2).float() / 255)
    close(image[..., ::16, ::16], golden.out("normalized_sample"), 1e-4, "normalised picture")
    with torch.no_grad():
        stages = dict(zip(("conv1", *(f"layer{k}" for k in range(1, 5))), model.backbone.stages(image), strict=True))
        output = model.head(stages["layer4"])
    for name, value in zip(("pose", "shape", "cam"), output, strict=True):
        close(value, golden.out(f"pred_{name}"), 1e-4, name)
    # The depth of a small s is large: the tolerance is relative to it.
    expected = golden.out("pred_cam_t")
    size = np.abs(expected).clip(1)
    close(transl_from_spin(output.weak).numpy() / size, expected / size, 1e-4, "cam_t")
    for name, value in stages.items():
        level = golden.out(f"{name}_abs_mean")
        close(value.mean((2, 3)), golden.out(f"{name}_mean_per_channel"), 2e-4 * float(level), name)
        close(value.abs().mean(), level, 2e-4 * float(level), f"{name} absolute mean")
    sample = golden.out("layer4_sample")
    level = float(golden.out("layer4_abs_mean"))
    close(stages["layer4"][:, : sample.shape[1]], sample, 2e-4 * level, "layer4")


def check_state_dict(golden) -> None:
    """Names and shapes, and the three layouts loaded strictly; what does not fit is refused."""
    import tempfile
    from pathlib import Path

    table = golden.table
    settings = default_settings("dsr")
    settings.backbone = table["backbone_name"]
    model = HMR(settings.backbone)
    own = {name.split(".", 1)[1]: value for name, value in model.state_dict().items()}
    listed = {name: (tuple(shape), kind) for name, (shape, kind) in table["checkpoint_flat_keys"].items()}
    assert {n: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for n, v in own.items()} == listed
    counts = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("backbone", "head")}
    assert counts == table["trainable_params"]
    prefix = table["module_prefix"]
    assert all(n.startswith((prefix["backbone"], prefix["head"])) for n in model.state_dict())
    lightning = {f"model.{name}": value for name, value in model.state_dict().items()}
    lightning |= {f"model.{prefix['smpl']}betas": torch.zeros(1, 10), "J_regressor": torch.zeros(17, 4)}
    bare = {name: value for name, value in own.items() if not name.startswith("init_")}
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(({"model": own}, {"state_dict": lightning}, bare)):
            path = Path(folder) / f"{number}.pt"
            torch.save(content, path)
            loaded = load_published_hmr(path, settings, MeanParameters.neutral()).state_dict()
            assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items()), number


def check_tables(golden) -> None:
    table = golden.table
    assert list(clothing.LABELS) == table["parsing_labels_20"]
    assert {name: list(map(int, clothing.PALETTE[k])) for k, name in enumerate(clothing.LABELS)} == table[
        "parsing_colors_rgb"
    ]
    groups = table["dsr_c_group_members"]
    assert {name: list(clothing.C_GROUPS[name]) for name in clothing.C_GROUPS} == {
        name: groups[str(k)] for k, name in enumerate(table["dsr_c_groups"])
    }
    assert list(clothing.MC_LABELS) == table["dsr_mc_labels"]
    assert [list(pair) for pair in clothing.MIRROR_PAIRS] == table["flip_label_swap_to_add"]
    names = skeletons.get("spin-49").joints
    words = [n.lower().replace("op ", "op_") for n in table["joint_names_49"]]
    assert len(names) == len(words)
    for ours, theirs in zip(names, words, strict=True):
        assert ours.startswith("op_") == theirs.startswith("op_")
    assert list(_OPENPOSE + _SUPERSET) == [table["joint_map_to_smplx54"][n] for n in table["joint_names_49"]]
    assert list(spin.JOINTS14_OF_24) == table["J24_TO_J14"] and list(spin.JOINTS17_OF_24) == table["J24_TO_J17"]
    assert list(dsr_training.H36M_TO_14) == table["H36M_TO_J14"]
    assert list(dsr_training.H36M_TO_17) == table["H36M_TO_J17"]
    mirror = skeletons.get("smpl-24").mirror
    assert list(mirror) == table["SMPL_JOINTS_FLIP_PERM"]
    assert [3 * j + k for j in mirror for k in range(3)] == table["SMPL_POSE_FLIP_PERM"]
    assert spin_crops.MIRROR_24.tolist() == table["J24_FLIP_PERM"]
    assert spin_crops.MIRROR_49.tolist() == table["J49_FLIP_PERM"]
    assert (list(IMAGENET_MEAN), list(IMAGENET_STD)) == (table["IMG_NORM_MEAN"], table["IMG_NORM_STD"])
    assert (FOCAL_PX, CROP_PX) == (table["FOCAL_LENGTH"], table["IMG_RES"])


CHECKS = [
    ("geometry*", check_geometry),
    ("toy_smpl_head*", check_toy_body),
    ("hmr_head*", check_head),
    ("hmr_full_recipe*", check_full_network),
    ("hmr_state_dict_*", check_state_dict),
    ("tables*", check_tables),
    *dsr_render.CHECKS,
    *dsr_training.CHECKS,
    *dsr_data.CHECKS,
]
