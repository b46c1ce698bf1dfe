"""The folder job over a Ray cluster: workers run the stages of `pipeline` on stretches of the folder.

Every machine must see the photographs and the result folder under the same paths. A worker notes each photograph as
soon as its files are written; whoever takes over the stretch of a worker that died goes on behind the notes, so that
nothing is lost and nothing that was noted is written again. A photograph at which workers die again and again is
refused. Only this file imports Ray.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.files import atomic_write
from bodyreg.inference.pictures import Inputs, Picture
from bodyreg.inference.pipeline import Outcome, Pipeline
from bodyreg.inference.placing import PlacedPerson
from bodyreg.inference.regress import Regressor
from bodyreg.inference.results import PhotoRecord
from bodyreg.inference.stages import StageClock

__all__ = ["ClusterPipeline", "Notes"]

log = logging.getLogger(__name__)

_GROUPS_A_STRETCH = 4
_CPUS_A_WORKER = 4
_MOST_BLOCKS = 4096
_TRIES = 3  # of a stretch whose workers die, before its photographs are taken one by one


class Notes:
    """What workers have finished, in files that survive them: `<out>/.ray-<settings>/`.

    Args:
        out: the result folder. settings: of the job; others' notes are not read.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._out = out
        digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()
        self._folder = out / f".ray-{digest[:12]}"

    def add(self, stem: str, record: PhotoRecord) -> None:
        """Note that the files of a photograph are written."""
        with atomic_write(self._path(stem)) as temporary:
            temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")

    def read(self, stem: str) -> PhotoRecord | None:
        """The record of a photograph whose files are written, and still there."""
        try:
            record = PhotoRecord(**json.loads(self._path(stem).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        return record if all((self._out / name).is_file() for name in record.files) else None

    def begin(self, what: str) -> int:
        """Count another try of something; how many there were, this one included."""
        path = self._folder / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.tries"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def clear(self, *, all_jobs: bool = False) -> None:
        """Remove the notes of this job, or of every job of the folder."""
        for folder in self._out.glob(".ray-*") if all_jobs else [self._folder]:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, stem: str) -> Path:
        return self._folder / f"{hashlib.sha256(stem.encode()).hexdigest()[:24]}.json"


class _NotingPipeline(Pipeline):
    """Notes every photograph in the thread that wrote it, before anything else can happen."""

    def __init__(self, notes: Notes, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._notes = notes

    def _write(self, picture: Picture, people: list[PlacedPerson | None]) -> Outcome:
        record, small = super()._write(picture, people)
        if record.status != "refused":
            self._notes.add(self._stems[picture.file], record)
        return record, small


class _Worker:
    """Poses the people of one stretch after the other; made once in each worker process.

    Args:
        regressor: a network, or how to load it (`folder.load_regressor`'s arguments).
        notes: of the job. options: further arguments of `Pipeline`, besides files and records.
    """

    def __init__(self, regressor: Regressor | dict[str, Any], notes: Notes, options: dict[str, Any]) -> None:
        import torch

        from bodyreg.inference.folder import load_regressor

        torch.set_num_threads(options["threads"])
        self._notes, self._options = notes, options
        self._regressor = load_regressor(**regressor) if isinstance(regressor, dict) else regressor

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Records of the stretches of a batch, as JSON, and the seconds that its stages took."""
        clock = StageClock()
        records = [asdict(record) for text in batch["stretch"] for record in self._stretch(json.loads(text), clock)]
        return {"done": [json.dumps({"records": records, "seconds": clock.seconds})]}

    def _stretch(self, stretch: dict[str, Any], clock: StageClock) -> list[PhotoRecord]:
        files: dict[str, str] = stretch["files"]
        finished = {file: PhotoRecord(**fields) for file, fields in stretch["finished"].items()}
        finished |= {
            file: record
            for file in files
            if file not in finished and (record := self._notes.read(stretch["stems"][file])) is not None
        }
        if self._notes.begin("\n".join(files)) <= _TRIES:
            return self._run(files, stretch["stems"], finished, clock)
        records = []
        for file, path in files.items():
            if file in finished:
                records.append(finished[file])
            elif self._notes.begin(file) > 1:
                reason = f"{file} ended the process that read it. Look at the picture, or give workers more memory."
                records.append(PhotoRecord(file, "refused", reason))
            else:
                records += self._run({file: path}, stretch["stems"], {}, clock)
        return records

    def _run(
        self, files: dict[str, str], stems: dict[str, str], finished: dict[str, PhotoRecord], clock: StageClock
    ) -> list[PhotoRecord]:
        paths = {file: Path(path) for file, path in files.items()}
        pipeline = _NotingPipeline(
            self._notes, paths, stems=stems, finished=finished, regressor=self._regressor, clock=clock, **self._options
        )
        return [record for record, _ in pipeline.run()]


class ClusterPipeline:
    """Takes the place of `Pipeline` in the folder job; arguments as there, and:

    Args:
        source: how workers load the network; None sends them `regressor`.
        settings: of the job, as `results.json` has them. resume: go on behind the notes of a run that ended early.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        out: Path,
        stems: Mapping[str, str],
        finished: Mapping[str, PhotoRecord],
        inputs: Inputs,
        regressor: Regressor,
        *,
        source: dict[str, Any] | None,
        settings: Mapping[str, Any],
        resume: bool,
        batch_size: int,
        threads: int | None,
        clock: StageClock,
        **options: Any,
    ) -> None:
        out = Path(os.path.abspath(out))
        self._notes = Notes(out, settings)
        if not resume:
            self._notes.clear(all_jobs=True)
        self._clock, self._threads = clock, threads
        self._regressor: Regressor | dict[str, Any] = regressor
        if source is not None:
            self._regressor = {name: _absolute(value) for name, value in source.items()}
        self._device = source["device"] if source is not None else str(regressor.device)
        inputs = replace(inputs, detector=_absolute(inputs.detector))
        self._options = {**options, "out": out, "inputs": inputs, "batch_size": batch_size}
        names = list(files)
        size = batch_size * _GROUPS_A_STRETCH  # whole groups, so that batches are those of the job on one machine
        self._stretches = [
            json.dumps({
                "files": {file: os.path.abspath(files[file]) for file in part},
                "stems": {file: stems[file] for file in part},
                "finished": {file: asdict(finished[file]) for file in part if file in finished},
            })
            for part in (names[start : start + size] for start in range(0, len(names), size))
        ]  # fmt: skip

    def run(self) -> Generator[Outcome, None, None]:
        """Outcomes of all files, stretch by stretch, in any order. Errors that concern the whole job are raised."""
        for row in self._dataset().iter_rows():
            done = json.loads(row["done"])
            self._clock.add(done["seconds"])
            yield from ((PhotoRecord(**fields), None) for fields in done["records"])
        self._notes.clear()

    def _dataset(self) -> Any:
        """A data set with a row of records for each stretch, computed as it is read."""
        import ray
        import ray.data as ray_data

        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        resources = ray.cluster_resources()
        cpus = self._threads or min(_CPUS_A_WORKER, max(1, int(resources.get("CPU", 1))))
        gpus = int(resources.get("GPU", 0)) if self._device != "cpu" else 0
        workers = gpus or max(1, int(resources.get("CPU", 1)) // cpus)
        workers = min(workers, len(self._stretches))
        log.info("%d stretches of the folder for %d workers", len(self._stretches), workers)
        context = ray_data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        options = {**self._options, "threads": cpus}
        return ray_data.from_items(
            [{"stretch": text} for text in self._stretches],
            override_num_blocks=min(len(self._stretches), _MOST_BLOCKS),
        ).map_batches(
            _Worker,
            fn_constructor_args=(self._regressor, self._notes, options),
            batch_size=1,
            compute=ray_data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            num_gpus=1 if gpus else 0,
        )


def _absolute(value: Any) -> Any:
    """A path as other processes need it; anything else, "free" and "smpl" too, as it is."""
    return Path(os.path.abspath(value)) if isinstance(value, str | Path) and Path(value).exists() else value
