"""Scoring: predictions, of a file or of a model, against the truth of a data set under a named protocol.

Batches of people stream through; only errors of single samples are kept (`accumulate`). Under DDP every process scores
its share and all get the same result.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.evaluation.accumulate import HIDDEN, ErrorAccumulator, Errors, Samples, columns, group_means, process_place
from bodyreg.evaluation.protocols import Protocol, fitting, get
from bodyreg.evaluation.truth import Source, Truth

__all__ = ["Result", "evaluate", "match"]

log = logging.getLogger(__name__)

_FAR_ROOT_M = 0.5
_SHOWN = 5  # names in a message
_UNITS = {"millimetres": 1000.0, "centimetres": 100.0}
_TALLEST_M = 20.0  # no body reaches so far from its middle; in millimetres a child does


@dataclass(frozen=True)
class Result:
    """One row of a table: who was scored, under which protocol, on what, and the means.

    Attributes:
        system: name of what was scored. protocol: the record. dataset, origin: of the truth.
        samples: how many were scored. dropped: reason -> names of samples that were not.
        errors: mean by metric; metres, shares for PCK and AUC; a metric that does not apply is absent.
        groups: (name, samples, means) of each action, sequence or scene, as the protocol averages.
        by_action: the same by action where samples have one.
        joints: name of each evaluated joint and its mean error, metres.
        batch_mean: the means as mean of batch means, which some published systems print.
        weights_hash: of the weights, empty for predictions of a file. notes: warnings and remarks.
    """

    system: str
    protocol: Protocol
    dataset: str
    origin: str
    samples: int
    dropped: dict[str, list[str]]
    errors: dict[str, float]
    groups: list[tuple[str, int, dict[str, float]]]
    by_action: list[tuple[str, int, dict[str, float]]]
    joints: dict[str, float]
    batch_mean: dict[str, float]
    weights_hash: str = ""
    notes: list[str] = field(default_factory=list)


def evaluate(
    predictions: Source,
    truth: Truth,
    protocol: Protocol | str,
    *,
    system: str = "predictions",
    weights_hash: str = "",
    batch_size: int = 256,
    allow_failures: bool = False,
    notes: Sequence[str] = (),
) -> Result:
    """Score predictions under a protocol.

    Args:
        predictions: of exactly the samples the protocol counts, in any order; named like the truth's.
        truth: true people of the data set.
        protocol: a record, or the name of one.
        system, weights_hash: of what is scored, for the table. notes: remarks for the table's foot.
        batch_size: people at a time, also of the mean over batches.
        allow_failures: leave predictions that are not finite out, counted and named, instead of refusing them.

    Raises:
        ValueError: the protocol is not for this data set, predictions lack or exceed samples, hold other joints, other
            units or numbers that are not finite, or there is nothing to score.
    """
    protocol = get(protocol) if isinstance(protocol, str) else protocol
    check_dataset(protocol, truth.dataset)
    counted = counted_rows(protocol, truth.source.samples)
    samples = truth.source.samples.take(counted)
    places = match(predictions.samples, samples, truth.source.samples)
    accumulator = ErrorAccumulator(protocol, samples)
    process, processes = process_place()
    starts = range(0, len(samples), batch_size)
    with torch.no_grad():
        for number, start in enumerate(starts):
            if number % processes != process:
                continue
            rows = np.arange(start, min(start + batch_size, len(samples)))
            true, pred = truth.source.points(counted[rows], protocol), predictions.points(places[rows], protocol)
            if pred.vertices is not None and true.vertices is not None and pred.vertices.shape != true.vertices.shape:
                raise ValueError(
                    f"Predicted meshes have {pred.vertices.shape[1]} vertices and true ones {true.vertices.shape[1]}. "
                    "Give meshes of the body the truth is made with, or joints alone."
                )
            accumulator.update(rows, pred.joints, true.joints, pred.vertices, true.vertices)
            if number < processes:
                check_units(accumulator)
    errors = accumulator.compute()
    _check_finite(errors, samples, allow_failures)
    found = [*notes, *side_warnings(errors, protocol), *root_warnings(errors, protocol)]
    for note in found[len(notes) :]:
        log.warning("%s", note)
    return _result(errors, samples, protocol, truth, system, weights_hash, found)


def _result(
    errors: Errors, samples: Samples, protocol: Protocol, truth: Truth, system: str, weights_hash: str, notes: list[str]
) -> Result:
    means = group_means(errors, samples, protocol)
    used = errors.scored & ~errors.failed
    by_action = []
    if all(samples.actions) and len(samples):
        by_action = group_means(errors, samples, protocol, "actions").groups
    joint_set = skeletons.get(protocol.joint_set)
    names = [joint_set.joints[i] for i in protocol.rows("joints")]
    failed = [samples.names[k] for k in np.flatnonzero(errors.failed)]
    return Result(
        system, protocol, truth.dataset, truth.origin, int(used.sum()),
        {"prediction not finite": failed} if failed else {}, means.total, means.groups, by_action,
        dict(zip(names, errors.joints[used].astype(np.float64).mean(0).tolist(), strict=True)),
        group_means(errors, samples, protocol, "batches").total, weights_hash, notes,
    )  # fmt: skip


def check_dataset(protocol: Protocol, dataset: str) -> None:
    """Refuse a protocol of another data set.

    Raises:
        ValueError: naming those that fit.
    """
    if protocol.dataset not in (dataset, "any"):
        raise ValueError(
            f"The protocol {protocol.label} is for {protocol.dataset}, and the truth is of {dataset!r}. "
            f"Protocols that fit it: {', '.join(fitting(dataset))}."
        )


def counted_rows(protocol: Protocol, samples: Samples) -> np.ndarray:
    """Rows of the samples that a protocol counts: every n-th, of its camera.

    Raises:
        ValueError: none is left.
    """
    rows = np.arange(len(samples))[:: protocol.every]
    if protocol.camera:
        rows = np.array([k for k in rows if protocol.camera in samples.names[k]], np.int64)
    if not len(rows):
        raise ValueError(
            f"None of {len(samples)} samples counts under {protocol.label} ({protocol.frame_rule}). Check the file."
        )
    return rows


def match(predicted: Samples, wanted: Samples, everyone: Samples | None = None) -> np.ndarray:
    """(N,) row of `predicted` for each sample of `wanted`, by name.

    Samples of `everyone` that are not wanted, because a protocol counts some frames only, may be there or not.
    Predictions without names (all of them empty or numbers in order) are taken to be in the truth's order.

    Raises:
        ValueError: samples are missing, or there are some that the truth has not; the first few are named.
    """
    if all(name == str(k) for k, name in enumerate(predicted.names)):
        if len(predicted) != len(wanted):
            raise ValueError(
                f"There are {len(predicted)} predictions without names and {len(wanted)} samples to score. Give one "
                "for each in order, or name them."
            )
        return np.arange(len(wanted))
    keys = [_plain(name) for name in wanted.names]
    depth = max(key.count("/") for key in keys) + 1
    # Folders above those of the truth are the writer's own.
    given = ["/".join(_plain(name).split("/")[-depth:]) for name in predicted.names]
    places = {key: k for k, key in enumerate(given)}
    missing = [name for name, key in zip(wanted.names, keys, strict=True) if key not in places]
    known = {*keys, *(_plain(name) for name in (everyone or wanted).names)}
    extra = [name for name, key in zip(predicted.names, given, strict=True) if key not in known]
    if missing or extra:
        parts = [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
                 for what, names in (("are missing", missing), ("are not in the truth", extra)) if names]  # fmt: skip
        hint = ""
        if missing and extra and (near := difflib.get_close_matches(missing[0], extra[:2000], n=1)):
            hint = f" {near[0]!r} looks like {missing[0]!r}: name predictions as the truth does."
        raise ValueError(
            f"Predictions do not fit the {len(wanted)} samples to score; {'; '.join(parts)}.{hint} "
            "Give exactly one for each."
        )
    return np.array([places[key] for key in keys])


def _plain(name: str) -> str:
    """A name without what writers of paths do differently: backslashes, a leading dot, the number of a lone person."""
    return name.replace("\\", "/").removeprefix("./").removesuffix("#0")


def check_units(accumulator: ErrorAccumulator) -> None:
    """Refuse people of impossible size, which are metres and millimetres mixed up.

    Raises:
        ValueError: naming the unit that the prediction or the truth seems to be in.
    """
    names = columns(accumulator.protocol)
    values = torch.cat(accumulator.values)
    pred, true = (values[:, names.index(name)].nanmedian().item() for name in HIDDEN[:2])
    if true > _TALLEST_M:
        raise ValueError(f"The truth reaches {true:.0f} from its middle: it is not in metres. Prepare the data again.")
    if not pred > 0 or not true > 0:
        return
    for unit, factor in _UNITS.items():
        if 0.4 < pred / true / factor < 2.5:
            raise ValueError(
                f"The predictions look like {unit}: they are {pred / true:.0f} times the truth's size, which is in "
                f"metres. Say so with --units {'mm' if factor == 1000 else 'cm'}, or divide them by {factor:.0f}."
            )
        if 0.4 < pred / true * factor < 2.5:
            raise ValueError(
                f"The predictions are {true / pred:.0f} times smaller than the truth, as if metres had been divided by "
                f"{factor:.0f} once too often. Give metres."
            )


def side_warnings(errors: Errors, protocol: Protocol) -> list[str]:
    """A warning when the predictions fit better with left and right exchanged, in the whole body or in the legs."""
    used = errors.scored & ~errors.failed
    rows = protocol.rows("joints")
    joint_set = skeletons.get(protocol.joint_set)
    if not used.any() or all(joint_set.mirror[i] == i for i in rows):
        return []
    given = float(errors.joints[used].mean())
    whole, legs = (float(errors.values[name][used].mean()) for name in HIDDEN[2:])
    better = min(whole, legs)
    if not better < 0.9 * given:
        return []
    what = "left and right" if whole <= legs else "the legs' left and right"
    set_hint = "" if whole <= legs else " H36M's order comes with either leg first: h36m-17 or h36m-17-left."
    return [
        f"{what} look exchanged in the predictions: MPJPE is {1000 * given:.1f} mm as given and {1000 * better:.1f} mm "
        f"with {what} exchanged.{set_hint}"
    ]


def root_warnings(errors: Errors, protocol: Protocol) -> list[str]:
    """A warning when a protocol leaves the predicted root where it is and it lies far off: joints of a camera's frame
    where joints about the root are asked for."""
    used = errors.scored & ~errors.failed
    joint_set = skeletons.get(protocol.joint_set)
    names = [joint_set.joints[i] for i in protocol.rows("joints")]
    if protocol.pred_root != "raw" or len(protocol.root) != 1 or protocol.root[0] not in names or not used.any():
        return []
    apart = float(errors.joints[used][:, names.index(protocol.root[0])].mean())
    if not apart > _FAR_ROOT_M:
        return []
    return [
        f"the predicted {protocol.root[0]} lies {apart:.1f} m from zero, where {protocol.name} asks for it: these look "
        f"like joints of the camera's frame. Subtract it, or score under {protocol.name}[pred_root=subtract]."
    ]


def _check_finite(errors: Errors, samples: Samples, allow: bool) -> None:
    failed = [samples.names[k] for k in np.flatnonzero(errors.failed)]
    if failed and (not allow or len(failed) == len(samples)):
        more = " ..." if len(failed) > _SHOWN else ""
        raise ValueError(
            f"{len(failed)} of {len(samples)} predictions hold numbers that are not finite: "
            f"{', '.join(failed[:_SHOWN])}{more}. Mend them, or pass --allow-failures to score the others and count "
            "these."
        )

