"""Training lifters through Lightning: whole clips to whole clips, or clips to their middle frame."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from bodyreg import config, windows
from bodyreg.data.clips import ClipBatches, ClipTable, training_windows
from bodyreg.data.lifter_sets import LifterSequence, LifterSet, read_lifter_set
from bodyreg.evaluation.metrics import mpjpe, mpjve, pa_mpjpe
from bodyreg.lifter_weights import load_lifter, save_lifter
from bodyreg.losses.lifters import joint_weights, loss_terms, position, squared
from bodyreg.losses.uncertainty import gaussian_distance
from bodyreg.models.lifters.registry import build_lifter, lifter_entry
from bodyreg.models.lifters.sequence import SequenceLifter
from bodyreg.training.lifter_settings import LifterTraining
from bodyreg.training.ranger import Ranger
from bodyreg.training.schedules import bn_momentum, cosine_rate, exponential_rate

__all__ = ["Clips", "LifterModule", "train_lifter"]

log = logging.getLogger(__name__)


class LifterModule(lightning.LightningModule):
    """Losses, optimiser and validation of a lifter.

    Args:
        settings: of the run. steps_per_epoch: how far a step takes the clock of rates and momenta.
        mirror_in, mirror_out: mirror images of key points and joints.
    """

    def __init__(
        self, settings: LifterTraining, steps_per_epoch: int, mirror_in: tuple[int, ...], mirror_out: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.save_hyperparameters({"settings": asdict(settings)})
        self.model = build_lifter(settings.model)
        self.channels = lifter_entry(settings.model.name).channels
        self._mirrors = (mirror_in, mirror_out)
        self._weights = joint_weights(settings.model.joint_set) if _needs_weights(settings) else None

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss terms of a batch of `ClipBatches`, not yet weighted."""
        keypoints, joints = with_confidence(batch["keypoints"], self.channels), batch["joints"]
        factors = {name: value for name, value in asdict(self.settings.loss).items() if name != "squared"}
        network: Any = self.model
        found: dict[str, Tensor] = {}
        if hasattr(network, "training_pose"):  # a diffusion learns from poses it is given with noise
            pred: Any = network.training_pose(keypoints, joints)
        elif factors["sequence"] and hasattr(network, "forward_sequence"):
            pred, sequence = network.forward_sequence(keypoints)
            found["sequence"] = position(sequence, joints)
        elif factors["gaussian"] and hasattr(network, "gaussian"):
            pred, log_scale = network.gaussian(keypoints)
            found["gaussian"] = gaussian_distance(pred, log_scale, joints)
        else:
            pred = network(keypoints)
        if not isinstance(pred, Tensor):  # a network that keeps some frames answers for those
            pred, index = pred
            joints = joints.gather(1, index[:, :, None, None].expand(-1, -1, *joints.shape[2:]))
        if pred.shape[1] == 1 and joints.shape[1] > 1:
            middle = joints.shape[1] // 2
            joints = joints[:, middle : middle + 1]
        return {**loss_terms(pred, joints, factors, self._weights), **found}

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        losses = self.losses(batch)
        factors = asdict(self.settings.loss)
        total = torch.stack([factors[name] * value for name, value in losses.items()]).sum()
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return squared(total) if self.settings.loss.squared else total

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # By the step, not by a running state: dropout of a resumed run falls on the same numbers.
        torch.manual_seed((self.settings.run.seed * 1_000_003 + self.global_step * 1009 + self.global_rank) % 2**63)
        if self.settings.optimiser.bn_momentum:
            momentum = bn_momentum(self.epoch, self.settings.run.epochs)
            for name, module in self.model.named_modules():
                # The norms of shortcuts keep theirs, as in GLA-GCN.
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and not {"down", "residual"} & {
                    *name.split(".")
                }:
                    module.momentum = momentum

    @property
    def epoch(self) -> int:
        """Epochs that are over: by the step, so that a resumed run goes on."""
        return self.global_step // self.steps_per_epoch

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        lifter = SequenceLifter(self.model, self.settings.model, *self._mirrors)
        with torch.autocast(self.device.type, enabled=False):
            pred = lifter.sequence(batch["keypoints"].float(), flip_test=False).float()
            true, valid = batch["joints"].float(), batch["valid"]
            scores = {"mpjpe": mpjpe(pred[valid], true[valid]), "pa_mpjpe": pa_mpjpe(pred[valid], true[valid])}
            if len(pred) > 1:
                scores["mpjve"] = mpjve(pred, true)
        for name, values in scores.items():
            self.log(f"val/{name}_mm", 1000 * values.mean(), batch_size=len(values), prog_bar=name == "mpjpe",
                     sync_dist=True)  # fmt: skip

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.settings.optimiser.clip:
            nn.utils.clip_grad_norm_(self.parameters(), self.settings.optimiser.clip)

    def configure_optimizers(self) -> Any:
        options, epochs = self.settings.optimiser, self.settings.run.epochs
        shared: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
        optimiser: torch.optim.Optimizer
        if options.name == "ranger":
            optimiser = Ranger(self.parameters(), **shared)
        else:
            kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
            optimiser = kind(self.parameters(), amsgrad=options.amsgrad, **shared)

        def factor(step: int) -> float:
            epoch = step // self.steps_per_epoch
            if options.schedule == "cosine":
                return cosine_rate(epoch, epochs, 1.0, min(1.0, options.lowest / options.lr))
            return exponential_rate(epoch, 1.0, options.decay, options.halve_every)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def with_confidence(keypoints: Tensor, channels: int) -> Tensor:
    """Key points (..., C) with as many values as a network takes: confidence is cut off, or 1 where there is none."""
    if keypoints.shape[-1] < channels:
        return torch.cat([keypoints, torch.ones_like(keypoints[..., :1])], -1)
    return keypoints[..., :channels]


