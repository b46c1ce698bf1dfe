"""Scoring regressors: on held-out synthetic people with exact truth, and on crops with landmarks of another system."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg.body import BodyModel, BodyOutput
from bodyreg.cameras import resolve_camera
from bodyreg.checkpoints import LoadedModel
from bodyreg.crops import crop_image, make_crop
from bodyreg.data.folder import read_image
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.evaluation.metrics import align, mpjpe, pa_mpjpe, point_errors, pve
from bodyreg.files import atomic_write
from bodyreg.inverse_kinematics import inverse_kinematics
from bodyreg.models.decoding import Decoded
from bodyreg.models.perspose import PersPose, normalise_image

__all__ = [
    "Score",
    "evaluate_synthetic",
    "evaluate_landmarks",
    "mean_vertices",
    "table",
    "markdown_table",
    "write_scores",
]


@dataclass(frozen=True)
class Score:
    """One line of a table: what was scored, on how many people, and the errors by name in millimetres."""

    name: str
    people: int
    errors_mm: dict[str, float]


def evaluate_synthetic(
    loaded: LoadedModel, body: BodyModel, shards: str | Path, *, people: int = 2048, batch_size: int = 64
) -> list[Score]:
    """Score a regressor on held-out synthetic people, seen upright and unoccluded as inference would crop them.

    Joints are SMPL-24 relative to the pelvis in the crop's camera frame; PA is after a similarity alignment of the
    24 joints; PVE is over all vertices relative to the pelvis. The mean pose is the constant, best in the mean, that
    knows nothing of the picture; its PVE is over every tenth vertex.

    Args:
        loaded: the regressor. body: the body the shards were made with. shards: folder of held-out people.
        people: how many are scored; fewer when the folder holds fewer, never one twice.
        batch_size: people a forward pass.

    Returns:
        Lines for the network's own joints, for the body after inverse kinematics, and for the mean pose.

    Raises:
        ValueError: the folder holds no shards.
    """
    stream = ShardStream(
        shards, body, crop_size=loaded.settings.crop_size, batch_size=batch_size, seed=1, augment=False, bank_size=64,
        perspective_rotation=loaded.settings.perspective_rotation,
    )  # fmt: skip
    network: Any = loaded.model
    sums: dict[str, list[torch.Tensor]] = {}
    joints_true, vertices_true = [], []

    def record(name: str, values: torch.Tensor) -> None:
        sums.setdefault(name, []).append(values)

    with torch.inference_mode():
        for batch in stream.once(people):
            decoded, posed = _pose(network, body, batch["image"], batch["K_crop"])
            R_true, local = batch["R_global"], _local(batch["R_global"], body)
            true = body(batch["betas"], local[:, 1:], R_true[:, 0])
            joints, vertices = _rooted(true.joints, true.joints), _rooted(true.vertices, true.joints)
            record("network joints/MPJPE", mpjpe(decoded.xyz[:, :24], joints))
            record("network joints/PA-MPJPE", pa_mpjpe(decoded.xyz[:, :24], joints))
            predicted = _rooted(posed.joints, posed.joints)
            record("body/MPJPE", mpjpe(predicted, joints))
            record("body/PA-MPJPE", pa_mpjpe(predicted, joints))
            record("body/PVE", pve(_rooted(posed.vertices, posed.joints), vertices))
            joints_true.append(joints)
            vertices_true.append(vertices[:, ::10])
    every, sparse = torch.cat(joints_true), torch.cat(vertices_true)
    mean = every.mean(0, keepdim=True).expand_as(every)
    record("mean pose/MPJPE", mpjpe(mean, every))
    record("mean pose/PA-MPJPE", pa_mpjpe(mean, every))
    record("mean pose/PVE", point_errors(sparse.mean(0, keepdim=True).expand_as(sparse), sparse).mean(-1))
    return _scores(sums, len(every))


def evaluate_landmarks(
    loaded: LoadedModel,
    body: BodyModel,
    crops: str | Path,
    landmarks: str | Path,
    mean_pose: torch.Tensor,
    vertices_of: Callable[[Path], torch.Tensor] | None = None,
) -> tuple[list[Score], dict[str, torch.Tensor]]:
    """Distance of surface landmarks on person-centred crops to those another system recovered.

    Args:
        crops: folder of square pictures. landmarks: folder of JSON files of the same stems, key `landmarks_m`: name to
            (x, y, z), camera axes, metres. mean_pose: (V, 3) vertices that know nothing of the picture.
        vertices_of: gives (V, 3) vertices of a crop's file; default: the network's on the whole crop.

    Returns:
        A line a crop with the regressor's and the mean pose's distance after similarity alignment (PA) and after
        aligning the means only, a line of means, and by crop the predicted vertices (V, 3) in its camera's frame
        (`resolve_camera` of its size), metres.

    Raises:
        ValueError: no PNG crops, a crop without a landmark file, or a file without landmarks the body knows.
    """
    rows, bodies = [], {}
    for path in sorted(Path(crops).glob("*.png")):
        wanted = _landmarks(Path(landmarks) / f"{path.stem}.json")
        names = [name for name in wanted if name.removesuffix("_tip") in body.landmarks]
        if not names:
            known = ", ".join([*body.landmarks][:5])
            raise ValueError(f"None of the landmarks of {path.stem} is one of the body's. Name them as in {known}.")
        index = torch.tensor([body.landmarks[name.removesuffix("_tip")] for name in names])
        true = torch.tensor([wanted[name] for name in names], dtype=torch.float32)[None]
        vertices = vertices_of(path) if vertices_of else _whole_crop(loaded, body, read_image(path).rgb)
        bodies[path.stem] = vertices
        errors = {}
        for name, points in (("", vertices[index]), ("mean pose ", mean_pose[index])):
            points = points[None]
            errors[f"{name}PA"] = 1000 * float(point_errors(align(points, true).aligned, true).mean())
            centred = points - points.mean(1, keepdim=True) + true.mean(1, keepdim=True)
            errors[f"{name}mean-aligned"] = 1000 * float(point_errors(centred, true).mean())
        rows.append(Score(path.stem, 1, errors))
    if not rows:
        raise ValueError(f"{crops} holds no PNG crops. Name a folder of person-centred pictures.")
    mean = {name: float(np.mean([row.errors_mm[name] for row in rows])) for name in rows[0].errors_mm}
    return [*rows, Score("mean", len(rows), mean)], bodies


def _landmarks(path: Path) -> dict[str, list[float]]:
    """Name to (x, y, z) of one landmark file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [float(v) for v in point] for name, point in content["landmarks_m"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no landmarks ({type(error).__name__}: {error}). "
            'Give a JSON file {"landmarks_m": {name: [x, y, z]}} for every crop.'
        ) from None


