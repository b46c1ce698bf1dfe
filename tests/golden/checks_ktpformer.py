"""Checks of KTPFormer's reference data: graphs, units, networks, the diffusion wrapper, data and scores."""

from __future__ import annotations

import lifter_data_checks
import lifter_evaluation
import metrics_checks
import numpy as np
import torch
from lifter_networks import build_ktpformer, close, load, tensor, tolerance, watch

from bodyreg.models.lifters import diffusion
from bodyreg.models.lifters.ktpformer import KPA, LearnableGraphConv, PriorBlock, StackedTPA, topology

TOL = 1e-5


def check_topology(golden) -> None:
    for name, parents in golden.inputs.items():
        label = name.removeprefix("parents_")
        close(topology(parents.tolist()), golden.out(f"adj_{label}"), 1e-7, label)


def check_gconv(golden) -> None:
    args = golden.config["args"]
    unit = load(
        LearnableGraphConv(tensor(golden.inputs["adj"]), args["in_features"], args["out_features"]), golden
    )
    close(unit(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")


def check_unit(golden) -> None:
    """KPA or StackedTPA in evaluation, and one forward pass of training with the statistics it leaves."""
    args, graph = golden.config["args"], tensor(golden.inputs["adj"])
    kpa = golden.config["cls"] == "KPA"
    unit = KPA(graph, args["input_dim"], args["output_dim"]) if kpa else StackedTPA(graph, args["output_dim"])
    x = tensor(golden.inputs["x"])
    load(unit, golden)
    close(unit(x), golden.out("y"), TOL, "y")
    unit.train()
    close(unit(x), golden.out("y_train"), TOL, "y in training")
    state = unit.state_dict()
    for name in golden.names("after_"):
        close(state[name.removeprefix("after_").replace("/", ".")], golden.out(name), TOL, name)


def check_block(golden) -> None:
    args, config = golden.config["args"], golden.config
    graph = tensor(golden.inputs["adj" if config["cls"].startswith("KPA") else "adj_temporal"])
    x = tensor(golden.inputs["x"])
    unit = PriorBlock(
        "kpa" if config["cls"].startswith("KPA") else "tpa", graph, x.shape[-1], args["dim"], args["num_heads"],
        int(args["dim"] * args["mlp_ratio"]), qkv_bias=args["qkv_bias"],
    )  # fmt: skip
    load(unit, golden)
    assert (unit.norm2.eps, unit.attn.norm1.eps) == (args["norm_eps_norm2"], args["norm_eps_attn_norm1"])
    close(unit(x), golden.out("y"), TOL, "y")


def check_ktpformer(golden) -> None:
    model = load(build_ktpformer(golden), golden)
    seen = watch({"after_kpa": model.Spatial_norm, "after_tpa": model.Temporal_norm})
    model.head.register_forward_pre_hook(lambda _module, args: seen.update(after_st=args[0]))
    x = tensor(golden.inputs["x"])
    with torch.no_grad():
        y = model(x)
    close(y, golden.out("y"), tolerance(golden, TOL), "y")
    if golden.has("after_kpa"):  # stored regrouped, a sequence of frames for each joint
        frames = seen["after_kpa"].unflatten(0, x.shape[:2]).transpose(1, 2).flatten(0, 1)
        close(frames, golden.out("after_kpa"), TOL, "after the kinematics stage")
        close(seen["after_tpa"], golden.out("after_tpa"), TOL, "after the trajectory stage")
        close(seen["after_st"], golden.out("after_st"), TOL, "before the head")


def check_d3dp(golden) -> None:
    config = golden.config
    i = {name: tensor(value) for name, value in golden.inputs.items()}
    joints = i["x2d"].shape[2]
    denoiser = diffusion.MixSTEDenoiser(config["frames"], joints, width=config["embed_dim"], depth=config["depth"])
    sampler = diffusion.Diffusion(
        denoiser, timesteps=config["timesteps"], sampling_timesteps=config["sampling_timesteps"],
        hypotheses=config["num_proposals"], scale=config["scale"], eta=config["eta"],
    )  # fmt: skip
    load(sampler, golden)
    steps = config["timesteps"]
    for name in golden.names("buffer/"):
        values = getattr(sampler, name.removeprefix("buffer/"))[[0, 1, steps // 2, steps - 2, steps - 1]]
        expected = golden.out(name)
        error = np.abs(values.numpy() - expected) / np.maximum(1, np.abs(expected))
        assert error.max() <= TOL, f"{name}: off by {error.max():.3g}"
    assert sampler.time_pairs() == [tuple(pair) for pair in config["time_pairs"]]
    with torch.no_grad():
        t, x0, n0 = i["t0"], i["x0"][None], i["n0"][None]
        close(sampler.q_sample(x0, t, n0)[0], golden.out("q_sample"), TOL, "q_sample")
        close(sampler.noisy_input(x0, t, n0)[0], golden.out("noisy_input"), TOL, "noisy input")
        close(denoiser.time_mlp[0](i["t"]), golden.out("time_sinusoid"), 1e-4, "sinusoid of time")
        close(denoiser(i["x2d"], i["x3d"], i["t"]), golden.out("denoiser_train"), 1e-4, "denoiser")
        noise = [i[f"noise_{k}"] for k in range(config["sampling_timesteps"])]
        close(sampler.sample(i["x2d"], i["x2d_flip"], noise), golden.out("y"), 1e-4, "sampler")
        close(sampler.sample(i["x2d"], None, noise), golden.out("y"), 1e-4, "sampler that mirrors by itself")


def check_metrics_losses(golden) -> None:
    metrics_checks.check_ktpformer_metrics(golden)
    lifter_data_checks.lifter_losses(golden)


CHECKS = [
    *lifter_data_checks.KTPFORMER_CHECKS,
    ("topology*", check_topology),
    ("gconv_*", check_gconv),
    ("kpa_block*", check_block),
    ("tpa_block*", check_block),
    ("kpa*", check_unit),
    ("stacked_tpa*", check_unit),
    ("model_*", check_ktpformer),
    ("d3dp_sampler*", check_d3dp),
    ("metrics_losses*", check_metrics_losses),
    ("metrics_3dhp*", metrics_checks.check_ktpformer_metrics_3dhp),
    ("evaluate_h36m*", lifter_evaluation.check_ktpformer_test),
]
