"""Protocols: what a number of a benchmark means, as a record with a name that is printed beside the number.

The decisions that papers take silently (which frames, whose joints, which root, which alignment, which mean) are fields
here. A protocol that departs from a named one keeps the name and says in brackets what it changed, as in
"h36m-lift-17[pred_root=zero]"; `get` reads such names, so what a table prints can be run again.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bodyreg import skeletons

__all__ = ["AGGREGATES", "METRICS", "PRED_ROOTS", "PROTOCOLS", "Protocol", "fitting", "get", "names"]

METRICS = ("MPJPE", "PA-MPJPE", "PVE", "PA-PVE", "N-MPJPE", "PCK", "AUC", "MPJVE", "Accel")
"""Metrics by name, in the order of a table. PCK and AUC are shares, Accel and MPJVE millimetres a frame (squared)."""
PRED_ROOTS = ("raw", "zero", "subtract")
AGGREGATES = ("frames", "actions", "sequences", "scenes", "subject-actions", "batches")
_DATASETS = ("pw3d", "h36m", "mpi3dhp", "humaneva", "motion", "synthetic", "any")
_J14 = skeletons.get("lsp-14").joints
_HIPS = ("right_hip", "left_hip")


@dataclass(frozen=True)
class Protocol:
    """One way to score a data set.

    Attributes:
        name: its name. dataset: the data set it is for, "any" for all. split: its part. summary: whom it reproduces.
        frame_rule: which frames count, in words; readers of the data set apply it.
        truth: where true joints come from: "regressor" (mesh times matrix), "chain" (the joints a mesh was posed by),
            "stored" or "mocap".
        gender: of the true body: "annotated", "neutral", or "-" where there is none.
        joint_set: the set in which root, alignment and evaluated joints are named.
        joints: the evaluated joints by name; none means all of the set.
        root: joints whose mean is subtracted from the truth.
        pred_root: what happens to the prediction's root: "subtract" it from all joints, "zero" the root's row only, or
            leave it "raw" because the system was trained to give zero there.
        alignment: joints that feed Procrustes, by name; none means the evaluated ones.
        metrics: of `METRICS`, in the order of the table.
        aggregate: "frames": mean over samples; "actions", "sequences", "subject-actions": plain mean of the means of
            each; "scenes": means of each scene, weighted by their frames; "batches": plain mean of the means of the
            batches that were evaluated, which some published systems print.
        pve: "root": vertices relative to each side's root; "raw": as they are posed, without translation.
        pck_joints: joints of PCK and AUC by name; none means the evaluated ones. pck_m: the threshold, metres.
        pck_inclusive: count a joint that is exactly at the threshold, and integrate AUC over 0..199 mm as 3DPW's
            challenge does, instead of averaging PCK over 0, 5, ..., 150 mm.
        groups: joints of PCK and AUC by group, printed beside the totals.
        every: only every n-th sample of the prepared file counts. camera: only samples whose name holds this do.
        source: where this was written down.
        changed: what differs from the protocol of that name.
    """

    name: str
    dataset: str
    split: str
    summary: str
    frame_rule: str
    truth: str
    gender: str
    joint_set: str
    root: tuple[str, ...]
    joints: tuple[str, ...] = ()
    pred_root: str = "subtract"
    alignment: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("MPJPE", "PA-MPJPE")
    aggregate: str = "frames"
    pve: str = "root"
    pck_joints: tuple[str, ...] = ()
    pck_m: float = 0.150
    pck_inclusive: bool = False
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    every: int = 1
    camera: str = ""
    source: str = ""
    changed: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for what, value, known in (
            ("pred_root", self.pred_root, PRED_ROOTS), ("aggregate", self.aggregate, AGGREGATES),
            ("pve", self.pve, ("root", "raw")), ("dataset", self.dataset, _DATASETS),
            ("gender", self.gender, ("annotated", "neutral", "-")),
            ("truth", self.truth, ("regressor", "chain", "stored", "mocap")),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"The protocol {self.name!r} has {what}={value!r}. Choose one of {', '.join(known)}.")
        unknown = [metric for metric in self.metrics if metric not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"The protocol {self.name!r} names no metric {unknown}. Known: {', '.join(METRICS)}.")
        self.rows("joints"), self.rows("alignment"), self.rows("pck_joints"), self.root_rows(), self.groups_by_index()
        if self.pred_root == "zero" and len(self.root) != 1:
            raise ValueError(
                f"The protocol {self.name!r} zeroes a root that is the mean of {len(self.root)} joints. "
                "Zeroing needs a single joint; use pred_root=subtract."
            )

    @property
    def label(self) -> str:
        """Name, and in brackets what was changed."""
        return self.name + (f"[{','.join(f'{k}={v}' for k, v in self.changed)}]" if self.changed else "")

    def rows(self, which: str) -> list[int]:
        """Indices, in `joint_set`, of "joints", "alignment" or "pck_joints"; the last two default to the first."""
        chosen = getattr(self, which) or self.joints
        joint_set = skeletons.get(self.joint_set)
        return [joint_set.index(joint) for joint in chosen] if chosen else list(range(len(joint_set)))

    def root_rows(self) -> list[int]:
        """Indices, in `joint_set`, of the joints whose mean is the root."""
        return [skeletons.get(self.joint_set).index(joint) for joint in self.root]

    def needed(self) -> list[int]:
        """Indices, in `joint_set`, of every joint that a prediction must have."""
        chosen = {*self.rows("joints"), *self.rows("alignment"), *self.rows("pck_joints"), *self.root_rows()}
        return sorted(chosen)

    def groups_by_index(self) -> dict[str, tuple[int, ...]]:
        """Groups of PCK and AUC as indices in `joint_set`."""
        joint_set = skeletons.get(self.joint_set)
        return {name: tuple(joint_set.index(joint) for joint in joints) for name, joints in self.groups.items()}

    def varied(self, **changes: str) -> Protocol:
        """This protocol with some fields changed; the label says which.

        Args:
            changes: fields by name: pred_root, aggregate, pve, gender; or joints, root, alignment, metrics as names
                joined by "+"; or pck_m in metres.

        Raises:
            ValueError: a field that cannot be varied, or a value it does not take.
        """
        values: dict[str, object] = {}
        for name, text in changes.items():
            if name not in _VARIED:
                near = difflib.get_close_matches(name, _VARIED, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"A protocol's {name!r} cannot be varied. {hint}Known: {', '.join(_VARIED)}.")
            try:
                values[name] = _VARIED[name](text)
            except ValueError:
                raise ValueError(f"{name}={text!r} is no number. Give metres, such as 0.15.") from None
        kept = {**dict(self.changed), **changes}
        return dataclasses.replace(self, **values, changed=tuple(kept.items()))  # type: ignore[arg-type]

    def describe(self) -> list[str]:
        """The record in words: the answers to what users ask about a number."""
        joints = self.joints or skeletons.get(self.joint_set).joints
        lines = [
            f"protocol {self.label}: {self.summary}",
            f"frames: {self.frame_rule}",
            f"truth: {self.truth}, gender {self.gender}; {len(joints)} joints of {self.joint_set}: {' '.join(joints)}",
            f"root: {' + '.join(self.root)}; of the prediction: {_ROOT_WORDS[self.pred_root]}",
            f"alignment: {len(self.rows('alignment'))} joints; averaged over {self.aggregate}",
        ]
        if "PVE" in self.metrics:
            lines.append("PVE: " + ("relative to the same root" if self.pve == "root" else "without any alignment"))
        if "PCK" in self.metrics:
            rule = "at or below" if self.pck_inclusive else "strictly below"
            lines.append(f"PCK: share {rule} {1000 * self.pck_m:g} mm over {len(self.rows('pck_joints'))} joints")
        return lines


_ROOT_WORDS = {"subtract": "subtracted", "zero": "its row set to zero", "raw": "left as predicted"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split("+") if word)


_VARIED: dict[str, Callable[[str], object]] = {
    "pred_root": str, "aggregate": str, "pve": str, "gender": str, "pck_m": float,
    "joints": _words, "root": _words, "alignment": _words, "metrics": _words, "pck_joints": _words,
}  # fmt: skip

_LIFTED = ("MPJPE", "PA-MPJPE", "N-MPJPE", "MPJVE")
_MESH = ("MPJPE", "PA-MPJPE", "PVE")
_VALID = "every frame whose camera pose is trusted, of every person"
_3DHP_GROUPS = {
    "Head": ("head_top",), "Neck": ("neck",), "Shou": ("right_shoulder", "left_shoulder"),
    "Elbow": ("right_elbow", "left_elbow"), "Wrist": ("right_wrist", "left_wrist"), "Hip": _HIPS,
    "Knee": ("right_knee", "left_knee"), "Ankle": ("right_ankle", "left_ankle"),
}  # fmt: skip
_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
_CHALLENGE_LIMBS = tuple(f"{side}_{joint}" for joint in _LIMBS for side in ("left", "right"))
_POSE2MESH_14 = (
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "neck", "head", "left_shoulder",
    "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip

_SHIPPED = (
    Protocol(
        "pw3d-j14", "pw3d", "test", "SPIN, PARE, DSR, BEDLAM, CameraHMR and PersPose on 3DPW", _VALID, "regressor",
        "annotated", "h36m-17", ("pelvis",), _J14, metrics=_MESH, source="evaluation of SPIN, Kolotouros et al. 2019",
    ),
    Protocol(
        "pw3d-j14-midhip", "pw3d", "test", "WHAM and GVHMR on 3DPW", _VALID, "regressor", "annotated", "h36m-17",
        _HIPS, _J14, metrics=(*_MESH, "Accel"), source="evaluation of WHAM, Shin et al. 2024",
    ),
    Protocol(
        "pw3d-j14-vibe", "pw3d", "test", "VIBE's lineage on 3DPW: neutral truth",
        "frames with more than 6 of the 2D points above 0.3 confidence", "regressor", "neutral", "h36m-17", _HIPS,
        _J14, metrics=(*_MESH, "Accel"), pve="raw", source="evaluation of VIBE, Kocabas et al. 2020",
    ),
    Protocol(
        "pw3d-j44-hmr2", "pw3d", "test", "HMR2.0 and TokenHMR on 3DPW: stored key points", _VALID, "stored",
        "annotated", "spin-44", ("pelvis",), (*skeletons.get("spin-24").joints[:13], "head"),
        source="evaluation of HMR2.0, Goel et al. 2023",
    ),
    Protocol(
        "pw3d-j24-challenge", "pw3d", "all", "the official 3DPW challenge script",
        "trusted camera pose and any 2D point found, all 87 tracks", "chain", "annotated", "smpl-24", ("pelvis",),
        metrics=("MPJPE", "PA-MPJPE", "PCK", "AUC"), pck_joints=_CHALLENGE_LIMBS, pck_m=0.050, pck_inclusive=True,
        source="3DPW challenge, von Marcard et al. 2018",
    ),
    Protocol(
        "smpl24-midhip", "any", "test", "EMDB, RICH and BEDLAM style, SMPL's joints", "every frame of the data set",
        "regressor", "annotated", "smpl-24", ("left_hip", "right_hip"), metrics=(*_MESH, "Accel"),
        source="evaluation of WHAM and BEDLAM",
    ),
    Protocol(
        "h36m-mesh-p1", "h36m", "valid-p1", "SPIN's lineage on Human3.6M, four cameras",
        "S9 and S11, every fifth frame, all four cameras", "mocap", "-", "h36m-17", ("pelvis",), _J14,
        source="evaluation of SPIN, Kolotouros et al. 2019",
    ),
    Protocol(
        "h36m-mesh-p2", "h36m", "valid-p2", "SPIN's lineage on Human3.6M, frontal camera",
        "S9 and S11, every fifth frame, camera 60457274", "mocap", "-", "h36m-17", ("pelvis",), _J14, camera="60457274",
        source="evaluation of SPIN, Kolotouros et al. 2019",
    ),
    Protocol(
        "h36m-mosh-j14", "h36m", "test", "PersPose on Human3.6M: MoSh meshes, not mocap joints",
        "S9 and S11 without drifted sequences, every 20th frame, four cameras", "regressor", "neutral", "h36m-17",
        ("pelvis",), _J14, metrics=_MESH, every=4, source="evaluation of PersPose, Hao and Li 2025",
    ),
    Protocol(
        "h36m-moon-p1", "h36m", "test", "PoseNet's Protocol 1: trained on six subjects, tested on S11, aligned",
        "S11, every 64th frame", "mocap", "-", "h36m-17", ("pelvis",), _POSE2MESH_14, metrics=("PA-MPJPE",),
        source="evaluation of PoseNet, Moon et al. 2019; joints of Pose2Mesh",
    ),
    Protocol(
        "h36m-moon-p2", "h36m", "test", "PoseNet's Protocol 2: S9 and S11; Pose2Mesh, HybrIK",
        "S9 and S11, every 64th frame (PoseNet), 50th (Pose2Mesh) or 20th (HybrIK)", "mocap", "-", "h36m-17",
        ("pelvis",), _POSE2MESH_14, source="evaluation of PoseNet, Moon et al. 2019; joints of Pose2Mesh",
    ),
    Protocol(
        "h36m-lift-17", "h36m", "test", "VideoPose3D's lineage of lifters: protocols #1, #2, #3 and velocity",
        "S9 and S11, every frame, four cameras", "mocap", "-", "h36m-17", ("pelvis",), pred_root="raw",
        metrics=_LIFTED, aggregate="actions", source="evaluation of VideoPose3D, Pavllo et al. 2019",
    ),
    Protocol(
        "motion-lift-17", "motion", "test", "lifters on the motion benchmark, which anyone may make",
        "every frame of the test clips, all cameras", "stored", "-", "h36m-17", ("pelvis",), pred_root="raw",
        metrics=_LIFTED, aggregate="frames", source="this package",
    ),
    Protocol(
        "mpi3dhp-mesh-17", "mpi3dhp", "test", "SPIN's lineage on MPI-INF-3DHP: universal poses, 17 joints",
        "valid frames of TS1 to TS6", "stored", "-", "h36m-17", ("pelvis",),
        metrics=("MPJPE", "PA-MPJPE", "PCK", "AUC"), source="evaluation of SPIN, Kolotouros et al. 2019",
    ),
    Protocol(
        "mpi3dhp-hybrik-17", "mpi3dhp", "test", "PersPose on MPI-INF-3DHP: HybrIK's camera-frame annotation, 17 joints",
        "frames of HybrIK's annotation", "stored", "-", "h36m-17", ("pelvis",),
        source="evaluation of PersPose, Hao and Li 2025",
    ),
    Protocol(
        "mpi3dhp-lift-17", "mpi3dhp", "test", "P-STMO's lineage of lifters on MPI-INF-3DHP: universal poses",
        "valid frames of TS1 to TS6", "stored", "-", "mpi3dhp-17", ("pelvis",), pred_root="zero",
        metrics=("MPJPE", "PA-MPJPE", "PCK", "AUC"), pck_joints=skeletons.get("mpi3dhp-17").joints[:14],
        groups=_3DHP_GROUPS, source="MPI-INF-3DHP's own scorer, Mehta et al. 2017",
    ),
    Protocol(
        "mpi3dhp-cross-16", "mpi3dhp", "test", "PoseAug and PoseDA across data sets: 16 joints",
        "the 2929 valid frames", "stored", "-", "h36m-16", ("pelvis",),
        metrics=("MPJPE", "PA-MPJPE", "PCK", "AUC"), source="evaluation of PoseAug, Gong et al. 2021",
    ),
    Protocol(
        "humaneva-15", "humaneva", "validate", "VideoPose3D's lineage on HumanEva-I: protocol #2",
        "Validate/S1 to S3, actions Walking, Jog and Box, three cameras", "mocap", "-", "humaneva-15", ("pelvis",),
        pred_root="raw", metrics=("PA-MPJPE", "MPJPE"), aggregate="subject-actions",
        source="evaluation of VideoPose3D, Pavllo et al. 2019",
    ),
    Protocol(
        "synthetic-smpl24", "synthetic", "held-out", "held-out synthetic people of the free body, SMPL's joints",
        "people of clips never trained on, upright and unoccluded", "chain", "neutral", "smpl-24", ("pelvis",),
        metrics=_MESH, source="this package",
    ),
)  # fmt: skip
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _SHIPPED}


def names() -> tuple[str, ...]:
    """Names of all protocols."""
    return tuple(PROTOCOLS)


def get(name: str) -> Protocol:
    """The protocol of a name, or of a name with changes: "h36m-lift-17[pred_root=zero,aggregate=frames]".

    Raises:
        ValueError: an unknown name (the nearest is given), or changes that cannot be made.
    """
    plain, bracket, rest = name.partition("[")
    if plain not in PROTOCOLS:
        near = difflib.get_close_matches(plain, PROTOCOLS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no protocol {plain!r}. {hint}Known: {', '.join(PROTOCOLS)}.")
    protocol = PROTOCOLS[plain]
    if not bracket:
        return protocol
    changes = dict(part.split("=", 1) for part in rest.removesuffix("]").split(",") if part.count("=") >= 1)
    if not rest.endswith("]") or not changes or len(changes) != len(rest.removesuffix("]").split(",")):
        raise ValueError(f"{name!r} is no protocol with changes. Write it as NAME[field=value,field=value].")
    return protocol.varied(**changes)


def fitting(dataset: str) -> tuple[str, ...]:
    """Names of the protocols that a data set can be scored under."""
    return tuple(name for name, protocol in PROTOCOLS.items() if protocol.dataset in (dataset, "any"))
