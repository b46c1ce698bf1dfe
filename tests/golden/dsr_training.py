"""Checks of DSR's losses and metrics."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from dsr_common import ToyBody, close_relative
from perspose_common import close, tensor

from bodyreg.evaluation import metrics
from bodyreg.losses.hmr import HMRPrediction, HMRTargets, HMRWeights, hmr_losses
from bodyreg.losses.semantic import PRESETS, SemanticSettings, dsr_losses, ndc_vertices
from bodyreg.losses.semantic_pixels import distance_loss, image_iou_loss, label_cross_entropy, row_iou_loss
from bodyreg.losses.semantic_targets import SemanticTargets

H36M_TO_17 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9)
H36M_TO_14 = H36M_TO_17[:14]
_TERMS = {
    "keypoints": "loss_keypoints", "keypoints_3d": "loss_keypoints_3d", "pose": "loss_regr_pose",
    "betas": "loss_regr_betas", "vertices": "loss_shape", "camera": "loss_cam",
}  # fmt: skip
_WEIGHTS = {
    "shape_loss_weight": "vertices", "keypoint_loss_weight": "keypoints", "pose_loss_weight": "pose",
    "beta_loss_weight": "betas", "openpose_train_weight": "openpose", "gt_train_weight": "annotated",
    "loss_weight": "total",
}  # fmt: skip
_PREDICTED = {
    "R_local": "pred_pose", "betas": "pred_shape", "weak": "pred_cam", "joints49": "smpl_joints3d",
    "vertices": "smpl_vertices", "keypoints": "smpl_joints2d",
}  # fmt: skip


def of_case(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): tensor(v) for n, v in golden.inputs.items() if n.startswith(prefix)}


def prediction(values: dict[str, torch.Tensor]) -> HMRPrediction:
    return HMRPrediction(**{name: values[key].requires_grad_() for name, key in _PREDICTED.items()})


def truth(values: dict[str, torch.Tensor]) -> HMRTargets:
    return HMRTargets(
        values["pose"].view(-1, 24, 3), values["betas"], values["vertices"], values["pose_3d"], values["keypoints"],
        values["has_smpl"] > 0, values["has_pose_3d"] > 0,
    )  # fmt: skip


def compare_terms(golden, losses, prefix: str) -> None:
    for name, key in _TERMS.items():
        close_relative(losses[name], golden.out(prefix + key), 1e-5, prefix + key)


def check_hmr_losses(golden) -> None:
    for case, changes in golden.config["cases"].items():
        given = {**golden.config["defaults"], **changes}
        weights = HMRWeights(**{_WEIGHTS[name]: value for name, value in given.items()})
        predicted = prediction(of_case(golden, f"{case}.pred."))
        losses = hmr_losses(predicted, truth(of_case(golden, f"{case}.gt.")), weights)
        compare_terms(golden, losses, f"{case}.")
        total = weights.total * sum(losses.values())
        close_relative(total, golden.out(f"{case}.total_loss"), 1e-5, f"{case} total")
        total.backward()
        for name, key in _PREDICTED.items():
            gradient = getattr(predicted, name).grad
            expected = golden.out(f"{case}.grad.{key}")
            gradient = torch.zeros(expected.shape) if gradient is None else gradient
            close_relative(gradient, expected, 1e-4, f"{case} gradient of {key}")


def check_pixel_losses(golden) -> None:
    for case in sorted({name.split(".")[0] for name in golden.inputs}):
        i = of_case(golden, f"{case}.")
        target = i["target"][None].float()
        distance = i["dist"][None, None].expand(-1, 3, -1, -1).clone()
        if not bool(target.any()):  # the reference's transform of three channels without any zero
            distance = torch.sqrt(distance.square() + torch.arange(3.0).view(1, 3, 1, 1).square())

        def colour(pred: torch.Tensor, loss) -> torch.Tensor:
            return loss(pred[None, :3].mean(1))

        cases = {
            "nIOU": partial(colour, loss=lambda p, t=target: row_iou_loss(p, t)),
            "nIOU_silhouette": lambda pred, t=target: row_iou_loss(pred[None, 3], t),
            "DistM": lambda pred, d=distance: distance_loss(pred[None, :3], d),
        }
        for name, function in cases.items():
            pred = i["pred"].clone().requires_grad_()
            loss = function(pred)[0]
            close_relative(loss, golden.out(f"{case}.{name}"), 1e-5, f"{case} {name}")
            loss.backward()
            close_relative(pred.grad, golden.out(f"{case}.{name}.grad"), 1e-5, f"{case} {name} gradient")
        whole = image_iou_loss(i["pred"][None, :3].mean(1), target)[0]
        close_relative(whole, golden.out(f"{case}.global_nIOU_extra"), 1e-5, f"{case} whole picture")
        maps = i["ce_maps"].requires_grad_()
        cross = label_cross_entropy(maps, i["ce_labels"].long()[None], i["ce_weight"][None])[0]
        close_relative(cross, golden.out(f"{case}.ce"), 1e-5, f"{case} cross-entropy")
        cross.backward()
        close_relative(maps.grad, golden.out(f"{case}.ce.grad"), 1e-5, f"{case} cross-entropy gradient")


def semantic_truth(i: dict[str, torch.Tensor]) -> SemanticTargets:
    mask = i["mc_mask"].float()
    return SemanticTargets(
        i["valid_labels_dsr_mc"] > 0, i["valid_labels_dsr_mc"], mask, i["c_label"].long(), i["dsr_c_class_weight"], mask
    )


def check_total_loss(golden) -> None:
    faces, size = tensor(golden.inputs["faces"]).long(), golden.config["image_size"]
    i = of_case(golden, "gt.")
    targets, prior = semantic_truth(i), ToyBody(golden).prior
    K = torch.tensor([[5000.0, 0, size / 2], [0, 5000, size / 2], [0, 0, 1]]).repeat(len(targets.groups), 1, 1)

    def semantic(vertices, transl, **changes):
        options = replace(PRESETS["reference"], image_size=size, **changes)
        return dsr_losses(ndc_vertices(vertices, K, (size, size), transl), faces, prior, targets, options)

    given = {**golden.config["code_defaults"]}
    for case, changes in golden.config["cases"].items():
        setting = {**given, **changes}
        predicted = prediction(of_case(golden, "pred."))
        transl = tensor(golden.inputs["pred.pred_cam_t"]).requires_grad_()
        weights = HMRWeights()
        losses = hmr_losses(predicted, truth(i), weights)
        compare_terms(golden, losses, f"{case}.")
        form = {"nIOU": "row", "DistM": "distance"}[setting["dsr_mc_loss_type"]]
        region = "silhouette" if setting.get("baseline") else "labels"
        ours = semantic(
            predicted.vertices, transl, sigma=setting["sigma_val"], gamma=setting["gamma_val"],
            mc_form="row" if region == "silhouette" else form, mc_region=region,
        )  # fmt: skip
        before = weights.total * sum(losses.values())
        close_relative(before, golden.out(f"{case}.total_before_start"), 1e-5, f"{case} before the start")
        mc, c = setting["dsr_mc_loss_weight"] * ours.mc, setting["dsr_c_loss_weight"] * ours.c
        # The stored values come from SoftRas, which deviates from the formula at single pixels.
        close_relative(mc, golden.out(f"{case}.loss_dsr_mc"), 2e-3, f"{case} DSR-MC")
        close_relative(c, golden.out(f"{case}.loss_dsr_c"), 2e-3, f"{case} DSR-C")
        total = before + weights.total * (mc + c)
        close_relative(total, golden.out(f"{case}.total_loss"), 2e-3, f"{case} total")
        total.backward()
        close_relative(predicted.weak.grad, golden.out(f"{case}.grad.pred_cam"), 1e-4, f"{case} gradient of camera")
        for name, ours_grad in (("pred_cam_t", transl.grad), ("smpl_vertices", predicted.vertices.grad)):
            golden.ignore(f"{case}.grad.{name}", why="SoftRas's, off where its kernels are; the exact one binds")
            assert ours_grad.isfinite().all() and bool(ours_grad.abs().sum() > 0), name
    vertices = tensor(golden.inputs["pred.smpl_vertices"]).requires_grad_()
    transl = tensor(golden.inputs["pred.pred_cam_t"]).requires_grad_()
    exact = semantic(vertices, transl)
    close(exact.mc_each, golden.out("exact.per_sample_mc"), 5e-4, "exact DSR-MC")
    close(exact.c_each, golden.out("exact.per_sample_c"), 5e-4, "exact DSR-C")
    (exact.mc_each.sum() + exact.c_each.sum()).backward()
    close_relative(vertices.grad, golden.out("exact.grad_vertices_of_mc_plus_c"), 1e-3, "exact gradient of vertices")
    close_relative(transl.grad, golden.out("exact.grad_cam_t_of_mc_plus_c"), 1e-3, "exact gradient of translation")
    assert SemanticSettings(preset="reference").factor(2) == 0 and SemanticSettings(preset="reference").factor(3) == 1


def check_metrics(golden) -> None:
    i = {name: tensor(array).double() for name, array in golden.inputs.items()}
    aligned = metrics.align(i["S1"], i["S2"]).aligned
    close(aligned, golden.out("S1_hat"), 1e-6, "aligned")
    errors = metrics.point_errors(aligned, i["S2"])
    close(errors, golden.out("re_per_joint"), 1e-6, "errors")
    close(errors.mean(-1), golden.out("re"), 1e-6, "mean error")
    for case, rows in (("j14", H36M_TO_14), ("j17", H36M_TO_17)):
        joints = {}
        for name, side in (("gt", "gt_vertices"), ("pred", "pred_vertices")):
            regressed = i["J_regressor_h36m"] @ i[side]
            joints[name] = (regressed - regressed[:, :1])[:, list(rows)]
            close(joints[name], golden.out(f"{case}.{name}_kp"), 1e-6, f"{case} {name}")
        close(metrics.mpjpe(joints["pred"], joints["gt"]), golden.out(f"{case}.mpjpe"), 1e-6, f"{case} mpjpe")
        close(metrics.pa_mpjpe(joints["pred"], joints["gt"]), golden.out(f"{case}.pampjpe"), 1e-6, f"{case} PA-MPJPE")
        best = metrics.align(joints["pred"], joints["gt"]).aligned
        close(metrics.point_errors(best, joints["gt"]), golden.out(f"{case}.pa_per_joint"), 1e-6, f"{case} PA")
    close(metrics.pve(i["pred_vertices"], i["gt_vertices"]), golden.out("pve"), 1e-6, "PVE")


CHECKS = [
    ("hmr_losses*", check_hmr_losses),
    ("pixel_losses*", check_pixel_losses),
    ("dsr_total_loss*", check_total_loss),
    ("metrics*", check_metrics),
]
