"""What a training run is made of; every field can be set in YAML and overridden as section.key=value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bodyreg import config
from bodyreg.models.registry import ModelSettings

__all__ = [
    "DataSettings",
    "LossWeights",
    "OptimiserSettings",
    "RegressorSettings",
    "RunSettings",
    "regressor_settings",
]


@dataclass
class DataSettings:
    """Where training pictures come from."""

    shards: str = "data/synthetic/train"
    """Folder of geometry shards (`bodyreg prepare synthetic`); rendered first where there are none."""
    held_out: str = "data/synthetic/held_out"
    """Folder of geometry shards of clips never trained on; rendered first where there are none."""
    people: int = 100_000
    """People rendered into `shards` when it is empty."""
    held_out_people: int = 2048
    """People rendered into `held_out` when it is empty."""
    motion: str | None = None
    """Folder of motion files in AMASS's layout to draw their poses from; none draws them from the shipped prior."""
    garments: str | None = None
    """What people rendered into empty folders wear: geometry or painted (`SceneSettings.garments`); none: geometry."""
    backgrounds: str | None = None
    """Folder of the user's pictures to use as backgrounds; none draws procedural ones."""
    bank_size: int = 400
    """Backgrounds kept in memory."""
    pool: int = 8
    """Shards mixed at a time."""
    crop_sizes: list[int] = field(default_factory=lambda: [96, 128, 192])
    """Sides of the training crops, pixels, one phase after the other."""
    phase_ends: list[float] = field(default_factory=lambda: [0.7, 0.9, 1.0])
    """Share of the steps at which each phase ends: ascending, the last 1."""
    batch_size: int = 64
    """Pictures a step and process."""
    workers: int = 0
    """Processes that paint pictures (not on Windows); 0: two threads of the run's own paint, enough on a CPU."""
    easy_share: float = 0.05
    """Share of the steps, at the start, that see only people wholly in view."""


@dataclass
class LossWeights:
    """Factors of the loss terms (see bodyreg/losses)."""

    heatmap: float = 0.3
    uv: float = 0.05
    depth: float = 0.1
    density: float = 0.5
    xyz: float = 0.05
    twist: float = 1.0
    leaf: float = 0.3
    beta: float = 0.1
    dense: float = 1.0


@dataclass
class OptimiserSettings:
    """AdamW with warm-up and cosine decay."""

    lr: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 300
    clip: float = 5.0
    """Largest norm of the gradient."""


@dataclass
class RunSettings:
    """The run itself."""

    steps: int = 15000
    seed: int = 0
    precision: str = "bf16-mixed"
    """Lightning's name of the arithmetic: bf16-mixed, 16-mixed or 32-true."""
    validate_every: int = 1000
    """Steps between validations on held-out people."""
    validation_people: int = 512
    checkpoint_every: int = 500
    """Steps between checkpoints an interrupted run resumes from."""
    start_from: str | None = None
    """Weights of ours or a checkpoint of a run to begin with (fine-tuning); steps and rates begin anew."""
    out: str = "runs/perspose_small"
    """Folder of checkpoints, logs and final weights."""
    devices: int = 1
    """Processes on each machine, each with its own GPU or processor and batches."""
    nodes: int = 1
    """Machines; `torchrun` starts the same command on each."""
    accelerator: str = "auto"
    threads: int | None = None
    """Threads of tensor operations on the CPU; none leaves torch's choice."""


@dataclass
class RegressorSettings:
    """Everything about training an image regressor."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossWeights = field(default_factory=LossWeights)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def check(self) -> None:
        """Raises ValueError for values that no run could end well with, before any work is done."""
        sizes, ends = self.data.crop_sizes, self.data.phase_ends
        if len(sizes) != len(ends) or not sizes:
            raise ValueError(
                f"data.crop_sizes has {len(sizes)} numbers and data.phase_ends {len(ends)}. Give one of each a phase."
            )
        if any(b <= a for a, b in zip([0.0, *ends], ends, strict=False)) or ends[-1] != 1.0:
            raise ValueError(f"data.phase_ends is {ends}. Give ascending shares of the steps above 0, the last 1.0.")
        if any(size < 32 or size % 32 for size in [*sizes, self.model.crop_size]):
            raise ValueError(
                f"data.crop_sizes is {sizes} and model.crop_size {self.model.crop_size}. Give multiples of 32 pixels."
            )
        counts = {
            "data.people": self.data.people,
            "data.held_out_people": self.data.held_out_people,
            "data.bank_size": self.data.bank_size,
            "data.pool": self.data.pool,
            "data.batch_size": self.data.batch_size,
            "run.steps": self.run.steps,
            "run.validate_every": self.run.validate_every,
            "run.validation_people": self.run.validation_people,
            "run.checkpoint_every": self.run.checkpoint_every,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} is {value}. Give at least 1.")
        if self.data.workers < 0:
            raise ValueError(f"data.workers is {self.data.workers}. Give 0 or a number of processes.")


def regressor_settings(source: str | Path, overrides: Iterable[str] = ()) -> RegressorSettings:
    """The configuration of an image regressor, of the class its sections belong to: DSR's, the joint system's (with a
    section `semantic`), or the plain one.

    Raises:
        ValueError: as `config.load`.
    """
    schema = RegressorSettings
    if config.model_name(source) == "dsr":
        from bodyreg.training.dsr import DSRSettings as schema
    elif "semantic" in config.content(source):
        from bodyreg.training.perspose_dsr import JointSettings as schema
    return config.load(schema, source, overrides)
