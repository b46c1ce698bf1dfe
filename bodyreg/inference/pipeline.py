"""The stages of the folder job and what overlaps with what: reading ahead, network, writing behind."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from bodyreg.data.inputs import lookup
from bodyreg.inference.output import SHEET_LIMIT, write_picture
from bodyreg.inference.pictures import CropSettings, Figure, Inputs, Picture, open_picture, refine
from bodyreg.inference.placing import PlacedPerson, place_people
from bodyreg.inference.regress import Regressor
from bodyreg.inference.results import PhotoRecord
from bodyreg.inference.stages import StageClock
from renderers.threads import map_threads

__all__ = ["Outcome", "Pipeline"]

log = logging.getLogger(__name__)

GROUP_PIXELS = 100_000_000
"""Photographs of a group together; one more may go over it."""
LIVE_PIXELS = 250_000_000
"""No further photograph is opened while those in memory have this many pixels (750 MB as RGB)."""
_GUESS_PIXELS = 12_000_000  # of a photograph not yet opened

_FILE_ERRNOS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # of one file's name, not of the disk

Outcome = tuple[PhotoRecord, np.ndarray | None]
"""A file's record, and the thumbnail of its overlay if one was made and is wanted."""


class _Refusal(NamedTuple):
    reason: str


@dataclass(eq=False)
class _Entry:
    """One file: its record if it was finished before, else what reading it gives."""

    file: str
    path: Path
    record: PhotoRecord | None
    reading: Future[Picture | _Refusal] | None = None


