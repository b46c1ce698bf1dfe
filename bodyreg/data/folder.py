"""Photographs from a folder: find them, and read each safely into upright 8-bit RGB with its EXIF focal length.

Files come from strangers: the size is checked from the header before anything is decoded, only known image formats are
tried, and every failure is an `ImageError` that says what was found and what to do.
"""

from __future__ import annotations

import logging
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".hif")
"""File name endings taken for photographs, in any case."""

MAX_PIXELS = 200_000_000
"""Largest picture decoded by default (600 MB as RGB): the largest phone sensors, but no decompression bombs."""

_READERS = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),  # also the first picture of a multi-picture (MPO) file
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_EXIF_IFD, _EXIF_ORIENTATION, _EXIF_F35 = 0x8769, 274, 41989


class ImageError(ValueError):
    """A file that cannot be used as a photograph; the message says what was found and what to do."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph, upright.

    Attributes:
        rgb: (H, W, 3) uint8, EXIF orientation applied. 16-bit grey is scaled to 8 bits, transparent pictures are laid
            on white, colour profiles are ignored.
        exif_f35: 35 mm-equivalent focal length in millimetres of EXIF's FocalLengthIn35mmFilm, or None. The real focal
            length alone says nothing without the sensor's size and is not used.
        path: the file it was read from.
        orientation: EXIF orientation (1 to 8) that was undone; 1 when there was none.
    """

    rgb: np.ndarray
    exif_f35: float | None
    path: Path
    orientation: int = 1

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the upright picture in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def list_images(folder: str | Path, *, exclude: Iterable[str | Path] = ()) -> list[Path]:
    """All photographs below a folder, sorted by their path relative to it; a single file gives itself.

    Links to folders are followed, each real folder once, so that loops end. Hidden files and folders and everything
    below the folders of `exclude` (a result folder inside the input, say) are left out. Links that lead nowhere are
    listed: reading them fails with a reason, so that they get a record too.

    Raises:
        ValueError: if the folder does not exist or holds no photograph.
    """
    root = Path(folder)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}. Give a folder of photographs or one photograph.")
    seen = {os.path.realpath(path) for path in exclude}
    found: list[Path] = []
    for where, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # real folders before links to folders, so that a picture is listed under its own path
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (os.path.islink(os.path.join(where, name)), name),
        )
        found += [Path(where, name) for name in files if _is_candidate(Path(where, name))]
    if not found:
        raise ValueError(
            f"The folder {root} holds no photographs. Put files ending in {', '.join(SUFFIXES)} there or name another."
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF, BMP or HEIC file (told apart by content) into an upright `Photo`.

    Raises:
        ImageError: for anything that is not a whole, readable picture of at most `max_pixels` pixels.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path.name} is not a regular file. Give an image file.")
        if status.st_size == 0:
            raise ImageError(f"{path.name} is empty (zero bytes). Copy the photograph again.")
        with open(path, "rb") as file:
            head = file.read(16)
            file.seek(0)
            if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
                return _read_heif(file, path, max_pixels)
            return _read_pillow(file, head, path, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path.name} does not exist or is a broken link. Check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{path.name} may not be read (permission denied). Change its permissions.") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise ImageError(f"{path.name} is too large to decode. Make it smaller.") from error
    except Exception as error:  # decoders raise all kinds on damaged files: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{path.name} is damaged or truncated ({error}). Copy or export it again.") from error


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as stored, turned and mirrored as EXIF `orientation` (1 to 8) asks."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _is_candidate(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _check_size(size_wh: tuple[int, int], path: Path, max_pixels: int) -> None:
    w, h = size_wh
    if w <= 0 or h <= 0:
        raise ImageError(f"{path.name} has no pixels ({w} x {h}). Export it again.")
    if w * h > max_pixels:
        raise ImageError(
            f"{path.name} is {w} x {h} pixels, more than the limit of {max_pixels / 1e6:g} megapixels. Make it smaller "
            "or raise the limit."
        )


def _read_pillow(file: IO[bytes], head: bytes, path: Path, max_pixels: int) -> Photo:
    # Opened through the plugin itself: Image.open would apply a size limit of its own, warn, and try all formats.
    factory = next((reader for magic, reader in _READERS if head.startswith(magic)), None)
    if factory is None:
        raise ImageError(
            f"{path.name} is not a picture in a format known here, whatever its name says. Give JPEG, PNG, WebP, TIFF, "
            "BMP or HEIC."
        )
    with factory(file, str(path)) as image:
        _check_size(image.size, path, max_pixels)
        orientation, f35 = _exif(image)
        image.load()
        rgb = _to_rgb(image, path)
        remaining, _ = _exif(image)  # the TIFF reader turns the picture itself and takes the tag away
    return Photo(np.ascontiguousarray(upright(rgb, remaining)), f35, path, orientation)


def _read_heif(file: IO[bytes], path: Path, max_pixels: int) -> Photo:
    try:
        import pi_heif
    except ImportError as error:
        raise ImageError(
            f"{path.name} is a HEIC picture and the reader for those is not installed. Run: pip install bodyreg[heic]"
        ) from error
    heif = pi_heif.open_heif(file)
    _check_size(heif.size, path, max_pixels)
    image = heif.to_pillow()
    _, f35 = _exif(image)
    # The decoder has applied the file's own rotation, which in HEIF overrides EXIF; pixels are upright already.
    orientation = int(image.info.get("original_orientation") or 1)
    return Photo(np.ascontiguousarray(_to_rgb(image, path)), f35, path, orientation)


def _exif(image: Image.Image) -> tuple[int, float | None]:
    """Orientation (1 to 8) and 35 mm-equivalent focal length; damaged EXIF counts as none."""
    orientation, f35 = 1, None
    try:
        exif = image.getexif()
        value = exif.get(_EXIF_ORIENTATION, 1)
        orientation = int(value) if value in range(1, 9) else 1
        found: Any = exif.get_ifd(_EXIF_IFD).get(_EXIF_F35, exif.get(_EXIF_F35))
        f35 = float(found) if found is not None else None
    except Exception as error:
        log.warning("EXIF data of %s cannot be read and are ignored: %s", getattr(image, "filename", "?"), error)
    if f35 is not None and not (math.isfinite(f35) and f35 > 0):
        f35 = None  # zero is the standard's "unknown"
    return orientation, f35


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    """Decoded picture of any mode as (H, W, 3) uint8, as stored (not yet turned upright)."""
    mode = image.mode
    if mode == "RGB":
        return np.asarray(image)
    if mode.startswith("I"):  # 16 bits; "I" holds 16-bit values of PNG and 32-bit ones of TIFF
        grey = np.asarray(image).astype(np.float64)
        grey *= 255.0 / (65535.0 if grey.max() <= 65535 else 2.0**31 - 1)
        return _grey(grey)
    if mode == "F":  # floating point TIFF: [0, 1] by custom, else taken for 8-bit levels
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        return _grey(grey * (255.0 if grey.max() <= 1 else 1.0))
    try:
        if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ImageError(f"{path.name} has pixels of kind {mode}, which cannot be used. Export it as RGB.") from error


def _grey(levels: np.ndarray) -> np.ndarray:
    grey = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
