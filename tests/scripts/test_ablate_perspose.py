"""The ablation: switches that reach batches and networks, runs that go on where they stopped, honest intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bodyreg.checkpoints import save_weights
from bodyreg.models.registry import ModelSettings, build


@pytest.fixture(scope="module")
def ablation(load_scripts):
    """The script and its report, as `python scripts/ablate_perspose.py` finds them."""
    _, report, script = load_scripts("_paired_runs", "_ablation_report", "ablate_perspose")
    return script, report


def fake_runs(report, seeds=3, people=400):
    """Errors that PE lowers by 2 mm and PR by 5 mm, together by 9, beneath noise common to a person and a seed."""
    rng = np.random.default_rng(0)
    person = rng.normal(100, 20, people)
    angles = {"fov_rad": rng.uniform(0.3, 1.6, people), "off_axis_rad": rng.uniform(0, 0.7, people)}
    gain = {"none": 0.0, "PE": -2.0, "PR": -5.0, "PE+PR": -9.0}
    runs = []
    for seed in (None, *range(seeds)):
        shift = rng.normal(0, 3)
        for name, change in gain.items():
            errors = (person + shift + change + rng.normal(0, 1, people)) / 1000
            columns = {error: errors for error in report.PERSPOSE.errors} | angles | {"betas": person[:, None]}
            runs.append(report.Run(name, seed, columns))
    return runs


def test_paired_differences_find_what_noise_hides(ablation):
    _, report = ablation
    runs = fake_runs(report)
    summary = report.summarise(runs[:-1], report.PERSPOSE)
    assert summary["seeds"] == [0, 1], "a seed that one variant has not finished does not count"
    summary = report.summarise(runs, report.PERSPOSE)
    entry = summary["parts"]["all"]["errors"]["MPJPE"]
    assert entry["mean"]["PR"]["over_seeds"] > 1
    for name, change in (("PE", -2.0), ("PR", -5.0), ("PE+PR", -9.0)):
        value = entry["minus_base"][name]
        assert value["mean"] == pytest.approx(change, abs=0.3)
        assert value["over_people"] < 0.3 and value["over_seeds"] < 0.6
    effect = {name: value["mean"] for name, value in entry["effect"].items()}
    assert effect == pytest.approx({"PE": -3.0, "PR": -6.0, "PE+PR beyond their sum": -2.0}, abs=0.3)
    people = {name: part["people"] for name, part in summary["parts"].items()}
    assert people["all"] == 400 and 0 < people["wide and off centre"] < people["off centre (>= 20 deg)"] < 400


def test_intervals_are_those_of_student_and_of_the_normal(ablation):
    _, report = ablation
    value = report.estimate(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
    assert value.mean == 3 and value.over_seeds == pytest.approx(12.706, abs=1e-2)  # t(1) times 1
    assert value.over_people == pytest.approx(1.96 / np.sqrt(3))
    assert report.estimate(np.ones((1, 3))).over_seeds is None


def test_other_people_are_not_compared(ablation):
    _, report = ablation
    runs = fake_runs(report)
    runs[2] = runs[2]._replace(columns=runs[2].columns | {"betas": np.zeros((400, 1))})
    with pytest.raises(ValueError, match="scored on other people"):
        report.summarise(runs, report.PERSPOSE)


def test_a_small_ablation_runs_resumes_and_repeats_nothing(ablation, tmp_path, monkeypatch, capsys):
    script, _ = ablation
    settings = ModelSettings(widths=[8, 8, 8, 8], depths=[1, 1, 1, 1], map_channels=8, crop_size=32)
    save_weights(tmp_path / "shipped.safetensors", build(settings), settings)
    monkeypatch.setattr(script, "_CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(script, "default_settings", lambda name: settings)
    monkeypatch.setattr(script, "default_weights", lambda name: tmp_path / "shipped.safetensors")
    arguments = [
        "--out",
        str(tmp_path),
        "--train-people",
        "6",
        "--people",
        "5",
        "--common-samples",
        "4",
        "--samples",
        "4",
        "--seeds",
        "1",
        "--batch-size",
        "2",
        "--crop-size",
        "32",
    ]
    arguments += ["--bank-size", "2", "--threads", "1"]
    switches = []
    losses = script.regressor_losses

    def watched(model, batch):
        centred = bool((batch["K_crop"][:, :2, 2] - 16).abs().max() < 1e-3)
        switches.append((model.use_encoding, centred))
        if len(switches) == 5:
            raise KeyboardInterrupt
        return losses(model, batch)

    monkeypatch.setattr(script, "regressor_losses", watched)
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments)
    script.main(arguments)
    # Two batches of the common checkpoint, then two a variant; the killed one is the only one seen twice.
    expected = [(v.encoding, v.rotation) for v in map(script._either, (0, 1))]
    expected += [(v.encoding, v.rotation) for v in script.VARIANTS for _ in range(2)]
    assert switches == expected[:5] + expected[4:]
    summary = json.loads((tmp_path / "ablation.json").read_text())
    assert summary["seeds"] == [0] and summary["parts"]["all"]["people"] == 5
    means = summary["parts"]["all"]["errors"]["MPJPE"]["mean"]
    assert len({round(value["mean"], 6) for value in means.values()}) == 4
    assert (tmp_path / "ablation.png").stat().st_size > 1000 and "| PE+PR |" in (tmp_path / "ablation.md").read_text()
    switches.clear()
    script.main(arguments)
    assert not switches
