"""Crops to posed bodies by the SPIN/HMR regressor, whose camera is weak, behind the same call as PersPose's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bodyreg import skeletons
from bodyreg.cameras import full_from_weak, project
from bodyreg.inference.regress import BodyEstimate, Regressor
from bodyreg.models.hmr import HMROutput
from bodyreg.models.perspose import normalise_image
from bodyreg.rotations import mirror_matrix

__all__ = ["HMRRegressor"]


class HMRRegressor(Regressor):
    """A loaded SPIN/HMR regressor and the body it speaks of; arguments as of `Regressor`.

    The network knows nothing of the photograph's camera. Its weak camera says how large and where in the crop the body
    is; with the crop's true intrinsics that becomes a place in metres, t_z = 2 f / (n s) (Li et al., CLIFF, ECCV 2022).
    The flip test averages rotations and numbers of the crop and of its mirror image.
    """

    @torch.inference_mode()
    def locate(self, crops: np.ndarray, K_crop: np.ndarray) -> np.ndarray:
        output = self._regress(crops, flip_test=False)
        joints, transl, K = self._placed(output, K_crop, crops.shape[2])[1:]
        return project(joints + transl[:, None], K).cpu().numpy()

    def predict(self, crops: np.ndarray, K_crop: np.ndarray) -> BodyEstimate:
        with torch.inference_mode():
            output = self._regress(crops, flip_test=self._flip_test)
            R, joints, transl, K = self._placed(output, K_crop, crops.shape[2])
            joints = joints + transl[:, None]
            joints25 = torch.cat([joints, joints[:, [1, 2]].mean(1, keepdim=True)], 1)
            values = (R, output.betas, transl, joints, project(joints25, K), joints25)
        return BodyEstimate(*(value.float().cpu().clone() for value in values))

    def _placed(self, output: HMROutput, K_crop: np.ndarray, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotations, joints before translation, translation (metres) and intrinsics."""
        K = torch.as_tensor(np.asarray(K_crop), dtype=torch.float32).to(self.device)
        posed = self.body(output.betas, output.R_local[:, 1:], output.R_local[:, 0])
        focal, offset = K[:, [0, 1], [0, 1]].mean(1), side / 2 - K[:, :2, 2]
        # A scale that is not positive means nothing: the smallest that a body in view can have stands for it.
        weak = torch.cat([output.weak[:, :1].clamp(min=0.05), output.weak[:, 1:]], 1)
        return output.R_local, posed.joints, full_from_weak(weak, focal, side, offset), K

    def _regress(self, crops: np.ndarray, *, flip_test: bool) -> HMROutput:
        images = normalise_image(self._pixels(crops))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            plain = self.model(images)
            if not flip_test:
                return plain
            mirrored = self.model(images.flip(-1))
        R = mirror_matrix(mirrored.R_local[:, list(skeletons.get("smpl-24").mirror)])
        weak = mirrored.weak * mirrored.weak.new_tensor([1.0, -1.0, 1.0])
        return HMROutput(
            _mean_rotation(plain.R_local, R), (plain.betas + mirrored.betas) / 2, (plain.weak + weak) / 2
        )


def _mean_rotation(a: Tensor, b: Tensor) -> Tensor:
    """Rotations (..., 3, 3) half way between two; the first where they are opposite."""
    U, S, Vh = torch.linalg.svd(a + b)
    sign = torch.linalg.det(U @ Vh)
    D = torch.diag_embed(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1))
    return torch.where((S[..., 1] > 1e-3)[..., None, None], U @ D @ Vh, a)
