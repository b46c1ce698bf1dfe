"""What an adaptation run of PoseDA is made of; every field can be set in YAML and overridden as section.key=value."""

from __future__ import annotations

from dataclasses import dataclass, field

from bodyreg.models.lifters.registry import LifterSettings, lifter_entry

__all__ = ["AdaptSettings", "LPASettings", "PoseDAData", "PoseDARun", "PoseDASettings", "PretrainSettings"]

JOINT_SET = "h36m-16"
"""The joints that bones, generators and critics are defined on."""


@dataclass
class PoseDAData:
    """The two domains: prepared sets of lifters (see `bodyreg prepare`)."""

    source: str = "data/pair/source.npz"
    """Its training subjects give 2D-3D pairs."""
    target: str = "data/pair/target.npz"
    """Its 2D key points and cameras are seen, its 3D joints only score."""
    source_subjects: list[str] = field(default_factory=list)
    """Subjects that train; empty for the set's training subjects."""
    transductive: bool = False
    """Draw target poses from the subjects that score instead of the set's training subjects. Said in the log."""
    downsample: int = 1
    """Keep every n-th frame of both."""


@dataclass
class PretrainSettings:
    """Stage 0, the lifter on the source."""

    lr: float = 1e-3
    epochs: int = 50
    batch_size: int = 1024
    decay: float = 0.96
    """Factor of the rate after every `decay_steps` steps."""
    decay_steps: int = 100_000


@dataclass
class LPASettings:
    """Stage 1, generator and critics."""

    epochs: int = 50
    """0 leaves the stage out: adaptation then moves poses without changing them (GPA alone)."""
    lr: float = 1e-4
    batch_size: int = 1024
    probability: float = 0.5
    """Chance that a batch of stage 2 is changed by the generator."""
    adv3d: float = 6.0
    adv2d: float = 1.0
    regulariser: float = 3.0
    swap_lengths: bool = True
    """Before each epoch give every source pose the bone lengths of a random training subject."""
    pool: int = 4096
    """Generated poses that each critic is shown again."""


@dataclass
class AdaptSettings:
    """Stage 2, the lifter on poses moved to the target."""

    epochs: int = 50
    lr: float = 1e-4
    batch_size: int = 1024
    plain_pass: bool = True
    """After each epoch one over poses that are only moved."""
    refine: int = 0
    """Fixed-point steps of the alignment's depth."""


@dataclass
class PoseDARun:
    """The run itself."""

    seed: int = 0
    clip: float = 1.0
    """Largest norm of a gradient."""
    threads: int | None = None
    """Threads of tensor operations on the CPU; none leaves torch's choice."""
    out: str = "runs/poseda"
    """Folder of the stages' results; a stage whose file is there is not run again."""


def _lifter() -> LifterSettings:
    return LifterSettings("simple_baseline", input_set=JOINT_SET, joint_set=JOINT_SET)


@dataclass
class PoseDASettings:
    """Everything about adapting a lifter (Chai et al., ICCV 2023)."""

    adaptation: str = "poseda"
    """The method; tells this file from a training configuration."""
    model: LifterSettings = field(default_factory=_lifter)
    data: PoseDAData = field(default_factory=PoseDAData)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    lpa: LPASettings = field(default_factory=LPASettings)
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    run: PoseDARun = field(default_factory=PoseDARun)

    def check(self) -> None:
        """Raises ValueError for values that no run could end well with, before any work is done."""
        if self.adaptation != "poseda":
            raise ValueError(f"There is no adaptation {self.adaptation!r}. Known: poseda.")
        if (self.model.input_set, self.model.joint_set) != (JOINT_SET, JOINT_SET):
            raise ValueError(f"PoseDA works on {JOINT_SET}. Set model.input_set and model.joint_set to it.")
        entry = lifter_entry(self.model.name)
        if entry.frames(self.model) != 1 or entry.channels != 2:
            raise ValueError(
                f"{self.model.name} sees {entry.frames(self.model)} frames. Choose a lifter of single frames: "
                "simple_baseline, semgcn, stgcn, or videopose3d with its preset 1."
            )
        if not 0 <= self.lpa.probability <= 1:
            raise ValueError(f"lpa.probability is {self.lpa.probability}. Give a number from 0 to 1.")
        counts = {
            "pretrain.epochs": (self.pretrain.epochs, 1), "pretrain.batch_size": (self.pretrain.batch_size, 2),
            "lpa.epochs": (self.lpa.epochs, 0), "lpa.batch_size": (self.lpa.batch_size, 2),
            "adapt.epochs": (self.adapt.epochs, 1), "adapt.batch_size": (self.adapt.batch_size, 2),
            "data.downsample": (self.data.downsample, 1), "pretrain.decay_steps": (self.pretrain.decay_steps, 1),
        }  # fmt: skip
        for name, (value, least) in counts.items():
            if value < least:
                raise ValueError(f"{name} is {value}. Give at least {least}.")
