"""What PersPose's published training is made of; the six published configurations are YAML files of this."""

from __future__ import annotations

from dataclasses import dataclass, field

from bodyreg.losses.perspose import PersPoseWeights
from bodyreg.models.registry import ModelSettings, default_settings

__all__ = ["MixSettings", "PersPoseSettings", "PersPoseOptimiser", "PersPoseRun"]


@dataclass
class MixSettings:
    """Shares of the data sets in an epoch, normalised by their sum; a set of share 0 need not be there."""

    h36m: float = 0.3
    coco: float = 0.4
    mpi3dhp: float = 0.2
    pw3d: float = 0.2
    bedlam_train: float = 0.15
    bedlam_val: float = 0.05
    samples: int = 300_000
    """Samples an epoch."""
    batch_size: int = 16
    """Samples a step and process."""
    eval_batch_size: int = 16
    aim_jitter: bool = False
    """Let the turned camera aim beside the person by up to a tenth of the box."""
    folder: str = "data"
    """Where `bodyreg prepare` wrote the indexed files."""
    roots: dict[str, str] = field(default_factory=dict)
    """Folder of each set's download by the set's name; default: the folder of that name beside the indexed files."""
    workers: int = 0
    """Processes that read pictures; 0 reads in the training process."""
    held_out: list[str] = field(default_factory=list)
    """Prepared files below `folder` to validate on, without .npz: pw3d_test, h36m_test, mpi3dhp_test."""

    def shares(self) -> list[float]:
        """Shares in the order of the published tables."""
        return [self.h36m, self.coco, self.mpi3dhp, self.pw3d, self.bedlam_train, self.bedlam_val]

    def files(self) -> dict[str, str]:
        """Names of the indexed files by set, in the same order."""
        return {
            "h36m": "h36m_train.npz", "coco": "coco_train2017.npz", "mpi3dhp": "mpi3dhp_train_v2.npz",
            "pw3d": "pw3d_train.npz", "bedlam_train": "bedlam_train.npz", "bedlam_val": "bedlam_val.npz",
        }  # fmt: skip


@dataclass
class PersPoseOptimiser:
    """AdamW with a rising first epoch and a rate that falls in steps."""

    lr: float = 3e-4
    weight_decay: float = 5e-4
    """Of weights of more than one axis; biases and norms do not decay."""
    period: float = 3.0
    """Epochs between falls of the rate."""
    gamma: float = 0.75
    """Factor of a fall."""
    clip: float = 100.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Batches whose gradients are added up for one step."""


@dataclass
class PersPoseRun:
    """The run itself."""

    epochs: int = 100
    """The published checkpoints stop early: 3DPW after 16, MPI-INF-3DHP with BEDLAM after 35."""
    steps: int | None = None
    """Steps in all, instead of `epochs`."""
    validate_every: int | None = None
    """Steps between validations on `data.held_out`; none validates after each epoch."""
    checkpoint_every: int = 500
    """Steps between checkpoints an interrupted run resumes from."""
    seed: int = 0
    precision: str = "16-mixed"
    """Lightning's name of the arithmetic: 16-mixed, bf16-mixed or 32-true."""
    hrnet_weights: str | None = None
    """HRNet's COCO weights to start from; none starts at random."""
    out: str = "runs/perspose"
    devices: int = 1
    """Processes on this machine, each with its own processor or GPU and batches."""
    nodes: int = 1
    """Machines."""
    accelerator: str = "auto"
    threads: int | None = None


@dataclass
class PersPoseSettings:
    """Everything about PersPose's published training."""

    model: ModelSettings = field(default_factory=lambda: default_settings("perspose"))
    data: MixSettings = field(default_factory=MixSettings)
    loss: PersPoseWeights = field(default_factory=PersPoseWeights)
    optimiser: PersPoseOptimiser = field(default_factory=PersPoseOptimiser)
    run: PersPoseRun = field(default_factory=PersPoseRun)
