"""Perspective Encoding (PE) and Perspective Rotation (PR), each on and off, on synthetic people.

    python scripts/ablate_perspose.py --motion FOLDER --out DIR [--samples 20000] [--seeds 3] ...

The shipped weights were trained with both switches on. So that no variant starts nearer to home than another, they are
first trained with the switches drawn at random at every batch: the common checkpoint. From there each of the four
variants is fine-tuned with equal budgets; the same seed shows every variant the same people in the same clothes, light
and views. PE off means a map of zeros, PR off a crop around the box whose principal point lies where it falls.

Errors are of the body after inverse kinematics with flip test, each against the truth in its own crop's frame; they do
not change under rotation, so that frames do not matter. DIR receives a folder a run, `ablation.json`, `ablation.md` and
`ablation.png`. Killed at any point it goes on from the last hundred steps; finished runs are not repeated. `--jobs`
runs several at once, each in a process of its own; `--keep FOLDER` paints what a seed sees once for all its variants.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import _paired_runs
import numpy as np
import torch
from _ablation_report import PERSPOSE, Run, write_report

from bodyreg.body import BodyModel
from bodyreg.checkpoints import default_weights, load_model, save_weights
from bodyreg.data.synthetic.prepare import ensure_shards
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.files import load_checkpoint
from bodyreg.models.registry import default_settings
from bodyreg.training.regressor import RegressorModule, regressor_losses
from bodyreg.training.settings import RegressorSettings

_COMMON_SEED = 100  # of the common checkpoint, whose batches no run repeats
_CHECKPOINT_EVERY = 100


class Variant(NamedTuple):
    """One row of the table: a name and the two switches."""

    name: str
    encoding: bool
    rotation: bool


VARIANTS = (Variant("none", False, False), Variant("PE", True, False), Variant("PR", False, True),
            Variant("PE+PR", True, True))  # fmt: skip


class Folders(NamedTuple):
    """Shards by the rotation switch."""

    train: dict[bool, Path]
    held_out: dict[bool, Path]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _paired_runs.add_arguments(parser, crop_size=96)
    parser.add_argument("--common-samples", type=int, default=30000, help="budget of the common checkpoint")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = _folders(args)
    if args.keep:
        _paired_runs.each(
            paint, [(args, folders, part) for part in range(args.jobs)], jobs=args.jobs, threads=args.threads
        )
    common = [(args, folders, variant, None) for variant in VARIANTS]
    paired = [(args, folders, variant, seed) for seed in range(args.seeds) for variant in VARIANTS]
    runs = [run(*call) for call in common]
    if args.jobs > 1:
        _paired_runs.each(run, paired, jobs=args.jobs, threads=args.threads)
    for call in paired:
        runs.append(run(*call))
        write_report(args.out, runs, PERSPOSE, budget={name: str(value) for name, value in _budget(args).items()})
    return 0


def run(args: argparse.Namespace, folders: Folders, variant: Variant, seed: int | None) -> Run:
    """A variant fine-tuned with a seed and scored, as far as that is not done; None: the common checkpoint."""
    body, common = BodyModel.load("free"), args.out / "common"
    if seed is None:
        shipped, steps = default_weights("perspose_small"), args.common_samples // args.batch_size
        fit(args, body, folders, shipped, common, _either, steps=max(1, steps), seed=_COMMON_SEED)
        return measure(args, body, folders, common, variant, seed=None)
    folder, steps = args.out / f"seed{seed}_{variant.name.replace('+', '_')}", args.samples // args.batch_size
    fit(args, body, folders, common / "last.ckpt", folder, lambda step: variant, steps=max(1, steps), seed=seed)
    return measure(args, body, folders, folder, variant, seed=seed)


def paint(args: argparse.Namespace, folders: Folders, part: int) -> None:
    """Paint what is trained on and tested on: of every `args.jobs` batches, the one whose turn is `part`."""
    body = BodyModel.load("free")
    people = training_people(args, body, folders, _COMMON_SEED)
    wanted = [(people, _either(step), step) for step in range(args.common_samples // args.batch_size)]
    for seed in range(args.seeds):
        people = training_people(args, body, folders, seed)
        wanted += [(people, VARIANTS[2 * rotation], step) for step in range(args.samples // args.batch_size)
                   for rotation in (False, True)]  # fmt: skip
    for people, variant, step in wanted[part :: args.jobs]:
        people(variant, step)
    for rotation in (False, True)[part :: args.jobs]:
        test_people(args, body, folders, rotation)


def _either(step: int) -> Variant:
    """The switches of a batch of the common checkpoint: any of the four, by its number."""
    return VARIANTS[int(np.random.default_rng([_COMMON_SEED, step]).integers(len(VARIANTS)))]


def _budget(args: argparse.Namespace) -> dict[str, Any]:
    names = ("common_samples", "samples", "batch_size", "crop_size", "lr", "people")
    return {name: getattr(args, name) for name in names}


def _folders(args: argparse.Namespace) -> Folders:
    """Shards of both kinds, rendered where there are none: the same people, turned to or not."""
    train = {True: args.train or args.out / "train", False: args.out / "train_unturned"}
    held_out = {True: args.held_out or args.out / "held_out", False: args.out / "held_out_unturned"}
    for rotation in (True, False):
        # Painted clothes, as the shipped weights were trained on and the published figures measured with.
        scenes = SceneSettings(perspective_rotation=rotation, garments="painted")
        ensure_shards(train[rotation], args.train_people, motion=args.motion, settings=scenes, progress=False)
        ensure_shards(
            held_out[rotation], args.people, motion=args.motion, held_out=True, settings=scenes, progress=False
        )
    return Folders(train, held_out)


def _settings(args: argparse.Namespace, steps: int, variant: Variant) -> RegressorSettings:
    settings = RegressorSettings()
    model = replace(default_settings("perspose_small"), crop_size=args.crop_size,
                    perspective_encoding=variant.encoding, perspective_rotation=variant.rotation)  # fmt: skip
    optimiser = replace(settings.optimiser, lr=args.lr, warmup_steps=max(1, steps // 10))
    return replace(settings, model=model, optimiser=optimiser, run=replace(settings.run, steps=steps))


def fit(
    args: argparse.Namespace, body: BodyModel, folders: Folders, start: Path, out: Path,
    choose: Callable[[int], Variant], *, steps: int, seed: int,
) -> None:  # fmt: skip
    """Train from `start` for `steps` batches with the switches that `choose` gives for each; `out` gets last.ckpt."""
    torch.manual_seed(seed)
    module = RegressorModule(_settings(args, steps, choose(0)))
    people = training_people(args, body, folders, seed)
    weights = vars(module.settings.loss)

    def loss(step: int) -> torch.Tensor:
        variant = choose(step)
        module.model.use_encoding = variant.encoding
        losses = regressor_losses(module.model, _paired_runs.to(people(variant, step), args.device))
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()

    _paired_runs.fit(
        module, start, out, loss, steps=steps, batch_size=args.batch_size, checkpoint_every=_CHECKPOINT_EVERY,
        device=args.device,
    )  # fmt: skip


def training_people(
    args: argparse.Namespace, body: BodyModel, folders: Folders, seed: int
) -> Callable[[Variant, int], dict[str, torch.Tensor]]:
    """What a run with this seed sees at a step, by the rotation switch of a variant."""
    streams = {
        rotation: ShardStream(folder, body, crop_size=args.crop_size, batch_size=args.batch_size, seed=seed, pool=4,
                              bank_size=args.bank_size, perspective_rotation=rotation)
        for rotation, folder in folders.train.items()
    }  # fmt: skip

    def batch(variant: Variant, step: int) -> dict[str, torch.Tensor]:
        rotation = variant.rotation
        folder = args.keep / f"seed{seed}_{'turned' if rotation else 'unturned'}" if args.keep else None
        return _paired_runs.painted(folder, step, streams[rotation].batch)

    return batch


def test_people(
    args: argparse.Namespace, body: BodyModel, folders: Folders, rotation: bool
) -> Iterator[dict[str, torch.Tensor]]:  # fmt: skip
    """What every run is tested on."""
    stream = ShardStream(folders.held_out[rotation], body, crop_size=args.crop_size, batch_size=64, seed=1,
                         augment=False, bank_size=min(64, args.bank_size), perspective_rotation=rotation)  # fmt: skip
    path = args.keep / f"test_{'turned' if rotation else 'unturned'}.pt" if args.keep else None
    return _paired_runs.all_painted(path, lambda: stream.once(args.people))


def measure(
    args: argparse.Namespace, body: BodyModel, folders: Folders, out: Path, variant: Variant, *, seed: int | None
) -> Run:
    """Errors of every test person, metres, from the file of an earlier call where there is one.

    Args:
        seed: of the run; None for the common checkpoint, which is scored with the switches of every variant.
    """

    def errors() -> dict[str, np.ndarray]:
        module = RegressorModule(_settings(args, 1, variant))
        module.load_state_dict(load_checkpoint(out / "last.ckpt")["state_dict"])
        weights = out / f"weights_{variant.name.replace('+', '_')}.safetensors"
        save_weights(weights, module.model, module.settings.model)
        people = test_people(args, body, folders, variant.rotation)
        network = load_model(weights).model
        return _paired_runs.body_errors(network, body, people, ("fov_rad", "off_axis_rad"), args.device)

    path = out / f"errors_{variant.name.replace('+', '_')}.npz"
    return Run(variant.name, seed, _paired_runs.kept(path, errors))


if __name__ == "__main__":
    raise SystemExit(main())
