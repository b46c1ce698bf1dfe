"""Key points of a sequence to 3D skeletons: files in, files and pictures out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyreg import skeletons
from bodyreg.data.inputs import Keypoints, read_keypoints
from bodyreg.data.lifter_points import fill_missing, to_input_set
from bodyreg.files import atomic_write, safe_load_npz
from bodyreg.inference.results import RESULTS, person_files, read_person, read_results
from bodyreg.inference.skeleton_pictures import write_gif, write_sheet
from bodyreg.lifter_weights import LoadedLifter, default_lifter, load_lifter, named_settings
from bodyreg.models.lifters.sequence import SequenceLifter

__all__ = ["FORMATS", "Lifted", "Track", "lift_file", "lift_track", "read_tracks"]

log = logging.getLogger(__name__)

FORMATS = ("npz", "json", "gif", "png")
_WANTED = ("h36m-17", "coco-17", "openpose-25")  # what a result's key points may be, the best first
_SQUARE = 1.05  # where no picture size is given, the frame around all key points is this much wider


@dataclass(frozen=True, eq=False)
class Track:
    """Key points of one person over time.

    points: (T, J, 3) x, y in pixels and confidence, 0 for what is not seen. joint_set: their order.
    frames: (T,) names. name: of the person. size_wh: of the pictures, where the source says it.
    """

    points: np.ndarray
    joint_set: str
    frames: tuple[str, ...]
    name: str
    size_wh: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Lifted:
    """A lifted track.

    joints: (T, J, 3) metres, root-relative, in the camera's frame. joint_set: their order.
    keypoints: (T, J', 3) pixels and confidence, as they were used; `filled` of them had confidence 0 and were
    interpolated.
    """

    track: Track
    joints: np.ndarray
    joint_set: str
    keypoints: np.ndarray
    filled: int


def read_tracks(path: str | Path) -> list[Track]:
    """People over time from a file or folder of key points; frames are in the natural order of their names.

    An npz whose `keypoints` are (T, J, 2 or 3), with `joint_set`, is one person; other files are those of
    `bodyreg.data.inputs.read_keypoints`. People of a picture are told apart by nothing but their place in it: the one
    of most confident key points of each frame makes the track. In a result folder of `bodyreg infer` it is the person
    of the largest box, and key points are those of the regressor.

    Raises:
        ValueError: nothing that can be read, no person at all, or mixed joint sets.
    """
    path = Path(path)
    if (path / RESULTS).is_file():
        return [_from_results(path)]
    if path.suffix.lower() == ".npz":
        return [_from_npz(path)]
    people = {name: persons for name, persons in read_keypoints(path).items()}
    names = sorted(_frames(people), key=_natural)
    chosen = [(name, max(people[name], key=lambda p: float(p.points[:, 2].sum()))) for name in names if people[name]]
    if not chosen:
        raise ValueError(f"{path} holds no person in any frame. Give key points of at least one.")
    sets = {person.joint_set for _, person in chosen}
    if len(sets) > 1:
        raise ValueError(f"{path} mixes the joint sets {', '.join(sorted(sets))}. Give frames of one of them.")
    joint_set = sets.pop()
    points = np.zeros((len(names), len(skeletons.get(joint_set)), 3))
    for name, person in chosen:
        points[names.index(name)] = person.points
    return [Track(points, joint_set, tuple(names), path.stem)]


def lift_track(
    track: Track, loaded: LoadedLifter, *, size_wh: tuple[int, int] | None = None, device: str | torch.device = "cpu",
    overlap: int | None = None, flip_test: bool = True, smooth: float = 0.0,
) -> Lifted:  # fmt: skip
    """Lift one person's key points.

    Key points of confidence 0 are interpolated over time. Without a picture size the frame is taken to be a square
    around everything the person does: lifters learn from whole pictures, so give the size where it is known.

    Args:
        track: the person. loaded: the lifter. size_wh: of the pictures, pixels; by default what the track says.
        overlap: frames that neighbouring windows share; by default a ninth of a clip.
        flip_test: average with the mirrored sequence. smooth: frames of the standard deviation of a Gaussian over time.

    Raises:
        ValueError: key points that cannot become those of the lifter, nothing seen, or an overlap that does not fit.
    """
    lifter = SequenceLifter(loaded.network.to(device), loaded.settings)
    points = to_input_set(track.points, track.joint_set, loaded.settings.input_set)
    filled = fill_missing(points)
    screen = torch.from_numpy(_screen(filled, size_wh or track.size_wh)).float().to(device)
    overlap = lifter.frames // 9 if overlap is None else overlap
    joints = lifter.sequence(screen, overlap=overlap, flip_test=flip_test).double().cpu().numpy()
    joints = _smoothed(joints, smooth) if smooth > 0 else joints
    joints = joints - joints[:, [skeletons.get(loaded.settings.joint_set).root]]
    return Lifted(track, joints, loaded.settings.joint_set, filled, int((filled[..., 2] <= 0).sum()))


def lift_file(
    keypoints: str | Path,
    out: str | Path,
    *,
    model: str = "videopose3d",
    weights: str | Path | None = None,
    size_wh: tuple[int, int] | None = None,
    fps: float = 30.0,
    formats: tuple[str, ...] = ("npz", "gif", "png"),
    device: str = "auto",
    overlap: int | None = None,
    flip_test: bool = True,
    smooth: float = 0.0,
) -> list[Path]:
    """Lift a file or folder of key points and write what was asked for into a folder.

    Args:
        keypoints: see `read_tracks`. out: folder. model: name of the lifter, with `:PRESET` for published weights.
        weights: by default those that ship for the model. size_wh, overlap, flip_test, smooth: see `lift_track`.
        fps: pictures a second of the sequence, for the GIF and the files. formats: of `FORMATS`. device: or "auto".

    Returns:
        Paths of the files written.

    Raises:
        ValueError: an unknown format, a file that cannot be read, weights of another lifter.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"Unknown formats {', '.join(unknown)}. Choose of {', '.join(FORMATS)}.")
    if not fps > 0:
        raise ValueError(f"The rate is {fps} pictures a second. Give a number above 0.")
    settings = named_settings(model)
    loaded = load_lifter(weights or default_lifter(settings.name), settings)
    if loaded.settings.name != settings.name:
        raise ValueError(
            f"{weights} holds the lifter {loaded.settings.name!r}, not {settings.name!r}. Name it with --model."
        )
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    trained_fps = float(loaded.facts.get("fps", 0))
    if trained_fps and abs(trained_fps / fps - 1) > 0.5:
        log.warning("these weights learned from %g pictures a second, and the sequence has %g", trained_fps, fps)
    folder, written = Path(out), []
    folder.mkdir(parents=True, exist_ok=True)
    for track in read_tracks(keypoints):
        lifted = lift_track(
            track, loaded, size_wh=size_wh, device=device, overlap=overlap, flip_test=flip_test, smooth=smooth
        )  # fmt: skip
        if lifted.filled:
            log.warning("%s: %d key points of confidence 0 were interpolated", track.name, lifted.filled)
        written += _write(lifted, loaded, folder / track.name, fps, formats)
    return written


