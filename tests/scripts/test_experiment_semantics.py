"""The experiment on semantics: variants that differ in their losses alone, runs that go on, parts of the test."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bodyreg.checkpoints import save_weights
from bodyreg.models.registry import ModelSettings, build


@pytest.fixture(scope="module")
def experiment(load_scripts):
    """The script and its report."""
    _, report, script = load_scripts("_paired_runs", "_ablation_report", "experiment_semantics")
    return script, report


def test_parts_and_effects_of_the_design(experiment):
    """DSR-MC that helps loose people by 4 mm and tight ones by 1 is found in the right part."""
    script, report = experiment
    rng = np.random.default_rng(0)
    looseness = np.linspace(0, 1, 300)
    person, runs = rng.normal(100, 20, 300), []
    for seed in (None, 0, 1):
        for variant in script.VARIANTS:
            gain = np.where(looseness > 2 / 3, 4.0, 1.0) * ("MC" in variant.name)
            errors = (person - gain + rng.normal(0, 0.1, 300)) / 1000
            columns = dict.fromkeys(script.DESIGN.errors, errors)
            runs.append(report.Run(variant.name, seed, columns | {"looseness": looseness, "betas": person[:, None]}))
    parts = report.summarise(runs, script.DESIGN)["parts"]
    assert [part["people"] for part in parts.values()] == [300, 100, 100]
    for name, change in (("tight (looseness < 1/3)", -1), ("loose (looseness > 2/3)", -4)):
        entry = parts[name]["errors"]["PVE-T-SC"]
        assert entry["minus_base"]["+ DSR-MC"]["mean"] == pytest.approx(change, abs=0.1)
        assert entry["effect"]["DSR-MC beyond the silhouette"]["mean"] == pytest.approx(change, abs=0.1)
        assert entry["effect"]["the true camera beyond a weak one"]["mean"] == pytest.approx(0, abs=0.1)


def test_a_small_experiment_runs_resumes_and_repeats_nothing(experiment, tmp_path, monkeypatch):
    script, _ = experiment
    settings = ModelSettings(widths=[8, 8, 8, 8], depths=[1, 1, 1, 1], map_channels=8, crop_size=32)
    torch.manual_seed(3)  # not every network of random weights puts people before the camera
    save_weights(tmp_path / "shipped.safetensors", build(settings), settings)
    monkeypatch.setattr(script, "_CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(script, "default_settings", lambda name: settings)
    arguments = ["--out", str(tmp_path), "--start", str(tmp_path / "shipped.safetensors"), "--prior", "skinning"]
    for name, value in {
        "train-people": 6, "people": 6, "samples": 4, "seeds": 1, "labelled": 0.5, "batch-size": 2, "crop-size": 32,
        "maps": 24, "bank-size": 2,
    }.items():  # fmt: skip
        arguments += [f"--{name}", str(value)]
    seen = []
    terms = script.joint_terms

    def watched(model, body, semantic, batch, step, settings):
        seen.append((settings.semantic.mc_weight, settings.semantic.c_weight, settings.camera, step))
        if len(seen) == 4:
            raise KeyboardInterrupt
        found = terms(model, body, semantic, batch, step, settings)
        assert ("dsr_mc" in found) == (settings.semantic.mc_weight + settings.semantic.c_weight > 0)
        return found

    monkeypatch.setattr(script, "joint_terms", watched)
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments)
    script.main(arguments)
    expected = [(v.mc, v.c, v.camera, step) for v in script.VARIANTS for step in range(2)]
    assert seen == expected[:4] + expected[3:]  # the killed step is the only one seen twice
    summary = json.loads((tmp_path / "semantics.json").read_text())
    assert summary["seeds"] == [0] and summary["parts"]["all"]["people"] == 6
    means = summary["parts"]["all"]["errors"]["PVE-T-SC"]["mean"]
    assert len({round(value["mean"], 6) for value in means.values()}) == len(script.VARIANTS)
    text = (tmp_path / "semantics.md").read_text()
    assert "| common checkpoint |" in text and "common checkpoint, " not in text  # the same for all: said once
    assert "| + both, weak camera |" in text and "against key points" in text
    assert (tmp_path / "semantics.png").stat().st_size > 1000
    rows = [line.split("|")[1:-1] for line in (tmp_path / "sizes.md").read_text().splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["common checkpoint", *(v.name for v in script.VARIANTS)]
    assert all(0.1 < float(row[1]) < 10 and 0.5 < float(row[2]) < 2 and float(row[3]) > 0 for row in rows)
    seen.clear()
    script.main(arguments)
    assert not seen
    with pytest.raises(ValueError, match="made with other lr"):
        script.main([*arguments, "--lr", "1"])
