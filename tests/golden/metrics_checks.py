"""Checks of the metrics that several systems' reference data hold: the checks file of each system calls its own.

Functions are named after the system and the file. Where a file also holds losses or cameras, only its metrics are read
here and the rest is the caller's.
"""

from __future__ import annotations

import numpy as np
import torch
from perspose_common import close, tensor

from bodyreg.evaluation import accumulate, metrics, protocols


def check_ktpformer_metrics(golden) -> None:
    """The metrics of `metrics_losses`; its losses and gradients are the caller's."""
    pred, true, tol = tensor(golden.inputs["pred"]), tensor(golden.inputs["target"]), 1e-5
    close(metrics.mpjpe(pred, true).mean(), golden.out("mpjpe"), tol, "MPJPE")
    close(metrics.pa_mpjpe(pred, true).mean(), golden.out("p_mpjpe"), tol, "P-MPJPE")
    close(metrics.pa_mpjpe(pred, true).mean(), golden.out("p_mpjpe_f32"), tol, "P-MPJPE, float32")
    close(metrics.n_mpjpe(pred, true).mean(), golden.out("n_mpjpe"), tol, "N-MPJPE")
    flat = metrics.mpjve(pred.flatten(0, 1), true.flatten(0, 1)).mean()
    close(flat, golden.out("velocity_axis0_flat"), tol, "MPJVE across seams")
    close(metrics.mpjve(pred, true).mean(), golden.out("velocity_axis1"), tol, "MPJVE")
    each = metrics.point_errors(pred, true).mean((0, 1))
    close(1000 * each, golden.out("mpjpe_joint_errs_mm"), 1e-2, "errors of each joint")


def check_ktpformer_metrics_3dhp(golden) -> None:
    """PCK and AUC of the official groups, their totals, MPJPE, sequence by sequence and their plain mean."""
    protocol = protocols.get("mpi3dhp-lift-17[pred_root=subtract]")
    assert protocol.groups_by_index() == {k: tuple(v) for k, v in golden.config["groups"].items()}
    assert protocol.root_rows() == [golden.config["root"]]
    totals = []
    for sequence in sorted({name.split("/")[1] for name in golden.inputs}):
        valid = golden.inputs[f"valid/{sequence}"] != 0
        pred, true = (tensor(golden.inputs[f"{side}/{sequence}"])[valid].double() / 1000 for side in ("pred", "gt"))
        found = accumulate.sample_errors(protocol, pred, true)
        means = {name: float(values.mean()) for name, values in found.values.items()}
        for name in protocol.groups:
            for metric in ("pck", "auc"):
                close(100 * means[f"{metric.upper()} {name}"], golden.out(f"{sequence}/{metric}_{name}"), 1e-3, name)
        total = {"pck": 100 * means["PCK"], "auc": 100 * means["AUC"], "mpjpe": 1000 * means["MPJPE"]}
        for name, value in total.items():
            close(value, golden.out(f"{sequence}/{name}"), 1e-3, f"{sequence} {name}")
        totals.append(total)
    for name in totals[0]:
        mean = np.mean([total[name] for total in totals])
        close(mean, golden.out(f"mean_over_sequences/{name}"), 1e-3, f"mean {name}")


def check_gla_gcn_metrics_3dhp(golden) -> None:
    protocol = protocols.get("mpi3dhp-lift-17")
    pred, true = (tensor(golden.inputs[side]).double() / 1000 for side in ("pred", "gt"))
    values = accumulate.sample_errors(protocol, pred, true).values
    close(100 * values["PCK"].mean(), golden.out("pck"), 1e-4, "PCK")
    close(100 * values["AUC"].mean(), golden.out("auc"), 1e-4, "AUC")
    close(1000 * values["MPJPE"].mean(), golden.out("mpjpe"), 1e-2, "MPJPE")


def check_hot_metrics(golden) -> None:
    """The metrics of `metrics_losses` and the sums of its test loop; its losses and gradients are the caller's."""
    pred, true = tensor(golden.inputs["pred"]), tensor(golden.inputs["target"])
    close(metrics.mpjpe(pred, true).mean(), golden.out("mpjpe"), 1e-5, "MPJPE")
    close(metrics.pa_mpjpe(pred, true).flatten(), golden.out("p_mpjpe_per_frame"), 1e-5, "P-MPJPE")
    for case in ("same", "mixed"):
        actions = [name.split(" ")[0] for name in golden.config[f"actions_{case}"]]
        check_sums(golden, case, pred, true, actions)


def check_sums(golden, case: str, pred: torch.Tensor, true: torch.Tensor, actions: list[str]) -> None:
    """Per action the sums [P1, clips, P2, clips] that HoT's test loop accumulates over one batch of clips."""
    p1, p2 = metrics.mpjpe(pred, true).mean(-1), metrics.pa_mpjpe(pred, true).mean(-1)
    if len(set(actions)) > 1:
        p2 = accumulate.batch_means(p2, torch.zeros(len(p2), dtype=torch.long))
    for action in [name.split("/")[1] for name in golden.names(f"{case}/")]:
        rows = [k for k, name in enumerate(actions) if name == action]
        found = [p1[rows].sum(), len(rows), p2[rows].sum(), len(rows)]
        close(np.array([float(x) for x in found]), golden.out(f"{case}/{action}"), 1e-5, f"{case} {action}")