def _write(lifted: Lifted, loaded: LoadedLifter, stem: Path, fps: float, formats: tuple[str, ...]) -> list[Path]:
    facts: dict[str, Any] = {
        "joint_set": lifted.joint_set, "units": "metres", "frame": "camera, root-relative: x right, y down, z forward",
        "fps": fps, "model_name": loaded.settings.name, "weights_hash": loaded.weights_hash,
    }  # fmt: skip
    paths = []
    for name in formats:
        path = stem.with_name(f"{stem.name}_lifted.{name}")
        if name == "npz":
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                arrays: dict[str, Any] = {name: np.array(value) for name, value in facts.items()}
                arrays["joints"] = lifted.joints.astype(np.float32)
                arrays["keypoints"] = lifted.keypoints.astype(np.float32)
                np.savez(file, frames=np.array(lifted.track.frames), **arrays)
        elif name == "json":
            content = {**facts, "frames": list(lifted.track.frames), "joints": np.round(lifted.joints, 5).tolist()}
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(content), encoding="utf-8")
        elif name == "gif":
            write_gif(path, lifted.joints, lifted.joint_set, fps)
        else:
            write_sheet(path, lifted.joints, lifted.joint_set)
        paths.append(path)
    return paths


def _screen(points: np.ndarray, size_wh: tuple[int, int] | None) -> np.ndarray:
    """Screen coordinates and confidence (T, J, 3) of pixels; without a size, of a square around all of them."""
    screen = points.copy()
    if size_wh is not None:
        width, height = size_wh
        if width < 1 or height < 1:
            raise ValueError(f"The pictures' size is {size_wh}. Give width and height in pixels.")
        screen[..., :2] = points[..., :2] / width * 2 - [1, height / width]
        return screen
    low, high = points[..., :2].min((0, 1)), points[..., :2].max((0, 1))
    # A person fills about a third of the picture that lifters learn from.
    side = max(float((high - low).max()) * _SQUARE, 3 * float(np.ptp(points[..., 1], 1).mean()), 1.0)
    screen[..., :2] = (points[..., :2] - (low + high) / 2) * 2 / side
    return screen


