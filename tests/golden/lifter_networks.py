"""Reference lifters rebuilt from a golden file: constructor arguments of the reference in ours, weights stored or
filled by rule, and the comparison that all of them share."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bodyreg.models.lifters.hot import Pruning
from bodyreg.models.lifters.ktpformer import KTPFormer
from bodyreg.models.lifters.mhformer import MHFormer
from bodyreg.models.lifters.mixste import MixSTE
from bodyreg.models.lifters.motionagformer import MotionAGFormer
from bodyreg.models.lifters.motionbert import DSTformer


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def close(actual, expected, atol: float, what: str) -> None:
    """Same shape, and within atol everywhere."""
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, reference {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    assert error <= atol, f"{what}: off by {error:.3g}, allowed {atol:g}"


def same(actual, expected, what: str) -> None:
    """Equal whole numbers."""
    actual = np.asarray(actual)
    assert actual.shape == np.shape(expected) and np.array_equal(actual, expected), f"{what} differs"


def rule_filled(salt: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value that the fill rule gives to an entry of a state dict; the first rule that fits decides."""
    r, last = np.random.RandomState(zlib.crc32(f"{salt}:{key}".encode())), key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "running_var":
        return (0.75 + 0.5 * r.random_sample(shape)).astype(np.float32)
    n = r.standard_normal(shape)
    if last == "running_mean":
        n = 0.1 * n
    elif last == "adj2":
        n = 0.05 * n
    elif last == "M":
        n = 1 + 0.1 * n
    elif last.startswith("layer_scale"):
        n = 0.5 + 0.1 * n
    elif last == "W":
        n = n / np.sqrt(shape[1])
    elif "pos_embed" in key or "temp_embed" in key or last == "x_token":
        n = 0.3 * n
    elif len(shape) == 1:
        n = 1 + 0.1 * n if last == "weight" else 0.05 * n
    else:
        n = n / np.sqrt(np.prod(shape[1:]))
    return np.asarray(n, np.float64).astype(np.float32)


def load(module: nn.Module, golden) -> nn.Module:
    """Put the stored weights, or those of the fill rule, into a network, strictly; evaluation mode."""
    if golden.state:
        state = {key: tensor(value) for key, value in golden.state.items()}
    else:
        shapes, salt = golden.config["state_shapes"], golden.config["salt"]
        state = {key: tensor(rule_filled(salt, key, tuple(shape))) for key, shape in shapes.items()}
        assert sum(p.numel() for p in module.parameters()) == golden.config["n_params"]
    module.load_state_dict(state, strict=True)
    return module.eval()


def _pruning(kind: str, args: dict) -> Pruning | None:
    if not kind.startswith(("hot_", "tpc_")):
        return None
    return Pruning(args["token_num"], args["layer_index"], recover=kind.startswith("hot_"))


def build_mixste(kind: str, config: dict, state_keys) -> nn.Module:
    args = config["args"] if "args" in config else config["model"]
    plain = kind == "mixste"  # the pruned classes of the reference ignore d_hid
    return MixSTE(
        args["frames"], args.get("n_joints", 17), 2, args["channel"], args["d_hid"] if plain else 0,
        args.get("depth", 8), config.get("num_heads", 8), pruning=_pruning(kind, args),
    )  # fmt: skip


def build_motionbert(kind: str, config: dict, state_keys) -> nn.Module:
    args = config["args"]
    return DSTformer(
        args["maxlen"], channels=3, width=args["dim_feat"], rep=args["dim_rep"], depth=args["depth"],
        heads=args["num_heads"], mlp_ratio=args.get("mlp_ratio", config.get("mlp_ratio", 4)),
        pruning=_pruning(kind, args),
    )  # fmt: skip


def build_mhformer(kind: str, config: dict, state_keys) -> nn.Module:
    args = config["args"]
    return MHFormer(
        args["frames"], args["n_joints"], args["out_joints"], 2, args["channel"], args["d_hid"],
        pruning=_pruning(kind, args),
    )  # fmt: skip


_AGFORMER = {
    "maxlen": "frames", "n_layers": "layers", "dim_feat": "width", "dim_rep": "rep", "num_heads": "heads",
    "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias", "hierarchical": "hierarchical", "graph_only": "graph_only",
    "use_temporal_similarity": "temporal_similarity", "neighbour_num": "neighbours", "use_tcn": "tcn",
    "temporal_connection_len": "connection_length", "use_layer_scale": "use_layer_scale",
    "layer_scale_init_value": "layer_scale", "use_adaptive_fusion": "adaptive_fusion",
}  # fmt: skip


def build_motionagformer(kind: str, config: dict, state_keys) -> nn.Module:
    args = {**config.get("defaults", {}), **config["args"]}
    # Two switches also show in the state, should a file name them otherwise.
    options = {
        "adaptive_fusion": any(".fusion." in key for key in state_keys),
        "use_layer_scale": any("layer_scale" in key for key in state_keys),
        **{_AGFORMER[key]: value for key, value in args.items() if key in _AGFORMER},
    }
    return MotionAGFormer(**options, pruning=_pruning(kind, args))


def build_ktpformer(golden) -> KTPFormer:
    args = golden.config["args"] if "args" in golden.config else golden.config["model"]
    graphs = [tensor(golden.inputs[name]) if name in golden.inputs else None for name in ("adj", "adj_temporal")]
    return KTPFormer(
        args["num_frame"], "h36m-17", args["in_chans"], args["embed_dim_ratio"], args["depth"], args["num_heads"],
        args["mlp_ratio"], args["drop_path_rate"], qkv_bias=args["qkv_bias"], scale=args.get("qk_scale"),
        adjacency=graphs[0], adjacency_temporal=graphs[1],
    )  # fmt: skip


_BUILDERS: dict[str, Callable] = {
    "mixste": build_mixste, "motionbert": build_motionbert, "mhformer": build_mhformer,
    "motionagformer": build_motionagformer,
}  # fmt: skip


def build_host(golden) -> nn.Module:
    """The network that `config.model` ("family.class") names, with its weights."""
    family, kind = golden.config["model"].split(".")
    return load(_BUILDERS[family](kind, golden.config, golden.state or golden.config["state_shapes"]), golden)


def watch(modules: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """A dictionary that holds the first output of each module after the next forward pass."""
    seen: dict[str, torch.Tensor] = {}
    for name, module in modules.items():

        def keep(_module, _args, out, name=name) -> None:  # a hook that returned a value would replace the output
            seen.setdefault(name, out)

        module.register_forward_hook(keep)
    return seen


def tolerance(golden, small: float) -> float:
    """Absolute tolerance: a published size is held to 1e-4 of the largest entry."""
    return small if golden.state else 1e-4 * float(np.abs(golden.out("y")).max())


def check_model(golden, small: float, watched: Callable[[nn.Module], dict[str, nn.Module]] | None = None) -> None:
    """Output, and intermediates where the file holds them."""
    model = build_host(golden)
    seen = watch(watched(model)) if watched else {}
    with torch.no_grad():
        y = model(tensor(golden.inputs["x"]))
    close(y, golden.out("y"), tolerance(golden, small), "y")
    for name in seen:
        if golden.has(name):
            close(seen[name], golden.out(name), small, name)
