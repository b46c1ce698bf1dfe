"""Weights as their authors publish them: PersPose's checkpoints, and HRNet's COCO weights as a start for training.

Nothing in a file is executed. SMPL's arrays, which the checkpoints carry along, are left out: the body comes from the
user's own licensed files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bodyreg.files import load_checkpoint
from bodyreg.models.registry import ModelSettings, build, default_settings
from bodyreg.models.weightless import weightless

if TYPE_CHECKING:
    from bodyreg.models.hrnet import HRNet
    from bodyreg.models.perspose import PersPose

__all__ = ["HRNetStart", "load_hrnet_coco", "load_published_perspose", "perspose_state", "refuse_misfit",
           "state_dict_of"]

_SHARED_WITH_COCO = ("conv1.", "bn1.", "conv2.", "bn2.", "layer1.", "transition", "stage2.", "stage3.", "stage4.")


class HRNetStart(NamedTuple):
    """What an initialisation did: names of the backbone's entries that were copied, and of those left random."""

    copied: tuple[str, ...]
    random: tuple[str, ...]


def perspose_state(path: str | Path) -> dict[str, Tensor]:
    """State dict of the network in a published PersPose checkpoint, without SMPL's arrays.

    Args:
        path: of the authors' file, whose weights lie under `model` beside the optimiser's state, or of a bare state
            dict; names may begin with `module.`, as distributed training writes them.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain values. ValueError: it holds no weights.
    """
    state = state_dict_of(load_checkpoint(path), path, "model")
    return {name: value for name, value in state.items() if not name.startswith("smpl.")}


def load_published_perspose(path: str | Path, settings: ModelSettings | None = None) -> PersPose:
    """The network of a published PersPose checkpoint, strictly loaded, in float32 and evaluation mode.

    Args:
        path: of the authors' file. settings: of the network, the published one by default.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain values.
        ValueError: names or shapes are not those of the network.
    """
    settings = default_settings("perspose") if settings is None else settings
    state = perspose_state(path)
    with weightless():
        model = build(settings)
    refuse_misfit(model.state_dict(), state, f"{path} is no PersPose checkpoint")
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_hrnet_coco(backbone: HRNet, path: str | Path) -> HRNetStart:
    """Start a backbone from HRNet's weights for COCO key points (pose_hrnet_w48_256x192.pth).

    Everything before the classification head is copied. What that network does not have stays random: the head and,
    in the last module of stage 4, the fusion into all branches but the finest. Its last layer, which draws heat maps
    of COCO's key points, is dropped.

    Args:
        backbone: HRNet of the same width; changed in place.
        path: of the file; names may begin with `hrnet.` or `module.`.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain values.
        ValueError: weights of another width, or of another network.
    """
    state = {
        name.removeprefix("hrnet."): value
        for name, value in state_dict_of(load_checkpoint(path), path, "state_dict").items()
        if not name.removeprefix("hrnet.").startswith("final_layer.")
    }
    own = backbone.state_dict()
    last = f"stage4.{len(backbone.stage4) - 1}.fuse_layers."
    lacking = tuple(f"{last}{k}." for k in range(1, 4))
    expected = {
        name: value
        for name, value in own.items()
        if name.startswith(_SHARED_WITH_COCO) and (name in state or not name.startswith(lacking))
    }
    given = {name: value for name, value in state.items() if name.startswith(_SHARED_WITH_COCO)}
    refuse_misfit(expected, given, f"{path} does not fit this HRNet")
    backbone.load_state_dict(given, strict=False)
    return HRNetStart(tuple(expected), tuple(name for name in own if name not in expected))


def state_dict_of(loaded: Any, path: str | Path, key: str) -> dict[str, Tensor]:
    """The mapping of names to tensors, found under `key` or at the top, without the prefix of parallel training."""
    state = loaded.get(key, loaded) if isinstance(loaded, Mapping) else loaded
    tensors = isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())
    if not tensors or not state:
        raise ValueError(f"{path} holds no state dict, neither under {key!r} nor at its top. Pass a file of weights.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def refuse_misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], complaint: str) -> None:
    """ValueError that begins with `complaint` unless names and shapes of two state dicts agree."""
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if found:
        raise ValueError(f"{complaint}: {'; '.join(found)}. Pass the file that its authors publish for this network.")
