"""Training PersPose as published, on any mixture of prepared data sets, through Lightning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.checkpoints import save_weights
from bodyreg.data.mixing import MixedBatches, Mixture
from bodyreg.data.perspose_crops import PersPoseCrops
from bodyreg.data.sample import SampleTable
from bodyreg.data.sources import Bodies
from bodyreg.encoding import mirror_intrinsics
from bodyreg.inverse_kinematics import inverse_kinematics, search_beta0
from bodyreg.losses.perspose import PersPoseTargets, perspose_losses, total_loss
from bodyreg.models.decoding import Decoded, Readout, merge, unmirror, unproject
from bodyreg.models.perspose import UNIT_CROP, normalise_image, scale_intrinsics
from bodyreg.models.published import load_hrnet_coco
from bodyreg.models.registry import build
from bodyreg.training.perspose_settings import PersPoseSettings
from bodyreg.training.perspose_validation import HeldOut, HeldOutCrops, Scoring, open_held_out
from bodyreg.training.run import quiet_lightning
from bodyreg.training.schedules import decay_groups, stepped_rate

__all__ = ["MixedPeople", "PersPoseModule", "targets_of", "train_perspose"]

log = logging.getLogger(__name__)


def targets_of(batch: dict[str, Tensor]) -> PersPoseTargets:
    """Labels of a batch of `PersPoseCrops`, in pixels of crops `UNIT_CROP` wide whatever size they were sampled at."""
    scale = UNIT_CROP / batch["image"].shape[-1]
    keypoints = batch["keypoints"] * batch["keypoints"].new_tensor([scale, scale, 1.0])
    return PersPoseTargets(
        K_crop=scale_intrinsics(batch["K_crop"], scale), size_hw=(UNIT_CROP, UNIT_CROP), height=batch["height"],
        is_smpl=batch["is_smpl"], is_bedlam=batch["is_bedlam"], is_3dhp=batch["is_3dhp"], is_coco=batch["is_coco"],
        joints24=batch["joints24"], pelvis17=batch["joints17"][:, 0], twist=batch["twist"], leaf_rot=batch["leaf"],
        betas=batch["betas"], joints17_3dhp=batch["joints17_3dhp"], keypoints_coco=keypoints,
    )  # fmt: skip


class PersPoseModule(lightning.LightningModule):
    """Losses and optimiser.

    Args:
        settings: of the run. body: the neutral body whose bones the first shape number is searched with.
        batches_per_epoch: how far a batch takes the learning rate's clock.
        held_out: sets to validate on.
    """

    def __init__(
        self, settings: PersPoseSettings, body: BodyModel, batches_per_epoch: int, held_out: Sequence[HeldOut] = ()
    ) -> None:
        super().__init__()
        self.settings, self.batches_per_epoch = settings, batches_per_epoch
        self.save_hyperparameters({"settings": asdict(settings)})
        network: Any = build(settings.model)  # the stubs know no memory_format
        self.model = network.to(memory_format=torch.channels_last)
        # Not a part of the module: a licensed body must never end up in a checkpoint.
        self._body = [body]
        self.scoring = Scoring(held_out)

    def decode(self, batch: dict[str, Tensor], *, mirrored: bool, search: bool = True) -> Decoded:
        """One pass over a batch, of the mirrored crops if asked; what comes out speaks of the crops as they are.

        With `search` the first shape number is the searched one and teaches nothing, as published: the regressed one,
        pushed by a loss that it cannot lower, would drift without end.
        """
        readout = self._read(batch, mirrored=mirrored)
        with torch.autocast(self.device.type, enabled=False):
            decoded = unproject(readout, targets_of(batch).K_crop)
            if not search:
                return decoded
            joints24 = (decoded.xyz + decoded.xyz0)[:, :24]
            found = search_beta0(self._neutral(), joints24.detach(), decoded.beta.detach())
            return decoded._replace(beta=torch.cat([found[:, :1], decoded.beta[:, 1:]], 1))

    def _read(self, batch: dict[str, Tensor], *, mirrored: bool) -> Readout:
        image, K = normalise_image(batch["image"].float() / 255), batch["K_crop"]
        if mirrored:
            image, K = image.flip(-1), mirror_intrinsics(K, image.shape[-1])
        raw = self.model(image.contiguous(memory_format=torch.channels_last), K, ~batch["is_coco"])
        with torch.autocast(self.device.type, enabled=False):
            readout = self.model.read(raw)
            return unmirror(readout, UNIT_CROP) if mirrored else readout

    def _neutral(self) -> BodyModel:
        return self._body[0].to(self.device)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        # By the step, not by a running state: a resumed run mirrors the same batches.
        part = index % self.settings.optimiser.accumulate
        rng = np.random.default_rng([self.settings.run.seed, self.global_step, part, self.global_rank])
        decoded = self.decode(batch, mirrored=bool(rng.random() < 0.5))
        losses = perspose_losses(decoded, targets_of(batch))
        total = total_loss(losses, self.settings.loss)
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return total

    def validation_step(self, batch: dict[str, Tensor], index: int, dataloader_idx: int = 0) -> None:
        readout = merge(self._read(batch, mirrored=False), self._read(batch, mirrored=True))
        with torch.autocast(self.device.type, enabled=False):
            decoded = unproject(readout, targets_of(batch).K_crop)
            aim, body = (decoded.xyz + decoded.xyz0)[:, :24], self._neutral()
            solved = inverse_kinematics(body, aim, decoded.ortho_twist, decoded.beta, decoded.leaf_rot)
            vertices = body(solved.betas, solved.R_local[:, 1:], solved.R_local[:, 0], solved.transl).vertices
            self.scoring.update(dataloader_idx, batch, body.regress(vertices, "h36m-17"), vertices)

    def on_validation_epoch_end(self) -> None:
        figures = self.scoring.close()
        # The figures are of all processes already.
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, rank_zero_only=True)
        for name, value in figures.items():
            log.info("step %d, %s: %.1f", self.global_step, name, value)

    def configure_optimizers(self) -> Any:
        options = self.settings.optimiser
        groups = [{k: v for k, v in g.items() if k != "names"} for g in decay_groups(self.model, options.weight_decay)]
        optimiser = torch.optim.AdamW(groups, lr=options.lr)
        steps_per_epoch = self.batches_per_epoch / options.accumulate
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: stepped_rate(step / steps_per_epoch, 1.0, options.period, options.gamma)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MixedPeople(lightning.LightningDataModule):
    """Batches of the mixture, from the step the trainer resumes from, epoch after epoch.

    Args:
        settings: of the run. tables, roots: prepared sets and folders of their pictures, in the order of the shares.
        bodies: body models by gender. held_out: sets to validate on.
    """

    def __init__(
        self, settings: PersPoseSettings, tables: list[SampleTable | None], roots: list[Path], bodies: Bodies,
        held_out: Sequence[HeldOut] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.settings = settings
        data, model = settings.data, settings.model
        self.mixture = Mixture([0 if t is None else len(t) for t in tables], data.shares(), data.samples)
        self.crops = PersPoseCrops(
            [t for t in tables if t is not None], [r for r, t in zip(roots, tables, strict=True) if t is not None],
            bodies, model.crop_size, aim_jitter=data.aim_jitter, perspective_rotation=model.perspective_rotation,
            reference_pixels=model.reference_pixels, seed=settings.run.seed,
        )  # fmt: skip
        self.held_out = [
            HeldOutCrops(
                entry,
                PersPoseCrops(
                    [entry.table], [entry.root], bodies, model.crop_size, augment=False,
                    perspective_rotation=model.perspective_rotation, reference_pixels=model.reference_pixels,
                ),
            )
            for entry in held_out
        ]  # fmt: skip
        # Sets that are not there keep their number in the mixture, which decides the tables of all.
        self._position = np.cumsum([t is not None for t in tables]) - 1

    def batches(self, rank: int, world: int) -> MixedBatches:
        size, seed = self.settings.data.batch_size, self.settings.run.seed
        return MixedBatches(self.mixture, size, seed=seed, rank=rank, world=world)

    def train_dataloader(self) -> _Epochs:
        return _Epochs(self)

    def val_dataloader(self) -> list[torch.utils.data.DataLoader]:
        trainer: Any = self.trainer
        data = self.settings.data
        return [
            torch.utils.data.DataLoader(
                crops, num_workers=data.workers,
                batch_sampler=crops.batches(data.eval_batch_size, trainer.global_rank, trainer.world_size),
            )
            for crops in self.held_out
        ]  # fmt: skip


class _Epochs:
    def __init__(self, data: MixedPeople) -> None:
        self.data = data

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        data = self.data
        trainer: Any = data.trainer
        batches = data.batches(trainer.global_rank, trainer.world_size)
        batches.seek(trainer.global_step * data.settings.optimiser.accumulate)
        while True:
            renamed = [[(int(data._position[s]), k, d) for s, k, d in batch] for batch in batches]
            yield from torch.utils.data.DataLoader(
                data.crops, batch_sampler=renamed, num_workers=data.settings.data.workers, pin_memory=False
            )


def train_perspose(
    source: str | Path, overrides: Iterable[str] = (), *, bodies: Bodies | None = None, progress: bool = True
) -> Path:
    """Train what a configuration of `PersPoseSettings` describes, or go on where an interrupted run stopped.

    The prepared files FOLDER/NAME_SPLIT.npz of every set with a share are needed, and `data.roots` says where their
    downloads lie.

    Args:
        source: path or shipped name of a YAML file. overrides: `section.key=value` strings.
        bodies: body models by gender, default the user's SMPL files.

    Returns:
        Path of the final weights.

    Raises:
        MissingFileError: SMPL is not found. ValueError: a prepared file is missing or not readable.
    """
    from bodyreg.data.prepare import load_bodies

    settings = config.load(PersPoseSettings, source, overrides)
    run, options = settings.run, settings.optimiser
    precision: Any = run.precision  # the trainer checks the name
    bodies = load_bodies(("neutral", "male", "female")) if bodies is None else bodies
    tables: list[SampleTable | None] = []
    roots: list[Path] = []
    for (name, file), share in zip(settings.data.files().items(), settings.data.shares(), strict=True):
        path = Path(settings.data.folder) / file
        if share > 0 and not path.is_file():
            raise ValueError(f"There is no {path}, and {name} has a share. Run `bodyreg prepare` or set data.{name}=0.")
        tables.append(SampleTable(path) if share > 0 else None)
        roots.append(Path(settings.data.roots.get(name, Path(settings.data.folder) / name)))
    out = Path(run.out)
    out.mkdir(parents=True, exist_ok=True)
    config.save(settings, out / "config.yaml")
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    lightning.seed_everything(run.seed, verbose=False)
    held_out = open_held_out(settings.data.held_out, settings.data.folder, settings.data.roots)
    people = MixedPeople(settings, tables, roots, bodies, held_out)
    per_epoch = len(people.batches(0, run.devices * run.nodes))
    module = PersPoseModule(settings, bodies["neutral"], per_epoch, held_out)
    if run.hrnet_weights is not None:
        start = load_hrnet_coco(module.model.backbone, run.hrnet_weights)
        log.info("%d entries of the backbone start from COCO, %d at random", len(start.copied), len(start.random))
    steps = max(1, run.epochs * per_epoch // options.accumulate) if run.steps is None else run.steps
    keep = ModelCheckpoint(
        out / "checkpoints", save_last=True, every_n_train_steps=run.checkpoint_every, save_top_k=0,
        save_on_train_epoch_end=False,
    )  # fmt: skip
    # In batches, which is what the trainer counts between validations.
    between = per_epoch if run.validate_every is None else run.validate_every * options.accumulate
    on_gpu = run.accelerator != "cpu" and torch.cuda.is_available()
    with quiet_lightning():
        trainer = lightning.Trainer(
            max_steps=steps, precision=precision, devices=run.devices, num_nodes=run.nodes,
            accelerator=run.accelerator, accumulate_grad_batches=options.accumulate, gradient_clip_val=options.clip,
            # Of GPUs alone: there is no such layer for processors.
            sync_batchnorm=on_gpu and run.devices * run.nodes > 1, use_distributed_sampler=False,
            logger=TensorBoardLogger(out, name="logs", version=""), callbacks=[keep, LearningRateMonitor()],
            val_check_interval=between, check_val_every_n_epoch=None, num_sanity_val_steps=0,
            limit_val_batches=1.0 if held_out else 0, enable_progress_bar=progress, enable_model_summary=False,
            log_every_n_steps=min(50, steps),
        )  # fmt: skip
        last = out / "checkpoints" / "last.ckpt"
        trainer.fit(module, people, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    weights = out / f"{settings.model.name}.safetensors"
    facts = {"trained_steps": trainer.global_step, "seed": run.seed}
    if trainer.is_global_zero:
        save_weights(weights, module.model, settings.model, body=bodies["neutral"].name, **facts)
    trainer.strategy.barrier()  # nobody reads what is not written yet
    return weights
