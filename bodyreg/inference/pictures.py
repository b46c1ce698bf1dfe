"""One photograph on its way through the job: read, given a camera, searched for people, cropped, and brought back.

Everything here concerns a single photograph and runs on any thread; `bodyreg.inference.folder` decides what runs when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bodyreg.cameras import Camera, resolve_camera
from bodyreg.crops import Crop, crop_image, make_crop
from bodyreg.data.folder import Photo, read_image
from bodyreg.data.inputs import Keypoints, lookup, read_boxes, read_intrinsics, read_keypoints
from bodyreg.inference.detect import load_detector
from bodyreg.inference.people import PersonBox, check_mode, find_people, given_people, refined
from bodyreg.inference.stages import StageClock

__all__ = ["CropSettings", "Figure", "Inputs", "Picture", "open_picture", "place_crop", "read_inputs", "refine"]

_AIM_FINER_THAN = 1.5  # photographs sampled more coarsely than this many pixels a crop pixel are shrunk first


@dataclass(frozen=True)
class Inputs:
    """What the user says about the photographs besides their pixels.

    boxes, keypoints, intrinsics: by file, from the readers of `bodyreg.data.inputs`; focal_px in pixels, focal_mm as
    35 mm equivalent, fov the horizontal field of view in radians, each for all photographs; people: how to look for
    people where none are given; detector: weights of the network that does.
    """

    boxes: Mapping[str, list[np.ndarray]] = field(default_factory=dict)
    keypoints: Mapping[str, list[Keypoints]] = field(default_factory=dict)
    intrinsics: Mapping[str, np.ndarray] = field(default_factory=dict)
    focal_px: float | None = None
    focal_mm: float | None = None
    fov: float | None = None
    people: str = "auto"
    detector: Path | None = None


class CropSettings(NamedTuple):
    """How people are cut out: size (height, width) in pixels, margin around the box, Perspective Rotation or not, and
    whether pixels are sampled as published weights expect them (`bodyreg.crops`)."""

    size_hw: tuple[int, int]
    margin: float = 1.1
    perspective_rotation: bool = True
    reference_pixels: bool = False


@dataclass(eq=False)
class Figure:
    """One person of a picture: the box, and the crop that the network sees."""

    person: PersonBox
    crop: Crop
    pixels: np.ndarray
    """(h, w, 3) uint8 RGB."""


@dataclass(eq=False)
class Picture:
    """A photograph with its camera and the people in it, largest first."""

    file: str
    photo: Photo
    camera: Camera
    figures: list[Figure]
    notes: list[str]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.camera.h * self.camera.w


def read_inputs(
    *,
    boxes: str | Path | Mapping[str, Any] | None = None,
    keypoints: str | Path | None = None,
    intrinsics: str | Path | Mapping[str, Any] | None = None,
    focal_px: float | None = None,
    focal_mm: float | None = None,
    fov: float | None = None,
    people: str = "auto",
    detector: str | Path | None = None,
) -> Inputs:
    """Read and check what is given once for a job; files that are not of their format are a ValueError at once.

    `boxes` and `intrinsics` may also be mappings of the readers' form. Values that concern one picture only (a box
    outside it, NaN in its intrinsics) are judged when that picture's turn comes.
    """
    check_mode(people, detector)
    if detector is not None:
        load_detector(Path(detector))  # judged here, once
    # Judged here, so that a wrong focal length is one error and not a refusal of every file.
    resolve_camera((4, 4), focal_px=focal_px, focal_mm=focal_mm, fov=fov)
    if fov is not None:
        Camera.from_fov(fov, (4, 4))
    if focal_mm is not None:
        Camera.from_f35(focal_mm, (4, 4))
    return Inputs(
        boxes={} if boxes is None else boxes if isinstance(boxes, Mapping) else read_boxes(boxes),
        keypoints={} if keypoints is None else read_keypoints(keypoints),
        intrinsics=(
            {} if intrinsics is None else intrinsics if isinstance(intrinsics, Mapping) else read_intrinsics(intrinsics)
        ),
        focal_px=focal_px,
        focal_mm=focal_mm,
        fov=fov,
        people=people,
        detector=None if detector is None else Path(detector),
    )


def open_picture(path: Path, file: str, inputs: Inputs, cut: CropSettings, clock: StageClock) -> Picture:
    """Read a photograph, settle its camera, find its people and cut them out.

    Args:
        path: where it is. file: how it is called in the results and in the user's inputs.
        inputs: what the user said. cut: how people are cut out.
        clock: is told what reading, looking and cropping cost.

    Raises:
        ValueError: why this file is refused, in two sentences.
    """
    with clock("decode"):
        photo = read_image(path)
    camera = resolve_camera(
        photo.size_hw,
        K=lookup(inputs.intrinsics, file),
        focal_px=inputs.focal_px,
        focal_mm=inputs.focal_mm,
        fov=inputs.fov,
        exif_f35=photo.exif_f35,
        name=path,
    )
    with clock("people"):
        people, notes = _people(photo, file, inputs)
    figures, refused = [], []
    with clock("crop"):
        for person in people:
            try:
                figures.append(place_crop(photo.rgb, camera, person, cut))
            except ValueError as error:
                refused.append(str(error))
    if refused and not figures:
        raise ValueError(" ".join(refused))
    return Picture(file, photo, camera, figures, notes + refused)


def place_crop(rgb: np.ndarray, camera: Camera, person: PersonBox, cut: CropSettings) -> Figure:
    """Cut a person out of a picture (H, W, 3) uint8. A whole picture is taken without margin: there is nothing more."""
    margin = 1.0 if person.how == "whole" else cut.margin
    crop = make_crop(
        camera,
        person.box_xywh,
        cut.size_hw,
        margin=margin,
        perspective_rotation=cut.perspective_rotation,
        reference_pixels=cut.reference_pixels,
    )
    return Figure(person, crop, sharp_crop(rgb, crop))


def sharp_crop(rgb: np.ndarray, crop: Crop) -> np.ndarray:
    """`crops.crop_image` without aliasing: where the crop is much coarser than the photograph, that is shrunk first.

    A bilinear warp of a person 3,000 pixels tall into 200 would read one pixel in 225. Only the part of the picture
    that the crop shows is shrunk, by area averaging, by a whole factor.
    """
    h, w = crop.size_hw
    full_from_crop = np.linalg.inv(crop.crop_from_full)
    # Pixels of the photograph a pixel of the crop, at its middle: the root of the homography's local magnification.
    middle = full_from_crop @ np.array([w / 2, h / 2, 1.0])
    factor = int((abs(np.linalg.det(full_from_crop)) / abs(middle[2]) ** 3) ** 0.5 / _AIM_FINER_THAN)
    if factor < 2 or crop.reference_pixels:
        return crop_image(rgb, crop)
    outline = np.array([[0, 0, 1.0], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ full_from_crop.T
    size = np.array([rgb.shape[1], rgb.shape[0]])
    low, high = np.zeros(2, int), size
    if (outline[:, 2] * middle[2] > 0).all():  # else the crop reaches behind the camera; then take the whole picture
        seen = outline[:, :2] / outline[:, 2:]
        # Whole blocks of the picture's own grid, so that the blocks do not depend on the box.
        low = np.clip(seen.min(0) // factor - 1, 0, None).astype(int) * factor
        high = np.minimum((seen.max(0) // factor + 2).clip(0).astype(int) * factor, size)
    blocks = (high - low) // factor
    if (blocks < 1).any():
        return crop_image(rgb, crop)
    high = low + blocks * factor
    window = np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]])
    small = cv2.resize(window, tuple(int(n) for n in blocks), interpolation=cv2.INTER_AREA)
    full_from_small = np.array([[factor, 0, low[0]], [0, factor, low[1]], [0, 0, 1.0]])
    return crop_image(small, replace(crop, crop_from_full=crop.crop_from_full @ full_from_small))


def refine(picture: Picture, index: int, joints_crop_px: np.ndarray, cut: CropSettings) -> None:
    """Draw the box of figure `index` anew around predicted joints (24, 2), pixels of its crop, and cut it out again.

    Where that gives no usable box or crop, the figure stays as it was.
    """
    figure = picture.figures[index]
    K = figure.crop.K_crop
    rays = np.concatenate([(joints_crop_px - K[:2, 2]) / np.diagonal(K)[:2], np.ones((len(joints_crop_px), 1))], 1)
    # Through the camera frame, not by the homography: a ray behind the photograph's camera must not fold back into it.
    joints_px = picture.camera.project(figure.crop.cam_from_crop(rays))
    person = refined(figure.person, joints_px, picture.camera.size_hw)
    if person is figure.person:
        return
    try:
        picture.figures[index] = place_crop(picture.photo.rgb, picture.camera, person, cut)
    except ValueError:
        return


def _people(photo: Photo, file: str, inputs: Inputs) -> tuple[list[PersonBox], list[str]]:
    """People that were given for this picture, else those found in it; refuses when nothing given is of use."""
    boxes, keypoints = lookup(inputs.boxes, file), lookup(inputs.keypoints, file)
    if boxes is None and keypoints is None:
        return find_people(photo.rgb, inputs.people, detector=inputs.detector), []
    # Boxes and key points of one picture would be the same people twice; the boxes are the plainer wish.
    people, reasons = given_people(photo.size_hw, boxes or (), () if boxes is not None else keypoints or ())
    if reasons and not people:
        raise ValueError(" ".join(reasons))
    return people, reasons
