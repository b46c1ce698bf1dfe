from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from bodyreg import config


@dataclass(frozen=True)
class Optimiser:
    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])


@dataclass(frozen=True)
class Job:
    name: str = "job"
    steps: int = 10
    seed: int | None = None
    optimiser: Optimiser = field(default_factory=Optimiser)
    notes: dict[str, str] = field(default_factory=dict)


def test_defaults_file_and_overrides_win_in_that_order(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("steps: 20\noptimiser:\n  lr: 0.5\nnotes:\n  anything: goes\n")
    assert config.load(Job) == Job()
    got = config.load(Job, path, ["optimiser.lr=1e-2", "name=late", "seed=3", "optimiser.betas=[0.8,0.9]"])
    assert got == Job("late", 20, 3, Optimiser(0.01, [0.8, 0.9]), {"anything": "goes"})
    assert isinstance(got.optimiser, Optimiser)


def test_later_override_wins():
    assert config.load(Job, None, ["steps=1", "steps=2"]).steps == 2


@pytest.mark.parametrize(
    ("override", "named"),
    [("optimiser.lrr=1", "optimiser.lr"), ("stepz=1", "steps"), ("nothing_like_it=1", "name, steps, seed")],
)
def test_unknown_override_names_the_nearest(override, named):
    with pytest.raises(ValueError, match="unknown key") as caught:
        config.load(Job, None, [override])
    assert named in str(caught.value)


def test_unknown_key_in_a_file_is_refused(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("optimizer:\n  lr: 1\n")
    with pytest.raises(ValueError, match="unknown key 'optimizer'. Did you mean optimiser"):
        config.load(Job, path)


@pytest.mark.parametrize("override", ["steps=many", "optimiser=3", "steps", "=3", "a..b=1"])
def test_bad_override_is_a_value_error(override):
    with pytest.raises(ValueError):
        config.load(Job, None, [override])


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1,\n", "\x00"])
def test_file_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad.yaml"):
        config.load(Job, path)


def test_save_and_load_round_trip(tmp_path):
    job = Job("x", 3, None, Optimiser(0.25, [0.5]), {"a": "b"})
    config.save(job, tmp_path / "saved.yaml")
    assert config.load(Job, tmp_path / "saved.yaml") == job


def test_find_config(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 1\n")
    assert config.find_config(path) == path
    with pytest.raises(ValueError, match="No configuration 'no_such_name'"):
        config.find_config("no_such_name")
    monkeypatch.chdir(tmp_path)  # shipped names do not depend on the folder one stands in
    for name, shipped in config.shipped_configs().items():
        assert config.find_config(name) == shipped
        assert config.find_config(f"configs/{name}.yaml") == shipped
