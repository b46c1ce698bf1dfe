"""Sources of people: joints as stored, meshes as stored, or bodies posed from parameters; the truth of each data set.

A source says who its samples are and gives the joints that a protocol asks for, and vertices where it has a mesh, some
rows at a time; nothing else of the evaluation knows where joints come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.body import BodyModel
from bodyreg.data.image_names import dataset_of, parts_of_name
from bodyreg.data.lifter_sets import LifterSet, read_lifter_set
from bodyreg.data.sample import SampleTable
from bodyreg.data.spin import load_spin
from bodyreg.evaluation.accumulate import Samples
from bodyreg.evaluation.protocols import Protocol
from bodyreg.files import safe_load_npz

__all__ = [
    "Bodies", "Points", "PosedBodies", "Source", "StoredJoints", "StoredMeshes", "Truth", "bodies_by_gender",
    "joints_for", "open_truth", "regressed", "samples_of_images", "truth_of_lifter_set", "truth_of_spin",
    "truth_of_table",
]  # fmt: skip

Bodies = Callable[[str], BodyModel]
"""The body model of a gender."""
_SCENES = {"TS1": "green screen", "TS2": "green screen", "TS3": "studio", "TS4": "studio", "TS5": "outdoor",
           "TS6": "outdoor"}  # fmt: skip
_GENDERS = {0: "male", 1: "female", -1: "neutral"}


class Points(NamedTuple):
    """Joints (B, J, 3) in the order of the protocol's set, and vertices (B, V, 3) or None, one frame, metres."""

    joints: Tensor
    vertices: Tensor | None = None


class Source(Interface):
    """Who can be asked for people."""

    samples: Samples

    def points(self, rows: np.ndarray, protocol: Protocol) -> Points:
        """The people of some rows of `samples`, for a protocol."""
        ...


class StoredJoints:
    """Joints of people in memory.

    Args:
        joints: (N, J, 3) metres. joint_set: their order. samples: whose they are.

    Raises:
        ValueError: shapes that do not fit the set or the samples.
    """

    def __init__(self, joints: np.ndarray | Tensor, joint_set: str, samples: Samples) -> None:
        self.joints, self.joint_set, self.samples = torch.as_tensor(joints), joint_set, samples
        wanted = (len(samples), len(skeletons.get(joint_set)), 3)
        if tuple(self.joints.shape) != wanted:
            raise ValueError(
                f"The joints have shape {tuple(self.joints.shape)}, and {joint_set!r} for {len(samples)} samples needs "
                f"{wanted}. Name the set the joints are in, or give them for these samples."
            )

    def points(self, rows: np.ndarray, protocol: Protocol) -> Points:
        joints = self.joints[torch.as_tensor(rows)].double()
        return Points(joints_for(joints, self.joint_set, protocol))


class StoredMeshes:
    """Meshes of people in memory: (N, V, 3) vertices, metres, of a body whose regressors give their joints."""

    def __init__(self, vertices: np.ndarray | Tensor, body: BodyModel, samples: Samples) -> None:
        self.vertices, self.body, self.samples = torch.as_tensor(vertices), body, samples
        if tuple(self.vertices.shape) != (len(samples), len(body.v_template), 3):
            raise ValueError(
                f"The vertices have shape {tuple(self.vertices.shape)}, and the {body.name} body needs "
                f"({len(samples)}, {len(body.v_template)}, 3). Give the body these meshes were made with."
            )

    def points(self, rows: np.ndarray, protocol: Protocol) -> Points:
        vertices = self.vertices[torch.as_tensor(rows)].float()
        return Points(regressed(self.body, vertices, protocol), vertices)


