"""Synthetic people with exact labels: rendered once into geometry buffers, painted anew each time they are seen.

Poses (`poses`) become scenes with a camera and a place in the picture (`scenes`), scenes become buffers on disk
(`shards`, rendered ahead by `prepare`), buffers become pictures (`compose`, with `outfits` and `backgrounds`), and
pictures become batches (`stream`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names in the order a reader would use them, and the module of each, which is loaded when it is first used.
_HOMES = {
    "ShardStream": "stream",
    "view_labels": "stream",
    "prepare_synthetic": "prepare",
    "ensure_shards": "prepare",
    "PoseSampler": "poses",
    "SceneSettings": "scenes",
    "Scenes": "scenes",
    "make_scenes": "scenes",
    "LABELS": "scenes",
    "Shard": "shards",
    "render_buffers": "shards",
    "save_shard": "shards",
    "load_shard": "shards",
    "join_shards": "shards",
    "View": "compose",
    "random_view": "compose",
    "Tailor": "garments",
    "sample_garments": "garments",
    "sample_outfits": "outfits",
    "body_atlas": "outfits",
    "background_bank": "backgrounds",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Its public names: {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
