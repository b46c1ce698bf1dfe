"""Checks of GLA-GCN's network: units, whole models, and nine steps of training."""

from __future__ import annotations

import numpy as np
import torch
from perspose_common import close, tensor

from bodyreg.models.lifters.gla_gcn import (
    GLAGCN,
    GRAPHS,
    AdaptiveGraphConv,
    GraphBlock,
    TemporalConv,
    graph_partition,
)

TOL = 1e-5


def loaded(module: torch.nn.Module, golden) -> torch.nn.Module:
    module.load_state_dict({name: tensor(array) for name, array in golden.state.items()}, strict=True)
    return module.eval()


def partition(name: str) -> torch.Tensor:
    return graph_partition(GRAPHS[name], 15 if name.startswith("humaneva") else 17)


def check_graphs(golden) -> None:
    for name in golden.names("A_"):
        expected = golden.out(name)
        edges = next(v for k, v in golden.config.items() if k.startswith(name.removeprefix("A_")))
        close(graph_partition([(i, j) for i, j in edges], expected.shape[-1]), expected, 1e-7, name)
        built_in = name.removeprefix("A_")
        if built_in in GRAPHS and expected.shape == partition(built_in).shape:
            assert [list(edge) for edge in GRAPHS[built_in]] == edges


def check_unit_tcn(golden) -> None:
    c = golden.config
    unit = loaded(TemporalConv(c["in_channels"], c["out_channels"], c["kernel_size"], c["stride"]), golden)
    close(unit(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")


def check_unit_gcn(golden) -> None:
    c = golden.config
    graph = partition(c["graph"])
    unit = loaded(AdaptiveGraphConv(c["in_channels"], c["out_channels"], graph, c.get("coff_embedding", 4)), golden)
    x = tensor(golden.inputs["x"])
    close(unit(x), golden.out("y"), TOL, "y")
    attention, adjacency = unit.attention(x), unit.adjacency(x)
    for name in golden.names("attn_"):
        close(attention[:, int(name[5:])], golden.out(name), TOL, name)
    for name in golden.names("adj_"):
        close(adjacency[:, int(name[4:])], golden.out(name), TOL, name)


def check_tcn_gcn_unit(golden) -> None:
    c = golden.config
    block = GraphBlock(c["in_channels"], c["out_channels"], partition(c["graph"]), c["stride"], c["residual"])
    close(loaded(block, golden)(tensor(golden.inputs["x"])), golden.out("y"), TOL, "y")


def features(model: GLAGCN, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of the blocks by the reference's names."""
    seen: dict[str, torch.Tensor] = {}
    blocks = {"expand": model.expand_gcn, **{f"layer{i}": layer for i, layer in enumerate(model.layers_tcngcn)}}
    hooks = [
        block.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out))
        for name, block in blocks.items()
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


def check_model(golden) -> None:
    c = golden.config
    model = loaded(GLAGCN(c["filter_widths"], c["channels"], c["dropout"], c["dataset"]), golden)
    assert sum(p.numel() for p in model.parameters()) == c["params"]
    assert model.receptive_field == c["receptive_field"]
    with torch.no_grad():
        for name in golden.names("y_T"):
            close(model(tensor(golden.inputs["x" + name[1:]])), golden.out(name), TOL, name)
        for name in golden.names("feat_"):
            _, block, sample, window = name.split("_")
            got = features(model, tensor(golden.inputs[f"x_{window}"]))[block]
            close(got[int(sample[1:]) :][:1], golden.out(name), TOL, name)


def check_mrcnn(golden) -> None:
    c = golden.config
    model = loaded(GLAGCN(c["filter_widths"], c["channels"], graph="humaneva_mrcnn"), golden)
    x17, x15 = tensor(golden.inputs["x17"]), tensor(golden.inputs["x15"])
    before = x17.clone()
    with torch.no_grad():
        close(model(x17), golden.out("y17"), TOL, "17 joints")
        close(model(x15), golden.out("y15"), TOL, "15 joints")
        remapped = model.normalise(model.check(x17))
    close(remapped, golden.out("expand_input_from_x17_NCTV"), TOL, "remapped input")
    assert torch.equal(x17, before), "the caller's key points were changed"


def rule_filled(shapes: dict[str, list[int]], seed: int, gain: float) -> dict[str, np.ndarray]:
    """State by the integer hash rule of `config.weights_rule`."""
    state = {}
    for k, key in enumerate(sorted(shapes)):
        shape = tuple(shapes[key])
        i = np.arange(int(np.prod(shape)), dtype=np.uint64)
        x = (i + np.uint64(k * 1000003 + seed * 7919)) % np.uint64(2**32)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x ^= x >> np.uint64(shift)
            x = x * np.uint64(factor) % np.uint64(2**32)
        x ^= x >> np.uint64(16)
        b = (2 * x.astype(np.float64) / 2**32 - 1).reshape(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = np.zeros(shape, np.int64)
            continue
        if key.endswith("running_mean"):
            b = 0.1 * b
        elif key.endswith("running_var"):
            b = 1 + 0.3 * b
        elif key.endswith(".PA"):
            b = 0.1 * b
        elif len(shape) >= 2:
            b = gain * b * np.sqrt(3 / np.prod(shape[1:]))
        else:
            b = 1 + 0.3 * b if key.endswith(".weight") else 0.1 * b
        state[key] = b.astype(np.float32)
    return state


def check_rule(golden) -> None:
    c = golden.config
    model = GLAGCN(c["filter_widths"], c["channels"], graph=c["dataset"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == c["state_shapes"]
    state = rule_filled(c["state_shapes"], c["seed"], c["weight_gain"])
    model.load_state_dict({key: tensor(array) for key, array in state.items()}, strict=True)
    assert sum(p.numel() for p in model.parameters()) == c["params"]
    with torch.no_grad():
        expected = golden.out("y")
        close(model.eval()(tensor(golden.inputs["x"])), expected, max(TOL, 1e-4 * np.abs(expected).max()), "y")


CHECKS = [
    ("graphs*", check_graphs),
    ("unit_tcn*", check_unit_tcn),
    ("unit_gcn*", check_unit_gcn),
    ("tcn_gcn_unit*", check_tcn_gcn_unit),
    ("s_agcn_*_rule*", check_rule),
    ("s_agcn_humaneva_mrcnn*", check_mrcnn),
    ("s_agcn_*", check_model),
]
