"""Scoring lifters on prepared sets: every test sequence is lifted, then scored like any other prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bodyreg.data.lifter_sets import LifterSet, read_lifter_set
from bodyreg.evaluation.evaluate import Result, evaluate
from bodyreg.evaluation.protocols import Protocol
from bodyreg.evaluation.truth import StoredJoints, truth_of_lifter_set
from bodyreg.lifter_weights import LoadedLifter, default_lifter, load_lifter, named_settings
from bodyreg.models.lifters.sequence import SequenceLifter

__all__ = ["as_lifter", "lift_test_set", "score_lifter_set", "score_named_lifter"]


def as_lifter(source: str | Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function (1, T, 17, 2) screen coordinates -> (1, T, 17, 3) metres, of a weights file or a lifter that ships.

    Raises:
        ValueError: no such file or lifter, or one of another joint set.
    """
    loaded = load_lifter(source if Path(source).is_file() else default_lifter(str(source)))
    if (loaded.settings.input_set, loaded.settings.joint_set) != ("h36m-17", "h36m-17"):
        raise ValueError(f"{source} lifts {loaded.settings.input_set}. Give a lifter of h36m-17.")
    lifter = SequenceLifter(loaded.network, loaded.settings)
    return lambda screen: lifter.sequence(screen[0])[None]


def lift_test_set(
    loaded: LoadedLifter, prepared: LifterSet, *, device: str | torch.device = "cpu", flip_test: bool = True,
    overlap: int = 0, batch_size: int = 64,
) -> StoredJoints:  # fmt: skip
    """Poses of every valid frame of a set's test subjects, under the names of its truth.

    Args:
        loaded: the lifter. prepared: the set, of the lifter's joint sets.
        flip_test, overlap, batch_size: see `SequenceLifter.sequence`.

    Raises:
        ValueError: the lifter takes or gives other joints than the set has.
    """
    about, settings = prepared.about, loaded.settings
    if (about.input_set, about.joint_set) != (settings.input_set, settings.joint_set):
        raise ValueError(
            f"{settings.name} lifts {settings.input_set} to {settings.joint_set}, and the set {about.input_set} to "
            f"{about.joint_set}. Give a set and weights of the same joint sets."
        )
    lifter = SequenceLifter(loaded.network.to(device), settings, about.mirror_in, about.mirror_out)
    truth = truth_of_lifter_set(prepared)
    poses = []
    for sequence in prepared.sequences(prepared.subjects("test")):
        keypoints = torch.from_numpy(sequence.keypoints).to(device)
        lifted = lifter.sequence(keypoints, overlap=overlap, flip_test=flip_test, batch_size=batch_size)
        poses.append(lifted.cpu().numpy()[sequence.valid])
    return StoredJoints(np.concatenate(poses), about.joint_set, truth.source.samples)


def score_lifter_set(
    loaded: LoadedLifter, data: str | Path | LifterSet, protocol: Protocol | str | None = None, *, system: str = "",
    device: str | torch.device = "cpu", flip_test: bool = True, overlap: int = 0, batch_size: int = 64,
) -> Result:  # fmt: skip
    """Score a lifter on the test part of a prepared set.

    Args:
        data: the set or its path. protocol: by default the one the set names for itself.
        system: name in the table. The rest as for `lift_test_set`.

    Raises:
        ValueError: a file that is no prepared set, joints that differ, or a protocol of another data set.
    """
    prepared = data if isinstance(data, LifterSet) else read_lifter_set(data)
    lifted = lift_test_set(
        loaded, prepared, device=device, flip_test=flip_test, overlap=overlap, batch_size=batch_size
    )  # fmt: skip
    about = prepared.about
    origin = str(data) if not isinstance(data, LifterSet) else about.name
    notes = [
        f"2D key points: {about.source} ({about.note or 'as distributed'}); flip test {'on' if flip_test else 'off'}"
    ]
    return evaluate(
        lifted, truth_of_lifter_set(prepared, origin=origin), protocol or about.protocol,
        system=system or loaded.settings.name, weights_hash=loaded.weights_hash, notes=notes,
    )  # fmt: skip


def score_named_lifter(
    model: str, weights: str | Path | None, data: str | Path, protocol: str | None = None, *, device: str = "cpu",
    batch_size: int = 64,
) -> Result:  # fmt: skip
    """Score a lifter by its name, NAME or NAME:PRESET, with weights of ours or as its authors publish them.

    Args:
        weights: a file; by default those that ship for the lifter. The rest as for `score_lifter_set`.

    Raises:
        ValueError: an unknown lifter, weights that are not its own, or what `score_lifter_set` refuses.
    """
    prepared = read_lifter_set(data)
    settings = named_settings(model, prepared.about.input_set, prepared.about.joint_set)
    loaded = load_lifter(weights or default_lifter(settings.name), settings)
    if loaded.settings.name != settings.name:
        raise ValueError(f"{weights} holds the lifter {loaded.settings.name!r}, not {settings.name!r}. Name that one.")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return score_lifter_set(loaded, prepared, protocol, device=device, batch_size=batch_size)
