"""Rendering geometry shards ahead of training, resumable shard by shard."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bodyreg.body import BodyModel
from bodyreg.data.motion import list_motion, read_amass, split_clips
from bodyreg.data.synthetic.poses import PoseSampler
from bodyreg.data.synthetic.scenes import SceneSettings, make_scenes
from bodyreg.data.synthetic.shards import join_shards, render_buffers, save_shard
from renderers.threads import thread_count

__all__ = ["prepare_synthetic"]

log = logging.getLogger(__name__)
_CHUNK = 32


def prepare_synthetic(
    out: str | Path,
    count: int,
    *,
    motion: str | Path | None = None,
    held_out: bool = False,
    per_shard: int = 1024,
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
        held_out: use the clips that are never trained on instead of the training clips.
        per_shard: scenes a shard. seed: with the shard's number decides its contents.

    Returns:
        The shards' paths.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    clips = None
    if motion is not None:
        paths = list_motion(motion)
        train, test = split_clips([p.stem for p in paths])
        wanted = set(test if held_out else train)
        clips = [read_amass(p) for p in paths if p.stem in wanted]
        log.info("%d of %d clips", len(clips), len(paths))
    sampler = PoseSampler(clips)
    settings = settings or SceneSettings()
    body = BodyModel.load("free")
    faces, rest = body.faces.numpy(), body.v_template.detach().numpy()
    part = body.part_labels.numpy()
    threads = thread_count(threads)
    paths = [out / f"shard_{seed:03d}_{k:04d}.npz" for k in range(-(-count // per_shard))]
    columns = (TextColumn("rendering people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=len(paths) * per_shard)
        for k, path in enumerate(paths):
            if path.exists():
                bar.advance(task, per_shard)
                continue
            rng = np.random.default_rng([seed, int(held_out), k])
            parts, have = [], 0
            while have < per_shard:
                with torch.no_grad():
                    scenes = make_scenes(body, sampler.sample(_CHUNK, rng), rng, settings)
                take = min(len(scenes.vertices), per_shard - have)
                labels = {name: value[:take] for name, value in scenes.labels.items()}
                scenes = scenes._replace(
                    vertices=scenes.vertices[:take], normals=scenes.normals[:take], labels=labels
                )
                parts.append(render_buffers(scenes, faces, rest, part, settings.crop_size, threads))
                have += take
                bar.advance(task, take)
            save_shard(path, join_shards(parts))
    return paths
