"""What a training run is made of; every field can be set in YAML and overridden as section.key=value."""

from __future__ import annotations

from dataclasses import dataclass, field

from bodyreg.models.registry import ModelSettings

__all__ = ["DataSettings", "LossWeights", "OptimiserSettings", "RegressorSettings", "RunSettings"]


@dataclass
class DataSettings:
    """Where training pictures come from."""

    shards: str = "data/synthetic/train"
    """Folder of geometry shards (`bodyreg prepare synthetic`)."""
    held_out: str = "data/synthetic/held_out"
    """Folder of geometry shards of clips never trained on."""
    backgrounds: str | None = None
    """Folder of the user's pictures to use as backgrounds; none draws procedural ones."""
    bank_size: int = 400
    """Backgrounds kept in memory."""
    pool: int = 8
    """Shards mixed at a time."""
    crop_sizes: list[int] = field(default_factory=lambda: [96, 128, 192])
    """Sides of the training crops, pixels, one phase after the other."""
    phase_ends: list[float] = field(default_factory=lambda: [0.7, 0.9, 1.0])
    """Share of the steps at which each phase ends."""
    batch_size: int = 64
    """Pictures a step and process."""
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
    out: str = "runs/perspose_small"
    """Folder of checkpoints, logs and final weights."""
    devices: int = 1
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
