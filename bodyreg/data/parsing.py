"""Pictures of human parsing: which garment or part of the body every pixel shows.

Two forms are read. Palette pictures, as Graphonomy and other CIHP parsers write them, paint each label in its colour
(PNG of mode RGB or P); plain ones hold the label's number (PNG of mode L or P without those colours). Numbers are
LIP's 20 (`priors.clothing_labels`), or ATR's 18, which are translated. Left and right are the person's: a mirrored
picture exchanges them, which DSR's released code forgets (`mirror_labels`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from priors.clothing_labels import ATR_LABELS, LABELS, LIP_FROM_ATR, MIRROR, PALETTE

__all__ = [
    "NO_LABEL",
    "convert_parsing",
    "convert_parsing_folder",
    "labels_from_rgb",
    "mirror_labels",
    "read_parsing",
    "rgb_from_labels",
    "write_parsing",
]

NO_LABEL = 255
"""What a pixel is where its colour is no label's: at the borders of a resampled palette picture."""
_FORMS = ("palette", "labels")
_NUMBERS = {"lip-20": LABELS, "atr-18": ATR_LABELS}
_MOST_PIXELS = 100_000_000

_CODES = (PALETTE.astype(np.uint32) * [65536, 256, 1]).sum(1).astype(np.uint32)
_ORDER = np.argsort(_CODES)


def labels_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels of a palette picture (H, W, 3) uint8; `NO_LABEL` where a colour is none of the palette's."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"The picture is {rgb.shape} {rgb.dtype}. Give (H, W, 3) uint8 RGB.")
    code = (rgb[..., 0].astype(np.uint32) << 16) | (rgb[..., 1].astype(np.uint32) << 8) | rgb[..., 2]
    sorted_codes = _CODES[_ORDER]
    at = np.searchsorted(sorted_codes, code).clip(max=len(sorted_codes) - 1)
    return np.where(sorted_codes[at] == code, _ORDER[at], NO_LABEL).astype(np.uint8)


def rgb_from_labels(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 palette picture of (H, W) labels; `NO_LABEL` becomes black.

    Raises:
        ValueError: numbers that are no labels.
    """
    labels = np.asarray(labels)
    known = labels != NO_LABEL
    _check_range(labels[known], len(LABELS), "The label map")
    return PALETTE[np.where(known, labels, 0)]


def mirror_labels(labels: np.ndarray) -> np.ndarray:
    """(H, W) labels of the mirrored picture: columns reversed, left and right limbs exchanged."""
    table = np.concatenate([MIRROR.astype(np.uint8), np.arange(len(MIRROR), 256, dtype=np.uint8)])
    return table[np.asarray(labels, np.uint8)[:, ::-1]]


def read_parsing(
    path: str | Path, size_hw: tuple[int, int] | None = None, *, numbers: str = "lip-20"
) -> np.ndarray:
    """(H, W) uint8 LIP labels of a parsing picture.

    Args:
        path: PNG of either form. size_hw: what it must measure, the photograph's size. numbers: "lip-20" or "atr-18",
            what the values of a plain picture mean.

    Raises:
        ValueError: no PNG; another size; a mode that holds neither colours nor bytes; colours that are none of the
            palette's; numbers that are no labels.
    """
    from PIL import Image, UnidentifiedImageError

    if numbers not in _NUMBERS:
        raise ValueError(f"There are no labels {numbers!r}. Choose one of {', '.join(_NUMBERS)}.")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{path} has {image.width} x {image.height} pixels. No parsing picture is so large.")
            if size_hw is not None and (image.height, image.width) != tuple(size_hw):
                raise ValueError(
                    f"The parsing picture {path} is {image.height} x {image.width} pixels and its photograph "
                    f"{size_hw[0]} x {size_hw[1]}. Parse the photograph again, without resizing."
                )
            mode = image.mode
            if mode not in ("L", "P", "RGB"):
                raise ValueError(
                    f"The parsing picture {path} is of mode {mode}. Write it as RGB or indexed PNG in the palette's "
                    "colours, or as 8-bit grey label numbers."
                )
            values = np.array(image)
            colours = np.array(image.convert("RGB")) if mode != "L" else None
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"The parsing picture {path} is no readable PNG ({error}). Write it again.") from None
    if colours is not None:
        found = labels_from_rgb(colours)
        strange = found == NO_LABEL
        if not strange.any():
            return found
        if mode == "RGB":
            row, column = (int(k) for k in np.argwhere(strange)[0])
            raise ValueError(
                f"The parsing picture {path} has colours that are no label's, {colours[row, column].tolist()} "
                f"at row {row}, column {column}. Write the parser's result as PNG, without resizing or compression."
            )
    _check_range(values, len(_NUMBERS[numbers]), f"The parsing picture {path}")
    return LIP_FROM_ATR[values] if numbers == "atr-18" else values.astype(np.uint8)


def write_parsing(path: str | Path, labels: np.ndarray, form: str = "palette") -> Path:
    """Write (H, W) labels as a PNG, "palette" in colours or "labels" as plain numbers."""
    from PIL import Image

    from bodyreg.files import atomic_write

    if form not in _FORMS:
        raise ValueError(f"There is no form {form!r}. Choose one of {', '.join(_FORMS)}.")
    _check_range(np.asarray(labels), len(LABELS), "The label map")
    picture = rgb_from_labels(labels) if form == "palette" else np.asarray(labels, np.uint8)
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return Path(path)


def convert_parsing(source: str | Path, out: str | Path, *, numbers: str = "lip-20", form: str = "palette") -> Path:
    """Read one parsing picture and write it in another form; arguments as in `read_parsing` and `write_parsing`."""
    return write_parsing(out, read_parsing(source, numbers=numbers), form)


def convert_parsing_folder(
    source: str | Path, out: str | Path, *, numbers: str = "lip-20", form: str = "palette"
) -> tuple[list[Path], dict[str, str]]:
    """Convert every PNG below a folder, under the same relative names.

    Returns:
        Files written, and for each that could not be read its relative name and the reason.
    """
    source, out = Path(source), Path(out)
    written, refused = [], {}
    for path in sorted(source.rglob("*.png")):
        name = path.relative_to(source)
        try:
            written.append(convert_parsing(path, out / name, numbers=numbers, form=form))
        except ValueError as error:
            refused[name.as_posix()] = str(error)
    if not written and not refused:
        raise ValueError(f"{source} holds no PNG. Give the folder a parser wrote its results to.")
    return written, refused


def _check_range(values: np.ndarray, count: int, what: str) -> None:
    if values.size and (int(values.max()) >= count or int(values.min()) < 0):
        wrong = int(values.max()) if int(values.max()) >= count else int(values.min())
        raise ValueError(f"{what} holds the number {wrong}. Labels are 0 to {count - 1}.")
