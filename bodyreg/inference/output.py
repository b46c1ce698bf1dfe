"""The result files of one photograph, and the contact sheet of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from bodyreg.body import BodyModel
from bodyreg.files import atomic_write
from bodyreg.inference.export import write_person
from bodyreg.inference.page import write_page_data, write_page_pictures
from bodyreg.inference.pictures import Picture
from bodyreg.inference.placing import PlacedPerson
from bodyreg.inference.results import PhotoRecord
from bodyreg.inference.stages import StageClock
from renderers import shading

__all__ = ["CONTACT_SHEET", "thumbnail", "write_contact_sheet", "write_picture", "write_png"]

CONTACT_SHEET = "contact_sheet.png"
SHEET_LIMIT = 120
"""Most pictures on the contact sheet: the first ones by name."""

_THUMBNAIL_PX = 320
_VIEW_PX = 400
_SMOOTH_UP_TO = 4_000_000  # pixels; beyond, edges are as fine as the eye is without supersampling


def write_picture(
    out: Path,
    stem: str,
    picture: Picture,
    people: Sequence[PlacedPerson],
    body: BodyModel,
    *,
    formats: Sequence[str],
    up: str,
    overlay: bool,
    page: bool,
    threads: int,
    clock: StageClock,
) -> tuple[PhotoRecord, np.ndarray | None]:
    """Write a photograph's files below `out` and give its record and the overlay's thumbnail.

    Args:
        stem: of the files, relative to `out`, with forward slashes.
        people: largest box first. body: the model they are poses of.
        formats, up: see `bodyreg.inference.export.write_person`.
        overlay: also draw the bodies over the photograph, and from the side and from above.
        page: also write what the folder's `index.html` shows of the photograph.
        threads: for drawing.
    """
    paths: list[Path] = []
    faces = body.faces.cpu().numpy()
    with clock("export"):
        for k, person in enumerate(people):
            paths += write_person(out / f"{stem}_{k}", person.result, person.vertices, faces, formats, up, body)
    photo = picture.photo.rgb if picture.photo.rgb.size else None
    small = drawn = None
    if overlay and people:
        with clock("overlay"):
            meshes = [person.vertices for person in people]
            drawn = shading.overlay(
                picture.photo.rgb, meshes, faces, picture.camera.K, threads=threads,
                supersample=2 if picture.pixels <= _SMOOTH_UP_TO else 1,
            )  # fmt: skip
            paths.append(write_png(out / f"{stem}_overlay.png", drawn))
            small = thumbnail(drawn)
            size = (_VIEW_PX, _VIEW_PX)
            views = [view(meshes, faces, size, threads=threads) for view in (shading.side_view, shading.top_view)]
            paths.append(write_png(out / f"{stem}_views.png", np.concatenate(views, axis=1)))
    record = PhotoRecord(
        picture.file,
        "done" if people else "nobody",
        image_hw=picture.camera.size_hw,
        orientation=picture.photo.orientation,
        K=picture.camera.K.tolist(),
        focal_source=picture.camera.focal_source,
        people=[
            {
                "box_xywh": person.result.box_xywh.tolist(),
                "score": person.result.score,
                "found_by": person.result.found_by,
                **({"refined_by": person.result.refined_by} if person.result.refined_by else {}),
            }
            for person in people
        ],
        files=[path.relative_to(out).as_posix() for path in paths],
        notes=picture.notes,
    )
    if page:
        with clock("page"):
            shown = thumbnail(photo) if small is None and photo is not None else small
            for_page = write_page_pictures(out, stem, photo, drawn, shown)
            for_page.append(write_page_data(out, stem, record, people, faces))
        record = replace(record, files=record.files + [path.relative_to(out).as_posix() for path in for_page])
    return record, small


def write_png(path: Path, rgb: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 picture, lightly compressed: a quarter of the time of the usual way, a third larger."""
    how = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # from OpenCV 4.12 on: one filter for all rows, instead of a choice for each
        how += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), how)
    if not done:
        raise ValueError(f"The picture {path.name} of shape {rgb.shape} cannot be encoded as PNG. Make it smaller.")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return path


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """The picture at most 320 pixels wide and high."""
    h, w = rgb.shape[:2]
    scale = min(1.0, _THUMBNAIL_PX / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb.copy()


def write_contact_sheet(out: Path, records: Sequence[PhotoRecord], thumbnails: Mapping[str, np.ndarray]) -> Path | None:
    """Write `contact_sheet.png` from the overlays of all pictures with people; None when there are none.

    Args:
        records: of the whole folder, sorted. thumbnails: by file, from `write_picture`; those missing are made from the
            overlay on disk, which is without loss, so that the sheet does not depend on what was resumed.
    """
    images: list[np.ndarray] = []
    captions: list[str] = []
    for record in records:
        overlays = [name for name in record.files if name.endswith("_overlay.png")]
        if record.status != "done" or not overlays or len(images) == SHEET_LIMIT:
            continue
        image = thumbnails.get(record.file)
        if image is None:
            stored = cv2.imdecode(np.fromfile(out / overlays[0], np.uint8), cv2.IMREAD_COLOR)
            if stored is None:
                continue  # damaged since; its record is no reason to lose the sheet
            image = thumbnail(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB))
        images.append(image)
        captions.append(record.file)
    if not images:
        return None
    sheet = shading.contact_sheet(images, captions, cell_hw=(_THUMBNAIL_PX, _THUMBNAIL_PX))
    return write_png(out / CONTACT_SHEET, sheet)
