"""Disturbed jobs: killed, out of disk, or stopped, they leave nothing half written, and resuming ends as if nothing
had happened."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import bodyreg.files
from bodyreg.inference import folder, pictures
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.results import ResultsWriter, read_results

OPTIONS = {"batch_size": 2, "threads": 2, "formats": ("obj", "npz", "json")}

# Runs the job and kills its own process, without any warning, when the n-th file is being flushed to the disk.
KILLED = """
import functools, os, signal, stat, sys
import torch
import bodyreg.files
from bodyreg.inference import folder
photos, out, weights, kill_at, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
left = [int(kill_at)]
flush = os.fsync
def fsync(fd):
    left[0] -= stat.S_ISREG(os.fstat(fd).st_mode)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(fd)
bodyreg.files.os.fsync = fsync
folder.ResultsWriter = functools.partial(folder.ResultsWriter, interval=0.0)
folder.infer_folder(photos, out, weights=weights, device="cpu", batch_size=2, threads=2)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, save_photo):
    """Five photographs and one broken file, in groups of two."""
    where = tmp_path_factory.mktemp("photos")
    for k in range(5):
        save_photo(where / ("sub" if k % 2 else ".") / f"{k}.png", (100 + 10 * k, 90), seed=k)
    (where / "2b.png").write_bytes(b"no picture")
    return where


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, photos, regressor, tree_of):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    summary = infer_folder(photos, out, regressor=regressor, **OPTIONS)
    assert summary.count("done") == 5 and summary.count("refused") == 1
    return tree_of(out)


@pytest.fixture
def eager(monkeypatch):
    """Write results.json at every record, not every five seconds."""

    def writer(*args, **kwargs):
        return ResultsWriter(*args, **kwargs, interval=0.0)

    monkeypatch.setattr(folder, "ResultsWriter", writer)


def assert_whole(out, undisturbed, tree_of):
    """Every file that bears its name is complete; temporary ones do not bear it."""
    for name, content in tree_of(out).items():
        if not name.rpartition("/")[2].startswith(".tmp-") and name != "results.json":
            assert content == undisturbed[name], name
    json.loads((out / "results.json").read_text())


def test_the_same_job_gives_the_same_bytes(tmp_path, photos, regressor, undisturbed, tree_of):
    infer_folder(photos, tmp_path / "out", regressor=regressor, **OPTIONS)
    assert tree_of(tmp_path / "out") == undisturbed


def test_killed_and_resumed_equals_undisturbed(tmp_path, photos, regressor, tiny_weights, undisturbed, tree_of):
    out = tmp_path / "out"
    # Tensor operations add up in another order on another number of threads, so the two jobs must use the same.
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", KILLED, str(photos), str(out), str(tiny_weights), "12", threads]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert any(name.rpartition("/")[2].startswith(".tmp-") for name in tree_of(out))  # it died while writing
    assert len(tree_of(out)) < len(undisturbed)
    assert_whole(out, undisturbed, tree_of)
    infer_folder(photos, out, regressor=regressor, resume=True, **OPTIONS)
    assert tree_of(out) == undisturbed


@pytest.mark.parametrize("full_at", [1, 2, 14])
def test_a_full_disk_ends_the_job_with_nothing_half_written(
    tmp_path, photos, regressor, undisturbed, tree_of, eager, monkeypatch, full_at
):
    out = tmp_path / "out"
    left = [full_at]

    def full(fd):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(bodyreg.files.os, "fsync", full)
        with pytest.raises(OSError, match="--resume") as caught:
            infer_folder(photos, out, regressor=regressor, **OPTIONS)
    assert caught.value.errno == errno.ENOSPC
    assert not any(".tmp-" in name for name in tree_of(out))
    if full_at > 1:
        assert_whole(out, undisturbed, tree_of)
    infer_folder(photos, out, regressor=regressor, resume=True, **OPTIONS)
    assert tree_of(out) == undisturbed


def test_interrupted_by_the_user_and_resumed(tmp_path, photos, regressor, undisturbed, tree_of, eager):
    out = tmp_path / "out"

    def stop(done, total, label):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer_folder(photos, out, regressor=regressor, progress=stop, **OPTIONS)
    assert_whole(out, undisturbed, tree_of)
    records, _ = read_results(out)
    assert len(records) == 3
    written = {name: (out / name).stat().st_mtime_ns for record in records for name in record.files}
    summary = infer_folder(photos, out, regressor=regressor, resume=True, **OPTIONS)
    assert summary.resumed == sum(record.status != "refused" for record in records)
    assert {name: (out / name).stat().st_mtime_ns for name in written} == written  # not written a second time
    assert tree_of(out) == undisturbed


def test_only_what_is_missing_is_made_again(tmp_path, photos, regressor, undisturbed, monkeypatch, tree_of):
    out = tmp_path / "out"
    infer_folder(photos, out, regressor=regressor, **OPTIONS)
    opened = []
    read = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: opened.append(path.name) or read(path))
    summary = infer_folder(photos, out, regressor=regressor, resume=True, **OPTIONS)
    # the group of the refused file is looked at again, in case that file has been mended
    assert summary.resumed == 5 and sorted(opened) == ["2b.png", "4.png"]
    assert tree_of(out) == undisturbed
    (out / "4_0.obj").unlink()
    assert infer_folder(photos, out, regressor=regressor, resume=True, **OPTIONS).resumed == 4
    assert tree_of(out) == undisturbed


@pytest.mark.parametrize("change", [{"focal_mm": 30}, {"people": "whole"}, {"up": "y"}, {"formats": ("obj",)},
                                    {"boxes": {"0.png": [[1, 1, 50, 50]]}}])  # fmt: skip
def test_other_settings_are_refused_and_touch_nothing(tmp_path, photos, regressor, tree_of, change):
    out = tmp_path / "out"
    infer_folder([photos / "0.png"], out, regressor=regressor, **OPTIONS)
    before = tree_of(out)
    with pytest.raises(ValueError, match=f"other settings .*{next(iter(change))}"):
        infer_folder([photos / "0.png"], out, regressor=regressor, resume=True, **{**OPTIONS, **change})
    assert tree_of(out) == before
