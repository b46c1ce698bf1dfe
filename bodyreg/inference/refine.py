"""Posed people refined to 2D key points: who belongs to which key points, and their records anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.adapt.meshes import BodyParameters, ImageTerm, MeshSettings, refine_bodies
from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.inputs import Keypoints, box_from_keypoints
from bodyreg.inference.detect import overlap
from bodyreg.inference.placing import PlacedPerson, project_joints, saved_joint_sets
from bodyreg.inference.results import FRAME, PersonResult

__all__ = ["BATCH", "MakeTerm", "match_keypoints", "refine_people"]

BATCH = 64
"""People refined together."""

MakeTerm = Callable[[Sequence[int]], ImageTerm]
"""From people's numbers to what their pictures say about their bodies, see `bodyreg.adapt.masks`."""

_MARGIN = 1.1  # of the network's crop about the box
_LEAST_MATCH = 0.3  # similarity and overlap together, of 2
_SIGMA = 0.15  # of the detection's longer side: how far a predicted joint may be from its key point
_SEEN = 0.05  # least confidence


def match_keypoints(people: Sequence[PersonResult], detections: Sequence[Keypoints]) -> list[Keypoints | None]:
    """For each person of a photograph the key points that are theirs, if any; none is given twice.

    The score of a pair is the overlap of its boxes (intersection over union) plus the mean over seen key points of
    exp(-d^2 / 2 s^2), d being the distance to the person's projected joint and s 0.15 of the key points' extent. The
    best pair is taken first.
    """
    scores = np.array([[_score(person, found) for found in detections] for person in people])
    matched: list[Keypoints | None] = [None] * len(people)
    while scores.size:
        person, found = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[person, found] < _LEAST_MATCH:
            break
        matched[int(person)] = detections[int(found)]
        scores[person, :] = scores[:, found] = -1
    return matched


def refine_people(
    body: BodyModel,
    people: Sequence[PersonResult],
    keypoints: Sequence[Keypoints | None],
    *,
    settings: MeshSettings | None = None,
    image_term: MakeTerm | None = None,
    said: Sequence[str] | None = None,
) -> list[PlacedPerson]:
    """Refine people of any photographs to their key points, and pose everyone.

    Args:
        body: the model that all of them belong to. people: in their photographs' frames.
        keypoints: of each, pixels of the photograph; people without are left as they are.
        settings: see `adapt.meshes.MeshSettings`.
        image_term: what pictures say besides. said: for each person what to add to `refined_by` then.

    Raises:
        ValueError: people of another body model or frame.
    """
    results = list(people)
    for person in results:
        body.check_origin(person.body_name, person.body_hash)
        if person.frame != FRAME:
            raise ValueError(f"The person is in the frame {person.frame!r}. Give the record that the folder job wrote.")
    groups: dict[str, list[int]] = {}
    for k, found in enumerate(keypoints):
        if found is not None:
            groups.setdefault(found.joint_set, []).append(k)
    for joint_set, group in groups.items():
        for start in range(0, len(group), BATCH):
            rows = group[start : start + BATCH]
            given = np.stack([found.points for k in rows if (found := keypoints[k]) is not None])
            refined = refine_bodies(
                body,
                _parameters([results[k] for k in rows]),
                torch.from_numpy(given[..., :2]),
                torch.from_numpy(np.where(given[..., 2] >= _SEEN, given[..., 2], 0.0)),
                torch.from_numpy(np.stack([results[k].K for k in rows])),
                joint_set=joint_set,
                crop_px=torch.tensor([_MARGIN * max(results[k].box_xywh[2:]) for k in rows]),
                image_term=None if image_term is None else image_term(rows),
                settings=settings,
            )
            for row, k in enumerate(rows):
                if refined.refined[row]:
                    named = {name: value[row].numpy() for name, value in refined.parameters._asdict().items()}
                    text = f"keypoints {joint_set}" + (said[k] if said is not None else "")
                    results[k] = replace(results[k], **named, refined_by=text)
    return [
        person for start in range(0, len(results), BATCH) for person in _posed(body, results[start : start + BATCH])
    ]


@torch.no_grad()
def _posed(body: BodyModel, people: Sequence[PersonResult]) -> list[PlacedPerson]:
    """The people with their meshes; joints and key points anew where parameters were refined."""
    posed = body(**_parameters(people)._asdict())
    vertices = posed.vertices.cpu().numpy()
    names = dict.fromkeys(["smpl-24", *saved_joint_sets(body)])
    joints = {name: posed.joints if name == "smpl-24" else body.regress(posed.vertices, name) for name in names}
    placed = []
    for k, person in enumerate(people):
        if person.refined_by:
            camera = Camera(person.K, (int(person.image_hw[0]), int(person.image_hw[1])), person.focal_source)
            own = {name: value[k].double().cpu().numpy() for name, value in joints.items()}
            pixels = {name: project_joints(camera, value) for name, value in own.items()}
            person = replace(person, joints={**person.joints, **own}, keypoints={**person.keypoints, **pixels})
        placed.append(PlacedPerson(person, vertices[k]))
    return placed


def _parameters(people: Sequence[PersonResult]) -> BodyParameters:
    return BodyParameters(
        *(torch.from_numpy(np.stack([getattr(person, name) for person in people])) for name in BodyParameters._fields)
    )


def _score(person: PersonResult, found: Keypoints) -> float:
    points = np.where(np.isfinite(found.points).all(-1, keepdims=True), found.points, 0.0)
    box = box_from_keypoints(points)
    if box is None:
        return -1.0
    similarity = 0.0
    joints = _joints_px(person, found.joint_set)
    seen = (points[:, 2] >= _SEEN) & np.isfinite(joints).all(-1)
    if seen.any():
        distance = np.linalg.norm(joints[seen] - points[seen, :2], axis=-1)
        similarity = float(np.exp(-0.5 * (distance / (_SIGMA * max(box[2:]))) ** 2).mean())
    return similarity + float(overlap(box, person.box_xywh[None])[0][0])


def _joints_px(person: PersonResult, joint_set: str) -> np.ndarray:
    """(J, 2) projected joints of the set, pixels; NaN for joints that the record does not hold."""
    if joint_set in person.keypoints:
        return person.keypoints[joint_set]
    for name in ("openpose-25", "smpl-24"):
        if name in person.keypoints:
            return skeletons.convert(person.keypoints[name].copy(), name, joint_set, fill=np.nan)
    return np.full((len(skeletons.get(joint_set)), 2), np.nan)
