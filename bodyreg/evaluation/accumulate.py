"""Errors of single samples, gathered batch by batch and over processes: the same numbers however the work was split.

Only errors and, where a protocol asks for velocities, joints are kept; never meshes. Each sample is known by its place
in the list of samples, so one that two processes scored (samplers fill up the last round) counts once, and means are
taken in one order whatever the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from bodyreg import skeletons
from bodyreg.evaluation import metrics
from bodyreg.evaluation.protocols import Protocol

__all__ = ["ErrorAccumulator", "Errors", "Groups", "MeanError", "SampleErrors", "Samples", "batch_means", "group_means",
           "sample_errors"]  # fmt: skip

LEGS = ("hip", "knee", "ankle")
HIDDEN = ("_size", "_true_size", "_swapped", "_legs_swapped")
"""Columns for the checks of an evaluation: extents in metres, and MPJPE with left and right names exchanged."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Who is scored, in the order of the truth: all lists of one length N.

    names (unique), sequences, actions, subjects, scenes; frames: number of the frame in its sequence.
    """

    names: tuple[str, ...]
    sequences: tuple[str, ...]
    actions: tuple[str, ...]
    subjects: tuple[str, ...]
    scenes: tuple[str, ...]
    frames: np.ndarray

    @classmethod
    def of(
        cls, names: Sequence[str], sequences: Sequence[str] | None = None, actions: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None, scenes: Sequence[str] | None = None,
        frames: Sequence[int] | np.ndarray | None = None,
    ) -> Samples:  # fmt: skip
        """Samples of names; sequences default to one, the other labels to none, frames to the order of the names.

        Raises:
            ValueError: lists of other lengths, or a name that comes twice.
        """
        n = len(names)
        lists = {"sequences": sequences, "actions": actions, "subjects": subjects, "scenes": scenes, "frames": frames}
        for what, values in lists.items():
            if values is not None and len(values) != n:
                raise ValueError(f"There are {n} names and {len(values)} {what}. Give one for each sample.")
        if len(set(names)) != n:
            twice = next(name for name in names if list(names).count(name) > 1)
            raise ValueError(f"The sample {twice!r} comes more than once. Give every sample a name of its own.")

        def column(values: Sequence[str] | None) -> tuple[str, ...]:
            return ("",) * n if values is None else tuple(map(str, values))

        order = np.arange(n) if frames is None else np.asarray(frames, np.int64)
        return cls(tuple(map(str, names)), column(sequences), column(actions), column(subjects), column(scenes), order)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> Samples:
        """The samples of some rows."""
        texts = (self.names, self.sequences, self.actions, self.subjects, self.scenes)
        names, sequences, actions, subjects, scenes = (tuple(column[k] for k in rows) for column in texts)
        return Samples(names, sequences, actions, subjects, scenes, self.frames[rows])

    def labels(self, aggregate: str) -> list[str]:
        """The group of each sample under an aggregate of `protocols.AGGREGATES`."""
        if aggregate == "subject-actions":
            return [f"{subject} {action}" for subject, action in zip(self.subjects, self.actions, strict=True)]
        named = {"actions": self.actions, "sequences": self.sequences, "scenes": self.scenes}
        return list(named.get(aggregate, ("all",) * len(self)))


class SampleErrors(NamedTuple):
    """Errors of a batch: values by metric name (B,), metres or shares; joints (B, J) metres; points (B, 2, J, 3).

    `points` are the root-relative evaluated joints, prediction then truth; `failed` (B,) marks predictions with a
    number that is not finite.
    """

    values: dict[str, Tensor]
    joints: Tensor
    points: Tensor
    failed: Tensor


def columns(protocol: Protocol) -> tuple[str, ...]:
    """Names of the values of one sample: the protocol's metrics, its groups, and the hidden ones for checks."""
    shares = [metric for metric in ("PCK", "AUC") if metric in protocol.metrics]
    return (*protocol.metrics, *(f"{metric} {name}" for metric in shares for name in protocol.groups), *HIDDEN)