class Pipeline:
    """Runs the job's stages over files in order.

    Args:
        files: name -> path, in order. out: the result folder. stems: name -> stem of the result files.
        finished: records of files that need not be made again.
        inputs: what the user said about the photographs.
        regressor: the network.
        batch_size, formats, up, overlay, page, threads, clock, refine: see `bodyreg.inference.folder.infer_folder`.
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
        batch_size: int,
        formats: Sequence[str],
        up: str,
        overlay: bool,
        page: bool,
        threads: int,
        clock: StageClock,
        refine: bool = False,
    ) -> None:
        self._entries = [_Entry(file, path, finished.get(file)) for file, path in files.items()]
        self._out, self._stems, self._inputs, self._regressor = out, stems, inputs, regressor
        self._batch_size, self._formats, self._up, self._overlay, self._page = batch_size, formats, up, overlay, page
        self._threads, self._clock, self._refine = threads, clock, refine
        settings = regressor.settings
        self._cut = CropSettings(
            regressor.crop_hw, settings.margin, settings.perspective_rotation, settings.reference_pixels
        )
        self._memory = _PixelBudget(LIVE_PIXELS)
        self._thumbnails = 0

    def run(self) -> Generator[Outcome, None, None]:
        """Outcomes of all files, roughly in order. Errors that concern the whole job are raised; none is for a file."""
        with (
            _one_thread_inside(self._threads > 1 and len(self._entries) > self._threads),
            ThreadPoolExecutor(self._threads, "bodyreg-read") as readers,
            ThreadPoolExecutor(self._threads, "bodyreg-write") as writers,
        ):
            writing: deque[Future[Outcome]] = deque()
            try:
                for group in self._groups(readers):
                    yield from self._finished_of(group)
                    if any(entry.record is None for entry in group):
                        writing += self._process(group, readers, writers)
                    while writing and writing[0].done():
                        yield writing.popleft().result()
                while writing:
                    yield writing.popleft().result()
            finally:
                # Only after an error is there anything left; whoever writes now ends its file, the others never begin.
                for future in writing:
                    future.cancel()
                readers.shutdown(wait=False, cancel_futures=True)

    # ---- reading ahead ----------------------------------------------------------------------------------------------

    def _groups(self, readers: ThreadPoolExecutor) -> Iterator[list[_Entry]]:
        """Consecutive files, read ahead. The bounds depend on the files alone, whatever was finished before."""
        ahead: deque[_Entry] = deque()
        coming = iter(self._entries)
        left = len(self._entries)
        group: list[_Entry] = []
        pixels = 0
        while left:
            # Never wait for memory while there is something to hand on: handing on is what frees it.
            while len(ahead) < min(left, self._batch_size + self._threads) and self._memory.free(wait=not ahead):
                entry = next(coming)
                if entry.record is None:
                    self._begin(entry, readers)
                ahead.append(entry)
            entry = ahead.popleft()
            left -= 1
            group.append(entry)
            if entry.record is not None:
                h, w = entry.record.image_hw or (0, 0)
                pixels += h * w
            elif isinstance(read := _result(entry), Picture):
                pixels += read.pixels
            if len(group) == self._batch_size or pixels >= GROUP_PIXELS or not left:
                yield group
                group, pixels = [], 0

    def _begin(self, entry: _Entry, readers: ThreadPoolExecutor) -> None:
        reserved = self._memory.reserve()
        entry.reading = readers.submit(self._read, entry, reserved)

    def _read(self, entry: _Entry, reserved: int) -> Picture | _Refusal:
        picture: Picture | _Refusal
        try:
            picture = open_picture(entry.path, entry.file, self._inputs, self._cut, self._clock)
        except ValueError as error:
            picture = _Refusal(str(error))
        except Exception as error:  # a file must not stop the folder, not even through a fault of ours
            log.exception("%s could not be processed", entry.path)
            picture = _Refusal(
                f"{entry.file} could not be processed ({type(error).__name__}: {error}). Please report this as a fault "
                "of bodyreg."
            )
        self._memory.settle(reserved, picture.pixels if isinstance(picture, Picture) else 0)
        return picture

    # ---- the network ------------------------------------------------------------------------------------------------

    def _process(
        self, group: list[_Entry], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor
    ) -> list[Future[Outcome]]:
        """Pose everyone in a group and hand the files over to be written."""
        for entry in group:
            if entry.reading is None:  # finished before, but its neighbours need it in their batch
                self._begin(entry, readers)
        read = [(entry, _result(entry)) for entry in group]
        pictures = [picture for _, picture in read if isinstance(picture, Picture)]
        self._refine_found(pictures)
        posed = self._pose(pictures)
        futures = []
        for entry, picture in read:
            entry.reading = None
            if isinstance(picture, Picture):
                if entry.record is None:
                    futures.append(writers.submit(self._write, picture, posed[id(picture)]))
                else:
                    self._memory.release(picture.pixels)
            elif entry.record is None:
                futures.append(_done(PhotoRecord(entry.file, "refused", picture.reason)))
        return futures

    def _refine_found(self, pictures: list[Picture]) -> None:
        """Draw boxes that nobody gave anew around the joints a first pass predicts."""
        found = [
            (picture, k)
            for picture in pictures
            for k, figure in enumerate(picture.figures)
            if figure.person.how in ("hog", "whole")
        ]
        joints: list[np.ndarray] = []
        for crops, K_crop in self._batches([picture.figures[k] for picture, k in found]):
            with self._clock("network"):
                joints += list(self._regressor.locate(crops, K_crop))

        def again(item: tuple[tuple[Picture, int], np.ndarray]) -> None:
            (picture, k), joints_px = item
            with self._clock("crop"):
                refine(picture, k, joints_px, self._cut)

        map_threads(again, zip(found, joints, strict=True), self._threads)

    def _pose(self, pictures: list[Picture]) -> dict[int, list[PlacedPerson | None]]:
        """Everyone of the pictures, by the picture's id, largest box first."""
        everyone = [(picture, figure) for picture in pictures for figure in picture.figures]
        placed: list[PlacedPerson | None] = []
        for crops, K_crop in self._batches([figure for _, figure in everyone]):
            batch = everyone[len(placed) : len(placed) + len(crops)]
            with self._clock("network"):
                estimate = self._regressor.predict(crops, K_crop)
            with self._clock("skinning"):
                placed += place_people(
                    estimate,
                    [figure.person for _, figure in batch],
                    [figure.crop for _, figure in batch],
                    [picture.camera for picture, _ in batch],
                    self._regressor.body,
                    model_name=self._regressor.settings.name,
                    weights_hash=self._regressor.weights_hash,
                )
        posed: dict[int, list[tuple[float, PlacedPerson | None]]] = {id(picture): [] for picture in pictures}
        for (picture, figure), person in zip(everyone, placed, strict=True):
            posed[id(picture)].append((float(np.prod(figure.person.box_xywh[2:])), person))
        ordered = {
            key: [person for _, person in sorted(people, key=lambda item: -item[0])] for key, people in posed.items()
        }
        if self._refine:
            with self._clock("network"):
                self._refine_to_keypoints(pictures, ordered)
        return ordered

    def _refine_to_keypoints(self, pictures: list[Picture], posed: dict[int, list[PlacedPerson | None]]) -> None:
        """Move everyone to the key points that are theirs, in place."""
        from bodyreg.inference.refine import match_keypoints, refine_people  # what it needs takes a while to load

        places, results, keypoints = [], [], []
        for picture in pictures:
            there = [(id(picture), k, p.result) for k, p in enumerate(posed[id(picture)]) if p is not None]
            own = [figure.person.keypoints for figure in picture.figures]
            detections = lookup(self._inputs.keypoints, picture.file) or [found for found in own if found is not None]
            places += [place[:2] for place in there]
            results += [place[2] for place in there]
            keypoints += match_keypoints([place[2] for place in there], detections)
        for (key, k), person in zip(places, refine_people(self._regressor.body, results, keypoints), strict=True):
            posed[key][k] = person

    def _batches(self, figures: list[Figure]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(figures), self._batch_size):
            chunk = figures[start : start + self._batch_size]
            yield np.stack([figure.pixels for figure in chunk]), np.stack([figure.crop.K_crop for figure in chunk])

    # ---- writing behind ---------------------------------------------------------------------------------------------

    def _write(self, picture: Picture, people: list[PlacedPerson | None]) -> Outcome:
        kept = [person for person in people if person is not None]
        lost = len(people) - len(kept)
        fault = f"The network's answer for {lost} of {len(people)} people is not finite. Check the camera and the box."
        try:
            if lost and not kept:
                return PhotoRecord(picture.file, "refused", fault), None
            if lost:
                picture.notes.append(fault)
            record, small = write_picture(
                self._out, self._stems[picture.file], picture, kept, self._regressor.body, formats=self._formats,
                up=self._up, overlay=self._overlay, page=self._page, threads=1, clock=self._clock,
            )  # fmt: skip
        except ValueError as error:
            return PhotoRecord(picture.file, "refused", str(error)), None
        except OSError as error:
            if error.errno not in _FILE_ERRNOS:
                raise
            return PhotoRecord(picture.file, "refused", f"Its results cannot be written ({error}). Rename it."), None
        finally:
            self._memory.release(picture.pixels)
        self._thumbnails += small is not None
        return record, small if self._thumbnails <= SHEET_LIMIT else None

    @staticmethod
    def _finished_of(group: list[_Entry]) -> Iterator[Outcome]:
        return ((entry.record, None) for entry in group if entry.record is not None)


