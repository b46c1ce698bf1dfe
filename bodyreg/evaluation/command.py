"""What `bodyreg evaluate` does: predictions or a model, a data set and a protocol, all of them files, to results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bodyreg.data.spin import load_spin
from bodyreg.evaluation.evaluate import Result, check_dataset, counted_rows, evaluate
from bodyreg.evaluation.heads import (
    Lifter,
    People,
    fit_head_map,
    head_joints,
    lift_people,
    mesh,
    people_of_spin,
    people_of_table,
    regress_people,
)
from bodyreg.evaluation.predictions import read_predictions
from bodyreg.evaluation.protocols import Protocol, get
from bodyreg.evaluation.truth import Bodies, Truth, bodies_by_gender, open_truth

__all__ = ["score_files", "score_lifter", "score_regressor"]


def score_files(
    files: Sequence[str | Path],
    data: str | Path,
    protocol: str | Protocol,
    *,
    body: str | Path = "smpl",
    joint_set: str | None = None,
    units: str = "m",
    dataset: str | None = None,
    batch_size: int = 256,
    allow_failures: bool = False,
) -> list[Result]:
    """Score files of predictions, one result each.

    Args:
        files: see `predictions.read_predictions`, also for joint_set and units. data: see `truth.open_truth`, also for
            dataset. protocol: a record or the name of one. body: of the true and predicted meshes: smpl, free or a
            folder. batch_size, allow_failures: see `evaluate`.
    """
    record = get(protocol) if isinstance(protocol, str) else protocol
    bodies = bodies_by_gender(body)
    truth = open_truth(data, bodies, dataset=dataset)
    check_dataset(record, truth.dataset)
    options: dict[str, Any] = {"batch_size": batch_size, "allow_failures": allow_failures}
    return [
        evaluate(read_predictions(file, bodies, joint_set=joint_set, units=units), truth, record,
                 system=Path(file).stem, **options)
        for file in files
    ]  # fmt: skip


def score_regressor(
    regressor: Any,
    data: str | Path,
    images: str | Path,
    protocol: str | Protocol,
    *,
    name: str,
    bodies: Bodies | None = None,
    own_joints: bool = True,
    lifter: Lifter | None = None,
    lifter_name: str = "lifter",
    dataset: str | None = None,
    margin: float | None = None,
    batch_size: int = 16,
) -> list[Result]:
    """Score a regressor on photographs: its own joints before inverse kinematics, its mesh, and a lifter beside them.

    Args:
        regressor: as of `heads.regress_people`. data: a prepared file or an npz in SPIN's layout.
        images: folder that the pictures' names begin below. protocol: a record or the name of one.
        name: of the regressor, for the table. bodies: true bodies by gender, default of the regressor's body.
        own_joints: the network has joints of its own. lifter: scored on the true 2D joints of the same people.
        margin: factor on the boxes; default 1 for weights that were trained on tight ones, else the network's.
        batch_size: people a forward pass.
    """
    record = get(protocol) if isinstance(protocol, str) else protocol
    truth = open_truth(data, bodies or bodies_by_gender(regressor.body.name), dataset=dataset)
    check_dataset(record, truth.dataset)
    people = _people(truth, images).take(counted_rows(record, truth.source.samples))
    settings = regressor.settings
    if margin is None:
        margin = 1.0 if settings.reference_pixels or truth.table is None else settings.margin
    estimates = regress_people(regressor, people, images, margin=margin, batch_size=batch_size)
    common = {"weights_hash": regressor.weights_hash}
    results = []
    if own_joints:
        head_map = fit_head_map(regressor.body)
        note = (
            f"own joints reach {record.joint_set} through a linear map fitted on posed bodies; on bodies it has not "
            f"seen it misses the regressed joints by {1000 * head_map.residual_m:.1f} mm in the mean"
        )
        source = head_joints(estimates, head_map, people.samples)
        results.append(evaluate(source, truth, record, system=f"{name}, own joints", notes=[note], **common))
    bodies_seen = mesh(estimates, regressor.body, people.samples)
    results.append(evaluate(bodies_seen, truth, record, system=f"{name}, mesh", **common))
    if lifter is not None:
        results.append(score_lifter(lifter, truth, people, record, name=lifter_name))
    return results


def score_lifter(lifter: Lifter, truth: Truth, people: People, protocol: Protocol, *, name: str) -> Result:
    """Score a lifter on the true 2D joints of people in photographs."""
    note = "2D input: the true joints projected, order h36m-17; our protocol, not one that lifters publish under"
    return evaluate(lift_people(lifter, people), truth, protocol, system=name, notes=[note])


def _people(truth: Truth, images: str | Path) -> People:
    if truth.table is not None:
        return people_of_table(truth.table, truth.source if truth.table.kind == "smpl" else None)
    if not Path(truth.origin).is_file():
        raise ValueError(f"{truth.origin} names no photographs. Score a model on a prepared file (`bodyreg prepare`).")
    return people_of_spin(load_spin(truth.origin), images)
