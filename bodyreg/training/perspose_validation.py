"""Validation of PersPose while it trains: people of prepared test sets, each under the protocol of its figures.

Flip test on, crops without augmentation or margin, errors in the rotated frame, which do not change under rotation.
What is scored is the neutral body after inverse kinematics: its Human3.6M joints and vertices, not the heat maps'
joints (PersPose, Hao and Li, ICCV 2025). Every sample counts once, however many processes share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bodyreg.data.perspose_crops import PersPoseCrops
from bodyreg.data.sample import SampleTable
from bodyreg.evaluation import protocols
from bodyreg.evaluation.accumulate import ErrorAccumulator, Samples, group_means

__all__ = ["HeldOut", "HeldOutCrops", "PROTOCOL_OF", "Scoring", "open_held_out"]

PROTOCOL_OF = {"pw3d": "pw3d-j14", "h36m": "h36m-mosh-j14", "mpi3dhp": "mpi3dhp-hybrik-17"}
"""Protocols of the published figures, by data set."""


class HeldOut(NamedTuple):
    """A prepared set to validate on.

    name: of its file; table, root: labels and folder of the pictures; protocol: of its score; rows (N,): the samples of
    the table that the protocol counts; samples: who they are.
    """

    name: str
    table: SampleTable
    root: Path
    protocol: protocols.Protocol
    rows: np.ndarray
    samples: Samples


def open_held_out(names: Sequence[str], folder: str | Path, roots: dict[str, str]) -> list[HeldOut]:
    """The prepared sets FOLDER/NAME.npz.

    Args:
        names: such as pw3d_test. folder: of the prepared files. roots: folders of the downloads by data set; default
            FOLDER/DATA SET.

    Raises:
        ValueError: a file is missing, or of a data set without a protocol.
    """
    opened = []
    for name in names:
        path = Path(folder) / f"{name}.npz"
        if not path.is_file():
            raise ValueError(
                f"There is no {path} to validate on. Run `bodyreg prepare`, or set data.held_out to the sets there are "
                "([] for none)."
            )
        table = SampleTable(path)
        if table.source not in PROTOCOL_OF:
            raise ValueError(
                f"{path} is of {table.source}, which has no protocol. Validate on {', '.join(PROTOCOL_OF)}."
            )
        protocol = protocols.get(PROTOCOL_OF[table.source])
        rows = np.arange(len(table))[:: protocol.every]
        samples = Samples.of([f"{k} {table[int(k)].image}" for k in rows])
        root = Path(roots.get(table.source, Path(folder) / table.source))
        opened.append(HeldOut(name, table, root, protocol, rows, samples))
    return opened


class HeldOutCrops(torch.utils.data.Dataset):
    """Crops of a set as evaluation makes them, with `place`: the sample's place among those that count."""

    def __init__(self, held_out: HeldOut, crops: PersPoseCrops) -> None:
        self.held_out, self.crops = held_out, crops

    def __len__(self) -> int:
        return len(self.held_out.rows)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {**self.crops[0, int(self.held_out.rows[place]), 0], "place": torch.tensor(place)}

    def batches(self, size: int, rank: int, world: int) -> list[list[int]]:
        """Places of every world-th batch, from the rank-th on."""
        starts = range(rank * size, len(self), world * size)
        return [list(range(start, min(start + size, len(self)))) for start in starts]


class Scoring(torch.nn.ModuleList):
    """Errors of all sets, gathered batch by batch; part of the training module, so that it lives where that does."""

    def __init__(self, held_out: Sequence[HeldOut]) -> None:
        super().__init__([ErrorAccumulator(entry.protocol, entry.samples) for entry in held_out])
        self.held_out = list(held_out)

    def update(self, number: int, batch: dict[str, Tensor], joints17: Tensor, vertices: Tensor) -> None:
        """Score a batch of set `number`: predicted (B, 17, 3) joints and (B, V, 3) vertices in the crops' frames."""
        score: ErrorAccumulator = self[number]  # type: ignore[assignment]
        # A picture that could not be read or cropped is of no kind, and is not scored.
        read = batch["is_smpl"] | batch["is_3dhp"]
        if not read.any():
            return
        is_mesh = self.held_out[number].table.kind == "smpl"
        true = batch["joints17" if is_mesh else "joints17_3dhp"]
        meshes = (vertices[read], batch["vertices"][read]) if is_mesh else ()
        score.update(batch["place"][read], joints17[read].double(), true[read].double(), *meshes)

    def close(self) -> dict[str, float]:
        """Means over everyone of all processes as NAME/METRIC_mm, with NAME/unread where samples were; then forget."""
        figures: dict[str, float] = {}
        for entry, score in zip(self.held_out, self, strict=True):
            errors = score.compute()  # type: ignore[operator]
            score.reset()  # type: ignore[operator]
            for metric, value in group_means(errors, entry.samples, entry.protocol).total.items():
                figures[f"{entry.name}/{metric}_mm"] = 1000 * value
            if unread := int((~errors.scored).sum()):
                figures[f"{entry.name}/unread"] = float(unread)
        return figures
