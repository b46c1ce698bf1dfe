"""`index.html` of a result folder: every photograph, its bodies over it and in 3D, and what is known of them.

The page needs no server and no network. What it shows of a photograph lies in `index_files/` as small pictures and one
script, each read only when it is looked at, so that a folder of a thousand photographs opens at once. (A page opened
from a disk may not fetch files, but it may run scripts: so data come as calls of one function.)

Names of files come from strangers: the page's policy lets nothing run but its own script and those of `index_files/`,
names enter as escaped JSON, addresses are quoted, and the script writes text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from bodyreg import skeletons
from bodyreg.files import atomic_write
from bodyreg.inference.results import RESULTS, PhotoRecord, read_results

if TYPE_CHECKING:
    from bodyreg.inference.placing import PlacedPerson

__all__ = ["PAGE", "PAGE_FILES", "build_page", "write_page", "write_page_data", "write_page_pictures"]

PAGE = "index.html"
PAGE_FILES = "index_files"
"""Folder, inside the result folder, of what the page loads."""

_PICTURE_PX = 1600
_JPEG_QUALITY = 88
_SCENE = "scene.js"
_STEPS = 65535  # of a body's extent along each axis: some 0.03 mm
_JOINTS = "smpl-24"


# ---- what is shown of one photograph --------------------------------------------------------------------------------


def write_page_pictures(
    out: Path, stem: str, photo: np.ndarray | None, drawn: np.ndarray | None, small: np.ndarray | None
) -> list[Path]:
    """Write the pictures of one photograph that the page shows.

    Args:
        out: result folder. stem: of the photograph's files in it, with forward slashes.
        photo: (H, W, 3) uint8 RGB, if there is one. drawn: the same with bodies over it, if they were drawn.
        small: (h, w, 3) thumbnail, if there is one.
    """
    pictures = (
        ("photo", None if photo is None else _shrunk(photo)),
        ("mesh", None if drawn is None else _shrunk(drawn)),
        ("thumb", small),
    )
    return [_write_jpeg(_asset(out, stem, name, "jpg"), rgb) for name, rgb in pictures if rgb is not None]


def write_page_data(
    out: Path, stem: str, record: PhotoRecord, people: Sequence[PlacedPerson], faces: np.ndarray
) -> Path:
    """Write the script with a photograph's camera, and its bodies and their parameters.

    Args:
        out, stem: see `write_page_pictures`.
        record: of the photograph, with the files that the page offers.
        people: as in the record. faces: (F, 3) of their meshes; stored once for all photographs.
    """
    joints = skeletons.get(_JOINTS)
    data: dict[str, Any] = {
        "camera": {
            "K": record.K,
            "size": record.image_hw,
            "focal_source": record.focal_source,
            "orientation": record.orientation,
        },
        "notes": record.notes,
        "files": [[_label(name, stem), _address(name)] for name in record.files],
        "people": [_person(person, k) for k, person in enumerate(people)],
    }
    if people:
        first = people[0].result
        data |= {
            "body": f"{first.body_name}, {first.gender}",
            "faces": _write_faces(out, faces),
            "joint_names": joints.joints,
            "parents": joints.parents,
        }
    return _write_script(_asset(out, stem, "data", "js"), data)


def _person(person: PlacedPerson, index: int) -> dict[str, Any]:
    from renderers.drawing import PALETTE  # the colours of the overlay

    result, vertices = person.result, np.asarray(person.vertices, dtype=np.float64)
    low = vertices.min(0)
    step = np.maximum(np.ptp(vertices, axis=0) / _STEPS, 1e-9)
    steps = np.rint((vertices - low) / step).astype("<u2")
    numbers = {name: getattr(result, name) for name in ("betas", "transl", "global_orient", "body_pose", "box_xywh")}
    return {
        "vertices": _base64(steps),
        "low": low.tolist(),
        "step": step.tolist(),
        "joints": result.joints.get(_JOINTS, np.zeros((0, 3))).round(5).tolist(),
        "colour": PALETTE[index % len(PALETTE)],
        "found_by": result.found_by,
        "score": round(result.score, 4),
        "refined_by": result.refined_by,
        **{name: value.round(6).tolist() for name, value in numbers.items()},
    }


def _write_faces(out: Path, faces: np.ndarray) -> str:
    """The faces as a script, under a name by content; written where it is not there yet."""
    encoded = _base64(np.ascontiguousarray(faces, dtype="<u4"))
    name = f"faces-{hashlib.sha256(encoded.encode()).hexdigest()[:12]}.js"
    path = out / PAGE_FILES / name
    if not path.is_file():
        _write_script(path, encoded)
    return name


# ---- the page -------------------------------------------------------------------------------------------------------


def write_page(folder: str | Path) -> Path:
    """Write `index.html` from the records of a result folder, finished or interrupted, and give its path.

    Raises:
        ValueError: the folder has no `results.json`, or a damaged one.
    """
    folder = Path(folder)
    if not (folder / RESULTS).is_file():
        raise ValueError(f"{folder} holds no results. Give the folder that `bodyreg infer PHOTOS --out FOLDER` wrote.")
    records, settings = read_results(folder)
    made = f"Posed with bodyreg by {settings.get('model', 'a network')}."
    text = build_page(records, _title(folder, settings), made)
    scene = _source(_SCENE).encode()
    target = folder / PAGE_FILES / _SCENE
    if not target.is_file() or target.read_bytes() != scene:
        with atomic_write(target) as temporary:
            temporary.write_bytes(scene)
    with atomic_write(folder / PAGE) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
    return folder / PAGE


def build_page(records: Sequence[PhotoRecord], title: str, made: str = "") -> str:
    """The page's HTML for records of a result folder; the title and the line below the pictures are plain text."""
    data = {"title": title, "made": made, "assets": PAGE_FILES, "entries": [_entry(record) for record in records]}
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self' file:; script-src 'self' file: 'sha256-{digest}'; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    # One pass over the template, so that nothing of one part is taken for the place of another.
    parts = {"POLICY": policy, "STYLE": _source("page.css"), "DATA": _json(data), "SCRIPT": script}
    pieces = _source("page.html").split("@")
    return "".join(parts.get(piece, piece) for piece in pieces)


