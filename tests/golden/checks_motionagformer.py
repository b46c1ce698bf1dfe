"""Checks of MotionAGFormer's reference data."""

from __future__ import annotations

from functools import partial

import torch
from lifter_networks import check_model, close, load, tensor

from bodyreg.models.lifters.motionagformer import GCN, MultiScaleTCN, normalised

TOL = 2e-5


def check_gcn(golden) -> None:
    args = golden.config["args"]
    unit = GCN(
        args["dim_in"], args["dim_out"], args["num_nodes"], args["mode"],
        similarity=args.get("use_temporal_similarity", True), neighbours=args.get("neighbour_num", 4),
        length=args.get("temporal_connection_len", 1),
    )  # fmt: skip
    load(unit, golden)
    with torch.no_grad():
        close(unit(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")
    if golden.has("adj"):
        # The files hold the graph before its normalisation.
        close(unit.graph, normalised(tensor(golden.out("adj"))), TOL, "adjacency")


def check_tcn(golden) -> None:
    args = golden.config["args"]
    unit = MultiScaleTCN(args["in_channels"], args["out_channels"], args["kernel_size"], tuple(args["dilations"]))
    load(unit, golden)
    with torch.no_grad():
        close(unit(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")


CHECKS = [
    ("gcn_*", check_gcn),
    ("ms_tcn*", check_tcn),
    ("model_*", partial(check_model, small=TOL)),
]
