"""The page of a result folder, without a browser: what is written, how it is escaped, what `bodyreg view` does."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bodyreg.cli import app
from bodyreg.inference import page
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.results import PhotoRecord, ResultsWriter, read_person, read_results

HOSTILE = [
    "</script><script>alert(1)</script>.png",
    "<img src=x onerror=alert(1)>.png",
    "a\"'`${1}\\u0022\n\u2028&amp;.png",
    "100% #1?.png",
    "@DATA@ @SCRIPT@.png",
    "\u00fc\u65e5.png",
]


def entries_of(text: str) -> list[dict]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)["entries"]


def called_with(path: Path):
    """What a data script hands to the page."""
    text = path.read_text(encoding="ascii")
    assert text.startswith("bodyreg(") and text.endswith(");\n") and "<" not in text
    return json.loads(text[len("bodyreg(") : -len(");\n")])


@pytest.fixture(scope="module")
def results(tmp_path_factory, regressor, save_photo) -> Path:
    folder = tmp_path_factory.mktemp("page")
    save_photo(folder / "in" / "deep" / "a.png", (240, 180))
    save_photo(folder / "in" / "large.jpg", (2400, 1200), seed=1)
    (folder / "in" / "bad.png").write_bytes(b"no picture")
    infer_folder(folder / "in", folder / "out", regressor=regressor, people="whole", formats=["npz"])
    return folder / "out"


def test_the_page_lists_every_file(results):
    entries = entries_of((results / page.PAGE).read_text(encoding="utf-8"))
    assert [entry["file"] for entry in entries] == ["bad.png", "deep/a.png", "large.jpg"]
    bad, a, large = entries
    assert bad["status"] == "refused" and "picture" in bad["reason"] and set(bad) == {"file", "status", "reason"}
    assert a["people"] == 1 and a["size"] == [180, 240] and a["url"] == "deep/a"
    for entry in (a, large):
        for name, suffix in (("thumb", "jpg"), ("photo", "jpg"), ("mesh", "jpg"), ("data", "js")):
            assert entry[name] and (results / page.PAGE_FILES / f"{entry['url']}_{name}.{suffix}").is_file()


def test_pictures_are_small_and_of_one_size(results):
    photo, mesh, thumb = (
        cv2.imread(str(results / page.PAGE_FILES / f"large_{name}.jpg")) for name in ("photo", "mesh", "thumb")
    )
    assert photo.shape == mesh.shape == (800, 1600, 3) and thumb.shape == (160, 320, 3)
    assert np.abs(photo.astype(int) - mesh).mean() > 1  # somebody is drawn in one of them
    whole = cv2.imread(str(results / "large_overlay.png"))
    assert np.abs(cv2.resize(whole, (1600, 800), interpolation=cv2.INTER_AREA).astype(int) - mesh).mean() < 10


def test_data_hold_the_body_and_what_is_known_of_it(results, free_body):
    data = called_with(results / page.PAGE_FILES / "deep" / "a_data.js")
    person, (stored,) = read_person(results / "deep" / "a_0.npz"), data["people"]
    posed = free_body(*(getattr(person, name)[None] for name in ("betas", "body_pose", "global_orient", "transl")))
    steps = np.frombuffer(base64.b64decode(stored["vertices"]), "<u2").reshape(-1, 3)
    decoded = np.array(stored["low"]) + steps * np.array(stored["step"])
    np.testing.assert_allclose(decoded, posed.vertices[0], atol=max(stored["step"]))
    assert max(stored["step"]) < 1e-4  # a tenth of a millimetre
    faces = np.frombuffer(base64.b64decode(called_with(results / page.PAGE_FILES / data["faces"])), "<u4")
    np.testing.assert_array_equal(faces.reshape(-1, 3), free_body.faces)
    np.testing.assert_allclose(stored["joints"], person.joints["smpl-24"], atol=1e-5)
    np.testing.assert_allclose(stored["body_pose"], person.body_pose, atol=1e-6)
    assert data["camera"]["K"] == person.K.tolist() and data["camera"]["focal_source"] == person.focal_source
    assert data["parents"] == list(free_body.parents) and len(data["joint_names"]) == 24
    assert data["files"] == [["0.npz", "deep/a_0.npz"], ["overlay.png", "deep/a_overlay.png"],
                             ["views.png", "deep/a_views.png"]]  # fmt: skip


def test_a_thousand_files_are_a_small_page():
    records = [PhotoRecord(f"{k:04d}.jpg", "done", image_hw=(90, 120), people=[{}]) for k in range(1000)]
    assert len(page.build_page(records, "many")) < 150_000


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_data_and_nothing_else(name):
    record = PhotoRecord(name, "done", image_hw=(9, 9), files=[f"{page.PAGE_FILES}/{name}_data.js"])
    refused = PhotoRecord(name + "x", "refused", reason=name)
    text = page.build_page([record, refused], name, name)
    plain = page.build_page([], "")
    assert text.count("<script") == plain.count("<script") and text.count("<img") == plain.count("<img")
    entry, other = entries_of(text)
    assert entry["file"] == name and other["reason"] == name
    assert unquote_to_bytes(entry["url"]) == os.fsencode(name) and not set(entry["url"]) & set("<>\"'#?\\ \n")


def test_names_that_are_no_text_keep_their_bytes():
    name = os.fsdecode(b"caf\xe9.png")
    record = PhotoRecord(name, "nobody", image_hw=(9, 9), files=[f"{page.PAGE_FILES}/caf{name[3]}_thumb.jpg"])
    text = page.build_page([record], "t")
    text.encode("ascii", "strict")
    assert entries_of(text)[0]["url"] == "caf%E9"


def test_only_the_page_s_own_script_may_run(results):
    text = (results / page.PAGE).read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in rules["script-src"] and "http" not in policy
    assert "://" not in text  # nothing is asked of any server


# ---- bodyreg view ---------------------------------------------------------------------------------------------------


def test_view_writes_the_page_of_an_interrupted_run(tmp_path, monkeypatch):
    record = PhotoRecord("a.jpg", "refused", reason="It is broken. Mend it.")
    ResultsWriter(tmp_path / "out", {"photos": "holiday"}, [record]).close()
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    result = CliRunner().invoke(app, ["view", str(tmp_path / "out")])
    assert result.exit_code == 0 and result.output.strip() == str(tmp_path / "out" / page.PAGE)
    assert opened == [(tmp_path / "out" / page.PAGE).resolve().as_uri()]
    assert "holiday" in (tmp_path / "out" / page.PAGE).read_text(encoding="utf-8")
    CliRunner().invoke(app, ["view", str(tmp_path / "out"), "--no-open"])
    assert len(opened) == 1


def test_view_says_when_no_browser_could_be_started(tmp_path, monkeypatch):
    ResultsWriter(tmp_path, {}).close()
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert result.exit_code == 0 and "Open this file" in result.output


def test_view_of_a_folder_without_results_is_one_plain_error(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        result = CliRunner().invoke(app, ["view", str(folder)])
        assert result.exit_code == 1 and "holds no results" in result.output and "Traceback" not in result.output
        assert not (folder / page.PAGE).exists()


def test_a_damaged_page_is_made_anew(results):
    whole = (results / page.PAGE).read_bytes()
    (results / page.PAGE).write_bytes(whole[:100])
    (results / page.PAGE_FILES / "scene.js").unlink()
    assert page.write_page(results).read_bytes() == whole
    assert (results / page.PAGE_FILES / "scene.js").stat().st_size > 100_000
    assert len(read_results(results)[0]) == 3