def sample_errors(
    protocol: Protocol, pred: Tensor, true: Tensor, pred_vertices: Tensor | None = None,
    true_vertices: Tensor | None = None,
) -> SampleErrors:  # fmt: skip
    """The errors of each sample of a batch under a protocol; velocities are the accumulator's.

    Args:
        pred, true: (B, J, 3) joints in the order of `protocol.joint_set`, each side in any frame that differs from the
            other's by a translation only, metres; joints the protocol does not need may be NaN.
        pred_vertices, true_vertices: (B, V, 3) in the frames of `pred` and `true`, or None.
    """
    rows, root = protocol.rows("joints"), protocol.root_rows()
    pred_root, true_root = pred[:, root].mean(1), true[:, root].mean(1)
    g = true - true_root[:, None]
    if protocol.pred_root == "subtract":
        p = pred - pred_root[:, None]
    elif protocol.pred_root == "zero":
        p = pred.clone()
        p[:, root] = 0
    else:
        p = pred
    fit = protocol.rows("alignment")
    values: dict[str, Tensor] = {}
    joint_errors = metrics.point_errors(p[:, rows], g[:, rows])
    for metric in protocol.metrics:
        if metric == "MPJPE":
            values[metric] = joint_errors.mean(-1)
        elif metric == "PA-MPJPE":
            values[metric] = metrics.mpjpe(metrics.align(p[:, fit], g[:, fit]).apply(p[:, rows]), g[:, rows])
        elif metric == "N-MPJPE":
            values[metric] = metrics.n_mpjpe(p[:, rows], g[:, rows])
        elif metric in ("PCK", "AUC"):
            values.update(_shares(protocol, metric, p, g))
        elif metric in ("PVE", "PA-PVE") and pred_vertices is not None and true_vertices is not None:
            if metric == "PA-PVE":
                values[metric] = metrics.pa_pve(pred_vertices, true_vertices)
            elif protocol.pve == "root":
                roots = pred_root.to(pred_vertices), true_root.to(true_vertices)  # not twice the digits for meshes
                values[metric] = metrics.pve(pred_vertices, true_vertices, *roots)
            else:
                values[metric] = metrics.pve(pred_vertices, true_vertices)
    failed = ~torch.isfinite(joint_errors).all(-1)
    for metric in {"PVE", "PA-PVE"} & set(values):
        failed = failed | ~torch.isfinite(values[metric])
    values.update(_for_checks(protocol, p, g, rows))
    return SampleErrors(values, joint_errors, torch.stack([p[:, rows], g[:, rows]], 1), failed)


def _shares(protocol: Protocol, metric: str, p: Tensor, g: Tensor) -> dict[str, Tensor]:
    """PCK or AUC of a batch over the protocol's joints and each of its groups."""
    values = {}
    named = {"": tuple(protocol.rows("pck_joints")), **protocol.groups_by_index()}
    for name, rows in named.items():
        pair = p[:, list(rows)], g[:, list(rows)]
        if metric == "PCK":
            share = metrics.pck(*pair, protocol.pck_m, inclusive=protocol.pck_inclusive)
        else:
            share = metrics.auc_trapezoid(*pair) if protocol.pck_inclusive else metrics.auc(*pair)
        values[f"{metric} {name}".strip()] = share
    return values


def _for_checks(protocol: Protocol, p: Tensor, g: Tensor, rows: list[int]) -> dict[str, Tensor]:
    """Extents and errors with left and right exchanged, of the whole body and of the legs alone."""
    joint_set = skeletons.get(protocol.joint_set)
    legs = [joint_set.mirror[i] if joint_set.joints[i].endswith(LEGS) else i for i in range(len(joint_set))]
    extents = [(x[:, rows] - x[:, rows].mean(1, keepdim=True)).norm(dim=-1).amax(1) for x in (p, g)]
    swapped = [metrics.mpjpe(p[:, list(order)][:, rows], g[:, rows]) for order in (joint_set.mirror, legs)]
    return dict(zip(HIDDEN, [*extents, *swapped], strict=True))


class Errors(NamedTuple):
    """Errors of all samples in their order: values (N,) by name, NaN where a metric has none; joints (N, J) metres.

    batch (N,) names the batch of each; `scored` (N,) says who was scored, `failed` (N,) whose prediction is not finite.
    """

    values: dict[str, np.ndarray]
    joints: np.ndarray
    batch: np.ndarray
    scored: np.ndarray
    failed: np.ndarray


