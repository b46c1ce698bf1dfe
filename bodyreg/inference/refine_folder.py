"""The people of a result folder refined to 2D key points: the same files again, without a network.

A photograph whose files cannot be used gets a record with the reason and stops nothing; people without key points are
written as they were. Where the photographs are at hand, overlays are drawn anew.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bodyreg.adapt.masks import parsing_term, silhouette_term, windows
from bodyreg.adapt.meshes import ImageTerm, MeshSettings
from bodyreg.body import BodyModel
from bodyreg.cameras import Camera
from bodyreg.data.folder import Photo, read_image
from bodyreg.data.inputs import Keypoints, lookup, read_keypoints
from bodyreg.data.parsing import read_parsing
from bodyreg.files import atomic_write
from bodyreg.inference.export import body_of
from bodyreg.inference.folder import FolderSummary, Progress, fingerprint
from bodyreg.inference.output import SHEET_LIMIT, write_contact_sheet, write_picture
from bodyreg.inference.page import PAGE_FILES, write_page
from bodyreg.inference.pictures import Picture
from bodyreg.inference.placing import PlacedPerson
from bodyreg.inference.refine import BATCH, match_keypoints, refine_people
from bodyreg.inference.results import (
    PersonResult,
    PhotoRecord,
    ResultsWriter,
    output_stems,
    read_person,
    read_results,
)
from bodyreg.inference.stages import StageClock

__all__ = ["refine_results"]

log = logging.getLogger(__name__)

_FORMATS = ("obj", "ply", "glb", "npz", "json")


@dataclass(eq=False)
class _Job:
    """One photograph's people and what is given for them."""

    record: PhotoRecord
    people: list[PersonResult]
    formats: list[str]
    keypoints: list[Keypoints | None]
    maps: list[np.ndarray | None]
    notes: list[str]


def refine_results(
    results: str | Path,
    keypoints: str | Path,
    out: str | Path | None = None,
    *,
    iterations: int = 50,
    photos: str | Path | None = None,
    silhouettes: str | Path | None = None,
    parsing: str | Path | None = None,
    body: str | Path | BodyModel | None = None,
    progress: Progress | None = None,
) -> FolderSummary:
    """Refine the people of a result folder to 2D key points and write a folder of the same form.

    Args:
        results: folder that `infer_folder` wrote, with npz or JSON files.
        keypoints: OpenPose folder, COCO JSON or npz; people are matched by overlap and projected joints.
        out: folder for the refined ones; default `<results>_refined`.
        iterations: of the optimisation; 0 only writes the files again.
        photos: folder of the photographs (or the one photograph), for overlays.
        silhouettes: folder of masks, parsing: of parsing pictures (PNG, LIP's labels), of the photographs' size: called
            `<stem>_<k>.png` for person k, or `<stem>.png` where there is one person. One of the two at most.
        body: body model; default the one that each record names.
        progress: called with (photographs finished, in all, name of the last).

    Raises:
        ValueError: no result folder, key points of no known form, or `out` is `results`.
    """
    start, clock = time.perf_counter(), StageClock()
    results = Path(results)
    out = Path(out) if out is not None else results.resolve().with_name(results.resolve().name + "_refined")
    if out.resolve() == results.resolve():
        raise ValueError(f"The refined people would overwrite {results}. Give another folder with --out.")
    if silhouettes is not None and parsing is not None:
        raise ValueError("Both silhouettes and parsing pictures are given. Give one of them.")
    for folder in (silhouettes, parsing, photos):
        if folder is not None and not Path(folder).exists():
            raise ValueError(f"There is no folder {folder}. Check the path.")
    settings = MeshSettings(iterations=iterations)
    records, earlier = read_results(results)
    detections = read_keypoints(keypoints)
    refined_with = {
        "keypoints": fingerprint(keypoints), "iterations": iterations,
        "silhouettes": fingerprint(silhouettes), "parsing": fingerprint(parsing),
    }  # fmt: skip
    writer = ResultsWriter(out, {**earlier, "overlay": photos is not None, "refined": refined_with})
    stems = output_stems(record.file for record in records)
    source = (Path(silhouettes), False) if silhouettes else (Path(parsing), True) if parsing else None
    bodies: dict[Any, BodyModel] = {}
    thumbnails: dict[str, np.ndarray] = {}
    done = 0

    def finish(record: PhotoRecord) -> None:
        nonlocal done
        done += 1
        writer.add(record)
        if progress is not None:
            progress(done, len(records), record.file)

    def pose(jobs: Sequence[_Job]) -> Iterator[list[PlacedPerson]]:
        """Everyone of some photographs, refined in one optimisation where they share a body."""
        everyone = [person for job in jobs for person in job.people]
        model = body_of(everyone[0], body, False, bodies)
        maps = [given for job in jobs for given in job.maps]
        masks = source is not None and any(given is not None for given in maps)

        def term(rows: Sequence[int]) -> ImageTerm:
            boxes, K = (np.stack([getattr(everyone[k], name) for k in rows]) for name in ("box_xywh", "K"))
            given = windows([maps[k] for k in rows], boxes, K)
            return parsing_term(model, given) if source is not None and source[1] else silhouette_term(model, given)

        kind = "+parsing" if source is not None and source[1] else "+silhouette"
        placed = refine_people(
            model, everyone, [found for job in jobs for found in job.keypoints], settings=settings,
            image_term=term if masks else None, said=[kind if given is not None else "" for given in maps],
        )  # fmt: skip
        for job in jobs:
            yield placed[: len(job.people)]
            placed = placed[len(job.people) :]

    def flush(jobs: list[_Job]) -> None:
        for job, people in zip(jobs, _one_by_one(jobs, pose), strict=True):
            if isinstance(people, str):
                finish(replace(job.record, status="refused", reason=people, people=[], files=[]))
                continue
            model = body_of(job.people[0], body, False, bodies)
            picture, overlay = _picture(job, Path(photos) if photos is not None else None)
            record, small = write_picture(
                out, stems[job.record.file], picture, people, model, formats=job.formats,
                up=str(earlier.get("up", "camera")), overlay=overlay, page=True, threads=1, clock=clock,
            )  # fmt: skip
            if small is not None and len(thumbnails) < SHEET_LIMIT:
                thumbnails[record.file] = small
            finish(record)
        jobs.clear()

    waiting: list[_Job] = []
    for record in records:
        if record.status != "done":
            finish(_carried_over(record, results, out))
            continue
        try:
            waiting.append(_open(record, results, stems[record.file], lookup(detections, record.file) or [], source))
        except ValueError as error:
            finish(replace(record, status="refused", reason=str(error), people=[], files=[]))
        if sum(len(job.people) for job in waiting) >= BATCH:
            flush(waiting)
    if waiting:
        flush(waiting)
    finished = writer.close()
    if thumbnails:
        write_contact_sheet(out, finished, thumbnails)
    write_page(out)
    return FolderSummary(out, tuple(finished), 0, time.perf_counter() - start, dict(clock.seconds))


