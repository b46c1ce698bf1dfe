"""What clothing semantics add to key points: DSR's losses through PersPose's true camera, on people in garments.

    python scripts/experiment_semantics.py --out DIR [--motion FOLDER] [--samples 20000] [--seeds 3] ...

As in the wild, few training people have labels in 3D and all have 2D key points and parsing maps. Every run fine-tunes
one common checkpoint, by default the weights that ship, with equal budgets; the same seed shows every variant the same
people in the same clothes, light and views, and labels the same of them. Beside key points alone: the whole body
against the person's silhouette, DSR-MC, DSR-C, both (Dwivedi et al., ICCV 2021), and both with bodies rendered through
a weak-perspective camera instead of the true one.

Errors are of the body after inverse kinematics with flip test, about the pelvis in the frame of the crop; PVE-T-SC is
of shape alone. DIR receives a folder a run, `semantics.json`, `semantics.md` and `semantics.png`, tight (looseness
below a third) and loose garments (above two thirds) apart, and `sizes.md`, which says why: how thick bodies became, and
how far their joints lie from where the picture shows them. Killed at any point it goes on from the last hundred steps;
finished runs are not repeated, and other settings in the same DIR are refused. `--jobs` runs several at once, each in a
process of its own; `--keep FOLDER` paints what a seed sees once for all its variants (20,000 samples take 4 GB).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import _paired_runs
import numpy as np
import torch
from _ablation_report import Design, Run, write_report

from bodyreg import config
from bodyreg.body import BodyModel
from bodyreg.cameras import project
from bodyreg.checkpoints import default_weights, load_model, save_weights
from bodyreg.data.synthetic.prepare import ensure_shards
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.files import atomic_write, load_checkpoint
from bodyreg.models.perspose import normalise_image
from bodyreg.models.registry import default_settings
from bodyreg.training.perspose_dsr import JointModule, JointSettings, joint_terms, posed_bodies

_CHECKPOINT_EVERY = 100


class Variant(NamedTuple):
    """One row of the table: name, factors on the weights of both losses, what DSR-MC compares, and the camera."""

    name: str
    mc: float
    c: float
    region: str = "labels"
    camera: str = "true"


VARIANTS = (
    Variant("key points", 0, 0), Variant("+ silhouette", 1, 0, region="person"), Variant("+ DSR-MC", 1, 0),
    Variant("+ DSR-C", 0, 1), Variant("+ both", 1, 1), Variant("+ both, weak camera", 1, 1, camera="weak"),
)  # fmt: skip


def by_looseness(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which people belong to each part of the test, by name."""
    loose = columns["looseness"]
    return {
        "all": np.ones(len(loose), bool), "tight (looseness < 1/3)": loose < 1 / 3,
        "loose (looseness > 2/3)": loose > 2 / 3,
    }  # fmt: skip


