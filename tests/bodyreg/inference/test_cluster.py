"""What a worker of a cluster does with a stretch of the folder, and what its successor finds when it dies; no Ray."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from bodyreg.inference.cluster import ClusterPipeline, Notes, _Worker
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.pictures import read_inputs
from bodyreg.inference.results import PhotoRecord, output_stems, read_results


@pytest.fixture(scope="module")
def photos(tmp_path_factory, save_photo):
    where = tmp_path_factory.mktemp("photos")
    return {f"{k}.png": str(save_photo(where / f"{k}.png", (90, 80), seed=k)) for k in range(3)}


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "out", {"up": "camera"})


@pytest.fixture
def work(tmp_path, regressor, notes, photos):
    """Hands the three photographs, or those given, to a new worker, and gives their records."""

    def hand(files=photos, finished=None):
        (tmp_path / "out").mkdir(exist_ok=True)
        options = {
            "out": tmp_path / "out", "inputs": read_inputs(), "batch_size": 2, "formats": ["json"], "up": "camera",
            "overlay": False, "page": False, "threads": 1, "refine": False,
        }  # fmt: skip
        finished = {file: asdict(record) for file, record in (finished or {}).items()}
        stretch = json.dumps({"files": files, "stems": output_stems(files), "finished": finished})
        (done,) = _Worker(regressor, notes, options)({"stretch": np.array([stretch])})["done"]
        records = [PhotoRecord(**fields) for fields in json.loads(done)["records"]]
        return {record.file: record for record in records}

    return hand


def test_notes_are_of_one_job_and_of_files_that_are_there(tmp_path, notes):
    record = PhotoRecord("a.png", "done", files=["a_0.json"])
    notes.add("a", record)
    assert notes.read("a") is None  # its file is missing
    (tmp_path / "out" / "a_0.json").write_text("{}")
    assert asdict(notes.read("a")) == asdict(record)
    assert notes.read("b") is None and Notes(tmp_path / "out", {"up": "y"}).read("a") is None
    notes.clear()
    assert notes.read("a") is None and not list((tmp_path / "out").glob(".ray-*"))


def test_a_successor_writes_nothing_that_was_noted(tmp_path, work, photos):
    first = work()
    assert sorted(first) == sorted(photos) and all(record.status == "done" for record in first.values())
    written = {path: path.stat().st_ino for path in (tmp_path / "out").glob("*.json")}
    (tmp_path / "out" / "1_0.json").unlink()
    again = work()
    assert {file: asdict(record) for file, record in again.items()} == {f: asdict(r) for f, r in first.items()}
    for path, inode in written.items():
        assert path.is_file() and (path.name == "1_0.json" or path.stat().st_ino == inode)


def test_what_was_finished_before_is_not_made_again(tmp_path, work):
    kept = PhotoRecord("0.png", "nobody")
    records = work(finished={"0.png": kept})
    assert asdict(records["0.png"]) == asdict(kept) and records["1.png"].status == "done"
    assert not (tmp_path / "out" / "0_0.json").exists()


def test_a_photograph_at_which_workers_die_is_refused(notes, work, photos):
    """Three workers died in the stretch, a fourth, taking one photograph after the other, at the second of them."""
    for _ in range(4):
        notes.begin("\n".join(photos))
    notes.begin("1.png")
    records = work()
    assert [records[file].status for file in photos] == ["done", "refused", "done"]
    assert "ended the process" in records["1.png"].reason


class _InProcess:
    """A data set of Ray whose worker is this process."""

    def __init__(self, pipeline: ClusterPipeline) -> None:
        self.worker = _Worker(pipeline._regressor, pipeline._notes, {**pipeline._options, "threads": 1})
        self.stretches = pipeline._stretches

    def iter_rows(self):
        for stretch in self.stretches:
            yield {"done": self.worker({"stretch": np.array([stretch])})["done"][0]}


def test_a_job_that_ended_early_is_resumed_behind_the_notes(tmp_path, photos, regressor, tree_of, monkeypatch):
    """The driver dies after the second photograph's files are written, before any record has reached it."""
    monkeypatch.setattr("bodyreg.inference.folder.find_spec", lambda name: name)
    monkeypatch.setattr(ClusterPipeline, "_dataset", lambda self: _InProcess(self))
    options = {"regressor": regressor, "batch_size": 1, "engine": "ray", "formats": ["json"], "page": False}
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    infer_folder(list(photos.values()), undisturbed, **options)
    add, left = Notes.add, [2]

    def last_words(self, stem, record):
        add(self, stem, record)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Notes, "add", last_words)
        infer_folder(list(photos.values()), out, **options)
    assert read_results(out)[0] == []
    kept = {path: path.stat().st_ino for path in out.glob("*_0.json")}
    assert len(kept) >= 2
    infer_folder(list(photos.values()), out, resume=True, **options)
    noted = sorted(kept)[:2]
    assert {path: path.stat().st_ino for path in noted} == {path: kept[path] for path in noted}
    assert tree_of(out) == tree_of(undisturbed)
    infer_folder(list(photos.values()), out, **options)  # anew, over the old one
    assert tree_of(out) == tree_of(undisturbed)


@pytest.mark.parametrize(("engine", "message"), [("spark", "no engine 'spark'"), ("ray", "bodyreg\\[ray\\]")])
def test_engines_that_are_not_there_are_named(tmp_path, photos, monkeypatch, engine, message):
    monkeypatch.setattr("bodyreg.inference.folder.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        infer_folder(list(photos.values()), tmp_path / "out", engine=engine)
