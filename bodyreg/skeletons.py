"""Joint sets by name: their joints, trees and mirror maps, and conversion between them by joint name.

Two sets may use one word for two places ("head" of SMPL is the skull's base, of Human3.6M its upper half), or two words
for one. `_POINT` settles which joints are the same place; `convert` uses each source joint at most once, so converting
there and back leaves every joint that both sets have where it was.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

Array = TypeVar("Array")  # numpy array or torch tensor


@dataclass(frozen=True)
class JointSet:
    """A named list of joints. All indices are zero-based; left and right are the person's own.

    Attributes:
        name: name of the set.
        joints: names, in order, unique within the set.
        parents: index of each joint's parent, -1 for a root (`spin-49` is two trees and has two).
        mirror: index of each joint's mirror image; joints on the middle line are their own.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    mirror: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the first joint without a parent."""
        return self.parents.index(-1)

    @property
    def left(self) -> tuple[int, ...]:
        """Indices of the person's left joints, ascending."""
        return tuple(i for i, joint in enumerate(self.joints) if "left_" in joint)

    @property
    def right(self) -> tuple[int, ...]:
        """Indices of the person's right joints, ascending."""
        return tuple(i for i, joint in enumerate(self.joints) if "right_" in joint)

    def index(self, joint: str) -> int:
        """Index of a joint by name; spellings such as "RHip", "R_Hip" and "right hip" are understood."""
        name = _plain(joint)
        if name in self.joints:
            return self.joints.index(name)
        near = difflib.get_close_matches(name, self.joints, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"Its joints: {', '.join(self.joints)}."
        raise ValueError(f"The joint set {self.name!r} has no joint {joint!r}. {hint}")


def names() -> tuple[str, ...]:
    """The names of all joint sets."""
    return tuple(_TABLE)


@cache
def get(name: str) -> JointSet:
    """The joint set of that name.

    Raises:
        ValueError: no such set; the nearest name is given.
    """
    if name not in _TABLE:
        near = difflib.get_close_matches(str(name), _TABLE, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no joint set {name!r}. {hint}Known sets: {', '.join(_TABLE)}.")
    joints_text, parents_text = _TABLE[name]
    joints = tuple(joints_text.split())
    mirror = tuple(joints.index(_other_side(joint)) for joint in joints)
    return JointSet(name, joints, tuple(int(p) for p in parents_text.split()), mirror)


@cache
def matching(from_set: str, to_set: str) -> tuple[int | None, ...]:
    """For each joint of `to_set` the index of the same place in `from_set`, None where it has none."""
    source = [_point(from_set, joint) for joint in get(from_set).joints]
    target = [_point(to_set, joint) for joint in get(to_set).joints]
    found: list[int | None] = [source.index(p) if p in source else None for p in target]
    # Stand-ins come second, and only for source joints that no target joint claims outright.
    for i, point in enumerate(target):
        if found[i] is None:
            free = [source.index(p) for p in _STAND_INS.get(point, ()) if p in source and source.index(p) not in found]
            found[i] = free[0] if free else None
    return tuple(found)


def convert(joints: Array, from_set: str, to_set: str, *, fill: float | None = None) -> Array:
    """Reorder joints from one set to another, by name.

    Args:
        joints: (..., J, C) array or tensor in the order of `from_set`; any frame, any unit.
        from_set, to_set: names of joint sets.
        fill: value for joints of `to_set` that `from_set` lacks; None refuses such a conversion.

    Returns:
        (..., J', C) in the order of `to_set`, a copy.

    Raises:
        ValueError: unknown set, J is not the size of `from_set`, or joints are lacking and no `fill` is given.
    """
    source, target, found = get(from_set), get(to_set), matching(from_set, to_set)
    shape = tuple(joints.shape)  # type: ignore[attr-defined]
    if len(shape) < 2 or shape[-2] != len(source):
        raise ValueError(
            f"The joints have shape {shape}, but {from_set!r} has {len(source)} joints. "
            f"Pass (..., {len(source)}, C) or name the set they are in."
        )
    missing = [i for i, index in enumerate(found) if index is None]
    if missing and fill is None:
        raise ValueError(
            f"{from_set!r} has no {', '.join(target.joints[i] for i in missing)}, which {to_set!r} needs. "
            "Convert to a set it covers, or give a fill value for the joints that are lacking."
        )
    out = joints[..., [index or 0 for index in found], :]  # type: ignore[index]
    if missing:
        out[..., missing, :] = fill
    return out


_SIDES = (("left_", "right_"), ("right_", "left_"))


def _other_side(joint: str) -> str:
    for side, other in _SIDES:
        if side in joint:
            return joint.replace(side, other)
    return joint


def _plain(joint: str) -> str:
    """Our spelling of a joint's name: "RHip", "R_Hip", "Right-Hip", "r hip" -> "right_hip"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", joint.strip())
    name = re.sub(r"[\s_\-.]+", "_", words).lower()
    name = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", name))
    return {"midhip": "mid_hip", "headtop": "head_top", "root": "pelvis"}.get(name, name)


_OPENPOSE = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe "
    "left_heel right_big_toe right_small_toe right_heel"
)
_OPENPOSE_PARENTS = "1 8 1 2 3 1 5 6 -1 8 9 10 8 12 13 0 0 15 16 14 19 14 11 22 11"
_LSP = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow right_shoulder "
    "left_shoulder left_elbow left_wrist neck"
)
_H36M_PARENTS = "-1 0 1 2 0 4 5 0 7 8 9 8 11 12 8 14 15"  # shoulders rewired to the neck
_H36M_UPPER = "torso neck nose head left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"

_SUPERSET = _LSP + " head_top pelvis thorax spine jaw head nose left_eye right_eye left_ear right_ear"
_SUPERSET_PARENTS = "1 2 14 14 3 4 7 8 12 12 9 10 15 12 -1 16 14 12 17 12 19 19 20 21"
_COCO = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_SMPL = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot "
    "right_foot neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hand right_hand"
)
_SMPL_PARENTS = "-1 0 0 0 1 2 3 4 5 6 7 8 9 9 9 12 13 14 16 17 18 19 20 21"


def _after_openpose(count: int) -> tuple[str, str]:
    """OpenPose's 25 joints and the first `count` of SPIN's superset, one list with two trees."""
    parents = (int(p) for p in _SUPERSET_PARENTS.split()[:count])
    joints = ["op_" + joint for joint in _OPENPOSE.split()] + _SUPERSET.split()[:count]
    return " ".join(joints), " ".join([_OPENPOSE_PARENTS, *(str(p + 25 if p >= 0 else p) for p in parents)])


# Name -> (joints, parents). Where a data set defines no tree (LSP, COCO, OpenPose, SPIN, 3DHP's 28) it is ours.
_TABLE: dict[str, tuple[str, str]] = {
    "smpl-24": (_SMPL, _SMPL_PARENTS),
    # HybrIK's: five vertices of the skin behind SMPL's joints.
    "hybrik-29": (
        _SMPL + " head_top left_middle_finger right_middle_finger left_big_toe right_big_toe",
        _SMPL_PARENTS + " 15 22 23 10 11",
    ),
    # Both of the next are called "H36M order" in the wild; they differ in which leg comes first.
    "h36m-17": (
        "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle " + _H36M_UPPER,
        _H36M_PARENTS,
    ),
    "h36m-17-left": (
        "pelvis left_hip left_knee left_ankle right_hip right_knee right_ankle " + _H36M_UPPER,
        _H36M_PARENTS,
    ),
    # Human3.6M without the nose, as cross-domain lifters use it.
    "h36m-16": (
        "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle " + _H36M_UPPER.replace("nose ", ""),
        "-1 0 1 2 0 4 5 0 7 8 8 10 11 8 13 14",
    ),
    # Human3.6M as distributed: copies of pelvis and neck, and the ends of hands and feet, besides the 17.
    "h36m-32": (
        "pelvis right_hip right_knee right_ankle right_foot right_toe left_hip left_knee left_ankle left_foot left_toe "
        "pelvis_copy torso neck nose head left_neck left_shoulder left_elbow left_wrist left_thumb left_thumb_tip "
        "left_hand left_hand_tip right_neck right_shoulder right_elbow right_wrist right_thumb right_thumb_tip "
        "right_hand right_hand_tip",
        "-1 0 1 2 3 4 0 6 7 8 9 0 11 12 13 14 12 16 17 18 19 20 19 22 12 24 25 26 27 28 27 30",
    ),
    "lsp-14": (_LSP + " head", "1 2 12 12 3 4 7 8 12 12 9 10 -1 12"),
    "lsp-17": (_LSP + " head pelvis torso nose", "1 2 14 14 3 4 7 8 12 12 9 10 15 16 -1 14 12"),
    "coco-17": (_COCO, "-1 0 0 1 2 0 0 5 6 7 8 5 6 11 12 13 14"),
    # Pose2Mesh's: pelvis and neck are the means of the hips and of the shoulders.
    "coco-19": (_COCO + " pelvis neck", "18 0 0 1 2 18 18 5 6 7 8 17 17 11 12 13 14 -1 17"),
    "openpose-18": (
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
        "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear",
        "1 -1 1 2 3 1 5 6 1 8 9 1 11 12 0 0 14 15",
    ),
    "openpose-25": (_OPENPOSE, _OPENPOSE_PARENTS),
    "spin-24": (_SUPERSET, _SUPERSET_PARENTS),
    "spin-44": _after_openpose(19),
    "spin-49": _after_openpose(24),
    "mpi3dhp-17": (
        "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
        "right_ankle left_hip left_knee left_ankle pelvis spine head",
        "1 15 1 2 3 1 5 6 14 8 9 14 11 12 -1 14 1",
    ),
    "mpi3dhp-28": (
        "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist "
        "left_hand right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle "
        "left_foot left_toe right_hip right_knee right_ankle right_foot right_toe",
        "2 0 3 4 -1 1 5 6 5 8 9 10 11 5 13 14 15 16 4 18 19 20 21 4 23 24 25 26",
    ),
    "humaneva-15": (
        "pelvis thorax left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist left_hip left_knee "
        "left_ankle right_hip right_knee right_ankle head",
        "-1 0 1 2 3 1 5 6 0 8 9 0 11 12 1",
    ),
}

# Joints whose word means another place than in the other sets, or that are called otherwise elsewhere.
_H36M_POINTS = {"nose": "jaw"}  # Human3.6M's "nose" is the face; the tip of the nose is COCO's
_MPI_POINTS = {"head": "jaw", "head_top": "head", "spine": "torso"}  # 3DHP's stand-ins for Human3.6M's points
_SMPL_POINTS = {j: f"smpl_{j}" for j in ("neck", "head", "left_foot", "right_foot", "left_hand", "right_hand")}
_OPENPOSE_POINTS = {joint: "op_" + joint for joint in _OPENPOSE.split()}
_H36M_ENDS = ("foot", "toe", "neck", "thumb", "thumb_tip", "hand", "hand_tip")
_POINT: dict[str, dict[str, str]] = {
    "smpl-24": _SMPL_POINTS,
    "hybrik-29": {**_SMPL_POINTS, **{f"{side}_big_toe": f"op_{side}_big_toe" for side in ("left", "right")}},
    "h36m-17": _H36M_POINTS,
    "h36m-17-left": _H36M_POINTS,
    "h36m-32": {**_H36M_POINTS, **{f"{s}_{end}": f"h36m_{s}_{end}" for s in ("left", "right") for end in _H36M_ENDS}},
    "lsp-17": _H36M_POINTS,
    "coco-19": {"pelvis": "op_mid_hip", "neck": "op_neck"},
    "openpose-18": _OPENPOSE_POINTS,
    "openpose-25": _OPENPOSE_POINTS,
    "spin-24": {"spine": "torso"},
    "spin-44": {"spine": "torso"},
    "spin-49": {"spine": "torso"},
    "mpi3dhp-17": _MPI_POINTS,
    "mpi3dhp-28": {**_MPI_POINTS, **{f"spine{i}": f"mpi_spine{i}" for i in (2, 3, 4)}},
    "humaneva-15": {"head": "humaneva_head"},
}

# Where the exact place is lacking, the next best one, in both directions.
_STAND_INS: dict[str, tuple[str, ...]] = {
    **{"op_" + joint: (joint,) for joint in _OPENPOSE.split()},
    **{joint: ("op_" + joint,) for joint in _OPENPOSE.split()},
    "op_mid_hip": ("pelvis",),
    "pelvis": ("op_mid_hip",),
    "op_neck": ("neck", "smpl_neck"),
    "smpl_neck": ("op_neck",),
}


def _point(set_name: str, joint: str) -> str:
    return _POINT.get(set_name, {}).get(joint, joint)
