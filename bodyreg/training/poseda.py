"""PoseDA's three stages: a lifter on the source, generator and critics, the lifter on poses moved to the target.

The generator never sees the lifter and the lifter never sees the critics. Each stage leaves a file in the run's folder;
a run that stops goes on with the stage it stopped in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from bodyreg import config, lens, skeletons
from bodyreg.adapt.poseda import kinematics, losses
from bodyreg.adapt.poseda.alignment import align_position, draw_pairs, usable
from bodyreg.adapt.poseda.critics import Critic2d, Critic3d, ReplayPool
from bodyreg.adapt.poseda.generators import PoseGenerator
from bodyreg.data.lifter_sets import LifterSequence, read_lifter_set
from bodyreg.evaluation.metrics import auc, mpjpe, pa_mpjpe, pck
from bodyreg.files import atomic_write, load_checkpoint
from bodyreg.lifter_weights import save_lifter
from bodyreg.models.lifters.registry import build_lifter
from bodyreg.training.poseda_settings import JOINT_SET, AdaptSettings, LPASettings, PoseDASettings
from bodyreg.training.schedules import exponential_rate, linear_rate

__all__ = ["Domain", "adapt_lifter", "fit", "read_domain", "score", "train_generator", "train_poseda"]

log = logging.getLogger(__name__)
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Domain:
    """Poses of a set, frame by frame.

    Attributes:
        joints: (N, 16, 3) in the camera's frame, metres. keypoints: (N, 16, 2) normalised screen coordinates.
        camera: (N, 9) lens of these coordinates.
    """

    joints: Tensor
    keypoints: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def rooted(self) -> Tensor:
        """(N, 16, 3) relative to the root: what lifters are trained to say."""
        return self.joints - self.joints[:, :1]


def read_domain(sequences: Iterable[LifterSequence], input_set: str, joint_set: str) -> Domain:
    """Frames that are scored, of sequences of a prepared set, in the sixteen joints."""
    joints, keypoints, cameras = [], [], []
    for sequence in sequences:
        root = skeletons.get(joint_set).root
        points = torch.from_numpy(sequence.joints).clone()
        others = [j for j in range(points.shape[1]) if j != root]
        points[:, others] += points[:, root : root + 1]
        kept = torch.from_numpy(sequence.valid)
        joints.append(skeletons.convert(points, joint_set, JOINT_SET)[kept])
        seen = torch.from_numpy(sequence.keypoints[..., :2])
        keypoints.append(skeletons.convert(seen, input_set, JOINT_SET)[kept])
        cameras.append(torch.from_numpy(sequence.lens).expand(int(kept.sum()), 9))
    return Domain(torch.cat(joints), torch.cat(keypoints), torch.cat(cameras))


def train_poseda(source: str | Path, overrides: Iterable[str] = (), *, progress: bool = True) -> Path:
    """Run the stages that a configuration describes; stages whose result is in the run's folder are not run again.

    Returns:
        Path of the adapted lifter, beside it `source_only.safetensors` and `scores.json`.

    Raises:
        ValueError: settings that no run could end well with, or sets that are missing.
    """
    settings = config.load(PoseDASettings, source, overrides)
    settings.check()
    out = Path(settings.run.out)
    out.mkdir(parents=True, exist_ok=True)
    config.save(settings, out / "config.yaml")
    if settings.run.threads is not None:
        torch.set_num_threads(settings.run.threads)
    pairs, pool, test = _domains(settings)
    tell = log.info if progress else log.debug
    seed = settings.run.seed
    lifter = _stage(out / "source_only.pt", seed, _lifter(settings), lambda m: _pretrain(m, pairs, settings, tell))
    save_lifter(out / "source_only.safetensors", lifter, settings.model, method="source only")
    scores = {"source only": score(lifter, test)}
    generator = None
    if settings.lpa.epochs:
        torch.manual_seed(seed + 1)
        made = PoseGenerator()
        generator = _stage(out / "generator.pt", seed, made, lambda m: train_generator(m, pairs, pool, settings, tell))
    adapted = _stage(
        out / "adapted.pt", seed, lifter, lambda m: adapt_lifter(m, generator, pairs, pool, settings, tell)
    )
    name = "GPA and LPA" if generator is not None else "GPA"
    scores[name] = score(adapted, test)
    save_lifter(out / "poseda.safetensors", adapted, settings.model, method=name)
    _write_scores(out / "scores.json", scores)
    for line, values in scores.items():
        tell("%s: %s", line, ", ".join(f"{key} {value:.1f}" for key, value in values.items()))
    return out / "poseda.safetensors"


def fit(
    lifter: nn.Module, keypoints: Tensor, joints: Tensor, optimiser: torch.optim.Optimizer, batch_size: int,
    generator: torch.Generator, clip: float = 1.0,
) -> float:  # fmt: skip
    """One epoch of mean squared error (metres) over shuffled pairs; the mean loss.

    Args:
        keypoints: (N, J, 2). joints: (N, J, 3) root-relative. batch_size: a last batch of one is left out.
    """
    lifter.train()
    sums, seen = 0.0, 0
    for rows in _batches(len(keypoints), batch_size, generator):
        loss = (lifter(keypoints[rows][:, None])[:, 0] - joints[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(lifter.parameters(), clip)
        optimiser.step()
        sums, seen = sums + float(loss.detach()) * len(rows), seen + len(rows)
    return sums / max(seen, 1)


def train_generator(
    generator: PoseGenerator, source: Domain, target: Domain, settings: PoseDASettings,
    tell: Callable[..., None] = log.debug,
) -> None:  # fmt: skip
    """Stage 1: the generator against two critics, in place.

    The local critic compares source poses with the generator's turned bones; the other compares the target's key points
    with images of finished poses that alignment has moved to the target.
    """
    lpa, rng = settings.lpa, torch.Generator().manual_seed(settings.run.seed + 1)
    critics = (Critic3d(), Critic2d())
    pools = tuple(ReplayPool(lpa.pool, settings.run.seed + k) for k in (2, 3))
    optimisers = [torch.optim.Adam(module.parameters(), lr=lpa.lr) for module in (generator, *critics)]
    templates = _templates(source)
    generator.train()
    for epoch in range(lpa.epochs):
        for optimiser in optimisers:
            _set_rate(optimiser, linear_rate(epoch, lpa.epochs, lpa.lr))
        sums = torch.zeros(2)
        poses = _swapped(source.joints, templates, rng) if lpa.swap_lengths else source.joints
        for step, rows in enumerate(_batches(len(poses), lpa.batch_size, rng)):
            real = poses[rows]
            drawn = draw_pairs(len(rows), len(target), rng)
            seen, camera = target.keypoints[drawn], target.camera[drawn]
            made = generator(real)
            moved = align_position(made.pose, seen, camera, refine=settings.adapt.refine)
            image = lens.project_linear(moved, camera[:, None])
            fits = usable(moved.detach(), seen)
            if int(fits.sum()) < 2:
                continue
            image, anchor = image[fits], seen[fits]
            fakes = (made.angles, image)
            anchors = (real, anchor)
            loss = _generator_objective(critics, anchors, fakes, made.angle_change, made.ratios, lpa)
            _descend(loss, optimisers[0], generator, settings.run.clip)
            sums[0] += loss.detach()
            if step % 2 == 1:
                for critic, pool, held, fake, optimiser in zip(
                    critics, pools, anchors, fakes, optimisers[1:], strict=True
                ):
                    loss = losses.critic_loss(critic(held), critic(pool(fake)))
                    _descend(loss, optimiser, critic, settings.run.clip)
                    sums[1] += loss.detach()
        tell("generator, epoch %d of %d: %.4f, critics %.4f", epoch + 1, lpa.epochs, *sums.tolist())
    generator.eval().requires_grad_(False)


def _generator_objective(
    critics: tuple[nn.Module, ...], anchors: tuple[Tensor, ...], fakes: tuple[Tensor, ...], change: Tensor,
    ratios: Tensor, lpa: LPASettings,
) -> Tensor:  # fmt: skip
    adv = [losses.generator_loss(c(real), c(fake)) for c, real, fake in zip(critics, anchors, fakes, strict=True)]
    return lpa.adv3d * adv[0] + lpa.adv2d * adv[1] + lpa.regulariser * losses.regulariser(change, ratios)


def adapt_lifter(
    lifter: nn.Module, generator: PoseGenerator | None, source: Domain, target: Domain, settings: PoseDASettings,
    tell: Callable[..., None] = log.debug,
) -> None:  # fmt: skip
    """Stage 2: the lifter on source poses moved to the target, in place.

    Without a generator poses are only moved (GPA). The generator is not changed.
    """
    adapt, rng = settings.adapt, torch.Generator().manual_seed(settings.run.seed + 4)
    optimiser = torch.optim.Adam(lifter.parameters(), lr=adapt.lr)
    for epoch in range(adapt.epochs):
        _set_rate(optimiser, linear_rate(epoch, adapt.epochs, adapt.lr))
        share = settings.lpa.probability if generator is not None else 0.0
        passes = [share, 0.0] if adapt.plain_pass and share else [share]
        for probability in passes:
            keypoints, joints = moved_poses(source, target, generator, probability, rng, adapt)
            loss = fit(lifter, keypoints, joints, optimiser, adapt.batch_size, rng, settings.run.clip)
        tell("adaptation, epoch %d of %d: %.5f", epoch + 1, adapt.epochs, loss)


def moved_poses(
    source: Domain, target: Domain, generator: PoseGenerator | None, probability: float, rng: torch.Generator,
    adapt: AdaptSettings,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Key points (M, 16, 2) and root-relative joints (M, 16, 3) of source poses that look like the target's.

    Poses that would leave the picture or come too near are left out; batches are changed by the generator or not, as
    `probability` has it.
    """
    keypoints, joints = [], []
    for rows in _batches(len(source), adapt.batch_size, rng):
        pose = source.joints[rows]
        if generator is not None and float(torch.rand((), generator=rng)) < probability:
            with torch.no_grad():
                pose = generator(pose).pose
        drawn = draw_pairs(len(rows), len(target), rng)
        seen, camera = target.keypoints[drawn], target.camera[drawn]
        moved = align_position(pose, seen, camera, refine=adapt.refine)
        image = lens.project_linear(moved, camera[:, None])
        kept = usable(moved, seen) & (image.abs().amax((1, 2)) <= 1)
        keypoints.append(image[kept])
        joints.append((moved - moved[:, :1])[kept])
    return torch.cat(keypoints), torch.cat(joints)


