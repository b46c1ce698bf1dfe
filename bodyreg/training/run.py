"""Running a training configuration: build, resume when there is something to resume, train, write the weights."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.checkpoints import TRAINING_ONLY, save_weights
from bodyreg.data.synthetic.prepare import ensure_shards
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.files import load_checkpoint
from bodyreg.models.lifters.registry import LIFTERS
from bodyreg.training.regressor import RegressorModule, SyntheticData
from bodyreg.training.settings import RegressorSettings

__all__ = ["fit", "render_people", "start_from", "train"]

log = logging.getLogger(__name__)


def train(source: str | Path, overrides: Iterable[str] = (), *, progress: bool = True) -> Path:
    """Train what a configuration describes, or go on where an interrupted run of it stopped.

    People are rendered first where the configuration's folders of shards have none.

    Args:
        source: path or shipped name of a YAML file. overrides: `section.key=value` strings.
        progress: show a bar.

    Returns:
        Path of the final weights, a safetensors file beside the run's logs.

    Raises:
        ValueError: settings that no run could end well with, or weights that have diverged.
    """
    overrides = list(overrides)
    given = config.content(source)
    name = config.model_name(source)
    if name == "perspose":
        from bodyreg.training.perspose import train_perspose

        return train_perspose(source, overrides, progress=progress)
    if "adaptation" in given:
        from bodyreg.training.poseda import train_poseda

        return train_poseda(source, overrides, progress=progress)
    if name in LIFTERS:
        from bodyreg.training.lifters import train_lifter

        return train_lifter(source, overrides, progress=progress)
    if name == "dsr" or "semantic" in given:
        from bodyreg.training.semantic import train_semantic

        return train_semantic(source, overrides, progress=progress)
    settings = config.load(RegressorSettings, source, overrides)
    settings.check()
    render_people(settings, progress=progress)
    lightning.seed_everything(settings.run.seed, verbose=False)
    module = RegressorModule(settings)
    return fit(settings, module, SyntheticData(settings, BodyModel.load("free")), progress=progress)


def render_people(settings: RegressorSettings, *, progress: bool = True) -> None:
    """Fill the folders of shards that a run needs and that hold none."""
    run, data = settings.run, settings.data
    seen = run.steps * data.batch_size * run.devices * run.nodes
    scenes = SceneSettings(perspective_rotation=settings.model.perspective_rotation, garments=data.garments)
    ensure_shards(data.shards, data.people, needed=seen, motion=data.motion, settings=scenes, progress=progress)
    ensure_shards(
        data.held_out, data.held_out_people, needed=run.validation_people, motion=data.motion, held_out=True,
        settings=scenes, progress=progress,
    )  # fmt: skip


def fit(
    settings: RegressorSettings, module: RegressorModule, people: lightning.LightningDataModule, *, body: str = "free",
    progress: bool = True, **options: Any,
) -> Path:  # fmt: skip
    """Train a module, resume where an interrupted run of it stopped, and write the weights.

    Args:
        settings: of the run. module, people: what is trained, and on whom.
        body: name of the body the labels speak of. options: of Lightning's trainer, in place of the usual ones.
    """
    run, data = settings.run, settings.data
    out = Path(run.out)
    out.mkdir(parents=True, exist_ok=True)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if run.start_from is not None:
        start_from(module.model, run.start_from)
    checkpoint = ModelCheckpoint(
        out / "checkpoints", save_last=True, every_n_train_steps=run.checkpoint_every, save_top_k=0,
        save_on_train_epoch_end=False,
    )  # fmt: skip
    bar = [RichProgressBar() if _is_terminal() else TQDMProgressBar(refresh_rate=200)] if progress else []
    with quiet_lightning():
        usual: dict[str, Any] = {
            "max_steps": run.steps, "precision": run.precision, "devices": run.devices, "num_nodes": run.nodes,
            "accelerator": run.accelerator,
            "logger": TensorBoardLogger(out, name="logs", version=""), "val_check_interval": run.validate_every,
            "callbacks": [checkpoint, LearningRateMonitor(), *bar], "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0, "enable_progress_bar": progress, "enable_model_summary": False,
            "log_every_n_steps": min(50, run.steps),
        }  # fmt: skip
        trainer = lightning.Trainer(**{**usual, **options})
        if trainer.is_global_zero:
            config.save(settings, out / "config.yaml")
        last = out / "checkpoints" / "last.ckpt"
        # Our own checkpoint, but read like a stranger's: tensors and plain values only.
        trainer.fit(module, people, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    weights = out / f"{settings.model.name}.safetensors"
    pictures = trainer.global_step * data.batch_size * trainer.world_size
    facts = {"trained_steps": trainer.global_step, "pictures_seen": pictures, "seed": run.seed}
    if trainer.is_global_zero:
        save_weights(weights, module.model, settings.model, body=body, **facts)
    trainer.strategy.barrier()  # nobody reads what is not written yet
    log.info("weights in %s", weights)
    return weights


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's warnings without its advice: products it recommends, what a machine lacks, and what it says twice."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # One stream feeds every step, drawn by threads of its own: workers and lengths do not apply.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*IterableDataset.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # its use of torch, which only it can change
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def start_from(model: torch.nn.Module, source: str | Path) -> None:
    """Give a network the weights of a file of ours, or of a run's checkpoint; heads that only train may be absent.

    Raises:
        ValueError: the file does not fit the network.
    """
    state = load_checkpoint(source)
    prefix = "model."
    if "state_dict" in state:  # a run's checkpoint, whose module holds the network
        state = {name[len(prefix) :]: value for name, value in state["state_dict"].items() if name.startswith(prefix)}
    own = model.state_dict()
    wrong = sorted(set(state) - set(own)) + [k for k in state if k in own and state[k].shape != own[k].shape]
    missing = [name for name in own if name not in state and not name.startswith(TRAINING_ONLY)]
    if wrong or missing:
        raise ValueError(
            f"{source} does not fit the network: {', '.join((wrong + missing)[:5])}. Give weights of the same settings."
        )
    model.load_state_dict(state, strict=False)