def _entry(record: PhotoRecord) -> dict[str, Any]:
    """What the gallery must know of a file before anything of it is loaded."""
    entry: dict[str, Any] = {"file": record.file, "status": record.status}
    if record.status == "refused":
        return entry | {"reason": record.reason}
    entry |= {"size": record.image_hw, "people": len(record.people)}
    for name, ending in (("thumb", "_thumb.jpg"), ("photo", "_photo.jpg"), ("mesh", "_mesh.jpg"), ("data", "_data.js")):
        path = next((file for file in record.files if _is_asset(file) and file.endswith(ending)), None)
        if path is not None:
            entry |= {name: True, "url": _address(path.removeprefix(PAGE_FILES + "/").removesuffix(ending))}
    overlay = next((file for file in record.files if file.endswith("_overlay.png")), None)
    if overlay is not None and "mesh" not in entry:  # a run with --no-page: there are pictures, if large ones
        entry["overlay"] = _address(overlay)
    return entry


def _title(folder: Path, settings: dict[str, Any]) -> str:
    """The photographs' folder, or the result folder's name where they came as a list."""
    photos = settings.get("photos")
    return photos if isinstance(photos, str) and photos else folder.resolve().name


# ---- small helpers --------------------------------------------------------------------------------------------------


def _asset(out: Path, stem: str, name: str, suffix: str) -> Path:
    return out / PAGE_FILES / f"{stem}_{name}.{suffix}"


def _is_asset(file: str) -> bool:
    return file.startswith(PAGE_FILES + "/")


def _label(name: str, stem: str) -> str:
    """How a file is called beside its photograph: "0.obj", "overlay.png"."""
    return name.removeprefix(stem).removeprefix("_")


def _address(name: str) -> str:
    """A relative path as a URL, whatever bytes the file system let into it."""
    return quote(os.fsencode(name))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _json(value: Any) -> str:
    """JSON in ASCII that is also JavaScript and may stand between HTML tags."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(name: str) -> str:
    return (files("bodyreg") / "assets" / "viewer" / name).read_text(encoding="utf-8")


def _write_script(path: Path, value: Any) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_bytes(f"bodyreg({_json(value)});\n".encode("ascii"))
    return path


def _shrunk(rgb: np.ndarray) -> np.ndarray:
    import cv2

    h, w = rgb.shape[:2]
    scale = min(1.0, _PICTURE_PX / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb


def _write_jpeg(path: Path, rgb: np.ndarray) -> Path:
    import cv2

    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise ValueError(f"The picture {path.name} of shape {rgb.shape} cannot be encoded as JPEG. Make it smaller.")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return path
