"""Checks of what PersPose is trained with: losses and their gradients, logged figures, metrics, sampler, schedule."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from perspose_common import close, tensor, toy_body

from bodyreg import config, rotations
from bodyreg.cameras import project
from bodyreg.data.mixing import Mixture, in_order
from bodyreg.evaluation import metrics
from bodyreg.inverse_kinematics import LEAF_JOINTS
from bodyreg.losses.keypoints import masked_mean
from bodyreg.losses.perspose import PersPoseTargets, PersPoseWeights, density_mm, perspose_losses, total_loss
from bodyreg.models.decoding import Decoded
from bodyreg.models.registry import build
from bodyreg.training.perspose_figures import logged_figures
from bodyreg.training.perspose_settings import PersPoseSettings
from bodyreg.training.schedules import decay_groups, stepped_rate

# Our names of the reference's, where they differ.
LOSSES = {"uv_hp3d": "uv_3dhp", "depth_hp3d": "depth_3dhp", "rho0_hp3d": "rho0_3dhp", "h": "height"}


def batch_of(golden, name: str) -> tuple[dict[str, torch.Tensor], PersPoseTargets]:
    start = f"in/{name}/".removeprefix("in/")
    i = {key.removeprefix(start): array for key, array in golden.inputs.items() if key.startswith(start)}
    sets = [str(s) for s in i.pop("dataset_name")]
    i = {key: tensor(array) for key, array in i.items()}
    label = {key.removeprefix("label/"): value for key, value in i.items() if key.startswith("label/")}
    output = {key.removeprefix("output/"): value for key, value in i.items() if key.startswith("output/")}
    targets = PersPoseTargets(
        K_crop=label["cam_intrinsics"],
        size_hw=tuple(golden.config["img_hw"]),
        height=label["height"][:, 0],
        is_smpl=torch.tensor([s.startswith("hps") for s in sets]),
        is_bedlam=torch.tensor(["bedlam" in s for s in sets]),
        is_3dhp=torch.tensor([s == "3dhp" for s in sets]),
        is_coco=torch.tensor([s == "coco" for s in sets]),
        joints24=label["smpl_j24"],
        pelvis17=label["smpl_j17"][:, 0],
        twist=label["smpl_ortho_twist"],
        leaf_rot=rotations.rodrigues(label["smpl_theta"][:, list(LEAF_JOINTS)]),
        betas=label["smpl_beta"],
        joints17_3dhp=label["3dhp_j17"],
        keypoints_coco=label["coco_kp17"],
    )
    return {**output, "true_joints17": label["smpl_j17"], "true_vertices": label["smpl_vertices"]}, targets


def check_losses(golden) -> None:
    body, h36m = toy_body(golden, torch.float32)
    names = [LOSSES.get(name, name) for name in golden.config["loss_names"]]
    assert names == [f.name for f in fields(PersPoseWeights)]
    weights = PersPoseWeights(*golden.config["total_weights"])
    heads = ("uv", "depth", "density", "xyz", "ortho_twist", "leaf_rot", "beta")
    for batch in sorted({name.split("/")[0] for name in golden.names()}):
        o, targets = batch_of(golden, batch)
        leaves = {name: o[name].clone().requires_grad_() for name in heads}
        decoded = Decoded(
            uv=leaves["uv"], depth=leaves["depth"], rho0=leaves["density"][:, :1] / 1000,
            density=leaves["density"] / 1000, xyz=leaves["xyz"], xyz0=torch.zeros(len(o["uv"]), 1, 3),
            ortho_twist=leaves["ortho_twist"], leaf_rot=leaves["leaf_rot"].unflatten(-1, (3, 3)), beta=leaves["beta"],
        )  # fmt: skip
        losses = perspose_losses(decoded, targets)
        reference = golden.out(f"{batch}/losses")
        for name, expected in zip(names, reference, strict=True):
            close(losses[name], expected, 1e-4 * max(1e-3, abs(float(expected))), f"{batch} {name}")
        total, expected = total_loss(losses, weights), golden.out(f"{batch}/total")
        close(total, expected, 1e-4 * float(expected), f"{batch} total")
        total.backward()
        for name in heads:
            expected = golden.out(f"{batch}/grad/{name}")
            gradient = leaves[name].grad if leaves[name].grad is not None else torch.zeros_like(leaves[name])
            close(gradient, expected, 1e-4 * np.abs(expected).max() + 1e-12, f"{batch} gradient of {name}")

        posed = body(o["beta"], o["theta"][:, 1:], o["theta"][:, 0], o["transl"])
        figures = logged_figures(
            decoded, targets, body.regress(posed.vertices, h36m), posed.vertices, o["true_joints17"], o["true_vertices"]
        )
        assert list(figures) == golden.config["metric_names"]
        for (name, value), expected in zip(figures.items(), golden.out(f"{batch}/metrics"), strict=True):
            close(value, expected, 1e-4, f"{batch} {name}")


def check_metrics(golden) -> None:
    i, tol = {name: tensor(array) for name, array in golden.inputs.items()}, 1e-9
    for case in sorted({name.split("/")[0] for name in i if name.endswith("/pred")}):
        pred, true = i[f"{case}/pred"], i[f"{case}/gt"]
        aligned = metrics.align(pred, true).aligned
        errors = metrics.point_errors(aligned, true)
        if golden.has(f"{case}/error"):
            # The reference fails here; ours moves such a prediction to the mean of the truth.
            assert "Error" in str(golden.out(f"{case}/error"))
            close(aligned, true.mean(-2, keepdim=True).expand_as(true).numpy(), tol, case)
            continue
        close(errors, golden.out(f"{case}/pa_err"), tol, f"{case} errors")
        close(metrics.pa_mpjpe(pred, true).mean(), golden.out(f"{case}/pa_mpjpe"), tol, f"{case} PA-MPJPE")
        rooted = metrics.mpjpe(metrics.root_relative(pred, 0), metrics.root_relative(true, 0)).mean()
        close(rooted, golden.out(f"{case}/mpjpe_rootrel"), tol, f"{case} MPJPE")
    a, b = i["normed_diff/from"], i["normed_diff/to"]
    close(metrics.normed_difference(a, b), golden.out("normed_diff"), tol, "normed difference")
    close(metrics.scaled_difference(a, b), golden.out("scaled_diff"), tol, "scaled difference")
    points, K = i["xyz2uv/xyz"], i["xyz2uv/K"]
    close(project(points, K), golden.out("xyz2uv/uv"), tol, "projection")
    close(density_mm(points, K), golden.out("xyz2uv/density"), tol, "density")
    x, mask = i["mask_mean/x"], i["mask_mean/mask"][..., None]
    close(masked_mean(x, mask), golden.out("mask_mean"), 1e-7, "masked mean")
    close(masked_mean(x, 0.3 * mask + 0.1), golden.out("mask_mean_w"), 1e-7, "weighted mean")
    close(masked_mean(x, torch.zeros_like(mask)), golden.out("mask_mean_none"), 1e-7, "empty mask")
    a, b = i["swing_radian/a"], i["swing_radian/b"]
    close(metrics.angle_between(a, b), golden.out("swing_radian"), tol, "angles")

    pred, true, counted = i["pck/pred_mm"] / 1000, i["pck/gt_mm"] / 1000, i["pck/mask"]
    scaled = metrics.scaled_difference(pred, true) + true
    ways = {"none": pred, "scale": scaled, "procrustes": metrics.align(pred, true).aligned}
    for way, points in ways.items():
        found, truth = points[counted], true[counted]
        close(1000 * metrics.mpjpe(found, truth), golden.out(f"mpjpe_{way}"), 1e-6, f"MPJPE {way}, mm")
        close(100 * metrics.pck(found, truth), golden.out(f"pck150_{way}"), 1e-4, f"PCK {way}")
        close(100 * metrics.auc(found, truth), golden.out(f"auc_{way}"), 1e-4, f"AUC {way}")


def check_sampler(golden) -> None:
    i = golden.inputs
    mixture = Mixture(i["sizes"].tolist(), i["ratio"].tolist(), int(i["n"]), seed=golden.config["seed"])
    for name in golden.names("train/epoch"):
        rows = mixture.rows(np.arange(len(mixture)), int(name.removeprefix("train/epoch")))
        assert np.array_equal(rows, golden.out(name)), name
    for name in golden.names("test/"):
        assert np.array_equal(in_order(i["sizes"].tolist()), golden.out(name)), name
    first = golden.out("fixed_shuffle0_first20")
    assert np.array_equal(mixture.tables[0][: len(first)], first)


def check_schedule(golden) -> None:
    table = dict(golden.table)
    optimiser, initial = table.pop("optimizer", None), table.pop("init_stats_mean_std", {})
    for name, entry in table.items():
        settings = config.load(PersPoseSettings, name.replace("config", "perspose", 1))
        o = settings.optimiser
        rates = [stepped_rate(epoch, o.lr, o.period, o.gamma) for epoch in entry["epochs"]]
        close(np.array(rates), np.array(entry["lr"]), 1e-9, f"{name} rates")
        assert settings.data.shares() == entry["mix_ratio"], name
        assert [getattr(settings.loss, f.name) for f in fields(settings.loss)] == entry["loss_weight"], name
        ours = (settings.data.batch_size, o.period, o.gamma, settings.data.aim_jitter)
        assert ours == (entry["batch_size"], entry["period"], entry["gamma"], entry["pr_center_aug"]), name
    if optimiser is None:
        return
    settings = config.load(PersPoseSettings, "perspose")
    model = build(settings.model)
    decay, plain = decay_groups(model, settings.optimiser.weight_decay)
    assert optimiser["type"] == "AdamW"
    assert len(decay["params"]) + len(plain["params"]) == optimiser["n_groups"]
    assert (len(decay["params"]), decay["weight_decay"]) == (optimiser["n_decay"], optimiser["decay_value"])
    assert plain["weight_decay"] == 0
    heads = {name for name in decay["names"] if not name.startswith("backbone.")}
    assert heads == set(optimiser["decayed_heads"])
    for group in torch.optim.AdamW([decay, plain], lr=settings.optimiser.lr).param_groups:
        assert (list(group["betas"]), group["eps"]) == (optimiser["betas"], optimiser["eps"])
    tensors = dict(model.named_parameters())
    for name, (mean, std) in initial.items():
        ours, error = tensors[name].detach(), std / np.sqrt(tensors[name].numel())
        assert abs(float(ours.std()) / std - 1) < 0.05 + 5 / np.sqrt(ours.numel()), name
        assert abs(float(ours.mean()) - mean) < 8 * error, name


CHECKS = [
    ("metrics*", check_metrics),
    ("sampler*", check_sampler),
    ("schedule*", check_schedule),
    ("losses*", check_losses),
]
