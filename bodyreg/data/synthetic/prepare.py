"""Rendering geometry shards ahead of training, resumable shard by shard, and on demand where a folder has none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bodyreg.body import BodyModel
from bodyreg.data.motion import Motion, list_motion, read_amass, split_clips
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import Scenes, SceneSettings, make_scenes
from bodyreg.data.synthetic.shards import Shard, join_shards, load_shard, render_buffers, save_shard
from renderers.threads import thread_count

__all__ = ["ensure_shards", "prepare_synthetic"]

log = logging.getLogger(__name__)
_CHUNK = 32
_PATIENCE = 20  # chunks of poses in a row that may find no place at all
_PER_SHARD = 1024
_INCOMPLETE = "incomplete.txt"


def ensure_shards(
    folder: str | Path,
    people: int,
    *,
    needed: int | None = None,
    motion: str | Path | None = None,
    held_out: bool = False,
    settings: SceneSettings | None = None,
    progress: bool = True,
) -> None:
    """Render shards into a folder that has none, and go on with a rendering that is not complete there.

    A folder whose shards come from elsewhere, or are complete, is left as it is, however many they are.

    Args:
        folder: of the shards. people: how many belong into it, rounded up to whole shards.
        needed: how many are looked at now, at most; the others are left for a later call.
        motion, held_out, settings, progress: as in `prepare_synthetic`.
    """
    folder = Path(folder)
    mark = folder / _INCOMPLETE
    if not mark.exists() and any(folder.glob("*.npz")):
        return
    count = people if needed is None else min(people, needed)
    log.info("shards in %s are not complete: rendering up to %d people", folder, count)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"Of {people} people some are still to be rendered, when they are needed.\n", encoding="utf-8")
    per_shard = min(_PER_SHARD, people)
    made = prepare_synthetic(
        folder, count, motion=motion, held_out=held_out, per_shard=per_shard, settings=settings, progress=progress
    )
    if len(made) * per_shard >= people:
        mark.unlink()


def prepare_synthetic(
    out: str | Path,
    count: int,
    *,
    motion: str | Path | None = None,
    held_out: bool = False,
    per_shard: int = _PER_SHARD,
    seed: int = 0,
    settings: SceneSettings | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Render `count` scenes of the free body into geometry shards.

    Args:
        out: folder of the shards; those already there are kept, so an interrupted run goes on.
        count: scenes, rounded up to whole shards.
        motion: folder of AMASS-layout files; None draws poses from the shipped prior.
        held_out: recorded frames of the clips that are never trained on; of the prior, other draws.
        per_shard: scenes a shard. seed: with the shard's number decides its contents.
        settings: what scenes look like. threads: crops rendered at once. progress: show a bar.

    Returns:
        The shards' paths.

    Raises:
        ValueError: no clip on the wanted side of the split, settings that leave no scene a place, or a folder with
            people in the other kind of garments.
    """
    if count < 1 or per_shard < 1:
        raise ValueError(f"{count} scenes in shards of {per_shard} were asked for. Give numbers of at least 1.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"shard_{seed:03d}_{k:04d}.npz" for k in range(-(-count // per_shard))]
    if all(path.exists() for path in paths):
        return paths
    # Unseen means recorded poses nobody trained on, not new draws of the generator that made the training poses.
    kinds = {"motion": 1.0} if held_out and motion is not None else None
    sampler = PoseSampler(None if motion is None else _clips(motion, held_out), weights=kinds)
    settings = _same_garments(out, settings or SceneSettings())
    body = BodyModel.load("free")
    threads = thread_count(threads)
    columns = (TextColumn("rendering people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=len(paths) * per_shard)
        for k, path in enumerate(paths):
            if path.exists():
                bar.advance(task, per_shard)
                continue
            rng = np.random.default_rng([seed, int(held_out), k])
            parts = []
            for part in _render(body, sampler, rng, settings, per_shard, threads):
                parts.append(part)
                bar.advance(task, len(part))
            save_shard(path, join_shards(parts))
    return paths


def _same_garments(folder: Path, settings: SceneSettings) -> SceneSettings:
    """Settings with the kind of garments that the folder's shards have."""
    found = next(iter(sorted(folder.glob("*.npz"))), None)
    if found is None:
        return replace(settings, garments=settings.garments or "geometry")
    worn = load_shard(found).garments
    if settings.garments not in (None, worn):
        raise ValueError(
            f"{folder} holds people in {worn} garments and {settings.garments} ones were asked for. "
            "Give another folder, or ask for the same kind."
        )
    return replace(settings, garments=worn)


def _clips(motion: str | Path, held_out: bool) -> list[Motion]:
    """The clips of a folder that are on the wanted side of the split."""
    paths = list_motion(motion)
    train, test = split_clips([p.stem for p in paths])
    wanted = set(test if held_out else train)
    clips = [read_amass(p) for p in paths if p.stem in wanted]
    if not clips:
        side = "held out" if held_out else "trained on"
        raise ValueError(f"None of the {len(paths)} clips in {motion} is {side}. Give a folder with more clips.")
    log.info("%d of %d clips", len(clips), len(paths))
    return clips


def _render(
    body: BodyModel, sampler: PoseSampler, rng: np.random.Generator, settings: SceneSettings, count: int, threads: int
) -> Iterator[Shard]:
    """Buffers of `count` scenes, a chunk at a time."""
    faces, rest, part = body.faces.numpy(), body.v_template.detach().numpy(), body.part_labels.numpy()
    have = empty = 0
    while have < count:
        with torch.no_grad():
            scenes = make_scenes(body, sampler.sample(_CHUNK, rng), rng, settings)
        take = min(len(scenes.vertices), count - have)
        empty = 0 if take else empty + 1
        if empty == _PATIENCE:
            raise ValueError(
                f"No place in any picture was found for {_PATIENCE * _CHUNK} people with {settings}. "
                "Widen fov_deg or lower min_visible."
            )
        labels = {name: value[:take] for name, value in scenes.labels.items()}
        fields = None if scenes.fields is None else scenes.fields[:take]
        scenes = Scenes(scenes.vertices[:take], scenes.normals[:take], labels, fields)
        have += take
        yield render_buffers(scenes, faces, rest, part, settings.crop_size, threads)
