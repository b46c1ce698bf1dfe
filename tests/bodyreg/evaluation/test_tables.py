"""Tables in four formats: our rows, the published ones beside them, and the record of what was measured at the foot."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from bodyreg.evaluation import plots, protocols, published, tables
from bodyreg.evaluation.evaluate import evaluate
from bodyreg.evaluation.truth import StoredJoints


@pytest.fixture
def results(h36m_truth, noisy):
    joints, samples = h36m_truth.source.joints.numpy(), h36m_truth.source.samples
    pred = noisy(joints)
    failing = pred.copy()
    failing[3] = np.nan
    return [
        evaluate(StoredJoints(pred, "h36m-17", samples), h36m_truth, "h36m-lift-17[pred_root=subtract]", system="ours",
                 weights_hash="abcdef0123456789"),
        evaluate(StoredJoints(failing, "h36m-17", samples), h36m_truth, "h36m-mesh-p1", system="theirs",
                 allow_failures=True),
    ]  # fmt: skip


def test_a_row_says_who_under_what_on_how_many(results):
    header, ours, theirs, *rest = tables.rows(results)
    assert header[:4] == ("system", "protocol", "samples", "dropped") and "MPJVE mm/frame" in header
    row = dict(zip(header, ours, strict=True))
    assert (row["system"], row["protocol"], row["samples"]) == ("ours", "h36m-lift-17[pred_root=subtract]", "23")
    assert row["MPJPE mm"] == f"{1000 * results[0].errors['MPJPE']:.1f}" and row["weights or source"] == "abcdef012345"
    row = dict(zip(header, theirs, strict=True))
    assert (row["samples"], row["dropped"], row["MPJVE mm/frame"], row["weights or source"]) == ("22", "1", "-", "-")
    assert not rest  # one protocol was changed, and nobody published under the other


def test_published_figures_stand_beside_and_name_their_source(results):
    text = tables.text([results[1]])
    assert "published: no figure was made under this protocol" in text
    figures = published.published_for(protocols.get("pw3d-j14"))
    (found,) = [figure for figure in figures if figure.method == "PersPose"]
    assert found.values == {"MPJPE": 60.1, "PA-MPJPE": 39.1, "PVE": 72.4}
    assert not published.published_for(protocols.get("pw3d-j14[pred_root=raw]"))
    assert {figure.protocol for figure in published.PUBLISHED} <= set(protocols.names())
    assert all(figure.mark in ("read", "quoted", "recalled") and figure.source for figure in published.PUBLISHED)


def test_the_foot_answers_what_users_ask(results):
    foot = "\n".join(tables.footer(results))
    for answer in ("frames: S9 and S11", "truth: mocap", "root: pelvis; of the prediction: subtracted",
                   "averaged over actions", "mean of batch means", "1 dropped, prediction not finite: S9/Walking/3"):
        assert answer in foot


def test_markdown_csv_and_json_hold_the_same_numbers(results, tmp_path):
    for suffix in (".txt", ".md", ".csv", ".json"):
        assert tables.write_tables(tmp_path / f"table{suffix}", results).stat().st_size > 100
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| system | protocol |") and lines[1].startswith("| --- | --- |")
    assert len({line.count("|") for line in lines[:4]}) == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    records = json.loads((tmp_path / "table.json").read_text())["results"]
    for row, record, result in zip(rows, records, results, strict=False):
        assert float(row["MPJPE mm"]) == pytest.approx(1000 * result.errors["MPJPE"], abs=1e-6)
        assert record["errors_shown"]["MPJPE"] == pytest.approx(1000 * result.errors["MPJPE"])
        assert record["protocol"]["label"] == result.protocol.label and record["samples"] == result.samples
    with pytest.raises(ValueError, match="not written as '.xlsx'"):
        tables.write_tables(tmp_path / "table.xlsx", results)
    with pytest.raises(ValueError, match="no result"):
        tables.text([])


def test_breakdowns(results):
    header, *rows = tables.breakdown(results[0])
    assert header[:2] == ("group", "samples") and {row[:2] for row in rows} == {("Walking", "16"), ("Eating", "7")}
    assert len(tables.breakdown(results[1], "joints")) == 15
    assert {row[0] for row in tables.breakdown(results[1], "actions")[1:]} == {"Walking", "Eating"}
    with pytest.raises(ValueError, match="groups, actions or joints"):
        tables.breakdown(results[0], "days")


def test_plots_are_pictures_with_a_bar_for_each(results, tmp_path, h36m_truth):
    from PIL import Image

    written = plots.write_plots(tmp_path, results)
    assert [path.name for path in written] == ["joints.png", "actions.png"]
    for path in written:
        picture = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
        for colour in ((0x1F, 0x5F, 0x8B), (0xD1, 0x49, 0x5B)):
            assert (picture == colour).all(1).sum() > 500
    with pytest.raises(ValueError, match="no result to plot"):
        plots.plot_joints(tmp_path / "x.png", [])
