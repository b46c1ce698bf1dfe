"""Checks of ConvFormer against its parent transformer, where the two coincide, and an independent implementation."""

from __future__ import annotations

import torch
from perspose_common import close, tensor

from bodyreg.models.lifters.convformer import ConvFormer, ConvFormerBlock, DynamicConvAttention
from bodyreg.models.lifters.layers import Mlp

TOL = 1e-5


def from_transformer(state: dict) -> dict[str, torch.Tensor]:
    """The parent's block in our keys: its joint matrix of queries, keys and values as three kernels of size one."""
    ours = {}
    for key, array in state.items():
        value = tensor(array)
        if ".qkv." in f".{key}":
            prefix, kind = key.rsplit("qkv.", 1)
            for role, part in zip("qkv", value.chunk(3), strict=True):
                ours[f"{prefix}{role}_convs.0.{kind}"] = part[..., None] if kind == "weight" else part
                ours[f"{prefix}{role}_eta"] = torch.zeros(1)
        else:
            ours[key] = value
    return ours


def check_spatial_block(golden) -> None:
    c = golden.config
    block = ConvFormerBlock(
        c["embed"], c["embed"], c["heads"], c["kernels"], temporal=False, mlp_ratio=c["mlp_ratio"]
    ).eval()  # fmt: skip
    block.load_state_dict(from_transformer(golden.state), strict=True)
    x = tensor(golden.inputs["x"])
    close(block.attn(x), golden.out("attn"), TOL, "attention")
    close(block(x), golden.out("block"), TOL, "block")


def check_spatial_stack(golden) -> None:
    c = golden.config
    names = {"patch_to_embedding": "joint_embed", "pos_embed": "pos", "blocks": "blocks", "norm": "norm"}
    state = {}
    for key, value in from_transformer(golden.state).items():
        head, dot, rest = key.removeprefix("Spatial_").partition(".")
        name = names[head] if head == "patch_to_embedding" else f"spatial_{names[head]}"
        state[name + dot + rest] = value
    model = ConvFormer(
        c["frames"], c["joints"], c["embed"], c["spatial_blocks"], 0, c["heads"], c["kernels"], c["mlp_ratio"]
    ).eval()  # fmt: skip
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(not name.startswith(("spatial", "joint")) for name in missing), (missing, unexpected)
    close(model.tokens(tensor(golden.inputs["pose2d"])), golden.out("tokens"), TOL, "tokens")


def check_identity_attention(golden) -> None:
    frames = golden.config["frames"]
    for kernels in ((1,), (3, 7)):
        attention = DynamicConvAttention(frames, golden.config["heads"], kernels, temporal=True).eval()
        with torch.no_grad():
            for name, parameter in attention.named_parameters():
                parameter.zero_()
                if name.endswith("weight"):
                    (parameter[..., parameter.shape[-1] // 2] if "convs" in name else parameter).copy_(
                        torch.eye(frames)
                    )
        close(attention(tensor(golden.inputs["x"])), golden.out("attn"), TOL, f"attention, kernels {kernels}")


def check_ffn(golden) -> None:
    layer = Mlp(golden.config["features"], golden.config["hidden"]).eval()
    layer.load_state_dict({key: tensor(value) for key, value in golden.state.items()}, strict=True)
    close(layer(tensor(golden.inputs["x"])), golden.out("y"), TOL, "feed-forward layer")


def check_model(golden) -> None:
    model = ConvFormer(**golden.config).eval()
    model.load_state_dict({key: tensor(value) for key, value in golden.state.items()}, strict=True)
    x = tensor(golden.inputs["pose2d"])
    close(model.tokens(x), golden.out("tokens"), TOL, "tokens")
    close(model(x), golden.out("pose3d"), TOL, "pose")


CHECKS = [
    ("spatial_k1_block*", check_spatial_block),
    ("spatial_k1_stack*", check_spatial_stack),
    ("temporal_identity_attention*", check_identity_attention),
    ("temporal_ffn*", check_ffn),
    ("model_small*", check_model),
]