@torch.no_grad()
def score(lifter: nn.Module, domain: Domain, *, flip_test: bool = True) -> dict[str, float]:
    """MPJPE and P-MPJPE in millimetres, PCK at 150 mm and AUC in per cent, over all sixteen joints, root included."""
    mirror = list(skeletons.get(JOINT_SET).mirror)

    def mirrored(points: Tensor) -> Tensor:
        return torch.cat([-points[..., mirror, :1], points[..., mirror, 1:]], -1)

    lifter.eval()
    parts = []
    for x in domain.keypoints[:, None].split(4096):
        y = lifter(x)
        parts.append((y + mirrored(lifter(mirrored(x)))) / 2 if flip_test else y)
    predicted, true = torch.cat(parts)[:, 0], domain.rooted
    predicted = predicted - predicted[:, :1]
    return {
        "MPJPE": 1000 * float(mpjpe(predicted, true).mean()),
        "P-MPJPE": 1000 * float(pa_mpjpe(predicted, true).mean()),
        "PCK": 100 * float(pck(predicted, true).mean()),
        "AUC": 100 * float(auc(predicted, true).mean()),
    }


def _domains(settings: PoseDASettings) -> tuple[Domain, Domain, Domain]:
    """Source pairs, the target's unlabelled pool, and what scores."""
    data = settings.data
    source, target = read_lifter_set(data.source), read_lifter_set(data.target)
    sets = (source.about.input_set, source.about.joint_set), (target.about.input_set, target.about.joint_set)
    pairs = read_domain(
        source.sequences(data.source_subjects or source.subjects("train"), downsample=data.downsample), *sets[0]
    )
    test = read_domain(target.sequences(target.subjects("test"), downsample=data.downsample), *sets[1])
    if data.transductive or not target.subjects("train"):
        log.warning("Target poses are drawn from the subjects that score (transductive).")
        return pairs, test, test
    return pairs, read_domain(target.sequences(target.subjects("train"), downsample=data.downsample), *sets[1]), test


