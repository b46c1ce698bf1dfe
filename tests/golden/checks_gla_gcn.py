"""Checks of GLA-GCN's reference data: network, data sets, windows, Ranger, training and test."""

from __future__ import annotations

import gla_gcn_network
import lifter_data_checks
import metrics_checks
import numpy as np
import torch
from perspose_common import close, tensor

from bodyreg.data.clips import ClipTable, plan_windows
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe
from bodyreg.losses.lifters import position
from bodyreg.models.lifters.gla_gcn import GLAGCN
from bodyreg.models.lifters.registry import LifterSettings
from bodyreg.models.lifters.sequence import SequenceLifter
from bodyreg.training.ranger import Ranger
from bodyreg.windows import every_frame


def network(golden) -> GLAGCN:
    config = golden.config
    model = GLAGCN(config["filter_widths"], config["channels"], 0.0, config.get("dataset", "h36m"))
    return gla_gcn_network.loaded(model, golden)


def check_train_ranger(golden) -> None:
    """Prediction, derivatives and statistics of the first step, then all steps; in double as the table advises."""
    model = network(golden).double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x, target = tensor(golden.inputs["x"]).double(), tensor(golden.inputs["target"]).double()
    rate = float(golden.config["optimizer"].split("lr=")[1].split(",")[0])
    optimiser = Ranger(model.parameters(), lr=rate)
    losses = []
    for step in range(golden.config["steps"]):
        optimiser.zero_grad()
        pred = model(x)
        loss = position(pred, target)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            close(pred, golden.out("pred_step0"), 1e-5, "prediction")
            for name, parameter in model.named_parameters():
                expected = golden.out(f"grad_step0/{name}")
                close(parameter.grad, expected, 1e-4 * max(np.abs(expected).max(), 1e-2), f"derivative of {name}")
            for name, buffer in model.named_buffers():
                if golden.has(f"buffer_after_step0/{name}"):
                    close(buffer, golden.out(f"buffer_after_step0/{name}"), 1e-5, name)
        optimiser.step()
    close(np.array(losses), golden.out("losses"), 1e-4, "losses")
    for name, parameter in model.named_parameters():
        close(parameter, golden.out(f"param_final/{name}"), 2e-4, name)


def check_evaluate_tta(golden) -> None:
    """One action: flip averaging over a window around every frame, target root zero, prediction's root as it is."""
    config, inputs = golden.config, golden.inputs
    settings = LifterSettings("gla_gcn", options={"filter_widths": config["filter_widths"]})
    lifter = SequenceLifter(network(golden), settings)
    assert (lifter.frames - 1) // 2 == config["pad"] and config["flip_tta"]
    count = sum(name.startswith("pose2d_") for name in inputs)
    sequences = lifter_data_checks.sequences(inputs, count, "pose2d_{}", "pose3d_{}", None)
    table = ClipTable(sequences, lifter.mirror_in, lifter.mirror_out)
    true = tensor(table.clips(plan_windows(table.lengths, every_frame))["joints"])[:, 0]
    pred = torch.cat([lifter.sequence(tensor(s.keypoints)) for s in sequences])
    close(1000 * mpjpe(pred, true).mean(), golden.out("mpjpe_mm"), 1e-3, "MPJPE")
    close(1000 * pa_mpjpe(pred, true).mean(), golden.out("p_mpjpe_mm"), 1e-3, "P-MPJPE")


CHECKS = [
    *gla_gcn_network.CHECKS,
    *lifter_data_checks.GLA_GCN_CHECKS,
    ("train_ranger*", check_train_ranger),
    ("evaluate_tta*", check_evaluate_tta),
    ("metrics_3dhp*", metrics_checks.check_gla_gcn_metrics_3dhp),
]
