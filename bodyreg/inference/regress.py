"""Crops to posed bodies: the network, its decoding and inverse kinematics behind one call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg.inverse_kinematics import inverse_kinematics
from bodyreg.models.decoding import Decoded
from bodyreg.models.perspose import UNIT_CROP, normalise_image

if TYPE_CHECKING:
    from bodyreg.body import BodyModel
    from bodyreg.checkpoints import LoadedModel

__all__ = ["BodyEstimate", "Regressor", "check_body", "choose_device"]

log = logging.getLogger(__name__)


class BodyEstimate(NamedTuple):
    """Posed bodies in the frames of their crops (turned cameras, OpenCV axes), metres, float32, on the CPU.

    R_local (B, 24, 3, 3) rotations relative to the parent, the global orientation first; betas (B, S); transl (B, 3);
    joints24 (B, 24, 3) of the posed body; uv (B, 25, 2) joints as the heat maps have them, pixels of the crop;
    xyz (B, 25, 3) joints as the network has them, before the body's bone lengths were imposed.
    """

    R_local: Tensor
    betas: Tensor
    transl: Tensor
    joints24: Tensor
    uv: Tensor
    xyz: Tensor


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a name means; "auto" is the GPU where PyTorch can use one.

    Raises:
        ValueError: for an unknown name or a device that is not there.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"There is no device {name!r}. Choose auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"The device {name!r} is not there: PyTorch sees {torch.cuda.device_count()} GPUs. Use cpu.")
    return device


def check_body(trained_on: str, body_name: str) -> None:
    """Refuse to read one body's parameters on another: betas and poses of the two mean different things.

    Args:
        trained_on: name of the body the weights were trained on ("free" or "smpl").
        body_name: name of the body asked for.

    Raises:
        ValueError: they differ.
    """
    if trained_on == body_name:
        return
    if trained_on == "smpl":
        raise ValueError(
            f"These weights were trained on SMPL and mean nothing on the body {body_name!r}. Pass --body smpl (its "
            "files are found by BODYREG_DATA or the user data folder), or use weights trained on the free body."
        )
    raise ValueError(
        f"These weights were trained on the body {trained_on!r} and mean nothing on {body_name!r}. Pass --body "
        f"{trained_on}, or weights trained on {body_name!r}."
    )


class Regressor:
    """A loaded network and the body it speaks of.

    Args:
        loaded: from `checkpoints.load_model`.
        body: the body model the weights were trained on; its engine decides bone lengths.
        device: "auto", or what PyTorch takes.
        flip_test: average with the mirrored crop, which doubles the time.
        bfloat16: run the network (never the decoding or the body) in bfloat16.

    Raises:
        ValueError: the weights belong to another body, or the body's shape numbers are not those they speak of.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        body: BodyModel,
        device: str | torch.device = "auto",
        *,
        flip_test: bool = True,
        bfloat16: bool = False,
    ) -> None:
        check_body(loaded.body, body.name)
        if loaded.settings.num_betas != body.num_betas:
            raise ValueError(
                f"The network regresses {loaded.settings.num_betas} betas and the body takes {body.num_betas}. Load "
                f"the body with num_betas={loaded.settings.num_betas}."
            )
        if body.has_kid:
            raise ValueError(
                f"The network regresses {body.num_betas} shape components of SMPL, and the last one of this body is "
                f"its child template. Bring an SMPL file with at least {body.num_betas} components (v1.1.0 has 300)."
            )
        self.device = choose_device(device)
        self.model: Any = loaded.model.to(self.device).eval()
        self.body = body.to(self.device)
        self.settings = loaded.settings
        self.weights_hash = loaded.weights_hash
        self._flip_test = flip_test
        self._bfloat16 = bfloat16

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Height and width of the crops the network takes, pixels."""
        return self.settings.crop_size, self.settings.crop_size

    @torch.inference_mode()
    def locate(self, crops: np.ndarray, K_crop: np.ndarray) -> np.ndarray:
        """Only where the joints are in the crops: one plain pass, enough to draw a better box.

        Args:
            crops: (B, h, w, 3) uint8 RGB. K_crop: (B, 3, 3) intrinsics of the crops, pixels.

        Returns:
            (B, 24, 2) joints, pixels of the crop.
        """
        decoded = self._decode(crops, K_crop, flip_test=False)
        return (decoded.uv[:, :24] * (crops.shape[2] / UNIT_CROP)).cpu().numpy()

    def predict(self, crops: np.ndarray, K_crop: np.ndarray) -> BodyEstimate:
        """Pose, shape and place the people in crops.

        Args:
            crops: (B, h, w, 3) uint8 RGB. K_crop: (B, 3, 3) intrinsics of the crops, pixels.
        """
        with torch.inference_mode():
            decoded = self._decode(crops, K_crop, flip_test=self._flip_test)
            xyz = decoded.xyz + decoded.xyz0
            solved = inverse_kinematics(self.body, xyz[:, :24], decoded.ortho_twist, decoded.beta, decoded.leaf_rot)
            posed = self.body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl)
            uv = decoded.uv * (crops.shape[2] / UNIT_CROP)
            values = (solved.R_local, solved.betas, solved.transl, posed.joints, uv, xyz)
        # Copied out here: what is made in inference mode could not be changed or differentiated by the caller.
        return BodyEstimate(*(value.float().cpu().clone() for value in values))

    def _decode(self, crops: np.ndarray, K_crop: np.ndarray, *, flip_test: bool) -> Decoded:
        images = normalise_image(self._pixels(crops)).contiguous(memory_format=torch.channels_last)
        K = torch.as_tensor(np.asarray(K_crop), dtype=torch.float32).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            return self.model.predict(images, K, flip_test=flip_test)

    def _pixels(self, crops: np.ndarray) -> Tensor:
        """(B, 3, h, h) RGB in [0, 1] on the device."""
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8 or crops.shape[1] != crops.shape[2]:
            raise ValueError(f"The crops are {crops.shape} {crops.dtype}. Give (B, h, h, 3) uint8 RGB.")
        return torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 255