DESIGN = Design(
    "semantics", ("MPJPE", "PA-MPJPE", "PVE", "PVE-T-SC"), "key points",
    dict(zip((v.name for v in VARIANTS), ("#888888", "#b08f3b", "#3b76b0", "#7a5ba8", "#3f8f5b", "#c2483b"),
             strict=True)),
    by_looseness,
    {
        "DSR-MC beyond the silhouette": {"+ DSR-MC": 1, "+ silhouette": -1},
        "both beyond the silhouette": {"+ both": 1, "+ silhouette": -1},
        "the true camera beyond a weak one": {"+ both": 1, "+ both, weak camera": -1},
    },
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _paired_runs.add_arguments(parser, crop_size=192)
    parser.add_argument("--start", type=Path, help="common checkpoint: weights or a run's; default: those that ship")
    parser.add_argument("--labelled", type=float, default=0.1, help="share of people with labels in 3D")
    parser.add_argument("--mc-weight", type=float, default=1.0, help="of DSR-MC and of the silhouette")
    parser.add_argument("--c-weight", type=float, default=1.0, help="of DSR-C")
    parser.add_argument("--maps", type=int, default=96, help="side of the rendered maps, pixels")
    parser.add_argument("--prior", default=None, help="a file, or skinning; default: the clothing prior that ships")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    args.start = args.start or default_weights("perspose_small")
    budget = _same_budget(args)
    args.train, args.held_out = args.train or args.out / "train", args.held_out or args.out / "held_out"
    scenes = SceneSettings(garments="geometry")
    ensure_shards(args.train, args.train_people, motion=args.motion, settings=scenes, progress=False)
    ensure_shards(args.held_out, args.people, motion=args.motion, held_out=True, settings=scenes, progress=False)
    if args.keep:
        painters = range(args.jobs)
        _paired_runs.each(paint, [(args, k) for k in painters], jobs=args.jobs, threads=args.threads)
    calls = [(args, None, None)] + [(args, variant, seed) for seed in range(args.seeds) for variant in VARIANTS]
    if args.jobs > 1:
        _paired_runs.each(run, calls, jobs=args.jobs, threads=args.threads)
    runs = [Run(variant.name, None, run(*calls[0])) for variant in VARIANTS]
    for call in calls[1:]:
        runs.append(Run(call[1].name, call[2], run(*call)))
        write_report(args.out, runs, DESIGN, budget=budget)
    write_sizes(args)
    return 0


def run(args: argparse.Namespace, variant: Variant | None, seed: int | None) -> dict[str, np.ndarray]:
    """Errors of a variant fine-tuned with a seed, from its folder where it is finished; None: common checkpoint."""
    body = BodyModel.load("free")
    if variant is None or seed is None:
        return measure(args, body, args.out / "start", None)
    folder = args.out / f"seed{seed}_{_file_name(variant.name)}"
    if not (folder / "errors.npz").exists():
        fit(args, body, folder, variant, seed)
    return measure(args, body, folder, variant)


def paint(args: argparse.Namespace, part: int) -> None:
    """Paint the batches of every seed whose number leaves `part` when divided by `args.jobs`; part 0 also the test."""
    body = BodyModel.load("free")
    if part == 0:
        test_people(args, body)
    for seed in range(args.seeds):
        people = training_people(args, body, seed)
        for step in range(part, args.samples // args.batch_size, args.jobs):
            people(step)


def _same_budget(args: argparse.Namespace) -> dict[str, str]:
    """What decides the figures, kept in DIR.

    Raises:
        ValueError: the runs in DIR were made with something else.
    """
    names = ("samples", "labelled", "mc_weight", "c_weight", "batch_size", "crop_size", "maps", "lr", "people", "prior")
    budget = {name: str(getattr(args, name)) for name in names} | {"start": args.start.name}
    path = args.out / "budget.json"
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(budget, indent=1) + "\n", encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != budget:
        changed = sorted(name for name in budget if found.get(name) != budget[name])
        raise ValueError(f"The runs in {args.out} were made with other {', '.join(changed)}. Give another folder.")
    return budget


def _file_name(variant: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in variant).strip("_")


def settings_of(args: argparse.Namespace, variant: Variant) -> JointSettings:
    """Settings of a variant's runs: all that differs is the semantic losses and their camera."""
    steps = max(1, args.samples // args.batch_size)
    settings = config.load(JointSettings, "perspose_dsr")
    semantic = replace(
        settings.semantic, mc_weight=args.mc_weight * variant.mc, c_weight=args.c_weight * variant.c,
        mc_region=variant.region, prior=args.prior, image_size=args.maps, warmup_steps=max(1, steps // 10),
    )  # fmt: skip
    return replace(
        settings, semantic=semantic, camera=variant.camera, labelled=args.labelled,
        model=replace(default_settings("perspose_small"), crop_size=args.crop_size),
        optimiser=replace(settings.optimiser, lr=args.lr, warmup_steps=max(1, steps // 10)),
        run=replace(settings.run, steps=steps),
    )  # fmt: skip


def fit(args: argparse.Namespace, body: BodyModel, out: Path, variant: Variant, seed: int) -> None:
    """Fine-tune the common checkpoint; `out` gets last.ckpt."""
    torch.manual_seed(seed)
    settings = settings_of(args, variant)
    settings.check()
    module = JointModule(settings, body)
    people = training_people(args, body, seed)
    posed = body.to(args.device)

    def loss(step: int) -> torch.Tensor:
        batch = _paired_runs.to(people(step), args.device)
        terms = joint_terms(module.model, posed, module.semantic, batch, step, settings)
        return torch.stack([value for name, value in terms.items() if not name.startswith("log_")]).sum()

    _paired_runs.fit(
        module, args.start, out, loss, steps=settings.run.steps, batch_size=args.batch_size,
        checkpoint_every=_CHECKPOINT_EVERY, device=args.device,
    )  # fmt: skip


def training_people(args: argparse.Namespace, body: BodyModel, seed: int) -> Callable[[int], dict[str, torch.Tensor]]:
    """What a run with this seed sees at a step, whichever its variant."""
    people = ShardStream(args.train, body, crop_size=args.crop_size, batch_size=args.batch_size, seed=seed, pool=4,
                         bank_size=args.bank_size, parsing=True)  # fmt: skip
    folder = args.keep / f"seed{seed}" if args.keep else None
    return lambda step: _paired_runs.painted(folder, step, people.batch)


def test_people(args: argparse.Namespace, body: BodyModel) -> Iterator[dict[str, torch.Tensor]]:
    """What every run is tested on."""
    stream = ShardStream(args.held_out, body, crop_size=args.crop_size, batch_size=64, seed=1, augment=False,
                         bank_size=min(64, args.bank_size), parsing=True)  # fmt: skip
    return _paired_runs.all_painted(args.keep / "test.pt" if args.keep else None, lambda: stream.once(args.people))


def measure(args: argparse.Namespace, body: BodyModel, out: Path, variant: Variant | None) -> dict[str, np.ndarray]:
    """Errors of every test person, metres, and looseness, of a run in `out`; None: of the common checkpoint."""

    def errors() -> dict[str, np.ndarray]:
        module: Any = JointModule(settings_of(args, variant or VARIANTS[0]), body)
        if variant is None:
            _paired_runs.start_from(module.model, args.start)
        else:
            module.load_state_dict(load_checkpoint(out / "last.ckpt")["state_dict"])
        save_weights(out / "weights.safetensors", module.model, module.settings.model)
        network = load_model(out / "weights.safetensors").model
        also = ("looseness", "clearance")
        return _paired_runs.body_errors(network, body, test_people(args, body), also, args.device)

    out.mkdir(parents=True, exist_ok=True)
    return _paired_runs.kept(out / "errors.npz", errors)


def write_sizes(args: argparse.Namespace) -> None:
    """Write `sizes.md`: of the common checkpoint and of every variant, means over seeds and the first test people."""
    body = BodyModel.load("free")
    lines = ["| | volume, of the true one's | height, of the true one's | joints from the picture's, px of 256 |",
             "|---|---:|---:|---:|"]  # fmt: skip
    for variant in (None, *VARIANTS):
        folders = [args.out / "start"]
        if variant is not None:
            folders = [args.out / f"seed{seed}_{_file_name(variant.name)}" for seed in range(args.seeds)]
        found = [_paired_runs.kept(folder / "sizes.npz", partial(sizes, args, body, folder)) for folder in folders]
        means = [np.mean([columns[name].mean() for columns in found]) for name in ("volume", "height", "px256")]
        name = "common checkpoint" if variant is None else variant.name
        lines.append(f"| {name} | {means[0]:.2f} | {means[1]:.2f} | {means[2]:.1f} |")
    with atomic_write(args.out / "sizes.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sizes(args: argparse.Namespace, body: BodyModel, out: Path) -> dict[str, np.ndarray]:
    """Of up to 256 test people: volume and height of the predicted shape over the true one's, in T-pose, and the mean
    distance of joints in the picture, pixels of a crop 256 wide."""
    network: Any = load_model(out / "weights.safetensors").model
    rows: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in islice(test_people(args, body), 256 // 64):
            decoded = network.predict(normalise_image(batch["image"].float() / 255), batch["K_crop"])
            posed, true = posed_bodies(body, decoded), body(batch["betas"])
            own = body(posed.betas)
            apart = project(posed.joints, batch["K_crop"]) - project(batch["joints"][:, :24], batch["K_crop"])
            rows.append(torch.stack([
                _volume(own.vertices, body.faces) / _volume(true.vertices, body.faces),
                _height(own.vertices) / _height(true.vertices),
                apart.norm(dim=-1).mean(1) * 256 / args.crop_size,
            ], 1))  # fmt: skip
    columns = torch.cat(rows).numpy()
    return dict(zip(("volume", "height", "px256"), columns.T, strict=True))


def _height(vertices: torch.Tensor) -> torch.Tensor:
    return vertices[..., 1].amax(1) - vertices[..., 1].amin(1)


def _volume(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    a, b, c = vertices[:, faces].unbind(2)
    return (torch.linalg.cross(a, b) * c).sum((1, 2)).abs() / 6


if __name__ == "__main__":
    raise SystemExit(main())
