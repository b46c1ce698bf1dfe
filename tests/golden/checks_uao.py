"""Checks of UAO's reference data: the network, the loss, and the optimisation step by step."""

from __future__ import annotations

import re

import numpy as np
import torch
from gla_gcn_network import rule_filled
from golden import Golden
from lifter_data_checks import h36m_set, table_of_set
from perspose_common import close, tensor

from bodyreg import lens
from bodyreg.adapt.uao import UAOSettings, uao_optimize
from bodyreg.data.clips import training_windows
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe
from bodyreg.losses.uncertainty import gaussian_distance
from bodyreg.models.lifters import gumlp
from bodyreg.models.lifters.gumlp import GUMLP

TOL = 1e-5
SETTING = {"lr_z": "lr", "opt_iter_num": "iterations"} | {name: name for name in ("weight_gaussian", "weight_proj")}
LEFT, RIGHT = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]


def loaded(module: torch.nn.Module, golden: Golden) -> torch.nn.Module:
    module.load_state_dict({key: tensor(value) for key, value in golden.state.items()}, strict=True)
    return module.eval()


def check_graph(golden) -> None:
    close(gumlp.edge_partition(), golden.out("A"), 1e-7, "A")
    hops = np.full((17, 17), -1.0)
    np.fill_diagonal(hops, 0)
    for i, j in (*gumlp._BONES, *gumlp._TWINS):
        hops[i, j] = hops[j, i] = 1
    close(hops, golden.out("hop_dis"), 0, "hops")
    close(np.array(gumlp._FROM_CENTRE), golden.out("dist_center"), 0, "distance from the centre")


