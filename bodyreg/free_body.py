"""Decode the free body model that ships with the package.

The asset is derived from CC0 MakeHuman data only (see `assets/NOTICE`) and has the format of an SMPL model (Loper et
al. 2015): 6890 vertices, 13776 triangles, 24 joints, T-pose, y up, facing +z, left is +x, metres. It is not SMPL: pose
and shape parameters of one model mean nothing on the other.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from bodyreg import skeletons

GENDERS = ("neutral", "male", "female")
_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

# Where a joint set's word means a point of our own; other joints are points, or joints of SMPL-24, of the same name.
_OUTER_HIPS = {"left_hip": "left_outer_hip", "right_hip": "right_outer_hip"}
_H36M = {
    "left_hip": "left_h36m_hip", "right_hip": "right_h36m_hip", "pelvis": "mid_hip", "torso": "spine",
    "neck": "thorax", "nose": "jaw", "head": "upper_head",
}  # fmt: skip
_POINT_OF = {
    "h36m-17": _H36M,
    "h36m-17-left": _H36M,
    "lsp-14": {**_OUTER_HIPS, "neck": "lsp_neck", "head": "upper_head"},
    "coco-17": _OUTER_HIPS,
    "openpose-25": {**_OUTER_HIPS, "neck": "mid_shoulder"},
}
# The nine rows that SPIN-49 adds to joints and vertices (Kolotouros et al. 2019), as points.
_EXTRA_9 = (
    "right_outer_hip", "left_outer_hip", "lsp_neck", "head_top", "mid_hip", "thorax", "spine", "jaw", "upper_head",
)  # fmt: skip


def _regressors(points: dict[str, np.ndarray], J_regressor: np.ndarray) -> dict[str, np.ndarray]:
    """(J, V) matrices by joint set name, assembled by joint names."""
    row_of = dict(zip(skeletons.get("smpl-24").joints, J_regressor, strict=True)) | points
    out = {name: np.stack([row_of[own.get(joint, joint)] for joint in skeletons.get(name).joints])
           for name, own in _POINT_OF.items()}  # fmt: skip
    return out | {"extra-9": np.stack([row_of[point] for point in _EXTRA_9])}


def _dense_rows(data: np.lib.npyio.NpzFile, prefix: str, count: int, vertices: int) -> np.ndarray:
    rows = np.zeros((count, vertices), np.float32)
    rows[data[f"{prefix}_row"], data[f"{prefix}_col"]] = data[f"{prefix}_value"]
    return rows


def load_free_body(gender: str = "neutral") -> dict:
    """Decode the free body to float32 arrays under the keys of an SMPL file.

    Args:
        gender: "neutral", "male" or "female".

    Returns:
        dict with v_template (V, 3) and kid_template (V, 3) in metres, shapedirs (V, 3, 16), posedirs (V, 3, 207),
        J_regressor (24, V), weights (V, 24), kintree_table (2, 24) int64 with -1 for the root, f (F, 3) int64,
        vert_sym_idxs (V,) int64 mirror vertices, part_labels (V,) int64 joint that moves each vertex most,
        regressors: joint set name -> (J, V) in the order of that set, and the strings bs_style, bs_type, source,
        content_hash and the integer recipe_version. All regressor rows are non-negative and sum to 1. They approximate
        the published matrices of the SMPL topology by anatomy: numbers made with them compare with no published one.

    Raises:
        ValueError: if the gender is not one of the three.
    """
    if gender not in GENDERS:
        raise ValueError(f"The free body has no gender {gender!r}. Use one of {', '.join(GENDERS)}.")
    asset = resources.files("bodyreg") / "assets" / "free_body.npz"
    with asset.open("rb") as file, np.load(file, allow_pickle=False) as data:
        steps = {k: float(data[f"step_{k}"]) for k in ("template", "shapedirs", "posedirs")}
        template = data[f"template_{gender}"].astype(np.float32) * np.float32(steps["template"])
        V = len(template)
        weights = np.zeros((V, 24))
        # Unused slots name joint 0 with weight 0, so the four columns are added rather than assigned.
        np.add.at(weights, (np.arange(V)[:, None], data["weights_joint"]), data["weights_value"].astype(float))
        posedirs = np.zeros((V, 207, 3), np.float32)
        posedirs[data["posedirs_vertex"], data["posedirs_entry"]] = data["posedirs_value"] * np.float32(
            steps["posedirs"]
        )
        J_regressor = _dense_rows(data, "J", 24, V)
        names = data["point_names"].tolist()
        points = dict(zip(names, _dense_rows(data, "point", len(names), V), strict=True))
        return {
            "v_template": template,
            "shapedirs": data[f"shapedirs_{gender}"].transpose(2, 1, 0) * np.float32(steps["shapedirs"]),
            "posedirs": np.ascontiguousarray(posedirs.transpose(0, 2, 1)),
            "J_regressor": J_regressor,
            "weights": (weights / weights.sum(1, keepdims=True)).astype(np.float32),
            "kintree_table": np.stack([np.array(_PARENTS), np.arange(24)]).astype(np.int64),
            "f": data["faces"].astype(np.int64),
            "vert_sym_idxs": data["mirror"].astype(np.int64),
            "kid_template": data["kid_template"].astype(np.float32) * np.float32(steps["template"]),
            "part_labels": weights.argmax(1),
            "regressors": _regressors(points, J_regressor),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
            "source": str(data["source"]),
            "content_hash": str(data["content_hash"]),
            "recipe_version": int(data["recipe_version"]),
        }
