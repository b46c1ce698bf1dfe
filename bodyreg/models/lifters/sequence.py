"""Running a lifter over sequences of any length: windows, flip averaging, overlaps that fade into each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bodyreg import skeletons, windows
from bodyreg.models.lifters.record import LifterSettings
from bodyreg.models.lifters.registry import lifter_entry

__all__ = ["SequenceLifter", "mirrored"]


def mirrored(points: Tensor, mirror: Sequence[int]) -> Tensor:
    """Points (..., J, C) of the mirrored person: x negated, left and right exchanged."""
    flipped = points[..., list(mirror), :].clone()
    flipped[..., 0] *= -1
    return flipped


class SequenceLifter:
    """A lifter with what it takes to run it: clip length, kind of output, mirror maps.

    Args:
        network: in evaluation mode. settings: it was built from.
        mirror_in, mirror_out: mirror images of key points and joints; by default those of the settings' joint sets.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LifterSettings,
        mirror_in: Sequence[int] | None = None,
        mirror_out: Sequence[int] | None = None,
    ) -> None:
        entry = lifter_entry(settings.name)
        self.network, self.settings, self.output, self.dense = network, settings, entry.output, entry.dense
        self.frames, self.channels = entry.frames(settings), entry.channels
        self.mirror_in = tuple(mirror_in or skeletons.get(settings.input_set).mirror)
        self.mirror_out = tuple(mirror_out or skeletons.get(settings.joint_set).mirror)

    @torch.no_grad()
    def clips(self, keypoints: Tensor, *, flip_test: bool = True) -> tuple[Tensor, Tensor | None]:
        """Poses of clips as the network gives them, by default averaged with those of the mirrored clips.

        Args:
            keypoints: (N, F, J, C) screen coordinates. flip_test: average both passes; a network that keeps some frames
                keeps the same ones in both.

        Returns:
            (N, F', J', 3) and, of networks that keep some frames, their indices (N, F').
        """
        poses, index = _split(self.network(keypoints))
        if flip_test:
            again: dict[str, Any] = {} if index is None else {"index": index}
            flipped, _ = _split(self.network(mirrored(keypoints, self.mirror_in), **again))
            poses = (poses + mirrored(flipped, self.mirror_out)) / 2
        return poses, index

    def centres(self, keypoints: Tensor, *, flip_test: bool = True) -> Tensor:
        """(N, J', 3) poses of the middle frames of clips (N, F, J, C), whatever the network's output."""
        poses, index = self.clips(keypoints, flip_test=flip_test)
        if index is not None:
            return poses[index == (self.frames - 1) // 2]
        return poses[:, poses.shape[1] // 2]

    def sequence(
        self,
        keypoints: Tensor,
        *,
        overlap: int = 0,
        flip_test: bool = True,
        batch_size: int = 64,
        centred: bool = False,
    ) -> Tensor:
        """A pose for every frame of a sequence.

        Networks that give all frames of a clip run over windows side by side; frames that windows have in common fade
        from one to the next. The others run on a window around every frame. Beyond its ends the sequence is taken to
        stand still, so that it may be shorter than a clip.

        Args:
            keypoints: (T, J, C) screen coordinates; confidence 1 is added for networks that want one.
            overlap: frames that neighbouring windows share, for networks that give all frames.
            flip_test: average with the mirrored sequence. batch_size: windows a forward pass.
            centred: one window around every frame for those networks, too.

        Returns:
            (T, J', 3) root-relative joints, metres, on the key points' device.

        Raises:
            ValueError: another joint set or number of values than the network takes, no frames, or numbers that are
                not finite.
        """
        keypoints = self.checked(keypoints)
        length = len(keypoints)
        if self.output == "sequence" and not centred:
            return self._blended(keypoints, windows.tiled(length, self.frames, overlap), flip_test, batch_size)
        if self.dense and not centred:
            return self._dense(keypoints, flip_test, batch_size)
        around = windows.frames_of(windows.every_frame(length), length, (self.frames - 1) // 2)
        # An even clip has one frame more behind its middle than before it.
        around = np.concatenate([around, around[:, -1:]], 1) if self.frames % 2 == 0 else around
        found = [
            self.centres(keypoints[rows], flip_test=flip_test)
            for rows in torch.from_numpy(around).to(keypoints.device).split(batch_size)
        ]
        return torch.cat(found)

    def checked(self, keypoints: Tensor) -> Tensor:
        """Key points (T, J, C) with as many values as the network takes.

        Raises:
            ValueError: as for `sequence`.
        """
        points = len(self.mirror_in)
        if keypoints.ndim != 3 or keypoints.shape[1] != points or keypoints.shape[2] not in (2, 3):
            raise ValueError(
                f"The key points have shape {tuple(keypoints.shape)}, and {self.settings.name} takes (frames, "
                f"{points}, 2 or 3) in the order of {self.settings.input_set!r}. Convert them to that joint set."
            )
        if len(keypoints) == 0:
            raise ValueError("The sequence has no frames. Give at least one.")
        if not keypoints.isfinite().all():
            raise ValueError("Some key points are not finite. Give missing ones confidence 0 instead.")
        if keypoints.shape[2] < self.channels:
            return torch.cat([keypoints, torch.ones_like(keypoints[..., :1])], -1)
        return keypoints[..., : self.channels]

    def _blended(self, keypoints: Tensor, tiles: np.ndarray, flip_test: bool, batch_size: int) -> Tensor:
        length = len(keypoints)
        rows = torch.from_numpy(windows.frames_of(tiles, length)).to(keypoints.device)
        parts = [self.clips(keypoints[some], flip_test=flip_test)[0] for some in rows.split(batch_size)]
        poses = torch.cat(parts).flatten(0, 1)
        source, target, weights = windows.blend_windows(tiles, length)
        weighted = poses[torch.from_numpy(source)] * torch.from_numpy(weights).to(poses)[:, None, None]
        blended = torch.zeros(length, *poses.shape[1:], dtype=poses.dtype, device=poses.device)
        return blended.index_add_(0, torch.from_numpy(target).to(poses.device), weighted)

    def _dense(self, keypoints: Tensor, flip_test: bool, batch_size: int) -> Tensor:
        """Long clips through a network whose poses follow each other, in pieces that bound the memory."""
        length, pad, step = len(keypoints), (self.frames - 1) // 2, 64 * batch_size
        found = []
        for start in range(0, length, step):
            piece = np.array([[start, min(start + step, length)]])
            rows = torch.from_numpy(windows.frames_of(piece, length, pad)).to(keypoints.device)
            found.append(self.clips(keypoints[rows], flip_test=flip_test)[0][0])
        return torch.cat(found)


def _split(output: Any) -> tuple[Tensor, Tensor | None]:
    """Poses, and the index of those networks that keep some frames."""
    return (output, None) if isinstance(output, Tensor) else (output[0], output[1])