class ErrorAccumulator(Metric):
    """Errors under one protocol, kept for each sample; synchronised over processes by torchmetrics when computed.

    Args:
        protocol: of the evaluation. samples: everyone who is to be scored, the same list in every process.
    """

    full_state_update = False
    index: list[Tensor]
    batch: list[Tensor]
    values: list[Tensor]
    joints: list[Tensor]
    points: list[Tensor]

    def __init__(self, protocol: Protocol, samples: Samples, **options: Any) -> None:
        super().__init__(**options)
        self.protocol, self.samples = protocol, samples
        self._columns = columns(protocol)
        self._motion = bool({"MPJVE", "Accel"} & set(protocol.metrics))
        for name in ("index", "batch", "values", "joints", "points"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._round = 0
        self._open()

    def reset(self) -> None:
        super().reset()
        self._round = 0
        self._open()

    def _open(self) -> None:
        # Empty tensors first: a process without any sample still has something to send.
        count, device = len(self.protocol.rows("joints")), self.device
        kept = count if self._motion else 0
        self.index.append(torch.zeros(0, dtype=torch.int64, device=device))
        self.batch.append(torch.zeros(0, dtype=torch.int64, device=device))
        self.values.append(torch.zeros(0, len(self._columns) + 1, dtype=torch.float64, device=device))
        self.joints.append(torch.zeros(0, count, dtype=torch.float32, device=device))
        self.points.append(torch.zeros(0, 2, kept, 3, dtype=torch.float64, device=device))

    def update(
        self, rows: Tensor | np.ndarray, pred: Tensor, true: Tensor, pred_vertices: Tensor | None = None,
        true_vertices: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Score a batch: places (B,) of its samples in the list, and what `sample_errors` takes."""
        found = sample_errors(self.protocol, pred, true, pred_vertices, true_vertices)
        missing = found.failed.new_full(found.failed.shape, torch.nan, dtype=torch.float64)
        values = [found.values.get(name, missing).double() for name in self._columns]
        self.index.append(torch.as_tensor(rows, dtype=torch.int64, device=self.device))
        process, processes = process_place()
        self.batch.append(torch.full_like(self.index[-1], self._round * processes + process))
        self.values.append(torch.stack([*values, found.failed.double()], 1).to(self.device))
        self.joints.append(found.joints.float().to(self.device))
        points = found.points if self._motion else found.points[:, :, :0]
        self.points.append(points.double().to(self.device))
        self._round += 1

    def compute(self) -> Errors:
        """Errors of all samples in their order."""
        index = dim_zero_cat(self.index).cpu().numpy()
        index, first = np.unique(index, return_index=True)
        gathered = {name: dim_zero_cat(getattr(self, name)).cpu().numpy()[first]
                    for name in ("batch", "values", "joints", "points")}  # fmt: skip
        n = len(self.samples)
        scored = np.zeros(n, bool)
        scored[index] = True

        def spread(values: np.ndarray, empty: float) -> np.ndarray:
            out = np.full((n, *values.shape[1:]), empty, values.dtype)
            out[index] = values
            return out

        values = spread(gathered["values"], np.nan)
        by_name = {name: values[:, k] for k, name in enumerate(self._columns)}
        if self._motion:
            by_name.update(_motion_errors(self.protocol, self.samples, spread(gathered["points"], np.nan)))
        joints, batch = spread(gathered["joints"], np.nan), spread(gathered["batch"], -1)
        return Errors(by_name, joints, batch, scored, values[:, -1] == 1)


def _motion_errors(protocol: Protocol, samples: Samples, points: np.ndarray) -> dict[str, Any]:
    """Velocity and acceleration errors (N,), each at the last frame it needs, NaN where its frames are not all there.

    Differences run within one sequence and between frames one step apart, the smallest step of that sequence; they
    never cross a seam or a gap.
    """
    orders = {name: order for name, order in (("MPJVE", 1), ("Accel", 2)) if name in protocol.metrics}
    out = {name: np.full(len(samples), np.nan) for name in orders}
    by_sequence: dict[str, list[int]] = {}
    for k, name in enumerate(samples.sequences):
        by_sequence.setdefault(name, []).append(k)
    for rows in by_sequence.values():
        rows_sorted = np.array(rows)[np.argsort(samples.frames[rows], kind="stable")]
        steps = np.diff(samples.frames[rows_sorted])
        if not len(steps):
            continue
        step = steps[steps > 0].min(initial=np.iinfo(np.int64).max)
        difference = points[rows_sorted, 0] - points[rows_sorted, 1]
        for name, order in orders.items():
            if len(rows_sorted) > order:
                errors = np.linalg.norm(np.diff(difference, n=order, axis=0), axis=-1).mean(-1)
                whole = np.lib.stride_tricks.sliding_window_view(steps == step, order).all(1)
                out[name][rows_sorted[order:]] = np.where(whole, errors, np.nan)
    return out


def batch_means(values: Tensor, batch: Tensor) -> Tensor:
    """(N,) each value replaced by the mean of its batch (N,): what HoT and UAO add where a batch mixes actions."""
    _, place = torch.unique(batch, return_inverse=True)
    sums = torch.zeros(int(place.max()) + 1, dtype=values.dtype).index_add_(0, place, values)
    return (sums / torch.bincount(place))[place]


class Groups(NamedTuple):
    """Means: the total by metric, and for each group its name, how many were scored, and its means."""

    total: dict[str, float]
    groups: list[tuple[str, int, dict[str, float]]]


def group_means(errors: Errors, samples: Samples, protocol: Protocol, aggregate: str | None = None) -> Groups:
    """Means under an aggregate (default the protocol's); a metric that no sample has is left out.

    Raises:
        ValueError: nobody was scored, or the samples do not carry the labels the aggregate groups by.
    """
    aggregate = aggregate or protocol.aggregate
    used = errors.scored & ~errors.failed
    if not used.any():
        raise ValueError("No sample could be scored. Check the predictions: an empty mean is no number.")
    labels = [str(b) for b in errors.batch] if aggregate == "batches" else samples.labels(aggregate)
    if aggregate not in ("frames", "batches") and any(not labels[k].strip() for k in np.flatnonzero(used)):
        raise ValueError(
            f"The protocol {protocol.label} averages over {aggregate}, and samples carry none. Give them, or vary the "
            f'protocol: "{protocol.name}[aggregate=frames]".'
        )
    rows: dict[str, list[int]] = {}
    for k in np.flatnonzero(used):
        rows.setdefault(labels[k], []).append(int(k))
    shown = [name for name in columns(protocol) if name not in HIDDEN]
    groups = [(label, len(at), _means(errors, shown, np.array(at))) for label, at in rows.items()]
    if aggregate in ("frames", "scenes"):
        total = _means(errors, shown, np.flatnonzero(used))
    else:
        total = {}
        for name in shown:
            found = [means[name] for _, _, means in groups if name in means]
            if found:
                total[name] = float(np.mean(found))
    return Groups(total, [] if aggregate in ("frames", "batches") else groups)


def _means(errors: Errors, names: Sequence[str], rows: np.ndarray) -> dict[str, float]:
    means = {}
    for name in names:
        values = errors.values[name][rows]
        values = values[~np.isnan(values)]
        if len(values):
            means[name] = float(values.mean())
    return means


class MeanError(Metric):
    """Mean of a metric of `metrics` over all samples of all processes, for training loops; exact for uneven batches.

    Args:
        error: gives one value a sample, such as `metrics.mpjpe`.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, error: Callable[..., Tensor], **options: Any) -> None:
        super().__init__(**options)
        self._error = error
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *points: Tensor, **options: Any) -> None:
        """Score a batch; arguments are those of the metric."""
        values = self._error(*points, **options)
        self.total += values.double().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean, in the metric's unit.

        Raises:
            ValueError: nothing was scored.
        """
        if self.count == 0:
            raise ValueError("Nothing was scored. Update the metric before asking for its mean.")
        return self.total / self.count


def process_place() -> tuple[int, int]:
    """This process and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