@contextlib.contextmanager
def _one_thread_inside(wanted: bool) -> Iterator[None]:
    """While photographs are worked on side by side, none is split among threads, which would only wait for each other:
    that took a third of the processor's time."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    if wanted:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class _PixelBudget:
    """Counts the pixels of photographs in memory, those being read by a guess."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._live = 0
        self._guess = _GUESS_PIXELS
        self._changed = threading.Condition()

    def free(self, *, wait: bool) -> bool:
        """Whether another photograph may be opened; with `wait`, once it may."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._live < self._limit)
            return self._live < self._limit

    def reserve(self) -> int:
        """Count a photograph that is about to be opened; returns what to settle."""
        with self._changed:
            self._live += self._guess
            return self._guess

    def settle(self, reserved: int, pixels: int) -> None:
        """Replace the guess by the truth; the next guess is the largest photograph so far."""
        with self._changed:
            self._live += pixels - reserved
            self._guess = max(self._guess, pixels)
            self._changed.notify_all()

    def release(self, pixels: int) -> None:
        """The photograph is gone."""
        with self._changed:
            self._live -= pixels
            self._changed.notify_all()


def _result(entry: _Entry) -> Picture | _Refusal:
    if entry.reading is None:
        raise RuntimeError(f"{entry.file} was never read")
    return entry.reading.result()


def _done(record: PhotoRecord) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result((record, None))
    return future
