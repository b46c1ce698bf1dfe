"""Training image regressors of the PersPose family on synthetic people, through Lightning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import lightning
import torch

from bodyreg.body import BodyModel
from bodyreg.cameras import project
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.evaluation.metrics import mpjpe, pa_mpjpe
from bodyreg.losses.dense import dense_loss
from bodyreg.losses.keypoints import heatmap_cross_entropy, masked_mean, uv_distance
from bodyreg.losses.smpl import density_distance, depth_distance, leaf_distance, twist_distance
from bodyreg.models.decoding import Decoded, unproject
from bodyreg.models.perspose import UNIT_CROP, RawOutputs, normalise_image, scale_intrinsics
from bodyreg.models.registry import build
from bodyreg.training.settings import RegressorSettings

__all__ = ["RegressorModule", "SyntheticData", "head_losses", "regress", "regressor_losses"]


def regressor_losses(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every loss term of one training batch of `ShardStream`, not yet weighted."""
    return head_losses(*regress(model, batch), batch)


def regress(model: Any, batch: dict[str, torch.Tensor]) -> tuple[RawOutputs, Decoded]:
    """What the network says of a batch, raw and decoded in pixels of crops `UNIT_CROP` wide."""
    image = normalise_image(batch["image"].float() / 255).contiguous(memory_format=torch.channels_last)
    raw = model(image, batch["K_crop"])
    K = scale_intrinsics(batch["K_crop"], UNIT_CROP / batch["image"].shape[-1])
    with torch.autocast(raw.heatmap.device.type, enabled=False):
        return raw, unproject(model.read(raw), K)


def head_losses(raw: RawOutputs, decoded: Decoded, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss terms of what `regress` gave for a batch."""
    K = scale_intrinsics(batch["K_crop"], UNIT_CROP / batch["image"].shape[-1])
    with torch.autocast(raw.heatmap.device.type, enabled=False):
        joints, height = batch["joints"], batch["height"]
        uv = project(joints, K)
        inside = ((uv > 0) & (uv < UNIT_CROP)).all(-1)
        # Joints beyond the frame still place the body, but nothing in the picture shows where they are.
        weight = torch.where(inside, 1.0, 0.2)
        cells = uv * (raw.heatmap.shape[-1] / UNIT_CROP)
        focal = K[:, 0, 0]
        relative = joints - joints[:, :1]
        losses = {
            "heatmap": heatmap_cross_entropy(raw.heatmap, cells, inside),
            "uv": uv_distance(decoded.uv, uv.clamp(-UNIT_CROP, 2 * UNIT_CROP), weight),
            "depth": depth_distance(decoded.depth, joints, height, weight),
            "density": density_distance(decoded.rho0, joints[:, 0, 2] / focal, height),
            "xyz": 100 * masked_mean((decoded.xyz - relative).abs(), weight[..., None]),
            "twist": twist_distance(decoded.ortho_twist, batch["twist"]),
            "leaf": leaf_distance(decoded.leaf_rot, batch["leaf"]),
            "beta": (decoded.beta - batch["betas"]).abs().mean(),
        }
        if raw.dense is not None:
            losses["dense"] = dense_loss(raw.dense, batch["dense"])
    return losses


class RegressorModule(lightning.LightningModule):
    """Loss, optimiser and validation of a regressor."""

    def __init__(self, settings: RegressorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.save_hyperparameters({"settings": asdict(settings)})
        network: Any = build(settings.model)  # the stubs know no memory_format
        self.model = network.to(memory_format=torch.channels_last)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        losses = regressor_losses(self.model, batch)
        weights = asdict(self.settings.loss)
        total = sum(weights[name] * value for name, value in losses.items())
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return total

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        image = normalise_image(batch["image"].float() / 255).contiguous(memory_format=torch.channels_last)
        decoded = self.model.predict(image, batch["K_crop"], flip_test=False)
        true = batch["joints"][:, :24]
        self._seen.append((decoded.xyz[:, :24].float(), true - true[:, :1]))

    def on_validation_epoch_end(self) -> None:
        predicted, true = (torch.cat(column) for column in zip(*self._seen, strict=True))
        self._seen.clear()
        with torch.autocast(true.device.type, enabled=False):  # no decompositions in half precision
            mean = true.mean(0, keepdim=True).expand_as(true)  # a constant: what knowing nothing scores
            scores = {
                f"val/{name}{kind}_mm": 1000 * score(points, true).mean()
                for name, points in (("", predicted), ("mean_pose_", mean))
                for kind, score in (("mpjpe", mpjpe), ("pa_mpjpe", pa_mpjpe))
            }
        self.log_dict(scores, prog_bar=True, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here and not by the trainer's option, which refuses fused optimisers under mixed precision.
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.settings.optimiser.clip)

    def configure_optimizers(self) -> Any:
        options = self.settings.optimiser
        decay = [p for p in self.parameters() if p.ndim > 1]
        plain = [p for p in self.parameters() if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.lr,
            fused=True,
        )
        steps, warmup = self.settings.run.steps, options.warmup_steps

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))) + 1e-3

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SyntheticData(lightning.LightningDataModule):
    """Training stream and fixed held-out batches of synthetic people.

    The stream starts at the step the trainer resumes from, so a resumed run sees what an undisturbed one would.
    With `parsing`, training batches hold parsing maps.
    """

    def __init__(self, settings: RegressorSettings, body: BodyModel, *, parsing: bool = False) -> None:
        super().__init__()
        self.settings, self.body, self.parsing = settings, body, parsing

    def train_dataloader(self) -> _Phases:
        trainer: Any = self.trainer  # it is attached by the time it asks for data
        return _Phases(self.settings, self.body, trainer, self.parsing)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        data, run = self.settings.data, self.settings.run
        stream = ShardStream(
            data.held_out, self.body, crop_size=data.crop_sizes[-1], batch_size=64, seed=1, augment=False,
            backgrounds=data.backgrounds, bank_size=64,
            perspective_rotation=self.settings.model.perspective_rotation,
        )  # fmt: skip
        batches: Any = list(stream.once(run.validation_people))
        # A bare list would be taken for many loaders of one batch each.
        return torch.utils.data.DataLoader(batches, batch_size=None)


class _Phases:
    """The training stream, phase after phase of growing crops, from the trainer's step on."""

    def __init__(
        self, settings: RegressorSettings, body: BodyModel, trainer: lightning.Trainer, parsing: bool = False
    ) -> None:
        self.settings, self.body, self.trainer, self.parsing = settings, body, trainer, parsing

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        data, run = self.settings.data, self.settings.run
        step = self.trainer.global_step
        ends = [round(share * run.steps) for share in data.phase_ends]
        for size, end in zip(data.crop_sizes, ends, strict=True):
            if step >= end:
                continue
            stream = ShardStream(
                data.shards, self.body, crop_size=size, batch_size=data.batch_size, seed=run.seed, start=step,
                backgrounds=data.backgrounds, bank_size=data.bank_size, pool=data.pool,
                easy_until=round(data.easy_share * run.steps), rank=self.trainer.global_rank,
                world=self.trainer.world_size, perspective_rotation=self.settings.model.perspective_rotation,
                parsing=self.parsing,
            )  # fmt: skip
            yield from stream.upto(end, data.workers)
            step = end