class PosedBodies:
    """Bodies posed from SMPL parameters, a batch at a time.

    Args:
        theta: (N, 24, 3) axis-angle, radians, or (N, 24, 3, 3) rotations. betas: (N, S), cut or filled up to each
            body's. transl: (N, 3) metres, or None for bodies at the origin.
        bodies: gives the body of a gender. genders: (N,), or None for neutral ones.
        samples: whose they are.
    """

    def __init__(
        self, theta: np.ndarray | Tensor, betas: np.ndarray | Tensor, transl: np.ndarray | Tensor | None,
        bodies: Bodies, samples: Samples, genders: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.theta, self.betas, self.samples = torch.as_tensor(theta).float(), torch.as_tensor(betas).float(), samples
        self.transl = None if transl is None else torch.as_tensor(transl).float()
        self.bodies, self.genders = bodies, tuple(genders) if genders is not None else ("neutral",) * len(samples)
        lengths = {len(self.theta), len(self.betas), len(self.genders), len(samples)}
        if len(lengths) != 1 or self.theta.shape[1:] not in ((24, 3), (24, 3, 3)):
            raise ValueError(
                f"Poses have shape {tuple(self.theta.shape)} and betas {tuple(self.betas.shape)} for {len(samples)} "
                "samples. Give (N, 24, 3) axis-angle or (N, 24, 3, 3) rotations, and (N, S) betas."
            )

    def points(self, rows: np.ndarray, protocol: Protocol) -> Points:
        neutral = protocol.gender == "neutral"
        genders = np.array(["neutral" if neutral else self.genders[k] for k in rows])
        first = self.bodies(str(genders[0]))
        vertices = torch.empty(len(rows), len(first.v_template), 3)
        joints = torch.empty(len(rows), len(skeletons.get(protocol.joint_set)), 3, dtype=torch.float64)
        with torch.no_grad():
            for gender in np.unique(genders):
                at = torch.as_tensor(np.flatnonzero(genders == gender))
                picked, body = torch.as_tensor(rows)[at], self.bodies(str(gender))
                theta = self.theta[picked]
                transl = None if self.transl is None or protocol.pve == "raw" else self.transl[picked]
                posed = body(fitted_betas(self.betas[picked], body.num_betas), theta[:, 1:].flatten(1, 2)
                             if theta.ndim == 3 else theta[:, 1:], theta[:, 0], transl)  # fmt: skip
                vertices[at] = posed.vertices
                if protocol.truth == "chain" and protocol.joint_set == "smpl-24":
                    joints[at] = posed.joints.double()
                else:
                    joints[at] = regressed(body, posed.vertices, protocol)
        return Points(joints, vertices)


def fitted_betas(betas: Tensor, count: int) -> Tensor:
    """(N, count) shape numbers, the last ones cut off or zeros added."""
    return torch.nn.functional.pad(betas[:, :count], (0, max(0, count - betas.shape[1])))


def regressed(body: BodyModel, vertices: Tensor, protocol: Protocol) -> Tensor:
    """(B, J, 3) float64 joints of the protocol's set from a mesh."""
    if protocol.joint_set == "smpl-24":
        return body.regress(vertices, "smpl-24").double()
    source = {"spin-44": "spin-49", "spin-24": "spin-49"}.get(protocol.joint_set, "h36m-17")
    return joints_for(body.regress(vertices, source).double(), source, protocol)


def joints_for(joints: Tensor, joint_set: str, protocol: Protocol) -> Tensor:
    """(B, J, 3) joints in the protocol's set, those it does not need NaN where they are lacking.

    Raises:
        ValueError: joints that the protocol needs and the set has not.
    """
    found = skeletons.matching(joint_set, protocol.joint_set)
    lacking = [skeletons.get(protocol.joint_set).joints[i] for i in protocol.needed() if found[i] is None]
    if lacking:
        raise ValueError(
            f"The protocol {protocol.label} needs {', '.join(lacking)} of {protocol.joint_set}, which joints of "
            f"{joint_set!r} do not have. Vary the joints (joints=a+b+c), or give joints of another set."
        )
    return skeletons.convert(joints, joint_set, protocol.joint_set, fill=float("nan"))


class Truth(NamedTuple):
    """True people of a data set: the source, the data set's key, what file it is, and a source the pictures came from.

    `table` is the prepared file where the people have photographs.
    """

    source: Source
    dataset: str
    origin: str
    table: SampleTable | None = None


def open_truth(path: str | Path, bodies: Bodies, *, dataset: str | None = None) -> Truth:
    """The truth in a file, whichever it is.

    Args:
        path: a prepared file (`bodyreg prepare`), an npz in SPIN's layout, a prepared set of a lifter, or an npz with
            `joints` (N, J, 3) in metres, `joint_set`, `names` (N,), and perhaps `sequences`, `actions`, `subjects`
            (N,), `frames` (N,); or the folder of MPI-INF-3DHP's test set.
        bodies: gives the body of a gender. dataset: key of the data set, where the file does not tell.

    Raises:
        ValueError: none of these, or a data set that cannot be told.
    """
    path = Path(path)
    if path.is_dir():
        from bodyreg.data.mpi3dhp_raw import read_test

        return _truth_of_3dhp_test(read_test(path), str(path))
    if not path.is_file():
        raise ValueError(f"There is no data set file {path}. Give a prepared npz, or MPI-INF-3DHP's test folder.")
    arrays = safe_load_npz(path)
    if "header" in arrays:
        return truth_of_table(SampleTable(path), bodies, origin=str(path))
    if "about" in arrays:
        return truth_of_lifter_set(read_lifter_set(path), origin=str(path))
    dataset = dataset or (str(arrays["dataset"]) if "dataset" in arrays else dataset_of(path))
    if dataset is None:
        raise ValueError(f"{path} does not tell which data set it is of. Say it with --dataset.")
    if "imgname" in arrays:
        return truth_of_spin(path, bodies, dataset)
    if {"joints", "joint_set", "names"} <= set(arrays):
        labels = {key: arrays[key].tolist() for key in ("sequences", "actions", "subjects", "scenes") if key in arrays}
        samples = Samples.of([str(name) for name in arrays["names"]], frames=arrays.get("frames"), **labels)
        return Truth(StoredJoints(arrays["joints"], str(arrays["joint_set"]), samples), dataset, str(path))
    raise ValueError(f"{path} holds {sorted(arrays)[:8]}. Give `joints`, `joint_set` and `names`, or a prepared file.")


def truth_of_table(table: SampleTable, bodies: Bodies, *, origin: str = "") -> Truth:
    """The truth of a prepared set of photographs with SMPL parameters or joints; names are `picture#person`.

    Raises:
        ValueError: the set knows only 2D key points.
    """
    rows = list(table)
    samples = samples_of_images([row.image for row in rows])
    if table.kind == "smpl":
        theta, betas, transl = (np.stack([getattr(row, key) for row in rows]) for key in ("theta", "betas", "transl"))
        source: Source = PosedBodies(theta, betas, transl, bodies, samples, [row.gender for row in rows])
    elif table.kind == "joints":
        source = StoredJoints(np.stack([np.asarray(row.joints17) for row in rows]), "h36m-17", samples)
    else:
        raise ValueError(f"{table.source} has 2D key points only. Score on a data set with joints or bodies in space.")
    return Truth(source, table.source, origin, table)


def samples_of_images(images: Sequence[str]) -> Samples:
    """Samples named `picture#k`, k counting the people of one picture; sequences are tracks of one person.

    A data set lists the frames of one person after the other; where the frame number falls, the next person begins.
    """
    counts: dict[str, int] = {}
    tracks: dict[str, int] = {}
    names, sequences, actions, subjects, scenes, frames = [], [], [], [], [], []
    last = ("", -1)
    for image in images:
        counts[image] = counts.get(image, -1) + 1
        sequence, action, subject, frame = parts_of_name(image)
        if sequence != last[0] or frame <= last[1]:
            tracks[sequence] = tracks.get(sequence, -1) + 1
        last = (sequence, frame)
        names.append(f"{image}#{counts[image]}")
        sequences.append(f"{sequence}#{tracks[sequence]}")
        actions.append(action)
        subjects.append(subject)
        scenes.append(_SCENES.get(sequence, ""))
        frames.append(frame)
    return Samples.of(names, sequences, actions, subjects, scenes, frames)


def truth_of_spin(path: str | Path, bodies: Bodies, dataset: str) -> Truth:
    """The truth of an npz in SPIN's layout: stored joints of Human3.6M and MPI-INF-3DHP, bodies of 3DPW."""
    labels = load_spin(path)
    samples = samples_of_images(labels.names)
    if labels.joints24 is not None and dataset != "pw3d":
        return Truth(StoredJoints(labels.joints24[..., :3], "spin-24", samples), dataset, str(path))
    if not labels.has_smpl.all():
        raise ValueError(f"{path} has neither joints S nor pose and shape of everyone. Give a file with 3D labels.")
    genders = [_GENDERS[int(code)] for code in labels.gender]
    return Truth(PosedBodies(labels.theta, labels.betas, None, bodies, samples, genders), dataset, str(path))


def truth_of_lifter_set(prepared: LifterSet, *, origin: str = "") -> Truth:
    """The valid frames of a lifter set's test subjects, named `subject/action/camera/frame`."""
    about, joints, labels = prepared.about, [], []
    for sequence in prepared.sequences(prepared.subjects("test")):
        absolute = sequence.joints.copy()
        others = [j for j in range(absolute.shape[1]) if j != about.root]
        absolute[:, others] += absolute[:, about.root : about.root + 1]
        key = f"{sequence.subject}/{sequence.action}/{sequence.camera}"
        for frame in np.flatnonzero(sequence.valid):
            joints.append(absolute[frame])
            labels.append((f"{key}/{frame}", key, sequence.action.split(" ")[0], sequence.subject, int(frame)))
    names, sequences, actions, subjects, frames = (list(column) for column in zip(*labels, strict=True))
    scenes = [_SCENES.get(subject, "") for subject in subjects]
    samples = Samples.of(names, sequences, actions, subjects, scenes, frames)
    dataset = next((d for word, d in (("3dhp", "mpi3dhp"), ("h36m", "h36m"), ("humaneva", "humaneva"))
                    if word in f"{about.name} {about.protocol}".lower()), about.name)  # fmt: skip
    return Truth(StoredJoints(np.stack(joints), about.joint_set, samples), dataset, origin)


def _truth_of_3dhp_test(people: Mapping[str, np.ndarray], origin: str) -> Truth:
    """The universal poses of MPI-INF-3DHP's test set."""
    places = zip(people["sequence"], people["frame"], strict=True)
    names = [f"{sequence}/img_{frame + 1:06d}" for sequence, frame in places]
    scenes = [_SCENES[str(sequence)] for sequence in people["sequence"]]
    samples = Samples.of(names, people["sequence"].tolist(), people["activity"].tolist(), None, scenes, people["frame"])
    return Truth(StoredJoints(people["univ_joints"], "mpi3dhp-17", samples), "mpi3dhp", origin)


def bodies_by_gender(body: str | Path = "smpl") -> Bodies:
    """Bodies of a model by gender, each loaded when it is first asked for."""
    loaded: dict[str, BodyModel] = {}

    def get(gender: str) -> BodyModel:
        if gender not in loaded:
            loaded[gender] = BodyModel.load(body, gender)
        return loaded[gender]

    return get
