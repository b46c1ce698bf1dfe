"""Posed bodies as files: OBJ, PLY and GLB meshes, parameters as npz and JSON, motion as AMASS-style npz.

`write_person` is what the folder job calls for everyone it poses; `export_results` makes the same files again from
saved parameters and a body model, without a network.

Frames: OBJ and PLY are in the photograph's camera frame (OpenCV axes: x right, y down, z forward), metres, translation
included; `up="y"` turns them by 180 degrees about x for viewers that expect y up. GLB is y up always, as glTF demands,
with the matrix back in its `extras`; motion is z up always, as AMASS is, the camera being taken for level.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bodyreg.files import atomic_write
from bodyreg.inference.results import (
    FRAME,
    RESULTS,
    UNITS,
    PersonResult,
    person_files,
    read_person,
    read_results,
    write_json,
    write_npz,
)
from bodyreg.inference.rig import PHOTOGRAPH_FROM_GLTF, rigged_glb

if TYPE_CHECKING:
    from bodyreg.body import BodyModel

log = logging.getLogger(__name__)

FORMATS = ("obj", "ply", "glb", "npz", "json")
"""Formats of one person's files."""
MOTION = "amass"
"""Further format of `export_results`: one file for a whole ordered folder."""
UPS = ("camera", "y")
FRAMES = ("photograph", "crop")

FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""(3, 3) turn by 180 degrees about x: from OpenCV's camera axes to y up, z backward, and back."""
_WORLD_FROM_CAM = {
    "camera": np.eye(3),
    "y": FLIP_YZ,
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),  # x right, y forward
}


def write_person(
    stem: Path,
    person: PersonResult,
    vertices: np.ndarray,
    faces: np.ndarray,
    formats: Iterable[str],
    up: str = "camera",
    body: BodyModel | None = None,
) -> list[Path]:
    """Write one person's files `<stem>.<format>`, each whole or not at all.

    Args:
        stem: path without suffix; missing folders are made.
        person: the record for npz and JSON.
        vertices: (V, 3) metres in the photograph's camera frame.
        faces: (F, 3) vertex numbers, counter-clockwise from outside.
        formats: some of `FORMATS`.
        up: "camera" or "y", for OBJ and PLY.
        body: the model of the person's parameters; with it GLB carries skeleton and skin, see `bodyreg.inference.rig`.

    Returns:
        the paths in the order of `formats`.

    Raises:
        ValueError: for an unknown format or `up`, or vertices that are not finite.
    """
    paths = []
    for name in check_formats(formats):
        path = stem.with_name(f"{stem.name}.{name}")
        if name in ("npz", "json"):
            with atomic_write(path) as temporary:
                (write_npz if name == "npz" else write_json)(person, temporary)
        elif name == "glb" and body is not None:
            data = rigged_glb(person, body)
            with atomic_write(path) as temporary:
                temporary.write_bytes(data)
        else:
            write_mesh(path, vertices, faces, up)
        paths.append(path)
    return paths


def write_mesh(path: str | Path, vertices: np.ndarray, faces: np.ndarray, up: str = "camera") -> None:
    """Write vertices (V, 3) in metres (camera frame) and faces (F, 3) as OBJ, PLY or GLB, by the path's suffix."""
    path = Path(path)
    vertices = np.asarray(vertices, dtype=np.float64)
    faces = np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError(f"The vertices of {path.name} are not finite points (V, 3). Check the parameters.")
    if up not in UPS:
        raise ValueError(f"There is no up direction {up!r}. Choose one of {', '.join(UPS)}.")
    kind = path.suffix.lower()
    if kind not in (".obj", ".ply", ".glb"):
        raise ValueError(f"Meshes cannot be written as {kind!r}. Choose .obj, .ply or .glb.")
    if up == "y" or kind == ".glb":
        vertices = vertices @ FLIP_YZ.T
    data = {".obj": _obj, ".ply": _ply, ".glb": _glb}[kind](vertices, faces)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def check_formats(formats: Iterable[str], known: Sequence[str] = FORMATS) -> list[str]:
    """The formats without repeats, in order. Raises ValueError for an unknown one."""
    wanted = list(dict.fromkeys(name.strip().lower() for name in formats))
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"There is no format {', '.join(unknown) or '(none given)'}. Choose from {', '.join(known)}.")
    return wanted


