"""Checks of DSR's data: crops, augmentation, parsing targets, data set items, boxes of the demonstration."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from dsr_common import ToyBody
from perspose_common import close, tensor

from bodyreg.data import spin, spin_crops
from bodyreg.data.parsing import labels_from_rgb, write_parsing
from bodyreg.data.spin_crops import SpinAugmentation
from bodyreg.losses.semantic import face_attributes
from bodyreg.losses.semantic_targets import class_weights, mask_distance, semantic_targets
from bodyreg.models.perspose import normalise_image
from priors.clothing_labels import MC_LABELS

_LEVEL = 1 / 255 / 0.224


def check_image_ops(golden) -> None:
    i, config = golden.inputs, golden.config
    for k, case in enumerate(config["cases"]):
        name = f"case{k}"
        person = case["center"], case["scale"]
        a = SpinAugmentation(bool(case["flip"]), tuple(case["pn"]), case["rot"], 1.0)
        crop = spin_crops.crop_picture(i["image_u8"], *person, a).transpose(2, 0, 1) / 255
        close(crop, golden.out(f"{name}.rgb_f16"), 1.5 / 255, f"{name} picture")
        close(spin_crops.warp_from_full(*person, case["rot"]), golden.out(f"{name}.affine"), 1e-4, f"{name} affine")
        close(spin_crops.px_from_full(*person, case["rot"]), golden.out(f"{name}.transform"), 1e-5, f"{name} transform")
        points = i["keypoints"][:, :2]
        for key, inverse in (("transform_pts", False), ("transform_pts_inv", True)):
            moved = spin_crops.transform_points(points, *person, case["rot"], inverse=inverse)
            close(moved, golden.out(f"{name}.{key}"), 0, f"{name} {key}")
        close(spin_crops.crop_keypoints(i["keypoints"], *person, a), golden.out(f"{name}.keypoints"), 1e-6, name)
        close(spin_crops.crop_joints24(i["S"], a), golden.out(f"{name}.S"), 1e-5, f"{name} joints")
        close(spin_crops.crop_pose(i["pose"], a).reshape(-1), golden.out(f"{name}.pose"), 1e-5, f"{name} pose")
    rng, drawn = np.random.RandomState(config["augm_seed"]), []
    for _ in golden.out("augm_params"):
        a = spin_crops.draw_spin_augmentation(rng)
        drawn.append([a.mirrored, *a.channels, a.turn_deg, a.scale])
    close(np.array(drawn), golden.out("augm_params"), 1e-5, "draws")


def check_targets(golden) -> None:
    i = golden.inputs
    prior = tensor(i["prior"])
    names = sorted({name.split(".")[0] for name in i if name.startswith("img")})
    for name in names:
        labels = labels_from_rgb(i[f"{name}.rgb"])
        kept = spin_crops.keep_person(
            labels, i[f"{name}.keypoints"][0], least=golden.config["kp_conf_thresh"],
            margin=golden.config["margin_px"],
        )  # fmt: skip
        targets = semantic_targets(torch.from_numpy(kept)[None])
        valid = targets.mc_valid[0]
        out = lambda key, name=name: golden.out(f"{name}.{key}")  # noqa: E731
        close(targets.mc_mask[0], out("mc_mask"), 0, f"{name} mask")
        close(valid.long(), out("mc_valid"), 0, f"{name} valid labels")
        close(targets.mc_counts[0][valid], out("mc_numpix"), 0, f"{name} pixels")
        distance = mask_distance(targets.mc_mask)[0]
        close(distance, out("mc_dist_f16"), 0.13, f"{name} distance")
        close(targets.groups[0].clamp(min=0), out("c_labels"), 0, f"{name} groups")
        close(targets.class_weight[0], out("c_class_weight"), 1e-6, f"{name} weights")
        rows, columns = np.nonzero(kept)
        extent = [columns.min(), rows.min(), columns.max(), rows.max()] if len(rows) else [-1] * 4
        close(np.array(extent), out("bbox_xyxy_inclusive"), 0, f"{name} extent")
        close(face_attributes(prior, targets.mc_valid)[0, :, 0], out("mc_face_prob"), 1e-6, f"{name} faces")
    close(class_weights(tensor(i["counts"])), golden.out("class_ratio"), 1e-6, "weights")
    golden.ignore("inverse_ratio_unused", why="a weighting of the reference's that nothing uses")
    every = torch.ones(1, len(MC_LABELS), dtype=torch.bool)
    close(face_attributes(prior, every)[0, :, 1:].T, golden.out("c_face_prob"), 1e-6, "groups of faces")


def fields_of(golden, dataset: str) -> dict[str, np.ndarray]:
    i = golden.inputs
    fields = {name: i[name] for name in ("center", "scale", "part")}
    fields["imgname"] = np.array(golden.config["names"])
    if dataset != "h36m-p2":
        fields |= {"pose": i["pose"], "shape": i["shape"]}
    if dataset in ("h36m", "h36m-p2"):
        fields["S"] = i["S"]
    if f"has_smpl_{dataset}" in i:
        fields["has_smpl"] = i[f"has_smpl_{dataset}"]
    if dataset == "3dpw":
        fields["gender"] = np.where(i["gender_is_female"], "f", "m")
    return fields


def check_dataset_items(golden) -> None:
    i, config = golden.inputs, golden.config
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for dataset in sorted({name.split(".")[0] for name in golden.names()}):
            for k, name in enumerate(config["names"]):
                path = root / dataset / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # Without loss under whatever name: what is read is told by the content.
                path.write_bytes(cv2.imencode(".png", i["images_u8"][k][..., ::-1])[1].tobytes())
                if dataset != "h36m" or k != 3:
                    write_parsing(spin.parsing_path(root / dataset, name), i["parsing_labels"][k])
            table = spin.load_spin(spin.write_spin(root / f"{dataset}.npz", fields_of(golden, dataset)))
            crops = spin.SpinCrops(table, root / dataset, augment=False, reference=True)
            for k in sorted({int(n.split(".")[1]) for n in golden.names(f"{dataset}.")}):
                check_item(golden, dataset, k, crops)


def check_item(golden, dataset: str, k: int, crops: spin.SpinCrops) -> None:
    names = {n.split(".", 2)[2] for n in golden.names(f"{dataset}.{k}.")}
    out = lambda name: golden.out(f"{dataset}.{k}.{name}")  # noqa: E731
    training = "img_mean" not in names
    flip, channels, turn, scale = golden.config["aug"][k] if training else (0, (1, 1, 1), 0, 1)
    item = crops.item(k, SpinAugmentation(bool(flip), tuple(channels), turn, scale))
    what = f"{dataset} {k}"
    image = normalise_image(item["image"][None].float() / 255)[0]
    if training:
        check_training_item(golden, dataset, k, item)
    else:
        close(image.mean((1, 2)), out("img_mean"), 2 * _LEVEL, f"{what} picture")
        check_truth(golden, dataset, k, crops.table, names)
    if "img_f16" in names:
        close(image[:, ::2, ::2], out("img_f16"), 2 * _LEVEL, f"{what} picture")


def check_training_item(golden, dataset: str, k: int, item) -> None:
    out = lambda name: golden.out(f"{dataset}.{k}.{name}")  # noqa: E731
    what = f"{dataset} {k}"
    close(item["keypoints"], out("keypoints"), 1e-6, f"{what} key points")
    close(item["theta"].reshape(-1), out("pose"), 1e-5, f"{what} pose")
    close(item["betas"], out("betas"), 1e-6, f"{what} betas")
    close(item["joints24"], out("pose_3d"), 1e-5, f"{what} joints")
    for ours, theirs in (("has_smpl", "has_smpl"), ("has_joints", "has_pose_3d"), ("mirrored", "is_flipped")):
        assert float(item[ours]) == float(out(theirs)), f"{what} {ours}"
    for ours, theirs in (("scale", "scale"), ("centre", "center"), ("turn_deg", "rot_angle"), ("gender", "gender")):
        close(item[ours], out(theirs), 1e-5, f"{what} {ours}")
    close(item["size_hw"], out("orig_shape"), 0, f"{what} size")
    targets = semantic_targets(item["labels"][None])
    close(targets.class_weight[0], out("dsr_c_class_weight"), 1e-6, f"{what} weights")
    close(targets.mc_valid[0].long(), out("valid_labels_dsr_mc"), 0, f"{what} valid labels")
    assert out("valid_labels_dsr_c").all(), "all groups always take part"
    names = golden.names(f"{dataset}.{k}.")
    if f"{dataset}.{k}.c_label" in names:
        close(targets.groups[0].clamp(min=0), out("c_label"), 0, f"{what} groups")
        close(targets.mc_mask[0], out("mc_label"), 0, f"{what} mask")
    if f"{dataset}.{k}.mc_face_prob" in names:
        prior = ToyBody(golden).prior
        close(face_attributes(prior, targets.mc_valid)[0, :, 0], out("mc_face_prob"), 1e-6, f"{what} faces")


def check_truth(golden, dataset: str, k: int, table: spin.SpinTable, names: set[str]) -> None:
    out = lambda name: golden.out(f"{dataset}.{k}.{name}")  # noqa: E731
    if "vertices" not in names:
        assert table.joints24 is not None
        close(table.joints24[k][list(spin.JOINTS14_OF_24), :3], out("pose_3d"), 1e-5, f"{dataset} {k} joints")
        return
    from dsr_training import H36M_TO_14

    toy = ToyBody(golden)
    body = toy.model("male" if table.gender[k] == 0 else "female")
    theta = torch.from_numpy(table.theta[k])[None]
    posed = body(torch.from_numpy(table.betas[k])[None], theta[:, 1:], theta[:, 0])
    close(posed.vertices[0], out("vertices"), 1e-5, f"{dataset} {k} vertices")
    joints = toy.h36m @ posed.vertices[0]
    close((joints - joints[:1])[list(H36M_TO_14)], out("pose_3d"), 1e-5, f"{dataset} {k} joints")
    close(table.gender[k], out("gender"), 0, f"{dataset} {k} gender")


def check_demo_boxes(golden) -> None:
    i, config = golden.inputs, golden.config
    centre, scale = spin_crops.person_from_keypoints(
        i["openpose_body25"], least=config["detection_thresh"], enlarge=config["rescale"]
    )
    close(centre, golden.out("openpose_center"), 1e-4, "centre of key points")
    close(np.array(scale), golden.out("openpose_scale"), 1e-5, "scale of key points")
    box = spin_crops.person_from_box(np.array(config["bbox_xywh"]))
    close(box[0], golden.out("bbox_center"), 1e-5, "centre of the box")
    close(np.array(box[1]), golden.out("bbox_scale"), 1e-5, "scale of the box")
    h, w = i["image_u8"].shape[:2]
    whole = spin_crops.person_from_box(np.array([0, 0, w, h]))
    for name, person in (("crop_bbox", box), ("crop_nobox", whole)):
        crop = spin_crops.crop_picture(i["image_u8"], *person, SpinAugmentation())
        image = normalise_image(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)[0]
        close(image[:, ::4, ::4], golden.out(name), 1.5 * _LEVEL, name)


CHECKS = [
    ("image_ops*", check_image_ops),
    ("semantic_targets*", check_targets),
    ("dataset_items*", check_dataset_items),
    ("demo_boxes*", check_demo_boxes),
]