def _lifter(settings: PoseDASettings) -> nn.Module:
    torch.manual_seed(settings.run.seed)
    return build_lifter(settings.model)


def _pretrain(lifter: nn.Module, pairs: Domain, settings: PoseDASettings, tell: Callable[..., None]) -> None:
    """Stage 0, in place."""
    stage, rng = settings.pretrain, torch.Generator().manual_seed(settings.run.seed)
    optimiser, steps = torch.optim.Adam(lifter.parameters(), lr=stage.lr), 0
    for epoch in range(stage.epochs):
        _set_rate(optimiser, exponential_rate(steps // stage.decay_steps, stage.lr, stage.decay))
        loss = fit(lifter, pairs.keypoints, pairs.rooted, optimiser, stage.batch_size, rng, settings.run.clip)
        steps += -(-len(pairs) // stage.batch_size)
        tell("source, epoch %d of %d: %.5f", epoch + 1, stage.epochs, loss)


def _stage(path: Path, seed: int, module: Module, work: Callable[[Module], None]) -> Module:
    """A module with the result of a stage: from its file when there is one, else by doing the work.

    Each stage draws from a seed of its own, so that a run which goes on ends like an undisturbed one.
    """
    if path.exists():
        module.load_state_dict(load_checkpoint(path), strict=True)
        return module.eval()
    torch.manual_seed(seed)
    work(module)
    with atomic_write(path) as temporary:
        torch.save(module.state_dict(), temporary)
    return module.eval()


def _templates(domain: Domain, most: int = 64) -> Tensor:
    """(S, 15) bone lengths of the people of a domain: distinct rows, rounded to a millimetre."""
    lengths = kinematics.bone_vectors(domain.joints).norm(dim=-1)
    rows = torch.unique((1000 * lengths).round(), dim=0) / 1000
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]


def _swapped(joints: Tensor, templates: Tensor, rng: torch.Generator) -> Tensor:
    return kinematics.swap_lengths(joints, templates[torch.randint(len(templates), (len(joints),), generator=rng)])


def _batches(count: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Shuffled rows; a last batch of one, which batch normalisation cannot take, is left out."""
    for rows in torch.randperm(count, generator=rng).split(size):
        if len(rows) > 1:
            yield rows


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer, module: nn.Module, clip: float) -> None:
    optimiser.zero_grad()
    loss.backward(inputs=list(module.parameters()))
    nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimiser.step()


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _write_scores(path: Path, scores: dict[str, dict[str, float]]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
