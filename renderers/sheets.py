"""Lay pictures out on one sheet with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_INK, _PAPER = (40, 42, 48), 250


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    cell_hw: tuple[int, int] | None = None,
    gap: int = 12,
) -> np.ndarray:
    """Put pictures side by side in rows, each in a cell of one size with its caption below.

    Args:
        images: (H_i, W_i, 3) uint8 RGB; shrunk or enlarged to fit their cell, never distorted.
        captions: one line per image; shortened with dots where the cell is too narrow.
        columns: pictures per row; by default as square as possible.
        cell_hw: height and width of a cell in pixels; by default the largest height and width among the images.
        gap: pixels between cells and around the sheet.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    import cv2

    if not len(images):
        raise ValueError("No images were given. Give at least one picture for the sheet.")
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"Image {i} is {image.shape} {image.dtype}. Give (H, W, 3) uint8 RGB.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions were given for {len(images)} images. Give one each.")
    columns = min(len(images), columns or int(np.ceil(np.sqrt(len(images)))))
    if columns < 1:
        raise ValueError(f"{columns} columns were asked for. Ask for at least 1.")
    h, w = cell_hw or (max(x.shape[0] for x in images), max(x.shape[1] for x in images))
    scale = max(0.35, min(h, w) / 520)
    band = int(round(46 * scale)) if captions is not None else 0
    rows = -(-len(images) // columns)
    sheet = np.full((gap + rows * (h + band + gap), gap + columns * (w + gap), 3), _PAPER, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (h + band + gap), gap + i % columns * (w + gap)
        ratio = min(h / image.shape[0], w / image.shape[1])
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
        fitted = image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=how)
        y, x = top + (h - size[1]) // 2, left + (w - size[0]) // 2
        sheet[y : y + size[1], x : x + size[0]] = fitted
        if captions is not None:
            write(sheet, captions[i], (left, top + h + band - int(round(15 * scale))), scale, width=w)
    return sheet


def write(
    image: np.ndarray,
    text: str,
    corner_xy: tuple[int, int],
    scale: float = 0.5,
    *,
    width: int | None = None,
    colour: tuple[int, int, int] = _INK,
) -> None:
    """Write a line of text into an image, its lower left corner at `corner_xy` (pixels), in at most `width` pixels.

    Characters beyond ASCII are drawn as "?": OpenCV's own font has no others.
    """
    import cv2

    text = text.encode("ascii", "replace").decode()
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(1.6 * scale))

    def length(line: str) -> int:
        return cv2.getTextSize(line, font, scale, weight)[0][0]

    if width is not None and length(text) > width:
        while text and length(text + "...") > width:
            text = text[:-1]
        text += "..."
    cv2.putText(image, text, corner_xy, font, scale, colour, weight, cv2.LINE_AA)