def export_results(
    paths: Iterable[str | Path],
    out: str | Path,
    formats: Iterable[str] = ("obj",),
    *,
    body: str | Path | BodyModel | None = None,
    up: str = "camera",
    frame: str = "photograph",
    framerate: float = 30.0,
    kid: bool = False,
    batch_size: int = 64,
) -> list[Path]:
    """Turn saved parameters into meshes and motion, without a network.

    Args:
        paths: result folders, or persons' npz or JSON files.
        out: folder for the files; below it, those of a result folder keep their relative paths.
        formats: some of `FORMATS`, and "amass" for one `<folder>_amass.npz` with person 0 of each picture in order.
        body: a body model, "free", "smpl", or where the user's SMPL files are; None takes the body that each record
            names. It must be the very model that the parameters were made for.
        up: "camera" or "y", for OBJ and PLY.
        frame: "photograph", or "crop" for the camera that Perspective Rotation turned onto each person, in which the
            network speaks (not for GLB and motion, whose frame is fixed).
        framerate: pictures a second, recorded in motion files.
        kid: whether the last beta mixes in the child template.
        batch_size: bodies skinned at once.

    Returns:
        the files written.

    Raises:
        ValueError: for files of another kind, an unknown format, or parameters that belong to another body model.
    """
    wanted = check_formats(formats, (*FORMATS, MOTION))
    single = [name for name in wanted if name != MOTION]
    if up not in UPS:
        raise ValueError(f"There is no up direction {up!r}. Choose one of {', '.join(UPS)}.")
    if frame not in FRAMES:
        raise ValueError(f"There is no frame {frame!r}. Choose one of {', '.join(FRAMES)}.")
    if frame == "crop" and (fixed := sorted({"glb", MOTION} & set(wanted))):
        raise ValueError(f"{', '.join(fixed)} are in the photograph's frame always. Leave them out of a crop's frame.")
    out = Path(out)
    bodies: dict[Any, BodyModel] = {}
    written: list[Path] = []
    stems: set[Path] = set()
    for path in map(Path, paths):
        files = person_files(path)
        for start in range(0, len(files), batch_size) if single else ():
            chunk = files[start : start + batch_size]
            persons = [read_person(file) for file in chunk]
            if frame == "crop":
                persons = [person.in_crop_frame() for person in persons]
            for file, person, (vertices, model) in zip(chunk, persons, _pose(persons, body, kid, bodies), strict=True):
                stem = out / (file.relative_to(path) if path.is_dir() else Path(file.name)).with_suffix("")
                if stem in stems:
                    raise ValueError(f"Two inputs would both be written to {stem}. Export them into separate folders.")
                stems.add(stem)
                written += write_person(stem, person, vertices, model.faces.cpu().numpy(), single, up, model)
        if MOTION in wanted:
            sequence = [file for file in files if file.stem.endswith("_0")] if path.is_dir() else files
            target = out / f"{path.resolve().name if path.is_dir() else path.stem}_amass.npz"
            motion = amass_motion([read_person(file) for file in sequence], body, framerate=framerate, kid=kid)
            _warn_of_gaps(path)
            with atomic_write(target) as temporary:
                np.savez_compressed(temporary, **motion)
            written.append(target)
    return written


def amass_motion(
    persons: Sequence[PersonResult],
    body: str | Path | BodyModel | None = None,
    *,
    up: str = "z",
    framerate: float = 30.0,
    kid: bool = False,
) -> dict[str, Any]:
    """One person over time as AMASS-style arrays (Mahmood et al., ICCV 2019, for SMPL's 24 joints).

    `poses` (T, 72) axis-angle, `trans` (T, 3) metres, `betas` (S,), `gender`, `mocap_framerate`. The shape is the mean
    over time, and the translations are set so that each pelvis stays where it was.

    Args:
        up: "z" for AMASS's world (x right, y forward, z up, the camera level at its origin), which readers of AMASS
            expect; "y" for y up, z backward; "camera" for the photographs' camera frame.

    Raises:
        ValueError: for nobody, people of different body models, or an unknown `up`.
    """
    if up not in _WORLD_FROM_CAM:
        raise ValueError(f"There is no up direction {up!r} of motion. Choose one of {', '.join(_WORLD_FROM_CAM)}.")
    if not persons:
        raise ValueError("There is nobody to make a motion of. Give a result folder with people in it.")
    if not (np.isfinite(framerate) and framerate > 0):
        raise ValueError(f"The frame rate is {framerate}. Give pictures a second, greater than zero.")
    first = persons[0]
    for person in persons:
        if (person.body_hash, person.gender, len(person.betas)) != (first.body_hash, first.gender, len(first.betas)):
            raise ValueError(
                f"The motion mixes the bodies {first.body_name!r} ({first.gender}, {first.body_hash[:12]}) and "
                f"{person.body_name!r} ({person.gender}, {person.body_hash[:12]}). Export them apart."
            )
    model = body_of(first, body, kid, {})
    betas = np.stack([person.betas for person in persons])
    mean = betas.mean(0)
    pelvis = model.rest_joints(betas)[:, 0].double().cpu().numpy()
    mean_pelvis = model.rest_joints(mean[None])[0, 0].double().cpu().numpy()
    orient = np.stack([person.global_orient for person in persons])
    root = pelvis + np.stack([person.transl for person in persons])  # where each pelvis is
    turn = _WORLD_FROM_CAM[up]
    orient, root = _turned(orient, turn), root @ turn.T
    return {
        "poses": np.concatenate([orient, np.stack([person.body_pose for person in persons])], axis=1),
        "trans": root - mean_pelvis,
        "betas": mean,
        "gender": np.asarray(first.gender),
        "mocap_framerate": np.asarray(float(framerate)),
    }


