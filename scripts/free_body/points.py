"""Regressor rows of named points, from which the joint sets of data sets are assembled.

They approximate the published regressors of the SMPL topology by anatomy; numbers made with them are not comparable
with published ones.
"""

from __future__ import annotations

import numpy as np

from .skeleton import SLOTS, fit_regressor_row


def chin(vertices: np.ndarray, weights: np.ndarray, mirror: np.ndarray) -> int:
    """Midline vertex of the chin: the furthest forward below the lips."""
    nose = vertices[SLOTS["nose"]]
    middle = mirror == np.arange(len(mirror))
    mask = middle & (weights[:, 15] > 0.5) & (vertices[:, 1] < nose[1] - 0.04) & (vertices[:, 2] > nose[2] - 0.09)
    return int(np.where(mask, vertices[:, 2], -np.inf).argmax())


def point_rows(
    vertices: np.ndarray, template: np.ndarray, weights: np.ndarray, J_regressor: np.ndarray, mirror: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Rows (V,) by point name, and the errors in metres of those that had to be fitted.

    vertices: (N, V, 3) persons to fit to; the rest describes the final body.
    """
    eye = np.eye(len(template))
    rows = {name: eye[slot] for name, slot in SLOTS.items() if name.split("_")[-1] not in _FINGERS}
    rows["mid_hip"] = (J_regressor[1] + J_regressor[2]) / 2
    rows["mid_shoulder"] = (J_regressor[16] + J_regressor[17]) / 2
    rows["thorax"] = 0.85 * rows["mid_shoulder"] + 0.15 * J_regressor[12]
    rows["spine"] = 0.51 * rows["mid_hip"] + 0.49 * rows["mid_shoulder"]
    rows["lsp_neck"] = 0.35 * rows["mid_shoulder"] + 0.65 * J_regressor[12]
    rows["jaw"] = 0.6 * eye[chin(template, weights, mirror)] + 0.4 * J_regressor[15]
    rows["upper_head"] = (rows["head_top"] + J_regressor[15]) / 2
    errors: dict[str, float] = {}
    hips = np.einsum("v,nvi->ni", J_regressor[1], vertices)
    allowed = weights[:, [0, 1, 4]].sum(1) > 0.5
    for name, out, up in (("outer_hip", 1.25, 0.02), ("h36m_hip", 1.45, 0.0)):
        target = hips * [out, 1, 1] + [0, up, 0]
        row = fit_regressor_row(target, vertices, allowed)
        rows[f"left_{name}"], rows[f"right_{name}"] = row, row[mirror]
        errors[name] = float(np.linalg.norm(np.einsum("v,nvi->ni", row, vertices) - target, axis=1).mean())
    return rows, errors


_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
