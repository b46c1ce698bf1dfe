"""Checks of PoseDA's reference data: operators, generators, critics, losses and the lifters it adapts."""

from __future__ import annotations

import numpy as np
import torch
from perspose_common import close, tensor

from bodyreg import lens, skeletons
from bodyreg.adapt.poseda import kinematics, losses
from bodyreg.adapt.poseda.alignment import align_position
from bodyreg.adapt.poseda.critics import Critic2d, Critic3d
from bodyreg.adapt.poseda.generators import BoneAngles, BoneLengths, PoseGenerator, Rotation
from bodyreg.evaluation.metrics import auc, mpjpe, pa_mpjpe, pck
from bodyreg.models.lifters.gumlp import edge_partition
from bodyreg.models.lifters.semgcn import SemGCN
from bodyreg.models.lifters.simple_baseline import SimpleBaseline
from bodyreg.models.lifters.stgcn import STGCN, part_partition
from bodyreg.models.lifters.videopose import VideoPose3D
from bodyreg.training.poseda import Domain, fit, moved_poses, score
from bodyreg.training.poseda_settings import AdaptSettings
from bodyreg.training.schedules import exponential_rate, linear_rate

TOL = 1e-5


def loaded(module: torch.nn.Module, golden) -> torch.nn.Module:
    state = golden.state
    if golden.config.get("weights") == "weyl":
        state = weyl(module)
    module.load_state_dict({key: tensor(value) for key, value in state.items()}, strict=True)
    if "num_parameters" in golden.config:
        assert sum(p.numel() for p in module.parameters()) == golden.config["num_parameters"]
    return module.eval()


