"""The person detector trains for the time given, goes on where it stopped, and is judged as detectors are."""

import json

import numpy as np
import pytest
import torch

from bodyreg.checkpoints import default_weights, load_model, read_header
from bodyreg.data.synthetic.prepare import prepare_synthetic
from bodyreg.data.synthetic.scenes import SceneSettings


@pytest.fixture(scope="module")
def scripts(load_scripts):
    return load_scripts("_detection_score", "train_detector")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    prepare_synthetic(
        folder, 12, per_shard=12, settings=SceneSettings(crop_size=96, garments="painted"), progress=False
    )
    return folder


@pytest.mark.parametrize("how", [[], ["--heads-only"]], ids=["all", "heads"])
def test_it_trains_and_goes_on(scripts, shards, tmp_path, capsys, how):
    _, train_detector = scripts
    arguments = ["--train", str(shards), "--held-out", str(shards), "--out", str(tmp_path), "--device", "cpu",
                 "--workers", "0", "--size", "64", "--batch-size", "2", "--score", "3", *how]  # fmt: skip
    train_detector.main([*arguments, "--seconds", "0.1"])
    weights = tmp_path / "detector.safetensors"
    model = load_model(weights).model
    assert load_model(weights).settings.name == "person_detector"
    start = load_model(default_weights("perspose_small")).model.backbone.state_dict()
    kept = [torch.equal(value, start[name]) for name, value in model.backbone.state_dict().items()]
    assert all(kept) if how else not all(kept)
    first = json.loads((tmp_path / "detector.json").read_text())
    assert first["trained_steps"] >= 2 and 0 <= first["held_out_ap"] <= 1
    assert int(read_header(weights)["trained_steps"]) == first["trained_steps"]
    train_detector.main([*arguments, "--seconds", "0.2"])
    assert "going on after" in capsys.readouterr().out
    assert json.loads((tmp_path / "detector.json").read_text())["trained_steps"] >= first["trained_steps"]
    again = tmp_path / "again"
    arguments[arguments.index("--out") + 1] = str(again)
    train_detector.main([*arguments, "--start-from", str(weights), "--seconds", "0", "--score", "1"])
    mine, theirs = (load_model(path / "detector.safetensors").model.state_dict() for path in (again, tmp_path))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_detections_are_judged_person_by_person(scripts):
    score, _ = scripts
    people = np.array([[0, 0, 10, 20], [30, 0, 10, 20], [60, 0, 10, 20]], float)
    ignored = np.array([False, False, True])
    found = np.array([[0, 0, 10, 20], [1, 0, 10, 20], [61, 0, 10, 20], [90, 0, 10, 20]], float)
    judged = score.judge(found, np.array([0.9, 0.8, 0.7, 0.6]), people, ignored)
    assert judged.right.tolist() == [True, False, False, False]  # the second is the first person again
    assert judged.counted.tolist() == [True, True, False, True]  # the third is someone nobody asked for
    assert judged.people == 2


def test_average_precision_by_hand(scripts):
    score, _ = scripts
    right = np.array([True, False, True, False])
    found = score.Found(np.array([0.9, 0.8, 0.7, 0.1]), right, np.ones(4, bool), 4)
    summary = score.summary([found], 0.5)
    assert summary["ap"] == pytest.approx((1 + 2 / 3) / 4)
    assert summary["recall"] == 0.5 and summary["false_a_picture"] == 1