# ---- bodies ---------------------------------------------------------------------------------------------------------


def _pose(
    persons: Sequence[PersonResult], body: Any, kid: bool, bodies: dict[Any, BodyModel]
) -> list[tuple[np.ndarray, BodyModel]]:
    """Vertices (V, 3) in the camera frame and body model of each person, skinned together where the body is one."""
    import torch

    groups: dict[Any, list[int]] = {}
    for index, person in enumerate(persons):
        groups.setdefault((person.body_hash, person.gender, len(person.betas)), []).append(index)
    posed: dict[int, tuple[np.ndarray, BodyModel]] = {}
    for members in groups.values():
        model = body_of(persons[members[0]], body, kid, bodies)
        names = ("betas", "body_pose", "global_orient", "transl")
        with torch.no_grad():
            output = model(**{name: np.stack([getattr(persons[i], name) for i in members]) for name in names})
        for index, vertices in zip(members, output.vertices.cpu().numpy(), strict=True):
            posed[index] = (vertices, model)
    return [posed[index] for index in range(len(persons))]


def body_of(person: PersonResult, body: Any, kid: bool, bodies: dict[Any, BodyModel]) -> BodyModel:
    """The body model a person's parameters were made for, checked by its hash."""
    from bodyreg.body import BodyModel

    if isinstance(body, BodyModel):
        model = body
    else:
        source = body if body is not None else ("free" if person.body_name == "free" else "smpl")
        key = (str(source), person.gender, len(person.betas), kid)
        if key not in bodies:
            bodies[key] = BodyModel.load(source, person.gender, len(person.betas), kid=kid)
        model = bodies[key]
    model.check_origin(person.body_name, person.body_hash)
    return model


def _turned(orient_aa: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Global orientations (T, 3) axis-angle after a turn (3, 3) of the world."""
    import torch

    from bodyreg.rotations import aa_from_matrix, matrix_from_aa

    R_root = matrix_from_aa(torch.from_numpy(orient_aa))
    return aa_from_matrix(torch.from_numpy(turn) @ R_root).numpy()


def _warn_of_gaps(folder: Path) -> None:
    """Motion has no place for pictures without people: say how many it closes up over."""
    if not (folder / RESULTS).is_file():
        return
    gaps = [record.file for record in read_results(folder)[0] if record.status != "done"]
    if gaps:
        log.warning(
            "Pictures of %s without people: %d, the first %s. The motion leaves them out, and its time runs on.",
            folder, len(gaps), gaps[0],
        )  # fmt: skip


# ---- formats --------------------------------------------------------------------------------------------------------


def _obj(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    # One formatting call for all lines: 9 ms for 6,890 vertices, a quarter of what trimesh takes.
    points = ("v %.6f %.6f %.6f\n" * len(vertices)) % tuple(vertices.ravel().tolist())
    triangles = np.ascontiguousarray(faces, dtype=np.int64)
    return points.encode("ascii") + _obj_faces(triangles.tobytes(), len(triangles))


@lru_cache(maxsize=4)
def _obj_faces(faces: bytes, count: int) -> bytes:
    """The faces' lines, which are the same for everyone with the same body."""
    numbers = np.frombuffer(faces, dtype=np.int64) + 1
    return (("f %d %d %d\n" * count) % tuple(numbers.tolist())).encode("ascii")


def _ply(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    import trimesh

    return trimesh.exchange.ply.export_ply(trimesh.Trimesh(vertices, faces, process=False))


def _glb(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    import trimesh

    extras = {"photograph_from_gltf": PHOTOGRAPH_FROM_GLTF.tolist(), "photograph_frame": FRAME, "units": UNITS}
    mesh = trimesh.Trimesh(vertices, faces, process=False, metadata=extras)
    scene = trimesh.Scene(metadata=extras)
    scene.add_geometry(mesh, geom_name="body")
    return trimesh.exchange.gltf.export_glb(scene, include_normals=True)
