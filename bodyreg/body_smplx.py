"""The second engine: the same arrays through the `smplx` package.

It is the extra `smplx`. Its licence is for non-commercial research, so installing it is the user's own choice.
"""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from bodyreg.body_joints import LANDMARKS

if TYPE_CHECKING:
    from torch import Tensor

    from bodyreg.body_files import BodyArrays

#: The package's keys for the landmark vertices, in our order.
_KEYS = ("nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel",
         "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky")


class SmplxEngine:
    """Skinning by `smplx.SMPLLayer`; call with betas (B, S), R_local (B, 24, 3, 3), transl (B, 3)."""

    def __init__(self, arrays: BodyArrays, shapedirs: np.ndarray, dtype: torch.dtype) -> None:
        try:
            import smplx
        except ImportError:
            raise ImportError("The engine 'smplx' needs the smplx package, which is not installed. Install "
                              "bodyreg[smplx] and mind its licence, or use engine='own'.") from None
        v_count, s = len(arrays.v_template), shapedirs.shape[2]
        # Fewer than 300 columns make the package cap the betas at ten and print a warning: pad with zeros.
        padded = np.concatenate([shapedirs, np.zeros((v_count, 3, max(300 - s, 0)), shapedirs.dtype)], 2)
        struct = SimpleNamespace(
            v_template=arrays.v_template, shapedirs=padded, posedirs=arrays.posedirs, J_regressor=arrays.J_regressor,
            weights=arrays.weights, f=arrays.faces, bs_style="lbs", bs_type="lrotmin",
            kintree_table=np.array([arrays.parents, range(24)], dtype=np.int64),
        )
        # Only the 24 joints are used, so on another topology any valid index does.
        ids = {key: min(v, v_count - 1) for key, v in zip(_KEYS, LANDMARKS.values(), strict=False)}
        with contextlib.redirect_stdout(io.StringIO()):
            self.layer = smplx.SMPLLayer(model_path="", data_struct=struct, num_betas=s, vertex_ids=ids, dtype=dtype)

    def __call__(self, betas: Tensor, R_local: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, 3) vertices and (B, 24, 3) joints, metres."""
        layer = self.layer.to(betas)
        out = layer(betas=betas, body_pose=R_local[:, 1:].contiguous(), global_orient=R_local[:, :1].contiguous(),
                    transl=transl, pose2rot=False)
        return out.vertices, out.joints[:, :24]
