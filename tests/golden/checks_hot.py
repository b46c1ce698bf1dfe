"""Checks of HoT's reference data: selection of frames, recovery, the pruned networks, data and scores."""

from __future__ import annotations

from functools import partial

import lifter_data_checks
import lifter_evaluation
import metrics_checks
import torch
from lifter_networks import build_host, close, load, same, tensor, tolerance

from bodyreg.models.lifters import hot
from bodyreg.models.lifters.layers import CrossAttention

TOL = 2e-5
# Of more than so many frames the reference finds distances by a matrix product, whose rounding the table allows for.
DIRECT = 25


def check_selection(golden) -> None:
    config, x, noise = golden.config, tensor(golden.inputs["x"]), tensor(golden.inputs["noise"])
    keep, centre, k = config["token_num"], config["center"], config["k"]
    frames = x.shape[1]
    scores = hot.score_frames(x, noise, k)
    close(scores.density, golden.out("density"), TOL, "density")
    close(scores.parent, golden.out("dist"), TOL, "distance to the denser frame")
    close(scores.score, golden.out("score"), TOL, "score")
    close(scores.distances, golden.out("distance_matrix"), TOL if frames <= DIRECT else 5e-3, "distances")
    chosen = hot.choose_frames(scores.score, keep)
    same(chosen, golden.out("index_by_score"), "order by score")
    same(hot.cluster_of(scores.distances, chosen), golden.out("idx_cluster"), "clusters")
    same(hot.FrameSelector(frames, keep, neighbours=k)(x, noise), golden.out("index"), "frames")
    same(hot.choose_frames(scores.score, keep, centre), golden.out("center_index_by_score"), "order without centre")
    selector = hot.FrameSelector(frames, keep, centre=True, neighbours=k)
    assert selector.centre == centre
    same(selector(x, noise), golden.out("center_index"), "frames with the centre")
    if golden.has("index_zero_noise"):
        quiet = torch.zeros_like(noise)
        same(hot.FrameSelector(frames, keep, neighbours=k)(x, quiet), golden.out("index_zero_noise"), "without noise")
        close(hot.score_frames(x, quiet, k).density, golden.out("density_zero_noise"), TOL, "density without noise")


def check_recovery(golden) -> None:
    args, token, z = golden.config["args"], tensor(golden.inputs["x_token"]), tensor(golden.inputs["z"])
    attention = load(CrossAttention(args["dim"], args["num_heads"], qkv_bias=args["qkv_bias"]), golden)
    close(attention(token, z, z), golden.out("attn"), 1e-5, "attention")
    tra = hot.TokenRecovery(token.shape[1], args["dim"], args["num_heads"], qkv_bias=args["qkv_bias"])
    state = {f"cross_attention.{name}": value for name, value in attention.state_dict().items()}
    tra.load_state_dict({"x_token": token, **state}, strict=True)
    close(tra(z), golden.out("y"), 1e-5, "all frames")


def check_pruned(golden, small: float) -> None:
    model = build_host(golden)
    x, noise = tensor(golden.inputs["x"]), tensor(golden.inputs["noise"])
    seen = {}
    model.selector.register_forward_pre_hook(lambda _module, args: seen.update(x_knn=args[0]))
    tol = tolerance(golden, small)
    with torch.no_grad():
        pose, index = model.lift_pruned(x, noise)
        same(index, golden.out("index"), "frames")
        close(pose, golden.out("y"), tol, "y")
        if golden.has("x_knn"):
            close(seen["x_knn"], golden.out("x_knn"), small, "features of the selection")
        if model.pruning.recover:
            close(model(x, noise), golden.out("y"), tol, "y alone")
            close(model(x, index=index), golden.out("y"), tol, "y of its own frames")
        if golden.has("y_given"):
            given = tensor(golden.inputs["index_given"])
            pose, index = model(x, index=given)
            same(index, given, "given frames")
            close(pose, golden.out("y_given"), tol, "y of given frames")


def check_metrics_losses(golden) -> None:
    metrics_checks.check_hot_metrics(golden)
    lifter_data_checks.lifter_losses(golden)


CHECKS = [
    *lifter_data_checks.HOT_CHECKS,
    ("tpc_cluster_*", check_selection),
    ("tra_*", check_recovery),
    ("*_mhformer_*", partial(check_pruned, small=2e-5)),
    ("*_motionagformer_*", partial(check_pruned, small=2e-5)),
    ("hot_*", partial(check_pruned, small=1e-5)),
    ("tpc_*", partial(check_pruned, small=1e-5)),
    ("metrics_losses*", check_metrics_losses),
    ("evaluate_h36m*", lifter_evaluation.check_hot_test),
]