def weyl(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """State by the multiplicative rule over sorted keys."""
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    state = {key: np.zeros(s, np.int64) for key, s in shapes.items() if key.endswith("num_batches_tracked")}
    for j, key in enumerate(sorted(set(shapes) - set(state))):
        shape = shapes[key]
        i = np.arange(int(np.prod(shape)), dtype=np.uint64)
        h = (i * np.uint64(2654435761) + np.uint64((j + 1) * 974711)) % np.uint64(2**32)
        u = (h.astype(np.float64) / 2**32 - 0.5).reshape(shape)
        if key.endswith("running_var"):
            value = 1 + 0.5 * u
        elif key.endswith("running_mean"):
            value = 0.2 * u
        elif len(shape) >= 2:
            value = 2 * np.sqrt(3 / np.prod(shape[1:])) * u
        else:
            value = 1 + 0.2 * u if key.endswith("weight") else 0.1 * u
        state[key] = value.astype(np.float32)
    return state


def inputs(golden) -> dict[str, torch.Tensor]:
    return {name: tensor(value) for name, value in golden.inputs.items()}


def check_kinematics(golden) -> None:
    pose = inputs(golden)["pose"]
    assert [list(bone) for bone in kinematics.BONES] == golden.config["bones"]
    bones = kinematics.bone_vectors(pose)
    lengths = bones.norm(dim=-1, keepdim=True)
    close(bones, golden.out("bone_vec"), TOL, "vectors")
    close(lengths, golden.out("bone_len"), TOL, "lengths")
    close(bones / lengths, golden.out("bone_unit"), TOL, "directions")
    close(kinematics.joints_from_bones(bones), golden.out("pose_from_bones"), TOL, "joints")
    unit = kinematics.unit_pose(pose)
    close(unit, golden.out("unit_pose"), TOL, "unit pose")
    for name, part in zip(("lh", "rh", "ll", "rl", "hb"), kinematics.PARTS, strict=True):
        close(kinematics.kcs(kinematics.bone_vectors(unit), part), golden.out(f"kcs_{name}"), TOL, name)


def check_rotvec(golden) -> None:
    matrix = kinematics.matrix_from_rotvec(inputs(golden)["rotvec"], golden.config["eps"])
    close(matrix, golden.out("matrix"), TOL, "matrix")


def sizes(golden) -> tuple[int, int, int]:
    return golden.config["linear_size"], golden.config["num_stage"], golden.config["noise_channle"]


def check_ba(golden) -> None:
    i = inputs(golden)
    pose, change = loaded(BoneAngles(*sizes(golden)), golden)(i["pose"], i["noise"])
    close(pose, golden.out("pose_ba"), TOL, "pose")
    close(change, golden.out("ba_diff"), TOL, "change")


def check_bl(golden) -> None:
    i = inputs(golden)
    model = loaded(BoneLengths(*sizes(golden), golden.config["blr_tanhlimit"]), golden)
    pose, ratios = model(i["pose"], i["aug_pose"], i["noise"])
    close(pose, golden.out("pose_bl"), TOL, "pose")
    close(ratios, golden.out("blr"), TOL, "ratios")


def check_rt(golden) -> None:
    i = inputs(golden)
    model = loaded(Rotation(*sizes(golden)), golden)
    pose, r, t = model(i["pose"], i["aug_pose"], i["noise_r"], i["noise_t"], use_translation=True)
    close(pose, golden.out("pose_rt"), TOL, "pose")
    close(r, golden.out("r"), TOL, "rotation")
    close(t, golden.out("t"), TOL, "translation")


def check_generator(golden) -> None:
    i, c = inputs(golden), golden.config
    noise = len(i["noise_ba"][0])
    model = PoseGenerator(c.get("linear_size", 256), c.get("num_stage", 2), noise, c["blr_tanhlimit"])
    keys = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    assert sorted(keys) == sorted(k for k in c["keys"] if not k.endswith("num_batches_tracked"))
    model.load_state_dict({key: tensor(value) for key, value in weyl(model).items()}, strict=True)
    model.eval()
    angles, change = model.BAprocess(i["pose"], i["noise_ba"])
    lengths, ratios = model.BLprocess(i["pose"], angles, i["noise_bl"])
    turned, r, t = model.RTprocess(i["pose"], lengths, i["noise_r"], i["noise_t"], use_translation=True)
    for name, value in (
        ("pose_ba", angles), ("ba_diff", change), ("pose_bl", lengths), ("blr", ratios), ("pose_rt", turned), ("r", r),
        ("t", t),
    ):  # fmt: skip
        close(value, golden.out(name), TOL, name)


def check_swap(golden) -> None:
    i = inputs(golden)
    swapped = kinematics.swap_lengths(i["pose"], i["templates"][i["idx"].long()])
    close(swapped, golden.out("pose"), TOL, "pose")


def check_ratio(golden) -> None:
    i = inputs(golden)
    close(kinematics.scale_bones(i["pose"], i["ratio9"]), golden.out("pose"), TOL, "pose")


def check_disc3d(golden) -> None:
    model = loaded(Critic3d(golden.config["kcs_channel"], golden.config["channel_mid"]), golden)
    close(model(inputs(golden)["pose"]), golden.out("score"), TOL, "scores")


def check_disc2d(golden) -> None:
    width = len(golden.state["layer_last.bias"])
    model = loaded(Critic2d(golden.config["num_joints"], width), golden)
    close(model(inputs(golden)["pose2d"]), golden.out("score"), TOL, "score")


def check_losses(golden) -> None:
    i, c = inputs(golden), golden.config
    close(losses.difference_range(i["a"], c["b"], c["std"]), golden.out("diff_range"), TOL, "range")
    close(losses.ratio_limit(i["ratio"], c["threshold"]), golden.out("rectified_l2"), TOL, "limit")
    close(losses.generator_loss(i["score_real"], i["score_fake"]), golden.out("gen_adv"), TOL, "generator")
    close(losses.critic_loss(i["score_real"], i["score_fake"]), golden.out("disc"), TOL, "critic")
    total = losses.regulariser(
        i["ba_diff"], i["ratio"], angle=c["ba_range_m"], angle_width=c["ba_range_w"], limit=c["blr_limit"]
    )
    close(total, golden.out("regulariser"), TOL, "regulariser")


def baseline(golden) -> SimpleBaseline:
    width = len(golden.state["w1.bias"])
    stages = len({key.split(".")[1] for key in golden.state if key.startswith("linear_stages.")})
    return loaded(SimpleBaseline(16, width, stages), golden)


def rooted(pose: torch.Tensor) -> torch.Tensor:
    return pose - pose[:, :1]


def check_feedback(golden) -> None:
    i, c, model = inputs(golden), golden.config, baseline(golden)

    def errors(name: str) -> torch.Tensor:
        return (model(i[f"{name}_2d"][:, None])[:, 0] - rooted(i[f"{name}_3d"])).norm(dim=-1)

    settings = losses.FeedbackSettings(
        (c["hardratio_ba_s"], c["hardratio_ba"]), (c["hardratio_rt_s"], c["hardratio_rt"]), c["hardratio_std_ba"],
        c["hardratio_std_rt"], c["gloss_factorfeedback_ba"], c["gloss_factorfeedback_rt"],
    )  # fmt: skip
    loss = losses.feedback_loss(errors("inputs"), errors("ba"), errors("rt"), c["epoch"] / c["epochs"], settings)
    expected = golden.out("feedback_loss")
    close(loss, expected, TOL * max(1.0, abs(float(expected))), "feedback")


def check_projection(golden) -> None:
    i, c = inputs(golden), golden.config
    camera = i["camera"][:, None]
    close(lens.project(i["pose"], camera), golden.out("full"), TOL, "lens")
    close(lens.project_linear(i["pose"], camera), golden.out("linear"), TOL, "pinhole")
    pixels = torch.tensor(c["pixel_example"], dtype=torch.float32)
    close(lens.screen_from_pixels(pixels, (c["w"], c["h"])), golden.out("pixel_normalised"), TOL, "pixels")


def check_gpa(golden) -> None:
    i = inputs(golden)
    aligned = align_position(i["source_3d"], i["target_2d"][i["perm"].long()], i["camera"])
    close(aligned, golden.out("aligned_3d"), TOL, "aligned")
    close(lens.project_linear(aligned, i["camera"][:, None]), golden.out("projected_2d"), TOL, "projected")


def check_gpa_unequal(golden) -> None:
    i = inputs(golden)
    few = align_position(i["source_3d"], i["target_2d_a"][i["perm_a"].long()], i["camera9"])
    many = align_position(i["source_3d"][i["perm_b"].long()], i["target_2d_b"], i["camera9"])
    close(few, golden.out("aligned_a"), TOL, "fewer sources")
    close(many, golden.out("aligned_b"), TOL, "more sources")


def check_lifter(golden) -> None:
    c, parents = golden.config, skeletons.get("h36m-16").parents
    if golden.name.startswith("backbone_mlp"):
        model = SimpleBaseline(16, c["linear_size"], c["num_stage"])
    elif golden.name.startswith("backbone_videopose"):
        model = VideoPose3D(16, 16, filter_widths=c["filter_widths"], channels=c["channels"], zero_root=True)
    elif golden.name.startswith("backbone_semgcn"):
        assert list(c.get("parents", parents)) == list(parents)
        model = SemGCN(parents, c["hid_dim"], c["num_layers"])
        if "adjacency" in golden.inputs:
            edges = model.gconv_output.edges
            close((edges / edges.sum(1, keepdim=True)) > 0, golden.inputs["adjacency"] > 0, 0, "edges")
    else:
        model = STGCN(c["inter_channels"], c["fc_unit"])
        if "A" in golden.inputs:
            close(edge_partition(), golden.inputs["A"], 1e-6, "joint graph")
            close(part_partition(), golden.inputs["A_pool"], 1e-6, "part graph")
    with torch.no_grad():
        pose = loaded(model, golden)(inputs(golden)["pose2d"][:, None])[:, 0]
    expected = golden.out("pose3d")
    close(pose, expected, TOL * max(1.0, float(np.abs(expected).max())), "pose")


def check_temporal(golden) -> None:
    c, i = golden.config, inputs(golden)
    model = VideoPose3D(
        c["num_joints_in"], c["num_joints_out"], filter_widths=c["filter_widths"], channels=c["channels"]
    )
    assert model.receptive_field == c["receptive_field"]
    loaded(model, golden)
    close(model(i["pose2d"]), golden.out("pose3d"), TOL, "sequence")
    close(model(i["pose2d_window"]), golden.out("pose3d_window"), TOL, "window")


def check_metrics(golden) -> None:
    i = inputs(golden)
    predicted, true = rooted(i["pred"]).double(), rooted(i["gt"]).double()
    close(mpjpe(predicted, true).mean(), golden.out("mpjpe"), TOL, "MPJPE")
    close(pa_mpjpe(predicted, true).mean(), golden.out("p_mpjpe"), TOL, "P-MPJPE")
    share = pck(predicted, true, golden.config["pck_threshold_mm"] / 1000).mean()
    close(100 * share, golden.out("pck"), 1e-4, "PCK")
    close(100 * auc(predicted, true).mean(), golden.out("auc"), 1e-4, "AUC")


def check_flip(golden) -> None:
    x, model = inputs(golden)["pose2d"][:, None], baseline(golden)
    mirror = list(skeletons.get("h36m-16").mirror)

    def mirrored(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([-points[..., mirror, :1], points[..., mirror, 1:]], -1)

    close(mirrored(x)[:, 0], golden.out("flipped_2d"), TOL, "mirrored")
    averaged = (model(x) + mirrored(model(mirrored(x)))) / 2
    close(averaged[:, 0], golden.out("pose3d_averaged"), TOL, "averaged")


def check_schedules(golden) -> None:
    c = golden.config
    rates = [linear_rate(e, c["nepoch"], c["base_lr"], c["nepoch_fix"]) for e in range(c["nepoch"])]
    close(np.array(rates), golden.out("lr_by_epoch"), 1e-9, "stage 1")
    pretrain = [exponential_rate(step // 100000, c.get("pretrain_lr", 1e-3), 0.96) for step in c["pretrain_steps"]]
    close(np.array(pretrain), golden.out("pretrain_lr"), 1e-9, "stage 0")


def check_shift(golden) -> None:
    """Training on moved poses lowers the target's error by a tenth; the reference's own figures are one run's."""
    i, c = inputs(golden), golden.config
    pool, held_out = i["target_3d"].split(len(i["target_3d"]) // 2)[:2]
    cameras = [torch.cat([i[f"{name}_camera"], torch.zeros(5)]) for name in ("source", "target")]
    source, target, test = (
        Domain(joints, lens.project_linear(joints, camera), camera.expand(len(joints), 9))
        for joints, camera in ((i["source_3d"], cameras[0]), (pool, cameras[1]), (held_out, cameras[1]))
    )
    settings = AdaptSettings(batch_size=c["batch"])

    def trained(moved: bool) -> float:
        torch.manual_seed(0)
        lifter = SimpleBaseline(16, c["linear_size"], c["num_stage"], c["dropout"])
        optimiser, rng = torch.optim.Adam(lifter.parameters(), lr=c["lr"]), torch.Generator().manual_seed(0)
        keypoints, joints = source.keypoints, source.rooted
        for _ in range(c["epochs"]):
            if moved:
                keypoints, joints = moved_poses(source, target, None, 0.0, rng, settings)
            fit(lifter, keypoints, joints, optimiser, c["batch"], rng)
        return score(lifter, test, flip_test=False)["MPJPE"]

    plain, adapted = trained(False), trained(True)
    assert adapted <= 0.9 * plain, f"MPJPE {plain:.1f} mm on the source only, {adapted:.1f} mm on moved poses"
    for name in ("mpjpe_mm_source_only", "mpjpe_mm_gpa"):
        golden.ignore(name, why="one run's figures, not exact targets")


CHECKS = [
    ("kinematics*", check_kinematics),
    ("rotvec*", check_rotvec),
    ("ba_generator*", check_ba),
    ("bl_generator*", check_bl),
    ("rt_generator*", check_rt),
    ("pose_generator*", check_generator),
    ("bl_swap*", check_swap),
    ("bl_ratio*", check_ratio),
    ("disc3d*", check_disc3d),
    ("disc2d*", check_disc2d),
    ("losses*", check_losses),
    ("feedback*", check_feedback),
    ("projection*", check_projection),
    ("gpa_unequal*", check_gpa_unequal),
    ("gpa*", check_gpa),
    ("backbone_*", check_lifter),
    ("videopose_temporal*", check_temporal),
    ("metrics*", check_metrics),
    ("flip_test*", check_flip),
    ("schedules*", check_schedules),
    ("synthetic_shift*", check_shift),
]