def _pose(network: PersPose, body: BodyModel, image: torch.Tensor, K: torch.Tensor) -> tuple[Decoded, BodyOutput]:
    """What the network says of (B, 3, h, w) uint8 crops, and the bodies that inverse kinematics makes of it."""
    image = normalise_image(image.float() / 255).contiguous(memory_format=torch.channels_last)
    decoded = network.predict(image, K)
    aim = decoded.xyz[:, :24] + decoded.xyz0
    solved = inverse_kinematics(body, aim, decoded.ortho_twist, decoded.beta, decoded.leaf_rot)
    return decoded, body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)


def _whole_crop(loaded: LoadedModel, body: BodyModel, rgb: np.ndarray) -> torch.Tensor:
    """(V, 3) vertices for a picture that is a person-centred crop already, in its camera's frame."""
    network: Any = loaded.model
    camera = resolve_camera(rgb.shape[:2])
    size = loaded.settings.crop_size
    crop = make_crop(camera, np.array([0.0, 0.0, rgb.shape[1], rgb.shape[0]]), (size, size))
    image = torch.from_numpy(crop_image(rgb, crop)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        K = torch.from_numpy(crop.K_crop).float()[None]
        _, posed = _pose(network, body, image, K)
    return posed.vertices[0] @ torch.from_numpy(crop.R_crop_from_cam).float()


def mean_vertices(body: BodyModel, shards: str | Path, people: int = 512) -> torch.Tensor:
    """(V, 3) mean of the true pelvis-relative vertices of held-out people: a constant prediction.

    Args:
        body: the body the shards were made with. shards: folder of held-out people. people: averaged over at most.
    """
    stream = ShardStream(shards, body, crop_size=32, batch_size=64, augment=False, bank_size=2)
    total, count = torch.zeros(len(body.v_template), 3), 0
    with torch.inference_mode():
        for batch in stream.once(people):
            out = body(batch["betas"], _local(batch["R_global"], body)[:, 1:], batch["R_global"][:, 0])
            total += _rooted(out.vertices, out.joints).sum(0)
            count += len(out.vertices)
    return total / count


def table(scores: list[Score]) -> list[tuple[str, ...]]:
    """Rows of text, the header first: name, people, and every error that any line has, "-" where a line has not."""
    names = list(dict.fromkeys(name for score in scores for name in score.errors_mm))
    rows = [("mm", "people", *names)]
    for score in scores:
        errors = (f"{score.errors_mm[name]:.1f}" if name in score.errors_mm else "-" for name in names)
        rows.append((score.name, str(score.people), *errors))
    return rows


def markdown_table(scores: list[Score]) -> str:
    """`table` in Markdown."""
    header, *rows = ("| " + " | ".join(row) + " |" for row in table(scores))
    rule = "|---" + "|---:" * (header.count("|") - 2) + "|"
    return "\n".join([header, rule, *rows]) + "\n"


def write_scores(path: str | Path, loaded: LoadedModel, scores: list[Score], *, data: str) -> None:
    """Write scores as JSON: model, weights_hash, body, data, and per line name, people and errors_mm.

    Args:
        path: of the file. loaded: what was scored. scores: the lines. data: on what, in words.
    """
    record = {
        "model": loaded.settings.name, "weights_hash": loaded.weights_hash, "body": loaded.body, "data": data,
        "protocol": "synthetic-smpl24",
        "scores": [asdict(score) for score in scores],
    }  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _rooted(points: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
    return points - joints[:, :1]


def _local(R_global: torch.Tensor, body: BodyModel) -> torch.Tensor:
    parents = torch.as_tensor(body.parents)
    local = R_global[:, parents.clamp(min=0)].mT @ R_global
    local[:, 0] = R_global[:, 0]
    return local


def _scores(sums: dict[str, list[torch.Tensor]], people: int) -> list[Score]:
    lines: dict[str, dict[str, float]] = {}
    for key, values in sums.items():
        name, error = key.split("/")
        lines.setdefault(name, {})[error] = 1000 * float(torch.cat(values).mean())
    return [Score(name, people, errors) for name, errors in lines.items()]