def _carried_over(record: PhotoRecord, results: Path, out: Path) -> PhotoRecord:
    """The record of a photograph without people, whose files (what the page shows of it) are copied."""
    shown = (name for name in record.files if name.startswith(f"{PAGE_FILES}/") and ".." not in Path(name).parts)
    kept = [name for name in shown if (results / name).is_file()]
    for name in kept:
        with atomic_write(out / name) as temporary:
            shutil.copyfile(results / name, temporary)
    return replace(record, files=kept)


def _one_by_one(
    jobs: Sequence[_Job], pose: Callable[[Sequence[_Job]], Iterator[list[PlacedPerson]]]
) -> list[list[PlacedPerson] | str]:
    """All together; if that fails each photograph alone, so that the reason is told of the one it concerns."""
    try:
        return list(pose(jobs))
    except (ValueError, OSError) as error:  # a body's files that are missing are an OSError
        if len(jobs) == 1:
            return [str(error)]
        return [found for job in jobs for found in _one_by_one([job], pose)]


def _open(
    record: PhotoRecord, results: Path, stem: str, detections: Sequence[Keypoints], source: tuple[Path, bool] | None
) -> _Job:
    """Read a photograph's people and find their key points and maps.

    Raises:
        ValueError: no parameter files, or one that cannot be used.
    """
    people, formats, maps, notes = [], [], [], list(record.notes)
    for k in range(len(record.people)):
        formats = [kind for kind in _FORMATS if f"{stem}_{k}.{kind}" in record.files]
        kinds = [kind for kind in ("npz", "json") if kind in formats]
        if not kinds:
            raise ValueError(f"{record.file} has no parameters. Run `bodyreg infer` with --formats npz,json.")
        path = results / f"{stem}_{k}.{kinds[0]}"
        if not path.is_file():
            raise ValueError(f"{path} is not there. Run `bodyreg infer` again with --resume.")
        people.append(read_person(path))
    matched = match_keypoints(people, detections)
    if not any(matched):
        notes.append("None of the people has key points. They are as they were.")
    for k in range(len(people)):
        given = None
        names = [f"{stem}_{k}.png"] + ([f"{stem}.png"] if len(people) == 1 else [])
        try:
            given = None if source is None else _read_map(source, names, record.image_hw)
        except ValueError as error:
            notes.append(str(error))
        maps.append(given)
    return _Job(record, people, formats, matched, maps, notes)


def _read_map(source: tuple[Path, bool], names: list[str], size_hw: tuple[int, int] | None) -> np.ndarray | None:
    folder, labelled = source
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    if labelled:
        return read_parsing(path, size_hw)
    mask = (read_image(path).rgb.max(-1) > 127).astype(np.uint8)
    if size_hw is not None and mask.shape != tuple(size_hw):
        raise ValueError(
            f"The silhouette {path.name} is {mask.shape[0]} x {mask.shape[1]} pixels and its photograph {size_hw[0]} x "
            f"{size_hw[1]}. Give one of the photograph's size."
        )
    return mask


def _picture(job: _Job, photos: Path | None) -> tuple[Picture, bool]:
    """The photograph for the overlay, and whether there is one: an empty one stands in where there is none."""
    person, record = job.people[0], job.record
    hw = int(person.image_hw[0]), int(person.image_hw[1])
    photo, notes = Photo(np.zeros((0, 0, 3), np.uint8), None, Path(record.file), record.orientation or 1), job.notes
    if photos is not None:
        try:
            found = read_image(photos if photos.is_file() else photos / record.file)
            if found.size_hw == hw:
                photo = found
            else:
                notes.append(f"The photograph has another size than {hw[0]} x {hw[1]}. It is not drawn over.")
        except (ValueError, OSError) as error:
            notes.append(str(error))
    return Picture(record.file, photo, Camera(person.K, hw, person.focal_source), [], notes), photo.rgb.size > 0