def check_module(golden) -> None:
    c = golden.config
    build = {
        "gcn": lambda: gumlp.GraphConv(c["in_channels"], c["out_channels"], gumlp.edge_partition()),
        "channel_umlp": lambda: gumlp.ChannelMlp(c["in_features"], c["hidden_features"]),
        "spatial_umlp": lambda: gumlp.JointMlp(c["in_features"], c["hidden_features"]),
        "encoder": lambda: gumlp.TwoLinear(*c["dims"]),
        "decoder": lambda: gumlp.TwoLinear(c["in_features"], c["hidden_features"], c["out_features"]),
    }
    name = next(name for name in build if golden.name == name or golden.name.startswith(name + "_"))
    close(loaded(build[name](), golden)(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")


def hidden_of(golden, prefix: str) -> int:
    return len(golden.state[f"{prefix}channel_mlp.linear_down.linear.0.bias"])


def check_block(golden) -> None:
    c = golden.config
    block = gumlp.GraphMlpBlock(c["dim"], c["length"], gumlp.edge_partition(), hidden_of(golden, ""))
    x = tensor(golden.inputs["x"]).requires_grad_()
    y = loaded(block, golden)(x)
    close(y, golden.out("y"), TOL, "y")
    (y * tensor(golden.inputs["cotangent"])).sum().backward()
    close(x.grad, golden.out("grad_x"), 5e-5, "gradient")


def check_trunk(golden) -> None:
    c = golden.config
    hidden = hidden_of(golden, "blocks.0.")
    trunk = gumlp.GraphMlp(c["depth"], c["embed_dim"], c["length"], gumlp.edge_partition(), hidden)
    rates = [block.drop_path.rate for block in trunk.blocks]
    close(np.array(rates), np.array(c["drop_path_rates"]), 1e-6, "rates of stochastic depth")
    mu, s = loaded(trunk, golden)(tensor(golden.inputs["x"]))
    close(mu, golden.out("mu_feat"), TOL, "features of the position")
    close(s, golden.out("s_feat"), TOL, "features of the scale")


def check_model_rule(golden) -> None:
    c = golden.config
    model = GUMLP(c["layers"], c["channel"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == c["state_shapes"]
    assert sum(p.numel() for p in model.parameters()) == c["params"]
    state = rule_filled(c["state_shapes"], c["seed"], c["weight_gain"])
    model.load_state_dict({key: tensor(value) for key, value in state.items()}, strict=True)
    with torch.no_grad():
        out = model.eval().gaussian(tensor(golden.inputs["x"]))
    for name, value in (("mu", out.mean), ("s", out.log_scale)):
        expected = golden.out(name)
        close(value, expected, max(TOL, 1e-4 * np.abs(expected).max()), name)


def check_model_layers1(golden) -> None:
    c = golden.config
    model = loaded(GUMLP(c["layers"], c["channel"]), golden)
    assert sum(p.numel() for p in model.parameters()) == c["params"]
    plain, flipped = tensor(golden.inputs["input_2D"]).unbind(1)
    with torch.no_grad():
        out, mirrored = model.gaussian(plain), model.gaussian(flipped)
        close(out.mean, golden.out("mu_nonflip"), TOL, "plain")
        close(out.log_scale, golden.out("s_nonflip"), TOL, "plain scale")
        close(mirrored.mean, golden.out("mu_flip_raw"), TOL, "mirrored")
        close(mirrored.log_scale, golden.out("s_flip_raw"), TOL, "mirrored scale")
        result = uao_optimize(model, plain, torch.tensor([2.0, 2, 0, 0, 0, 0, 0, 0, 0]), settings=UAOSettings(0))
    close(result.before, golden.out("mu_tta"), TOL, "average")
    close(result.after, golden.out("mu_tta"), TOL, "average after no step")


def traced(golden, **changes):
    """The optimisation of a trace file, and its true poses."""
    source = golden if "state_from" not in golden.config else Golden(golden.path.parent / golden.config["state_from"])
    model = loaded(GUMLP(source.config["layers"], source.config["channel"]), source)
    trace = Golden(golden.path.parent / golden.config["inputs_from"]) if "inputs_from" in golden.config else golden
    i = trace.inputs
    given = golden.config.get("base", golden.config) | changes
    settings = UAOSettings(**{SETTING[key]: value for key, value in given.items() if key in SETTING})
    true = tensor(i["gt_3D"])
    plain, flipped = tensor(i["input_2D"]).unbind(1)
    result = uao_optimize(
        model, plain, tensor(i["cam"]), true[:, :, :1], root_source="gt", settings=settings
    )  # fmt: skip
    close(result.history.z_flip[0], flipped.numpy(), 0, "mirrored input")
    return model, result, torch.cat([torch.zeros_like(true[:, :, :1]), true[:, :, 1:]], 2)


def millimetres(predicted: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    predicted, true = predicted.flatten(0, 1), true.flatten(0, 1)
    return 1000 * float(mpjpe(predicted, true).mean()), 1000 * float(pa_mpjpe(predicted, true).mean())


def check_trace(golden) -> None:
    model, result, true = traced(golden)
    h, out = result.history, golden.out
    plain, flipped = tensor(golden.inputs["input_2D"]).unbind(1)
    swap = list(range(17))
    for a, b in zip(LEFT, RIGHT, strict=True):
        swap[a], swap[b] = b, a
    with torch.no_grad():
        first, mirrored = model.gaussian(plain), model.gaussian(flipped)
    close(first.mean, out("mu_init_nonflip"), TOL, "anchor")
    close(first.log_scale, out("s_init_nonflip"), TOL, "first scale")
    close(mirrored.log_scale, out("s_init_flip_raw"), TOL, "first mirrored scale")
    unflipped = mirrored.mean[:, :, swap] * torch.tensor([-1.0, 1, 1])
    close(unflipped, out("mu_init_flip_unflipped"), TOL, "mirrored anchor")
    close(h.losses, out("losses"), TOL, "losses")
    for name, values, tol in (
        ("z_nonflip", h.z, 5e-5), ("z_flip", h.z_flip, 5e-5), ("grad_z_nonflip", h.grad, 5e-5),
        ("grad_z_flip", h.grad_flip, 5e-5), ("s_nonflip", h.log_scale, 5e-5),
        ("s_flip_swapped", h.log_scale_flip, 5e-5),
    ):  # fmt: skip
        close(torch.stack(values), out(name), tol, name)
    close(result.after, out("mu_final"), 2e-4, "final pose")
    for name, pose in (("before", result.before), ("after", result.after)):
        p1, p2 = millimetres(pose, true)
        close(np.float32(p1), out(f"mpjpe_{name}_mm"), 0.05, f"MPJPE {name}")
        close(np.float32(p2), out(f"p_mpjpe_{name}_mm"), 0.05, f"P-MPJPE {name}")


def check_variants(golden) -> None:
    for name, changes in golden.config["variants"].items():
        _, result, true = traced(golden, **changes)
        close(result.after, golden.out(f"mu_{name}"), 2e-4, name)
        close(np.float32(millimetres(result.after, true)[0]), golden.out(f"mpjpe_mm_{name}"), 0.05, f"MPJPE {name}")


def check_losses(golden) -> None:
    i = {name: tensor(value) for name, value in golden.inputs.items()}
    predicted, true = i["pred"], i["target"]
    loss = gaussian_distance(predicted, i["s"], true)
    close(loss, golden.out("gaussian_loss"), TOL, "loss")
    p1, p2 = mpjpe(predicted.flatten(0, 1), true.flatten(0, 1)), pa_mpjpe(predicted.flatten(0, 1), true.flatten(0, 1))
    close(p1.mean(), golden.out("mpjpe"), TOL, "MPJPE")
    close(p2, golden.out("p_mpjpe_each"), TOL, "P-MPJPE")
    camera = i["cam"][:, None, None]
    close(lens.project(i["X"], camera), golden.out("project_to_2d"), TOL, "projection")
    joints = lens.joints_from_uvd(i["uvd"][:, 0], i["gt"][:, 0, 0], i["cam"])
    close(joints[:, None], golden.out("uvd2xyz"), 1e-4, "joints of image points and depths")
    golden.ignore("sym_penalty", why="a helper that the method does not use")
    check_accumulated(golden, p1, p2)


def check_accumulated(golden, p1: torch.Tensor, p2: torch.Tensor) -> None:
    """The reference adds a mixed batch's mean P2 for every sample; the first update is all A, the second is listed."""
    listed = re.search(r"\[(.*?)\]", golden.config["accumulate"]).group(1)
    actions = [name.split()[0] for name in listed.split(",")]
    for action, first in (("A", True), ("B", False)):
        mine = torch.tensor([name == action for name in actions])
        columns = [torch.cat([p1, p1[mine]] if first else [p1[mine]])]
        mixed = p2.mean().expand(int(mine.sum()))
        columns.append(torch.cat([p2, mixed] if first else [mixed]))
        close(torch.stack([c.mean() for c in columns]), golden.out(f"acc_{action}"), TOL, f"averages of {action}")


def check_items(golden) -> None:
    """Single frames of Human3.6M: sequences in the order of subject, action, camera; each plain, then mirrored."""
    c, train = golden.config, golden.config["split"] == "train"
    action = c["action"][0]
    arrays = {}
    for name, array in golden.inputs.items():
        kind, subject, *camera = name.split("_")
        if kind == "pos32":
            arrays[f"positions_3d/{subject}/{action}"] = array
        else:
            arrays[f"positions_2d/{subject}/{action}/{camera[0].removeprefix('cam')}"] = array
    subjects = list(dict.fromkeys(c["subject"]))
    table = table_of_set(h36m_set(arrays), "train", subjects)
    windows = training_windows(table.lengths, "frame", 1, 1, flip=train)
    assert len(windows) == c["len"] and set(c["action"]) == {action}
    rows = windows[c["indices"]]
    assert [table.sequences[i].subject for i in rows[:, 0]] == c["subject"]
    assert [table.sequences[i].camera for i in rows[:, 0]] == c["cam_ind"]
    batch = table.clips(rows)
    close(batch["lens"], golden.out("cam"), TOL, "cameras")
    close(batch["joints"], golden.out("gt_3D"), TOL, "joints")
    keypoints = batch["keypoints"] if train else table.test_keypoints(rows)
    close(keypoints, golden.out("input_2D"), TOL, "key points")



CHECKS = [
    ("graph*", check_graph),
    ("gcn_mlp*", check_trunk),
    ("gcn*", check_module),
    ("channel_umlp*", check_module),
    ("spatial_umlp*", check_module),
    ("encoder*", check_module),
    ("decoder*", check_module),
    ("block*", check_block),
    ("model_rule*", check_model_rule),
    ("model_layers1*", check_model_layers1),
    ("tto_trace*", check_trace),
    ("tto_variants*", check_variants),
    ("losses*", check_losses),
    ("h36m_items*", check_items),
]
