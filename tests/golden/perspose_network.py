"""Checks of the published PersPose network: layout, and numbers at a reduced and at the published size."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from perspose_common import close, tensor, toy_body

from bodyreg import inverse_kinematics as ik
from bodyreg.encoding import mirror_intrinsics
from bodyreg.models import decoding
from bodyreg.models.hrnet import HRNet
from bodyreg.models.perspose import PersPose
from bodyreg.models.registry import build, default_settings

# Pixels of a 256-wide crop in single precision, sums over thousands of cells: the exact (float64) positions are up to
# 1.3e-4 from the reference's, whose own rounding that is, and ours depend on the processor's vector width. Everything
# else is held to the table's 1e-5.
TOL_PX = 2e-4


def one_pass(model: PersPose, image: torch.Tensor, K: torch.Tensor, known: torch.Tensor, *, flip: bool):
    """Raw heads, features, global vector and (un-mirrored) readout of one pass."""
    width = image.shape[-1]
    if flip:
        image, K = image.flip(-1), mirror_intrinsics(K, width)
    seen = {}
    hook = model.backbone.register_forward_hook(lambda module, args, out: seen.update(features=out[0], vector=out[1]))
    raw = model(image, K, known)
    hook.remove()
    readout = decoding.read_heads(raw.heatmap, raw.depth, raw.rho0, raw.twist, raw.shape, raw.leaf)
    return raw, seen["features"], seen["vector"], decoding.unmirror(readout, width) if flip else readout


def check_readout(golden, name: str, readout, K: torch.Tensor, tol: float) -> None:
    for field, value in readout._asdict().items():
        reference = golden.out(f"{name}/{field}")
        close(value.reshape(reference.shape), reference, max(tol, TOL_PX) if field == "uv" else tol, f"{name} {field}")
    f = (K[:, 0, 0] + K[:, 1, 1]) / 2
    close(f.reshape(-1, 1, 1), golden.out(f"{name}/f"), 1e-5, f"{name} focal length")


def check_network_small(golden) -> None:
    config, state = golden.config, {name: tensor(array) for name, array in golden.state.items()}
    backbone = HRNet(
        config["channels"], config["modules"], config["blocks"], config["head"], config["feat"], config["stem_width"],
        layer1_width=len(state["backbone.layer1.0.conv1.weight"]), layer1_blocks=config["layer1_blocks"],
    )  # fmt: skip
    model = PersPose(backbone, len(state["shape_layer.bias"]))
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("smpl.")}, strict=True)
    model.eval()
    image, K = tensor(golden.inputs["img"]), tensor(golden.inputs["K"])
    known = torch.tensor([name != "coco" for name in golden.inputs["dataset_name"]])
    readouts = []
    with torch.no_grad():
        for name in ("pass", "flip"):
            raw, features, vector, readout = one_pass(model, image, K, known, flip=name == "flip")
            close(vector, golden.out(f"{name}/global_feat"), 1e-5, f"{name} vector")
            close(features, golden.out(f"{name}/hrn_feat"), 1e-5, f"{name} map")
            close(raw.heatmap, golden.out(f"{name}/hm_logits"), 1e-5, f"{name} heat maps")
            check_readout(golden, name, readout, K, 1e-5)
            readouts.append(readout)
        silent = one_pass(model, image, K, torch.zeros_like(known), flip=False)[-1]
    close(silent.uv, golden.out("coco/uv"), TOL_PX, "coco uv")
    close(silent.depth, golden.out("coco/depth"), 1e-5, "coco depth")

    final = decoding.unproject(decoding.merge(*readouts), K)
    out = lambda name: golden.out(f"final/{name}")  # noqa: E731
    for name in ("uv", "depth", "xyz", "xyz0", "ortho_twist"):
        close(getattr(final, name), out(name), TOL_PX if name == "uv" else 1e-5, name)
    close(1000 * final.density, out("density"), 1e-5, "density, mm per px")
    close(final.leaf_rot.flatten(-2), out("leaf_rot"), 1e-5, "leaf rotations")
    body, _ = toy_body(golden, torch.float32)
    result = ik.inverse_kinematics(body, final.xyz[:, :24] + final.xyz0, final.ortho_twist, final.beta, final.leaf_rot)
    close(result.betas, out("beta"), 1e-5, "beta")
    close(result.R_local, out("theta"), 1e-4, "theta")
    close(result.transl, out("transl"), 1e-4, "transl")


def rule_filled(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value that the fill rule of `network_full_rulefill` gives to an entry of the state dict."""
    r = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_mean"):
        value = 0.1 * r.standard_normal(shape)
    elif key.endswith("running_var"):
        value = 1 + 0.2 * r.random_sample(shape)
    elif key.endswith(".bias"):
        value = 0.1 * r.standard_normal(shape)
    elif len(shape) == 1:
        value = 0.6 + 0.2 * r.random_sample(shape)
    elif len(shape) == 2:
        value = r.standard_normal(shape) * 0.5 / np.sqrt(shape[1])
    else:
        value = r.standard_normal(shape) * 0.9 / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def check_network_full(golden) -> None:
    config, i = golden.config, golden.inputs
    model = build(default_settings("perspose")).eval()
    state = {key: tensor(rule_filled(key, tuple(value.shape))) for key, value in model.state_dict().items()}
    for key, total in zip(i["weight_sums_keys"], i["weight_sums"], strict=True):
        assert abs(float(state[str(key)].double().sum()) - total) < 1e-3, f"the fill rule disagrees at {key}"
    model.load_state_dict(state, strict=True)
    array = np.random.RandomState(zlib.crc32(config["img_key"].encode())).standard_normal(config["img_shape"])
    image, K = tensor(array.astype(np.float32)), tensor(i["K"])
    close(image.flatten()[:8], i["img_first8"], 1e-6, "image")
    close(image.double().sum(), i["img_sum"], 1e-3, "image sum")
    known = torch.tensor([name != "coco" for name in config["dataset_name"]])
    for name in ("pass", "flip"):
        with torch.no_grad():
            raw, features, vector, readout = one_pass(model, image, K, known, flip=name == "flip")
        close(vector, golden.out(f"{name}/global_feat"), 1e-4, f"{name} vector")
        close(features.mean((2, 3)), golden.out(f"{name}/hrn_feat_mean"), 1e-4, f"{name} map")
        close(raw.heatmap[:, [0, 12, 24]], golden.out(f"{name}/hm_logits_joint0_12_24"), 1e-4, f"{name} heat maps")
        check_readout(golden, name, readout, K, 1e-4)


def check_keys_shapes(golden) -> None:
    reference = {key: entry for key, entry in golden.table.items() if not key.startswith("smpl.")}
    with torch.device("meta"):
        model = build(default_settings("perspose"))
    parameters = dict(model.named_parameters())
    ours = {
        key: (list(value.shape), str(value.dtype).removeprefix("torch."), "param" if key in parameters else "buffer")
        for key, value in model.state_dict().items()
    }
    assert ours == {key: (entry["shape"], entry["dtype"], entry["kind"]) for key, entry in reference.items()}
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == 75_713_559
    assert sum(p.numel() for p in model.backbone.parameters()) == 75_420_864


CHECKS = [
    ("network_small*", check_network_small),
    ("network_full*", check_network_full),
    ("keys_shapes*", check_keys_shapes),
]
