"""Two domains that differ, from one motion benchmark: other people, other heights, other cameras.

The source keeps the benchmark's people and cameras. The target takes every second person of the recordings, makes
them smaller, and sees them from above through a wider lens without distortion. Both have the benchmark's noise.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from bodyreg.data.lifter_cameras import LensCamera
from bodyreg.data.lifter_sets import LifterSet
from bodyreg.data.motion_benchmark import detector_noise, rig
from bodyreg.data.videopose import set_from_tables

__all__ = ["shifted_pair"]

_HEIGHT = 0.85
"""Of the target's people, as a share of what they were."""
_LENS = np.array([1.4, 1.4, 0.02, -0.015, 0, 0, 0, 0, 0], np.float32)
_CAMERA_HEIGHTS, _NEAREST_M = (2.2, 3.2), 2.5


def shifted_pair(motion: LifterSet, seed: int = 0) -> tuple[LifterSet, LifterSet]:
    """Source and target of a domain shift whose truth is known.

    Args:
        motion: the benchmark (`bodyreg prepare motion`); its clips are named PERSON_CLIP. seed: of cameras and noise.

    Returns:
        The source, all of whose clips train, and the target, whose training clips are the pool of key points that
        adaptation may see and whose test clips score it. Nobody is in both.

    Raises:
        ValueError: fewer than two people, or a person of the target with a single clip.
    """
    clips = sorted({clip for clip, *_ in motion.keypoints})
    people = sorted({clip.split("_")[0] for clip in clips})
    if len(people) < 2:
        raise ValueError(f"The set holds recordings of {len(people)} person. Give a benchmark of at least two.")
    strangers = people[1::2]
    own = [clip for clip in clips if clip.split("_")[0] not in strangers]
    other = [clip for clip in clips if clip.split("_")[0] in strangers]
    if len(other) < 2:
        raise ValueError("The target would have a single clip, and needs one to see and one to score. Give more clips.")
    source = _chosen(motion, own, 1.0, motion.cameras, seed)
    rigs: dict[str, tuple[LensCamera, ...]] = {}
    for clip in other:
        joints = next(value for key, value in motion.joints.items() if key[0] == clip)
        count = len(motion.cameras[clip])
        rng = np.random.default_rng([seed, zlib.crc32(clip.encode())])
        rigs[clip] = rig(
            _HEIGHT * joints, count, rng, lenses=[_LENS] * count, heights=_CAMERA_HEIGHTS, nearest=_NEAREST_M
        )
    target = _chosen(motion, other, _HEIGHT, rigs, seed)
    source = dataclasses.replace(source, about=dataclasses.replace(source.about, name="source", train=own, test=[]))
    about = dataclasses.replace(target.about, name="target", train=other[0::2], test=other[1::2])
    return source, dataclasses.replace(target, about=about)


def _chosen(
    motion: LifterSet, clips: list[str], scale: float, rigs: Mapping[str, Sequence[LensCamera]], seed: int
) -> LifterSet:  # fmt: skip
    """Some clips of the benchmark, scaled about the ground, seen anew by their cameras."""
    joints = {(key[0], key[1]): scale * value for key, value in motion.joints.items() if key[0] in clips}
    views: dict[tuple[str, str], list[np.ndarray]] = {}
    for (clip, action), world in joints.items():
        views[clip, action] = []
        for index, camera in enumerate(rigs[clip]):
            exact = camera.pixels(camera.camera_from_world(world))
            rng = np.random.default_rng([seed, index, zlib.crc32(clip.encode())])
            views[clip, action].append(exact + detector_noise(exact, rng))
    note = f"{motion.about.note}; people scaled by {scale}"
    about = dataclasses.replace(motion.about, source="noisy", note=note)
    return set_from_tables(about, joints, views, {clip: tuple(rigs[clip]) for clip in clips})
