"""Weights on disk: safetensors with the model's settings inside, half precision, no code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bodyreg.files import atomic_write
from bodyreg.models.registry import ModelSettings, build

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedModel", "default_weights", "load_model", "save_weights"]

_FORMAT = "bodyreg-1"
_FOREIGN = (".pth", ".pt", ".tar", ".ckpt")
# Heads that exist only to teach the backbone are not shipped.
_TRAINING_ONLY = ("dense_layer.",)


class LoadedModel(NamedTuple):
    """A network ready to run, what it is, and the hash of the file its weights came from."""

    model: nn.Module
    settings: ModelSettings
    weights_hash: str
    body: str
    """Name of the body the weights were trained on: free or smpl."""


def save_weights(
    path: str | Path, model: nn.Module, settings: ModelSettings, *, body: str = "free", **facts: str | int | float
) -> None:
    """Write a model's weights and settings.

    Args:
        path: of the safetensors file. model: as `registry.build` made it. settings: it was built from.
        body: name of the body model the labels came from. facts: further plain values kept in the header.
    """
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for name, value in model.state_dict().items()
        if not name.startswith(_TRAINING_ONLY)
    }
    header = {"format": _FORMAT, "settings": json.dumps(asdict(settings)), "body": body}
    header.update({name: str(value) for name, value in facts.items()})
    with atomic_write(path) as temporary:
        save_file(tensors, str(temporary), metadata=header)


def default_weights(name: str) -> Path:
    """The weights that ship for a model.

    Raises:
        ValueError: none ship for it.
    """
    path = Path(__file__).parent / "assets" / "weights" / f"{name}.safetensors"
    if not path.exists():
        raise ValueError(f"No weights ship for the model {name!r}. Pass --weights FILE, or train it first.")
    return path


def load_model(weights: str | Path) -> LoadedModel:
    """Build the model a weights file describes and load it strictly, in float32 and evaluation mode.

    Args:
        weights: safetensors file of ours, or a checkpoint as PersPose's authors publish it (.pth, .pt, .tar, .ckpt).

    Raises:
        UnsafeFileError: a checkpoint that holds more than tensors and plain values.
        ValueError: a file that is neither, is damaged, or does not fit its own settings.
    """
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"There is no weights file {path}. Check the path given as --weights.")
    if path.suffix.lower() in _FOREIGN:
        from bodyreg.models.published import load_published_perspose

        return load_published_perspose(path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). Pass weights written by bodyreg.") from None
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} carries no settings of bodyreg. Pass weights written by `bodyreg train`.")
    settings = ModelSettings(**json.loads(header["settings"]))
    model = build(settings)
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.startswith(_TRAINING_ONLY)]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"{path} does not fit the model {settings.name!r}: missing {missing[:5]}, unknown "
            f"{result.unexpected_keys[:5]}. Use the version of bodyreg that wrote it."
        )
    model.dense_layer = None
    model.eval().requires_grad_(False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return LoadedModel(model.to(memory_format=torch.channels_last), settings, digest, header.get("body", "free"))
