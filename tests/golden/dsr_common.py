"""What the checks of DSR share: the toy body of a set, comparison relative to the largest entry."""

from __future__ import annotations

import numpy as np
import torch
from golden import Golden
from perspose_common import tensor

from bodyreg.body import BodyModel
from bodyreg.body_joints import spin_joints


class ToyBody:
    """The capsule body of a set with its landmark vertices, regressors and prior."""

    def __init__(self, golden: Golden) -> None:
        stored = Golden(golden.path.parent / "toy_smpl_head.npz")
        self.arrays, self.config = dict(stored.assets), stored.config
        self.h36m = tensor(self.arrays.pop("J_regressor_h36m"))
        self.extra = tensor(self.arrays.pop("J_regressor_extra"))
        self.prior = tensor(self.arrays.pop("semantic_prior"))
        self.faces = tensor(self.arrays["f"]).long()

    def model(self, gender: str = "neutral") -> BodyModel:
        factor = {"male": "male_v_template_scale", "female": "female_v_template_scale"}.get(gender)
        arrays = dict(self.arrays)
        if factor is not None:
            arrays["v_template"] = arrays["v_template"] * self.config[factor]
        return BodyModel.from_arrays(arrays, name="unknown", gender=gender)

    def picks(self) -> list[int]:
        ids = self.config["vertex_ids"]
        return [ids[name] for name in self.config["extra_joint_order"]]

    def joints49(self, posed) -> torch.Tensor:
        return spin_joints(posed.joints, posed.vertices[:, self.picks()], self.extra @ posed.vertices)


def close_relative(actual, expected, tolerance: float, what: str, floor: float = 0.0) -> None:
    """Arrays agree within a share of the largest expected entry (or of `floor`, where that is larger)."""
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, reference {expected.shape}"
    largest = max(np.abs(expected).max(initial=0.0), floor)
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= tolerance * largest + 1e-12, f"{what}: off by {error:.3g} of {largest:.3g}, allowed {tolerance:g}"
