"""Weights on disk: safetensors with the model's settings inside, half precision, no code."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bodyreg.files import atomic_write, load_checkpoint, sha256_file
from bodyreg.models.registry import ModelSettings, build, default_settings
from bodyreg.models.weightless import weightless

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedModel", "default_weights", "load_model", "read_header", "save_weights"]

_FORMAT = "bodyreg-1"
_FOREIGN = (".pth", ".pt", ".tar", ".ckpt")
# Heads that exist only to teach the backbone are not shipped.
TRAINING_ONLY = ("dense_layer.",)
_BODIES = ("free", "smpl")
# A stranger's file may ask for any network; no member of the family comes near these numbers.
_LARGEST_NUMBER, _LONGEST_LIST, _MOST_BLOCKS = 8192, 8, 256


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

    Raises:
        ValueError: weights that are not finite in half precision, or facts under a name that the header needs.
    """
    header = {"format": _FORMAT, "settings": json.dumps(asdict(settings)), "body": body}
    if taken := sorted(set(header) & set(facts)):
        raise ValueError(f"The facts {taken} are written by `save_weights` itself. Give them other names.")
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith(TRAINING_ONLY):
            continue
        if value.is_floating_point():
            value = value.half()
            if not value.isfinite().all():
                raise ValueError(
                    f"The weights {name!r} are not finite in half precision. "
                    "The training has diverged: lower optimiser.lr and go on from an earlier checkpoint."
                )
        tensors[name] = value.contiguous().clone()
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


def read_header(path: str | Path) -> dict[str, str]:
    """The plain values in the header of a weights file of ours: settings, body and the facts it was saved with.

    Raises:
        ValueError: not a weights file of ours.
    """
    header, _ = _read(Path(path), tensors=False)
    return header


def load_model(weights: str | Path) -> LoadedModel:
    """Build the model a weights file describes and load it strictly, in float32 and evaluation mode.

    Args:
        weights: safetensors file of ours, or a checkpoint as the authors of PersPose, SPIN, EFT or DSR publish it
            (.pth, .pt, .tar, .ckpt).

    Raises:
        UnsafeFileError: a checkpoint that holds more than tensors and plain values.
        ValueError: a file that is neither, is damaged, or does not fit its own settings.
    """
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"There is no weights file {path}. Check the path given as --weights.")
    if path.suffix.lower() in _FOREIGN:
        from bodyreg.models.published import load_published_perspose
        from bodyreg.models.published_hmr import holds_hmr, load_published_hmr

        if holds_hmr(load_checkpoint(path)):
            published = default_settings("dsr")
            return LoadedModel(load_published_hmr(path, published), published, sha256_file(path), "smpl")
        published = default_settings("perspose")
        return LoadedModel(load_published_perspose(path, published), published, sha256_file(path), "smpl")
    header, tensors = _read(path)
    settings, body = _settings(header.get("settings", ""), path), header.get("body", "free")
    if body not in _BODIES:
        raise ValueError(f"{path} was trained on an unknown body {body[:40]!r}. Known: {', '.join(_BODIES)}.")
    state = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    model: Any = _fitted(settings, state, path)  # the stubs know no memory_format
    return LoadedModel(model.to(memory_format=torch.channels_last), settings, sha256_file(path), body)


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Header and tensors of a safetensors file of ours."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = stream.metadata() or {}
            found = {name: stream.get_tensor(name) for name in stream.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}). Pass weights written by bodyreg."
        ) from None
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} carries no settings of bodyreg. Pass weights written by `bodyreg train`.")
    return header, found


def _settings(text: str, path: Path) -> ModelSettings:
    """The settings in a header, their names, types and sizes checked before anything is built from them."""
    advice = "Use the version of bodyreg that wrote it."
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError(f"{path} carries no readable settings. {advice}")
    plain = {field.name: getattr(ModelSettings(), field.name) for field in fields(ModelSettings)}
    if unknown := sorted(set(given) - set(plain)):
        raise ValueError(f"{path} has settings of unknown names, {[name[:40] for name in unknown[:5]]}. {advice}")
    for name, value in given.items():
        if not _fits(value, plain[name]):
            raise ValueError(f"{path} sets {name} to {str(value)[:60]!r}, which no network of ours has. {advice}")
    settings = ModelSettings(**given)
    if sum(settings.depths) > _MOST_BLOCKS or sum(settings.modules) > _MOST_BLOCKS:
        raise ValueError(f"{path} asks for a network of more than {_MOST_BLOCKS} blocks. {advice}")
    return settings


def _fits(value: Any, like: Any) -> bool:
    """Is the value of the type of a default, and no larger than any network needs?"""
    if isinstance(like, list):
        return isinstance(value, list) and 0 < len(value) <= _LONGEST_LIST and all(_fits(v, like[0]) for v in value)
    if isinstance(like, bool | str):
        return type(value) is type(like)
    number = type(value) is int or (isinstance(like, float) and type(value) is float)
    return number and 0 < value <= _LARGEST_NUMBER


def _fitted(settings: ModelSettings, state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """The network of the settings holding the tensors of a file, all of them and nothing else."""
    try:
        # Without memory for its own weights: how large it gets is then bounded by the file, not by what the file says.
        with weightless():
            model = build(settings)
    except (RuntimeError, TypeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} describes no network that can be built ({error}). Pass other weights.") from None
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(TRAINING_ONLY)}
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    alike = {name: (wanted[name].shape, wanted[name].dtype) for name in wanted}
    wrong = sorted(name for name in set(wanted) & set(state) if alike[name] != (state[name].shape, state[name].dtype))
    if missing or unknown or wrong:
        raise ValueError(
            f"{path} does not fit the model {settings.name!r}: missing {missing[:5]}, unknown {unknown[:5]}, "
            f"of another shape or type {wrong[:5]}. Use the version of bodyreg that wrote it."
        )
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{path} holds numbers that are not finite in {broken[:5]}. Fetch or train the weights again.")
    model.load_state_dict(state, strict=False, assign=True)
    if hasattr(model, "dense_layer"):
        model.register_module("dense_layer", None)
    return model.eval().requires_grad_(False)
