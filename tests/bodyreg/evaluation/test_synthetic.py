"""Scoring: perfect predictions score 0, nobody counts twice, the mean pose is the mean, files say what was measured."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from bodyreg.checkpoints import LoadedModel
from bodyreg.data.synthetic.stream import ShardStream
from bodyreg.evaluation import synthetic
from bodyreg.evaluation.synthetic import (
    Score,
    evaluate_landmarks,
    evaluate_synthetic,
    markdown_table,
    mean_vertices,
    table,
    write_scores,
)
from bodyreg.models.decoding import Decoded
from bodyreg.models.registry import ModelSettings


@pytest.fixture(autouse=True)
def grey_backgrounds(monkeypatch):
    """The oracle looks at the camera alone: no pictures need to be drawn for it."""
    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    monkeypatch.setattr("bodyreg.data.synthetic.stream.background_bank", lambda *_: grey)


class Oracle(torch.nn.Module):
    """Predicts the truth of the picture it is shown, turned and shifted by a given error in x, metres."""

    def __init__(self, batches, error: float = 0.0) -> None:
        super().__init__()
        self.truth = {batch["K_crop"].numpy().tobytes(): batch for batch in batches}
        self.error = error

    def predict(self, image, K_crop, *, flip_test=True):
        batch = self.truth[K_crop.numpy().tobytes()]
        joints = batch["joints"].clone()
        joints[:, 1:, 0] += self.error
        root, none = joints[:, :1], torch.zeros(len(joints), 25, 1)
        twist = torch.cat([batch["twist"], torch.zeros(len(joints), 1, 3)], 1)
        return Decoded(none, none, none[:, :1], none, joints - root, root, twist, batch["leaf"], batch["betas"])


def oracle(shard_folder, body, error=0.0):
    options = {"crop_size": 64, "batch_size": 8, "seed": 1, "augment": False, "bank_size": 64}
    batches = ShardStream(shard_folder, body, **options).once()
    return LoadedModel(Oracle(batches, error), ModelSettings(crop_size=64), "0" * 64, "free")


def scores_by_name(scores):
    return {score.name: score for score in scores}


def test_perfect_predictions_score_zero(shard_folder, free_body, people, monkeypatch):
    real = synthetic.inverse_kinematics  # the grid of stature is coarser than the truth: keep the true one
    monkeypatch.setattr(synthetic, "inverse_kinematics", lambda *a: real(*a, search=False))
    scores = scores_by_name(evaluate_synthetic(oracle(shard_folder, free_body), free_body, shard_folder, batch_size=8))
    for name in ("network joints", "body"):
        assert scores[name].people == len(people.shard)
        assert all(error < 0.3 for error in scores[name].errors_mm.values())
    assert set(scores["body"].errors_mm) == {"MPJPE", "PA-MPJPE", "PVE"}
    assert 100 < scores["mean pose"].errors_mm["PA-MPJPE"] < scores["mean pose"].errors_mm["MPJPE"] < 500


def test_an_error_is_measured_as_large_as_it_is(shard_folder, free_body):
    found = scores_by_name(
        evaluate_synthetic(oracle(shard_folder, free_body, 0.024), free_body, shard_folder, batch_size=8)
    )
    errors = found["network joints"].errors_mm
    assert errors["MPJPE"] == pytest.approx(24 * 23 / 24, rel=1e-3)  # the root has none
    assert 0 < errors["PA-MPJPE"] < errors["MPJPE"]


def test_nobody_is_scored_twice(shard_folder, free_body, people):
    loaded, n = oracle(shard_folder, free_body), len(people.shard)
    many = evaluate_synthetic(loaded, free_body, shard_folder, people=10_000, batch_size=8)
    few = evaluate_synthetic(loaded, free_body, shard_folder, people=8, batch_size=8)
    assert {score.people for score in many} == {n} and {score.people for score in few} == {8}


def test_mean_vertices_are_the_mean_of_everyone(shard_folder, free_body, people):
    labels = {name: torch.from_numpy(value) for name, value in people.shard.labels.items()}
    with torch.no_grad():
        out = free_body(labels["betas"], labels["body_pose"], labels["R_global"][:, 0])
    expected = (out.vertices - out.joints[:, :1]).mean(0)
    assert torch.allclose(mean_vertices(free_body, shard_folder), expected, atol=1e-5)
    assert not torch.allclose(mean_vertices(free_body, shard_folder, people=5), expected, atol=1e-2)


@pytest.fixture
def crops(tmp_path, free_body, monkeypatch):
    """Two crops whose landmarks lie on the rest body, and a regressor that finds it."""
    rest = free_body.v_template
    monkeypatch.setattr(synthetic, "_whole_crop", lambda loaded, body, rgb: rest)
    names = [name for name in free_body.landmarks][:8]
    for k in range(2):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((16, 16, 3), np.uint8))
        points = {name: (1.5 * rest[free_body.landmarks[name]] + k).tolist() for name in names}
        (tmp_path / f"{k}.json").write_text(json.dumps({"landmarks_m": {**points, "unknown": [0, 0, 0]}}))
    return tmp_path


def test_landmarks_are_compared_up_to_a_similarity(crops, free_body):
    bent = free_body.v_template * torch.tensor([1.0, 0.3, 1.0])
    rows, bodies = evaluate_landmarks(None, free_body, crops, crops, bent)
    assert [row.name for row in rows] == ["0", "1", "mean"] and rows[-1].people == 2 and set(bodies) == {"0", "1"}
    for row in rows:
        assert row.errors_mm["PA"] < 1e-2 < row.errors_mm["mean pose PA"]
        assert row.errors_mm["mean-aligned"] > 10  # the scale of 1.5 stays
    means = np.mean([[*row.errors_mm.values()] for row in rows[:2]], 0)
    np.testing.assert_allclose([*rows[-1].errors_mm.values()], means)


@pytest.mark.parametrize("text", ["", "{}", '{"landmarks_m": 3}', '{"landmarks_m": {"nose": "here"}}', None])
def test_landmark_files_that_hold_none_are_named(crops, free_body, text):
    (crops / "1.json").unlink() if text is None else (crops / "1.json").write_text(text)
    with pytest.raises(ValueError, match="1.json holds no landmarks"):
        evaluate_landmarks(None, free_body, crops, crops, free_body.v_template)


def test_crops_must_be_there_and_landmarks_be_known(crops, free_body, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no PNG crops"):
        evaluate_landmarks(None, free_body, tmp_path / "empty", crops, free_body.v_template)
    (crops / "0.json").write_text('{"landmarks_m": {"antenna": [0, 0, 0]}}')
    with pytest.raises(ValueError, match="None of the landmarks of 0"):
        evaluate_landmarks(None, free_body, crops, crops, free_body.v_template)


def test_a_whole_crop_is_seen_as_it_is(free_body):
    """The crop's camera is the picture's: what the network says about pixels stays where it was said."""
    seen = {}

    def predict(image, K_crop):
        seen.update(image=image, K=K_crop)
        joints = torch.zeros(1, 25, 3)
        joints[:, :24] = free_body.rest_joints()
        root = torch.tensor([[[0.0, 0.0, 3.0]]])
        eye = torch.eye(3).expand(1, 5, 3, 3)
        return Decoded(*[None] * 4, joints - joints[:, :1], root, torch.ones(1, 25, 3), eye, torch.zeros(1, 10))

    loaded = LoadedModel(SimpleNamespace(predict=predict), ModelSettings(crop_size=64), "", "free")
    vertices = synthetic._whole_crop(loaded, free_body, np.full((128, 128, 3), 255, np.uint8))
    assert vertices.shape == (6890, 3) and abs(float(vertices[:, 2].mean()) - 3) < 0.1
    assert seen["image"].shape == (1, 3, 64, 64) and torch.allclose(seen["K"][0, :2, 2], torch.tensor(32.0))


SCORES = [Score("a", 3, {"MPJPE": 12.34, "PVE": 9.0}), Score("b", 3, {"MPJPE": 1.0})]


def test_tables_show_every_error_of_any_line():
    assert table(SCORES) == [("mm", "people", "MPJPE", "PVE"), ("a", "3", "12.3", "9.0"), ("b", "3", "1.0", "-")]
    assert markdown_table(SCORES).splitlines()[:3] == [
        "| mm | people | MPJPE | PVE |", "|---|---:|---:|---:|", "| a | 3 | 12.3 | 9.0 |",
    ]  # fmt: skip


def test_written_scores_name_the_weights(tmp_path):
    loaded = LoadedModel(None, ModelSettings(), "abc", "free")
    write_scores(tmp_path / "s.json", loaded, SCORES, data="people")
    record = json.loads((tmp_path / "s.json").read_text())
    assert (record["model"], record["weights_hash"], record["data"]) == ("perspose_small", "abc", "people")
    assert [Score(**line) for line in record["scores"]] == SCORES
