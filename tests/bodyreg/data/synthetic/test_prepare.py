"""Rendering ahead: resumable, split by clips, on demand, and never without end."""

import numpy as np
import pytest

from bodyreg.data.motion import split_clips
from bodyreg.data.synthetic import prepare
from bodyreg.data.synthetic.prepare import ensure_shards, prepare_synthetic
from bodyreg.data.synthetic.scenes import SceneSettings
from bodyreg.data.synthetic.shards import load_shard

SMALL = SceneSettings(crop_size=32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(prepare, "_CHUNK", 3)


def make(folder, count, **options):
    options = {"per_shard": 4, "settings": SMALL} | options
    return prepare_synthetic(folder, count, progress=False, threads=1, **options)


def test_interrupted_rendering_goes_on_and_equals_an_undisturbed_one(tmp_path):
    whole = make(tmp_path / "whole", 7)
    assert [len(load_shard(path)) for path in whole] == [4, 4]
    make(tmp_path / "parts", 4)
    first = (tmp_path / "parts" / whole[0].name).stat().st_mtime_ns
    parts = make(tmp_path / "parts", 8)
    assert parts[0].stat().st_mtime_ns == first
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(load_shard(one).pixels, load_shard(two).pixels)
    assert not np.array_equal(load_shard(whole[0]).labels["betas"], load_shard(whole[1]).labels["betas"])


def test_held_out_people_are_others(tmp_path):
    train, held_out = make(tmp_path / "a", 4)[0], make(tmp_path / "b", 4, held_out=True)[0]
    assert not np.array_equal(load_shard(train).labels["betas"], load_shard(held_out).labels["betas"])


@pytest.fixture
def motion(tmp_path):
    """Clips in AMASS's layout: six of them, which the split shares out by name."""
    folder, rng = tmp_path / "motion", np.random.default_rng(0)
    folder.mkdir()
    for k in range(30):
        poses = np.zeros((4, 72), np.float32)
        poses[:, 3:] = rng.normal(0, 0.15, (4, 69))
        np.savez(folder / f"clip_{k}.npz", poses=poses, trans=np.zeros((4, 3)), betas=np.zeros(10), gender="neutral",
                 mocap_framerate=30.0)  # fmt: skip
    return folder


def test_clips_are_split(tmp_path, motion, monkeypatch):
    used = []
    real = prepare.PoseSampler

    def sampler(clips, weights=None):
        used.append((len(clips), weights))
        return real(clips, weights=weights)

    monkeypatch.setattr(prepare, "PoseSampler", sampler)
    make(tmp_path / "a", 4, motion=motion)
    make(tmp_path / "b", 4, motion=motion, held_out=True)
    train, held_out = split_clips([path.stem for path in motion.glob("*.npz")])
    assert min(len(train), len(held_out)) > 0
    # Held-out people are recorded frames alone: procedural poses are drawn alike for both sides.
    assert used == [(len(train), None), (len(held_out), {"motion": 1.0})]
    for name in held_out:
        (motion / f"{name}.npz").unlink()
    with pytest.raises(ValueError, match="None of the .* clips .* is held out. Give a folder"):
        make(tmp_path / "c", 4, motion=motion, held_out=True)


def test_hopeless_settings_end_with_an_error(tmp_path):
    hopeless = SceneSettings(crop_size=32, truncated=1.0, easy=0.0, min_visible=1.1)
    with pytest.raises(ValueError, match="No place in any picture was found .* lower min_visible"):
        make(tmp_path, 4, settings=hopeless)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count, per_shard", [(0, 4), (4, 0)])
def test_nothing_to_render_is_an_error(tmp_path, count, per_shard):
    with pytest.raises(ValueError, match="Give numbers of at least 1"):
        make(tmp_path, count, per_shard=per_shard)


def test_shards_are_rendered_on_demand_and_topped_up(tmp_path, monkeypatch):
    calls = []

    def stand_in(folder, count, *, per_shard, **options):
        calls.append((count, per_shard, options["held_out"]))
        paths = [folder / f"shard_{k}.npz" for k in range(-(-count // per_shard))]
        for path in paths:
            path.touch()
        return paths

    monkeypatch.setattr(prepare, "prepare_synthetic", stand_in)
    ensure_shards(tmp_path / "a", 4000, needed=60, held_out=True)
    assert calls == [(60, 1024, True)] and (tmp_path / "a" / "incomplete.txt").exists()
    ensure_shards(tmp_path / "a", 4000)  # a longer run needs all of them
    assert calls[1:] == [(4000, 1024, False)] and not (tmp_path / "a" / "incomplete.txt").exists()
    ensure_shards(tmp_path / "a", 9000)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.npz").touch()
    ensure_shards(tmp_path / "own", 4000)
    assert len(calls) == 2  # complete, and the user's own: left alone
    ensure_shards(tmp_path / "small", 8)
    assert calls[2:] == [(8, 8, False)]


def test_kill_while_rendering_on_demand_is_made_good(tmp_path, monkeypatch):
    real = prepare.save_shard

    def killed(path, shard):
        if path.name.endswith("0001.npz"):
            raise KeyboardInterrupt
        real(path, shard)

    monkeypatch.setattr(prepare, "_PER_SHARD", 3)
    monkeypatch.setattr(prepare, "save_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure_shards(tmp_path, 6, progress=False)
    monkeypatch.setattr(prepare, "save_shard", real)
    ensure_shards(tmp_path, 6, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard_000_0000.npz", "shard_000_0001.npz"]
