"""Training the SPIN/HMR regressor as DSR does (Dwivedi et al., ICCV 2021), on SPIN's data files or synthetic people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from bodyreg.body import BodyModel
from bodyreg.body_joints import body_spin_joints
from bodyreg.cameras import project, transl_from_spin
from bodyreg.data.spin import MixedSpin, SpinCrops, load_spin
from bodyreg.inverse_kinematics import PARENTS
from bodyreg.losses.hmr import HMRPrediction, HMRTargets, HMRWeights, hmr_losses
from bodyreg.losses.semantic import SemanticSettings, ndc_vertices
from bodyreg.models.hmr import CROP_PX, FOCAL_PX, HMROutput, mean_parameters
from bodyreg.models.perspose import normalise_image
from bodyreg.models.registry import ModelSettings, default_settings
from bodyreg.rotations import aa_from_matrix
from bodyreg.training.regressor import RegressorModule, SyntheticData
from bodyreg.training.semantic import RendererSettings, SemanticTerms
from bodyreg.training.settings import OptimiserSettings, RegressorSettings

__all__ = ["DSRModule", "DSRSettings", "SpinData", "people_of", "targets_of_people"]

log = logging.getLogger(__name__)


@dataclass
class DSRSettings(RegressorSettings):
    """Everything about training DSR's regressor.

    Without `sets` it learns from synthetic people of the free body, at one crop size of 224 pixels.
    """

    model: ModelSettings = field(default_factory=lambda: default_settings("dsr"))
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(lr=3e-5, weight_decay=0.0))
    hmr: HMRWeights = field(default_factory=HMRWeights)
    semantic: SemanticSettings = field(default_factory=SemanticSettings)
    renderers: RendererSettings = field(default_factory=RendererSettings)
    body: str = "free"
    """Body of the labels: free, smpl or a file; SPIN's data files speak of smpl."""
    sets: dict[str, str] = field(default_factory=dict)
    """SPIN data files by name: {h36m: data/h36m_train.npz, ...}."""
    roots: dict[str, str] = field(default_factory=dict)
    """Folder of each set's photographs, with parsing pictures below grph_sequences."""
    shares: dict[str, float] = field(default_factory=dict)
    """Share of each set in the mixture, in sum 1; none: all alike. DSR: h36m .5, coco .3, mpi3dhp .2, or with 3DPW h36m
    .3, coco .4, mpi3dhp .1, pw3d .2."""
    epochs: int = 50
    """Passes over the longest set (only with `sets`; else run.steps counts)."""
    shuffle: bool = True
    """Draw people in random order; the released training took them in the files'."""
    workers: int = 0

    def check(self) -> None:
        super().check()
        if self.data.crop_sizes != [CROP_PX]:
            raise ValueError(f"data.crop_sizes is {self.data.crop_sizes}. This network takes [{CROP_PX}].")
        strange = (set(self.roots) | set(self.shares)) - set(self.sets)
        if strange or (self.sets and set(self.roots) != set(self.sets)):
            raise ValueError(
                f"sets are {sorted(self.sets)}, roots {sorted(self.roots)}, shares {sorted(self.shares)}. Give a root "
                "for each set, and shares for all or none."
            )
        if not self.sets and self.body != "free":
            raise ValueError(f"Synthetic people have the free body, not {self.body!r}. Give sets, or body=free.")
        self.semantic.options()


class DSRModule(RegressorModule):
    """Losses, optimiser and validation of the SPIN/HMR regressor.

    Args:
        settings: of the run. body: of the labels; a licensed one never enters a checkpoint.
    """

    settings: DSRSettings

    def __init__(self, settings: DSRSettings, body: BodyModel) -> None:
        super().__init__(settings)
        self._body = [body]
        self.semantic = SemanticTerms(settings.semantic, settings.renderers, body)
        if body.name == "smpl":
            self.model.head.start_from(mean_parameters())

    def body_on(self, device: torch.device) -> BodyModel:
        self._body[0] = self._body[0].to(device)
        return self._body[0]

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        image = normalise_image(batch["image"].float() / 255).contiguous(memory_format=torch.channels_last)
        output = self.model(image)
        with torch.autocast(self.device.type, enabled=False):
            body = self.body_on(self.device)
            predicted = predict_people(body, output)
            targets, labels = targets_of_people(body, batch)
            losses = hmr_losses(predicted, targets, self.settings.hmr)
            if self.semantic.active(self.current_epoch):
                losses |= self.semantic(self.rendered(predicted), labels, self.current_epoch, self._since_start())
        total = torch.stack([value for name, value in losses.items() if not name.startswith("log_")]).sum()
        total = self.settings.hmr.total * total
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return total

    def rendered(self, predicted: HMRPrediction) -> Tensor:
        """What the renderer takes, through the weak camera."""
        transl = transl_from_spin(predicted.weak)
        pivot = transl[:, 2] + predicted.joints49[:, 8, 2] if self.semantic.options.nearest else None
        size = (CROP_PX, CROP_PX)
        return ndc_vertices(predicted.vertices, weak_intrinsics(transl), size, transl, pivot=pivot)

    def _since_start(self) -> int:
        first = (self.settings.semantic.start_epoch + 1) * self._batches_an_epoch()
        return max(0, self.global_step - first)

    def _batches_an_epoch(self) -> int:
        count = self.trainer.num_training_batches
        return int(count) if count != float("inf") else 0

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        output = self.model(normalise_image(batch["image"].float() / 255))
        with torch.autocast(self.device.type, enabled=False):
            body = self.body_on(self.device)
            joints = predict_people(body, output).joints49[:, 25:39]
            true = targets_of_people(body, batch)[0].joints24[:, :14, :3]
        self._seen.append((joints - joints[:, 2:4].mean(1, keepdim=True), true - true[:, 2:4].mean(1, keepdim=True)))

    def configure_optimizers(self) -> Any:
        options = self.settings.optimiser
        return torch.optim.Adam(self.model.parameters(), lr=options.lr, weight_decay=options.weight_decay)