def _needs_weights(settings: LifterTraining) -> bool:
    return settings.loss.weighted_mpjpe > 0 or settings.loss.temporal > 0


class Clips(lightning.LightningDataModule):
    """Clips of the training subjects, epoch after epoch from the step the trainer resumes from; test sequences."""

    def __init__(self, settings: LifterTraining, prepared: LifterSet | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.prepared = prepared or read_lifter_set(settings.data.prepared)
        about, model, data = self.prepared.about, settings.model, settings.data
        if (about.input_set, about.joint_set) != (model.input_set, model.joint_set):
            raise ValueError(
                f"{data.prepared} lifts {about.input_set} to {about.joint_set}, and the model {model.input_set} to "
                f"{model.joint_set}. Set model.input_set and model.joint_set to those of the data."
            )
        entry = lifter_entry(model.name)
        frames = entry.frames(model)
        sequences = [self._cut(s) for s in self._sequences("train")]
        self.table = ClipTable(sequences, about.mirror_in, about.mirror_out, about.root)
        self.windows = training_windows(
            self.table.lengths, data.scheme, frames, data.stride or frames, flip=data.flip, reverse=data.reverse
        )
        self.pad = (frames - 1) // 2 if data.scheme == "frame" else 0
        self.whole = entry.output != "centre" or settings.loss.sequence > 0

    def batches(self, rank: int = 0, world: int = 1) -> ClipBatches:
        data, run = self.settings.data, self.settings.run
        return ClipBatches(
            self.table, self.windows, data.batch_size, pad=self.pad, whole_target=self.whole, seed=run.seed,
            jitter=data.target_jitter, rank=rank, world=world,
        )  # fmt: skip

    def train_dataloader(self) -> _Epochs:
        return _Epochs(self)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        found, count = self._sequences("test"), self.settings.run.validation_sequences
        chosen = (
            [found[i * len(found) // count] for i in range(min(count, len(found)))] if count < len(found) else found
        )
        root = self.prepared.about.root
        items: Any = []
        for sequence in chosen:
            joints = torch.from_numpy(sequence.joints.copy())
            joints[:, root] = 0
            items.append(
                {"keypoints": torch.from_numpy(sequence.keypoints), "joints": joints,
                 "valid": torch.from_numpy(sequence.valid)}
            )  # fmt: skip
        return torch.utils.data.DataLoader(items, batch_size=None)

    def _sequences(self, part: str) -> list[LifterSequence]:
        data = self.settings.data
        return self.prepared.sequences(
            self.prepared.subjects(part), actions=data.actions or None, downsample=data.downsample
        )

    def _cut(self, sequence: LifterSequence) -> LifterSequence:
        return sequence.part(*windows.subset_of(len(sequence), self.settings.data.subset))


class _Epochs:
    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        trainer: Any = self.clips.trainer
        batches = self.clips.batches(trainer.global_rank, trainer.world_size)
        step = trainer.global_step
        while True:
            batches.seek(step)
            for batch in batches:
                yield batch
                step += 1


def train_lifter(source: str | Path, overrides: Iterable[str] = (), *, progress: bool = True) -> Path:
    """Train the lifter a configuration describes, or go on where an interrupted run of it stopped.

    Args:
        source: path or shipped name of a YAML file. overrides: `section.key=value` strings. progress: show a bar.

    Returns:
        Path of the final weights, a safetensors file beside the run's logs.

    Raises:
        ValueError: settings that no run could end well with, no prepared data, or weights that have diverged.
    """
    from bodyreg.training.run import quiet_lightning

    settings = config.load(LifterTraining, source, list(overrides))
    settings.check()
    run, out = settings.run, Path(settings.run.out)
    precision: Any = run.precision  # the trainer checks the name
    clips = Clips(settings)
    out.mkdir(parents=True, exist_ok=True)
    config.save(settings, out / "config.yaml")
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    lightning.seed_everything(run.seed, verbose=False)
    per_epoch = len(clips.batches(0, run.devices * run.nodes))
    module = LifterModule(settings, per_epoch, tuple(clips.table.mirror_in), tuple(clips.table.mirror_out))
    if run.start_from is not None:
        module.model.load_state_dict(load_lifter(run.start_from).network.state_dict())
    steps = min(run.epochs * per_epoch, run.max_steps or run.epochs * per_epoch)
    checkpoint = ModelCheckpoint(
        out / "checkpoints", save_last=True, every_n_train_steps=run.checkpoint_every, save_top_k=0,
        save_on_train_epoch_end=False,
    )  # fmt: skip
    with quiet_lightning():
        trainer = lightning.Trainer(
            max_steps=steps, precision=precision, devices=run.devices, num_nodes=run.nodes,
            accelerator=run.accelerator, logger=TensorBoardLogger(out, name="logs", version=""),
            callbacks=[checkpoint, LearningRateMonitor()],
            val_check_interval=min(run.validate_every, steps), check_val_every_n_epoch=None, num_sanity_val_steps=0,
            enable_progress_bar=progress, enable_model_summary=False, log_every_n_steps=min(50, steps),
        )  # fmt: skip
        last = out / "checkpoints" / "last.ckpt"
        # Our own checkpoint, but read like a stranger's: tensors and plain values only.
        trainer.fit(module, clips, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    weights = out / f"{settings.model.name}.safetensors"
    about = clips.prepared.about
    if trainer.is_global_zero:
        save_lifter(
            weights, module.model, settings.model, trained_steps=trainer.global_step, seed=run.seed,
            data=f"{about.name}, {about.source}", note=about.note, fps=about.fps / settings.data.downsample,
        )  # fmt: skip
    trainer.strategy.barrier()  # nobody reads what is not written yet
    log.info("weights in %s", weights)
    return weights
