"""Scores of crops with their pictures, and cards that hold what was measured of these weights and nothing else."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bodyreg import config
from bodyreg.checkpoints import load_model, save_weights
from bodyreg.data.synthetic import prepare
from bodyreg.evaluation import synthetic
from bodyreg.evaluation.synthetic import Score, write_scores
from bodyreg.models.registry import ModelSettings, build
from bodyreg.training.settings import DataSettings, RegressorSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SETTINGS = ModelSettings(widths=[8, 8, 16, 16], depths=[1, 1, 1, 1], map_channels=8, crop_size=64)


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "perspose_small.safetensors"
    save_weights(path, build(SETTINGS), SETTINGS, seed=3, trained_steps=500)
    data = DataSettings(batch_size=8, shards=str(tmp_path / "train"), motion=str(tmp_path / "clips"))
    config.save(RegressorSettings(model=SETTINGS, data=data), tmp_path / "config.yaml")
    return path


def test_landmark_scores_come_with_pictures(weights, tmp_path, monkeypatch, capsys):
    from bodyreg.body import BodyModel

    body = BodyModel.load("free")
    monkeypatch.setattr(synthetic, "mean_vertices", lambda *_: body.v_template)
    monkeypatch.setattr(prepare, "ensure_shards", lambda *_, **__: None)
    crops, out = tmp_path / "crops", tmp_path / "out"
    crops.mkdir()
    cv2.imwrite(str(crops / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    points = {name: body.v_template[body.landmarks[name]].tolist() for name in list(body.landmarks)[:6]}
    (crops / "a.json").write_text(json.dumps({"landmarks_m": points}))
    line = ["--crops", str(crops), "--landmarks", str(crops), "--weights", str(weights), "--out", str(out)]
    assert script("eval_landmarks").main(line) == 0
    assert {path.name for path in out.iterdir()} == {"landmarks.json", "landmarks.md", "a.png", "sheet.png"}
    record = json.loads((out / "landmarks.json").read_text())
    assert record["weights_hash"] == load_model(weights).weights_hash
    assert record["scores"][0]["errors_mm"]["mean pose PA"] < 0.1 < record["scores"][0]["errors_mm"]["PA"]
    assert (out / "landmarks.md").read_text() == capsys.readouterr().out
    picture = cv2.imread(str(out / "a.png"))
    assert picture.shape == (64, 128, 3) and (picture[:, :64] == 90).all()


def test_card_holds_what_was_measured(weights, tmp_path):
    write_scores(tmp_path / "s.json", load_model(weights), [Score("body", 9, {"MPJPE": 101.25})], data="people")
    line = [str(weights), "--config", str(tmp_path / "config.yaml"), "--scores", str(tmp_path / "s.json")]
    assert script("write_card").main([*line, "--set", "data.backgrounds=photos/mine"]) == 0
    text = weights.with_suffix(".json").read_text()
    card = json.loads(text)
    assert card["sha256"] == load_model(weights).weights_hash and card["bytes"] == weights.stat().st_size
    assert (card["trained_steps"], card["pictures_seen"], card["seed"]) == (500, 4000, 3)
    assert card["measured"] == [
        {"data": "people", "scores": [{"name": "body", "people": 9, "errors_mm": {"MPJPE": 101.25}}]}
    ]
    assert str(tmp_path) not in text and card["config"]["data"]["motion"] == "clips"
    assert card["config"]["data"]["backgrounds"] == "mine"
    page = weights.with_suffix(".md").read_text()
    for said in ("101.2", "500 steps, 4,000 pictures, seed 3", card["sha256"], "poses from clips", "## People"):
        assert said in page


def test_scores_or_configuration_of_others_are_refused(weights, tmp_path):
    card = script("write_card")
    write_scores(tmp_path / "s.json", load_model(weights)._replace(weights_hash="other"), [], data="people")
    with pytest.raises(ValueError, match="scores other weights"):
        card.make_card(weights, tmp_path / "config.yaml", [], [tmp_path / "s.json"])
    with pytest.raises(ValueError, match="describes another network"):
        card.make_card(weights, tmp_path / "config.yaml", ["model.map_channels=9"], [])