def weak_intrinsics(like: Tensor) -> Tensor:
    """(B, 3, 3) intrinsics of the crops' camera, for as many as `like` (B, ...) has rows."""
    K = like.new_tensor([[FOCAL_PX, 0, CROP_PX / 2], [0, FOCAL_PX, CROP_PX / 2], [0, 0, 1]])
    return K.expand(len(like), 3, 3)


def predict_people(body: BodyModel, output: HMROutput) -> HMRPrediction:
    """Bodies and key points of what the network says."""
    posed = body(output.betas, output.R_local[:, 1:], output.R_local[:, 0])
    joints = body_spin_joints(body, posed.vertices, posed.joints)
    transl = transl_from_spin(output.weak)
    # A camera behind the body gives no key point: the depth is kept in front, and the camera's loss turns it round.
    ahead = joints + transl[:, None]
    pixels = project(ahead, weak_intrinsics(transl), min_depth=1.0)
    return HMRPrediction(*output, joints, posed.vertices, pixels / (CROP_PX / 2) - 1)


def targets_of_people(body: BodyModel, batch: dict[str, Tensor]) -> tuple[HMRTargets, Tensor]:
    """Truth and parsing of a batch of `SpinCrops`, or of `ShardStream`, whose people are known entirely."""
    if "theta" in batch:
        with torch.no_grad():
            theta = batch["theta"]
            vertices = body(batch["betas"], theta[:, 1:], theta[:, 0]).vertices
        truth = HMRTargets(
            theta, batch["betas"], vertices, batch["joints24"], batch["keypoints"], batch["has_smpl"],
            batch["has_joints"],
        )  # fmt: skip
        return truth, batch["labels"]
    with torch.no_grad():
        R = batch["R_global"]
        local = torch.cat([R[:, :1], R[:, PARENTS[1:]].mT @ R[:, 1:]], 1)
        posed = body(batch["betas"], local[:, 1:], local[:, 0])
        shift = batch["joints"][:, :1] - posed.joints[:, :1]
        joints = body_spin_joints(body, posed.vertices, posed.joints)
        size = batch["image"].shape[-1]
        keypoints = 2 * project(joints + shift, batch["K_crop"]) / size - 1
        sure = (keypoints.abs() < 1).all(-1, keepdim=True).to(keypoints)
        every = torch.ones(len(R), dtype=torch.bool, device=R.device)
        truth = HMRTargets(
            aa_from_matrix(local), batch["betas"], posed.vertices,
            torch.cat([joints[:, 25:], torch.ones_like(joints[:, 25:, :1])], -1), torch.cat([keypoints, sure], -1),
            every, every,
        )  # fmt: skip
    nothing = torch.full((len(R), 1, 1), 255, dtype=torch.uint8, device=R.device)
    return truth, batch.get("parsing", nothing)


class SpinData(lightning.LightningDataModule):
    """Batches of the mixture, epoch after epoch; the last, smaller one is dropped."""

    def __init__(self, settings: DSRSettings) -> None:
        super().__init__()
        self.settings = settings
        names = list(settings.sets)
        shares = [settings.shares.get(name, 1 / len(names) if not settings.shares else 0.0) for name in names]
        reference = settings.semantic.preset == "reference"
        crops = [
            SpinCrops(load_spin(settings.sets[name]), Path(settings.roots[name]), reference=reference,
                      seed=settings.run.seed * 101 + number)
            for number, name in enumerate(names)
        ]  # fmt: skip
        self.mixed = MixedSpin(crops, shares, seed=settings.run.seed)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(
            self.mixed, batch_sampler=_Rows(self), num_workers=self.settings.workers
        )


class _Rows:
    """(index, epoch) of each sample of a batch, this process's part of them."""

    def __init__(self, data: SpinData) -> None:
        self.data = data

    def __len__(self) -> int:
        trainer: Any = self.data.trainer
        return len(self.data.mixed) // (self.data.settings.data.batch_size * trainer.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        trainer: Any = self.data.trainer
        epoch, size, settings = trainer.current_epoch, len(self.data.mixed), self.data.settings
        order = torch.arange(size)
        if settings.shuffle:
            order = torch.randperm(size, generator=torch.Generator().manual_seed(settings.run.seed + 7919 * epoch))
        batch, world = settings.data.batch_size, trainer.world_size
        for k in range(len(self)):
            start = (k * world + trainer.global_rank) * batch
            yield [(int(i), epoch) for i in order[start : start + batch]]


def people_of(settings: DSRSettings, body: BodyModel) -> tuple[lightning.LightningDataModule, dict[str, Any]]:
    """The run's data, and options of the trainer that go with it."""
    if not settings.sets:
        return SyntheticData(settings, body, parsing=True), {}
    people = SpinData(settings)
    if len(people.mixed) < settings.data.batch_size:
        raise ValueError(
            f"The longest set has {len(people.mixed)} people and data.batch_size is {settings.data.batch_size}. Give a "
            "smaller batch."
        )
    return people, {
        "max_epochs": settings.epochs, "limit_val_batches": 0, "val_check_interval": None,
        "check_val_every_n_epoch": 1, "use_distributed_sampler": False,
        "log_every_n_steps": min(50, len(people.mixed) // settings.data.batch_size),
    }  # fmt: skip
