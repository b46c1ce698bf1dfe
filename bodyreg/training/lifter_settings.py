"""What a training run of a lifter is made of; every field can be set in YAML and overridden as section.key=value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from bodyreg.models.lifters.registry import LifterSettings, lifter_entry

__all__ = ["LifterData", "LifterLoss", "LifterOptimiser", "LifterRun", "LifterTraining"]

_SCHEMES = ("chunks", "strided", "frame")
_OPTIMISERS = ("adamw", "adam", "ranger")
_SCHEDULES = ("exponential", "cosine")


@dataclass
class LifterData:
    """Where clips come from, and how sequences are cut into them."""

    prepared: str = "data/motion/motion_noisy.npz"
    """A set that `bodyreg prepare motion`, `h36m-lift`, `humaneva` or `3dhp-lift` wrote."""
    scheme: str = "chunks"
    """Windows: chunks (side by side, KTPFormer), strided (HoT), frame (one around each frame, GLA-GCN)."""
    stride: int = 0
    """Frames between the beginnings of strided windows; 0 for the length of a clip."""
    actions: list[str] = field(default_factory=list)
    """Beginnings of the names of the actions that count; empty for all."""
    downsample: int = 1
    """Keep every n-th frame."""
    subset: float = 1.0
    """Share of each sequence that is trained on: one run of frames."""
    flip: bool = True
    """Also the mirrored windows."""
    reverse: bool = False
    """Also the windows backwards in time."""
    target_jitter: bool = False
    """Turn targets by up to 5 degrees about the optical axis and scale them in the picture by 5 % (GLA-GCN)."""
    batch_size: int = 8
    """Clips a step and process."""


@dataclass
class LifterLoss:
    """Factors of the loss terms (see bodyreg/losses/lifters.py)."""

    mpjpe: float = 1.0
    weighted_mpjpe: float = 0.0
    temporal: float = 0.0
    velocity: float = 0.0
    n_mpjpe: float = 0.0
    sequence: float = 0.0
    """Error of the whole sequence, for networks that predict it beside the centre (GLA-GCN's paper)."""
    gaussian: float = 0.0
    """Error weighed by the network's own uncertainty, for networks that say it (GUMLP)."""
    squared: bool = False
    """Descend on half the square of the total, as KTPFormer was trained."""


@dataclass
class LifterOptimiser:
    """Optimiser and its rate, by the epoch."""

    name: str = "adamw"
    """adamw, adam or ranger."""
    lr: float = 4e-5
    weight_decay: float = 0.0
    amsgrad: bool = False
    schedule: str = "exponential"
    """exponential or cosine (down to `lowest` after the last epoch)."""
    decay: float = 0.99
    """Factor after each epoch."""
    halve_every: int = 0
    """Every so many epochs halve the rate instead; 0 for never."""
    lowest: float = 1e-5
    bn_momentum: bool = False
    """Bring the momentum of batch normalisation down from 0.1 to 0.001 over the run (VideoPose3D, GLA-GCN)."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""


@dataclass
class LifterRun:
    """The run itself."""

    epochs: int = 60
    max_steps: int = 0
    """End after so many steps, whatever the epochs say; 0 for no limit."""
    seed: int = 1234
    precision: str = "32-true"
    """Lightning's name of the arithmetic: bf16-mixed, 16-mixed or 32-true."""
    validate_every: int = 1000
    """Steps between validations on sequences of the test subjects."""
    validation_sequences: int = 16
    """Sequences of a validation, spread evenly over all."""
    checkpoint_every: int = 500
    """Steps between checkpoints an interrupted run resumes from."""
    start_from: str | None = None
    """Weights of ours to begin with (fine-tuning); steps and rates begin anew."""
    out: str = "runs/lifter"
    """Folder of checkpoints, logs and final weights."""
    devices: int = 1
    """Processes on each machine, each with its own GPU or processor and batches."""
    nodes: int = 1
    """Machines; `torchrun` starts the same command on each."""
    accelerator: str = "auto"
    threads: int | None = None
    """Threads of tensor operations on the CPU; none leaves torch's choice."""


@dataclass
class LifterTraining:
    """Everything about training a lifter."""

    model: LifterSettings = field(default_factory=LifterSettings)
    data: LifterData = field(default_factory=LifterData)
    loss: LifterLoss = field(default_factory=LifterLoss)
    optimiser: LifterOptimiser = field(default_factory=LifterOptimiser)
    run: LifterRun = field(default_factory=LifterRun)

    def check(self) -> None:
        """Raises ValueError for values that no run could end well with, before any work is done."""
        entry = lifter_entry(self.model.name)
        entry.options(self.model)
        for name, value, known in (
            ("data.scheme", self.data.scheme, _SCHEMES), ("optimiser.name", self.optimiser.name, _OPTIMISERS),
            ("optimiser.schedule", self.optimiser.schedule, _SCHEDULES),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name} is {value!r}. Choose one of {', '.join(known)}.")
        if entry.output == "centre" and self.data.scheme != "frame":
            raise ValueError(
                f"{self.model.name} gives the pose of a clip's middle frame, and data.scheme is {self.data.scheme!r}. "
                "Use frame."
            )
        factors = [value for name, value in asdict(self.loss).items() if name != "squared"]
        if min(factors) < 0 or max(factors) <= 0:
            raise ValueError("No loss has a factor above 0, or one is negative. Set loss.mpjpe=1, for example.")
        counts = {
            "data.batch_size": self.data.batch_size, "data.downsample": self.data.downsample,
            "run.epochs": self.run.epochs, "run.validate_every": self.run.validate_every,
            "run.validation_sequences": self.run.validation_sequences,
            "run.checkpoint_every": self.run.checkpoint_every,
        }  # fmt: skip
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}. Give at least 1.")
        if self.optimiser.lr <= 0:
            raise ValueError(f"optimiser.lr is {self.optimiser.lr}. Give a rate above 0.")