def _smoothed(joints: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(joints, sigma, axis=0, mode="nearest")


def _from_npz(path: Path) -> Track:
    arrays = safe_load_npz(path)
    if not {"keypoints", "joint_set"} <= set(arrays):
        raise ValueError(f"{path} holds {sorted(arrays)}. Give `keypoints` (T, J, 2 or 3) and `joint_set`.")
    joint_set, points = skeletons.get(str(arrays["joint_set"])), arrays["keypoints"]
    if points.ndim != 3 or points.shape[1] != len(joint_set) or points.shape[2] not in (2, 3) or not len(points):
        raise ValueError(
            f"The key points in {path} have shape {points.shape}. Give (frames, {len(joint_set)}, 2 or 3) for the "
            f"joint set {joint_set.name}."
        )
    if points.dtype.kind not in "fiu":
        raise ValueError(f"The key points in {path} are {points.dtype}, not numbers. Give pixels.")
    full = np.ones((*points.shape[:2], 3))
    full[..., : points.shape[2]] = points
    full[~np.isfinite(full).all(-1)] = 0
    names = [str(name) for name in arrays["files"].ravel()] if "files" in arrays else []
    frames = names if len(names) == len(points) else [str(i) for i in range(len(points))]
    return Track(full, joint_set.name, tuple(frames), path.stem)


def _from_results(folder: Path) -> Track:
    """The person of the largest box in each photograph of a result folder; where nobody is, nothing is seen."""
    records = sorted((r for r in read_results(folder)[0] if r.status != "refused"), key=lambda r: _natural(r.file))
    firsts = {path.with_suffix("").as_posix(): path for path in person_files(folder)}
    found = []
    for record in records:
        stems = ((folder / name).with_suffix("").as_posix() for name in record.files)
        first = next((firsts[stem] for stem in stems if stem.endswith("_0") and stem in firsts), None)
        found.append(None if first is None else read_person(first))
    people = [person for person in found if person is not None]
    sizes = {(int(person.image_hw[1]), int(person.image_hw[0])) for person in people}
    sets = [name for name in _WANTED if people and all(name in person.keypoints for person in people)]
    if not sets:
        raise ValueError(f"No person in {folder} has key points in {' or '.join(_WANTED)}. Lift a file of key points.")
    points = np.zeros((len(found), len(skeletons.get(sets[0])), 3))
    for row, person in zip(points, found, strict=True):
        if person is not None:
            row[:, :2], row[:, 2] = person.keypoints[sets[0]], 1.0
    if len(sizes) > 1:
        log.warning("the photographs in %s differ in size; they are taken for no sequence of one camera", folder)
    size = sizes.pop() if len(sizes) == 1 else None
    return Track(points, sets[0], tuple(record.file for record in records), folder.resolve().name, size)


def _frames(people: Mapping[str, list[Keypoints]]) -> list[str]:
    """Names of frames, each once: readers also give a picture's number and its bare name."""
    seen: dict[int, str] = {}
    for name, persons in people.items():
        seen.setdefault(id(persons[0]) if persons else id(name), name)
    return list(seen.values())


def _natural(name: str) -> list[tuple[int, int | str]]:
    """A key that sorts frame2 before frame10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
