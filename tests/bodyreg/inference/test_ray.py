"""The job over a local Ray cluster of two workers, one of which is killed: nothing is lost, nothing written twice."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image

from bodyreg.checkpoints import load_model
from bodyreg.inference.folder import infer_folder
from bodyreg.inference.regress import Regressor

OPTIONS = {"batch_size": 1, "threads": 1, "formats": ("npz", "json"), "overlay": False, "page": False}
PHOTOS = 9


class Dies(Regressor):
    """Kills its own process, without any warning, when it is to pose the picture whose brightest value is `at` for the
    first time. Before that it writes down which files of which photographs were noted as written."""

    def __init__(self, loaded, body, out: Path, at: int) -> None:
        super().__init__(loaded, body, "cpu")
        self.out, self.at = out, at

    def predict(self, crops, K_crop):
        diary = self.out.with_name("diary.json")
        if int(np.max(crops)) == self.at and not diary.exists():
            noted = [json.loads(path.read_text())["files"] for path in self.out.glob(".ray-*/[!.]*.json")]
            inodes = {name: (self.out / name).stat().st_ino for names in noted for name in names}
            diary.write_text(json.dumps(inodes))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(crops, K_crop)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine photographs, each of its own grey, in three stretches, and a broken one."""
    where = tmp_path_factory.mktemp("photos")
    for k in range(PHOTOS):
        folder = where / ("sub" if k % 2 else ".")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (90, 80), (20 * k + 20,) * 3).save(folder / f"{k}.png")
    (where / "2b.png").write_bytes(b"no picture")
    return where


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine, which find the classes of this file by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Ray's workers are nice to all others, and starve beside a suite that runs in parallel.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, photos, regressor, tree_of):
    """Files of the job on one machine, with as many threads as a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone") / "out"
    infer_folder(photos, out, regressor=regressor, **OPTIONS)
    torch.set_num_threads(threads)
    return tree_of(out)


def test_a_killed_worker_loses_nothing_and_nothing_is_written_twice(
    tmp_path, photos, cluster, alone, tiny_weights, free_body, tree_of
):
    out = tmp_path / "out"
    # The fourth of a stretch of four: what was posed before it is written, or being written.
    dies = Dies(load_model(tiny_weights), free_body, out, at=20 * 3 + 20)
    seen = []
    summary = infer_folder(
        photos, out, regressor=dies, engine="ray", progress=lambda done, total, file: seen.append(file), **OPTIONS
    )
    before = json.loads((tmp_path / "diary.json").read_text())
    assert before, "the worker died before anything was written: the test shows nothing"
    assert {name: (out / name).stat().st_ino for name in before} == before  # not written a second time
    assert summary.count("done") == PHOTOS and summary.count("refused") == 1 and summary.resumed == 0
    assert len(seen) == len(set(seen)) == PHOTOS + 1
    assert tree_of(out) == alone  # and nothing else is left
