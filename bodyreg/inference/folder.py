"""The folder job: every person of every photograph posed, with one record a file and none that stops the others.

Photographs are decoded and searched for people by threads while the network runs on those before them, and result
files are written by further threads. The network sees batches that span photographs. Batches are cut from groups of
consecutive files whose bounds depend on nothing but the files, so that a job that was interrupted and resumed ends
with the bytes of one that was not.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bodyreg.body import BodyModel
from bodyreg.checkpoints import default_weights, load_model
from bodyreg.data.folder import list_images
from bodyreg.files import sha256_file
from bodyreg.inference.export import UPS, check_formats
from bodyreg.inference.hmr import HMRRegressor
from bodyreg.inference.output import CONTACT_SHEET, write_contact_sheet
from bodyreg.inference.page import write_page
from bodyreg.inference.pictures import Inputs, read_inputs
from bodyreg.inference.pipeline import Pipeline
from bodyreg.inference.regress import Regressor, check_body
from bodyreg.inference.results import PhotoRecord, ResultsWriter, output_stems
from bodyreg.inference.results import resume as resume_records
from bodyreg.inference.stages import StageClock
from bodyreg.models.hmr import HMR
from bodyreg.models.registry import MODELS
from renderers import shading
from renderers.threads import thread_count

if TYPE_CHECKING:
    from bodyreg.inference.cluster import ClusterPipeline

__all__ = ["ENGINES", "FolderSummary", "infer_folder", "load_regressor"]

ENGINES = ("local", "ray")

log = logging.getLogger(__name__)

_LEFT_BEHIND = re.compile(r"\.tmp-[0-9a-f]{16}(\..+)?")
_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FolderSummary:
    """What a folder job did.

    Attributes:
        out: the result folder.
        records: one a file, sorted by file.
        resumed: how many of them were there already.
        seconds: the job took, loading of the network not counted.
        stages: seconds spent in each stage, summed over threads.
    """

    out: Path
    records: tuple[PhotoRecord, ...]
    resumed: int
    seconds: float
    stages: Mapping[str, float]

    def count(self, status: str) -> int:
        """How many records are "done", "nobody" or "refused"."""
        return sum(record.status == status for record in self.records)

    @property
    def people(self) -> int:
        """How many people were posed."""
        return sum(len(record.people) for record in self.records)

    def __str__(self) -> str:
        lines = [
            f"{len(self.records)} files: {self.count('done')} with {self.people} people posed, "
            f"{self.count('nobody')} without anybody, {self.count('refused')} refused; {self.resumed} resumed, "
            f"{self.seconds:.1f} s"
        ]
        lines += [f"  refused {record.file}: {record.reason}" for record in self.records if record.status == "refused"]
        lines += [f"  note on {record.file}: {note}" for record in self.records for note in record.notes]
        return "\n".join([*lines, f"Results in {self.out}"])


def load_regressor(
    model: str = "perspose_small",
    weights: str | Path | None = None,
    body: str | Path = "free",
    gender: str = "neutral",
    device: str = "auto",
    **options: bool,
) -> Regressor:
    """The network and the body that `infer_folder` would use for these arguments, to be loaded once for many jobs.

    Args:
        model: name in the registry. weights: default those that ship for it. body: "free", "smpl" or a path.
        gender, device: see `BodyModel.load` and `regress.choose_device`. options: of `Regressor`.

    Raises:
        ValueError: weights of another model or another body, or files that cannot be read.
        MissingFileError: the SMPL body was asked for and is not found.
    """
    loaded = load_model(default_weights(model) if weights is None else weights)
    if loaded.settings.name != model:
        raise ValueError(
            f"The weights {weights} are of the model {loaded.settings.name!r}, not {model!r}. Pass --model "
            f"{loaded.settings.name}."
        )
    if MODELS[model].kind != "regressor":
        raise ValueError(f"The network {model!r} poses nobody. Choose a regressor of `bodyreg models`.")
    if str(body) == "free":  # before the body is looked for: SMPL weights on the free body are never right
        check_body(loaded.body, "free")
    elif loaded.body == "free":
        check_body("free", str(body))
    kind = HMRRegressor if isinstance(loaded.model, HMR) else Regressor
    return kind(loaded, BodyModel.load(body, gender, loaded.settings.num_betas), device, **options)


def infer_folder(
    photos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str = "perspose_small",
    weights: str | Path | None = None,
    body: str | Path = "free",
    gender: str = "neutral",
    boxes: str | Path | Mapping[str, Any] | None = None,
    keypoints: str | Path | None = None,
    intrinsics: str | Path | Mapping[str, Any] | None = None,
    focal_mm: float | None = None,
    focal_px: float | None = None,
    fov: float | None = None,
    people: str = "auto",
    detector: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    formats: Iterable[str] = ("obj", "npz", "json"),
    overlay: bool = True,
    page: bool = True,
    resume: bool = False,
    refine: bool = False,
    up: str = "camera",
    threads: int | None = None,
    engine: str = "local",
    progress: Progress | None = None,
    regressor: Regressor | None = None,
    clock: StageClock | None = None,
) -> FolderSummary:
    """Pose every person in a folder of photographs.

    For each photograph: a camera (`cameras.resolve_camera`), people (given, else found; boxes that were found are drawn
    anew once around predicted joints), crops with Perspective Rotation, the network, inverse kinematics, and the
    bodies brought back into the photograph's camera frame. Files are named as the package's documentation says; a file
    that cannot be used gets a record with the reason and stops nothing.

    Args:
        photos: a folder, a photograph, or a list of photographs.
        out: folder of the results; made if need be.
        model, weights, body, gender, device: see `load_regressor`.
        boxes: JSON or CSV of person boxes. keypoints: OpenPose folder, COCO JSON or npz. intrinsics: JSON.
        focal_mm: 35 mm-equivalent focal length; focal_px: in pixels; fov: horizontal field of view in radians.
        people: "auto", "pose", "net", "hog" or "whole", for photographs without given boxes or key points; detector:
            weights of the network of "net" (`people.find_people`).
        batch_size: people a forward pass, and most photographs a group.
        formats: of each person's files. up: axes of OBJ and PLY, "camera" or "y".
        overlay: also draw the bodies over each photograph, from the side and from above, and a contact sheet.
        page: also write `index.html`, for looking at everything in a browser.
        refine: move each body to its key points (`bodyreg.adapt.meshes`), given or found.
        resume: keep finished records of an interrupted run with the same settings.
        threads: for reading and for writing; default BODYREG_THREADS or the cores.
        engine: "local" works on this machine; "ray" over a Ray cluster (`cluster`), the running one or that of
            RAY_ADDRESS, else one made of this machine. `threads` are then a worker's, by default at most four.
        progress: called with (files finished, files in all, name of the last).
        regressor: a loaded one; then model, weights, body, gender and device are not used.
        clock: told how long each stage takes.

    Raises:
        ValueError: unusable arguments, no photographs, or `resume` with other settings.
        MissingFileError: a licensed body that is not found.
        OSError: the results cannot be written, say because the disk is full. What is finished stays, nothing is half
            written, and `resume` goes on from there.
    """
    wanted = check_formats(formats)
    if up not in UPS:
        raise ValueError(f"There is no up direction {up!r}. Choose one of {', '.join(UPS)}.")
    if engine not in ENGINES:
        raise ValueError(f"There is no engine {engine!r}. Choose one of {', '.join(ENGINES)}.")
    if engine == "ray" and find_spec("ray") is None:
        raise ValueError("Ray is not installed. Install it with `pip install bodyreg[ray]`, or use --engine local.")
    if batch_size < 1:
        raise ValueError(f"The batch size is {batch_size}. Give at least 1.")
    if refine and keypoints is None and (boxes is not None or people not in ("auto", "pose") or detector is not None):
        raise ValueError(
            "Bodies are refined to key points, and none are given or found. Name their file with --keypoints, or let "
            "people be found with --people pose."
        )
    out = Path(out)
    inputs = read_inputs(
        boxes=boxes, keypoints=keypoints, intrinsics=intrinsics, focal_px=focal_px, focal_mm=focal_mm, fov=fov,
        people=people, detector=detector,
    )  # fmt: skip
    files = _find_files(photos, out)
    source: dict[str, Any] | None = None
    if regressor is None:
        source = {"model": model, "weights": weights, "body": body, "gender": gender, "device": device}
        regressor = load_regressor(model, weights, body, gender, "cpu" if engine == "ray" else device)
    settings = {
        "photos": _name_of(photos),
        "model": regressor.settings.name,
        "weights_hash": regressor.weights_hash,
        "body": regressor.body.name,
        "body_hash": regressor.body.hash,
        "gender": regressor.body.gender,
        "boxes": fingerprint(boxes),
        "keypoints": fingerprint(keypoints),
        "intrinsics": fingerprint(intrinsics),
        "focal_mm": focal_mm,
        "focal_px": focal_px,
        "fov": fov,
        "people": people,
        "formats": wanted,
        "up": up,
        "overlay": overlay,
        "page": page,
        **({"refine": True} if refine else {}),
        **({} if detector is None else {"detector": fingerprint(detector)}),
    }
    finished = resume_records(out, settings) if resume else {}
    pipeline: Callable[..., Pipeline | ClusterPipeline] = partial(Pipeline, threads=thread_count(threads))
    if engine == "ray":
        from bodyreg.inference.cluster import ClusterPipeline

        pipeline = partial(ClusterPipeline, source=source, settings=settings, resume=resume, threads=threads)
    finished = {file: record for file, record in finished.items() if file in files}
    if engine == "local":  # compiled kernels are read from disk while people are looked for
        threading.Thread(target=_load_kernels, args=(regressor.body, overlay), daemon=True).start()
    return _run(
        pipeline, files, out, settings, finished, inputs, regressor,
        batch_size=batch_size, formats=wanted, up=up, overlay=overlay, page=page,
        progress=progress, clock=clock or StageClock(), refine=refine,
    )  # fmt: skip


def _load_kernels(body: BodyModel, overlay: bool) -> None:
    with torch.inference_mode():
        vertices = body().vertices[0, :3].cpu().numpy() + np.array([0, 0, 3], np.float32)
    if overlay:
        shading.overlay(np.zeros((8, 8, 3), np.uint8), [vertices], np.array([[0, 1, 2]]), np.diag([8.0, 8.0, 1.0]))


def _run(
    make_pipeline: Callable[..., Pipeline | ClusterPipeline],
    files: dict[str, Path],
    out: Path,
    settings: dict[str, Any],
    finished: dict[str, PhotoRecord],
    inputs: Inputs,
    regressor: Regressor,
    *,
    overlay: bool,
    page: bool,
    progress: Progress | None,
    clock: StageClock,
    **options: Any,
) -> FolderSummary:
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    _remove_left_behind(out)
    writer = ResultsWriter(out, settings, finished.values())
    thumbnails: dict[str, np.ndarray] = {}
    pipeline = make_pipeline(
        files, out, output_stems(files), finished, inputs, regressor, overlay=overlay, page=page, clock=clock, **options
    )
    try:
        writer.close()  # the settings stand there from the start, and a disk that cannot be written is found out now
        with contextlib.closing(pipeline.run()) as done:
            for count, (record, small) in enumerate(done, 1):
                writer.add(record)
                if small is not None:
                    thumbnails[record.file] = small
                if progress is not None:
                    progress(count, len(files), record.file)
        records = writer.close()
        _remove_left_behind(out)  # by workers that died
        if overlay:
            with clock("overlay"):
                if write_contact_sheet(out, records, thumbnails) is None:
                    (out / CONTACT_SHEET).unlink(missing_ok=True)
        if page:
            with clock("page"):
                write_page(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            writer.close()
        if error.errno in _DISK_FULL:
            raise OSError(
                error.errno,
                f"The disk of {out} is full. Make room and run again with --resume: what is finished is kept, and "
                "nothing is half written",
            ) from error
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    return FolderSummary(out, tuple(records), len(finished), time.perf_counter() - start, dict(clock.seconds))


# ---- what is asked for ----------------------------------------------------------------------------------------------


def _find_files(photos: str | Path | Sequence[str | Path], out: Path) -> dict[str, Path]:
    """Photographs by their name in the results: the path relative to the input folder, sorted."""
    if isinstance(photos, str | os.PathLike):
        root = Path(photos)
        paths = list_images(root, exclude=[out])
        root = root if root.is_dir() else root.parent
    else:
        paths = list(dict.fromkeys(Path(os.path.abspath(path)) for path in photos))
        if not paths:
            raise ValueError("The list of photographs is empty. Give at least one.")
        root = Path(os.path.commonpath([path.parent for path in paths]))
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return dict(sorted(named.items()))


def _name_of(photos: str | Path | Sequence[str | Path]) -> str | int:
    """What the settings say about the photographs: the folder's name, not where on this machine it lies."""
    return Path(os.path.abspath(photos)).name if isinstance(photos, str | os.PathLike) else len(photos)


def fingerprint(given: str | Path | Mapping[str, Any] | None) -> str | None:
    """Hash of the content of an input file or folder, so that resuming notices when it was edited."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        plain = {key: np.asarray(value, dtype=np.float64).tolist() for key, value in given.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    path = Path(given)
    if path.is_file():
        return sha256_file(path)
    parts = [(p.relative_to(path).as_posix(), sha256_file(p)) for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _remove_left_behind(out: Path) -> None:
    """Remove temporary files of a process that was killed: they were never results."""
    for path in out.rglob(".tmp-*"):
        if _LEFT_BEHIND.fullmatch(path.name) and path.is_file():
            log.info("removing %s, left behind by an interrupted run", path)
            path.unlink(missing_ok=True)
