"""From geometry buffers to pictures: cloth, skin, light, background, occluders and the faults of a camera.

Everything that needs no triangle is drawn anew each time a crop is used: colours and patterns of the clothes, light,
background, other people in front and behind, occluders, blur, noise and compression. A picture of 96 pixels takes about
a millisecond.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from bodyreg.data.synthetic.garment_labels import BARE_TORSO
from bodyreg.data.synthetic.outfits import label_at, mirror_label
from bodyreg.data.synthetic.shards import REST_HIGH, REST_LOW, Shard
from bodyreg.data.synthetic.surroundings import background_window, camera_faults, occlude
from renderers.backends.jit import kernel

__all__ = ["View", "compose", "cut_out_person", "paint_person", "random_view"]


class View(NamedTuple):
    """How a stored crop is shown: magnification, turn in the picture's plane (radians), mirrored or not."""

    zoom: float
    turn: float
    mirrored: bool


def _numbers(view: View) -> np.ndarray:
    """(4,) float32 for the kernels: zoom, cosine and sine of the turn, 1 where mirrored."""
    return np.array([view.zoom, np.cos(view.turn), np.sin(view.turn), float(view.mirrored)], np.float32)


def random_view(rng: np.random.Generator, room: float, augment: bool) -> View:
    """A view of 0.95 to 1.35 times the person's box, sometimes turned; of 1.1 times, upright, without `augment`."""
    if not augment:
        return View(room / 1.1, 0.0, False)
    shows = rng.uniform(0.95, min(1.35, room))
    turn = np.deg2rad(rng.uniform(-30, 30)) if rng.random() < 0.4 else 0.0
    return View(room / shows, float(turn), bool(rng.random() < 0.5))


class _Style(NamedTuple):
    """Colours and light of one person.

    colour (21, 3) and second (21, 3) albedo a label code; pattern (21, 6): kind, three frequencies, phase, share;
    light (3) towards the lamp, crop frame; level (4): ambient, diffuse, specular, hemisphere; tint (3);
    wrinkle (8): amplitude, two wave vectors (3 each) and a phase.
    """

    colour: np.ndarray
    second: np.ndarray
    pattern: np.ndarray
    light: np.ndarray
    level: np.ndarray
    tint: np.ndarray
    wrinkle: np.ndarray


_TORSO_SKIN = 10  # CIHP's number of it, LIP's of jumpsuits
_SKIN = np.array([[0.95, 0.78, 0.68], [0.88, 0.67, 0.54], [0.75, 0.53, 0.40], [0.55, 0.36, 0.26], [0.33, 0.21, 0.15]])
_HAIR = np.array([[0.08, 0.06, 0.05], [0.20, 0.12, 0.07], [0.35, 0.22, 0.12], [0.75, 0.6, 0.35], [0.6, 0.6, 0.6]])


def _cloth_colour(rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.3:  # black, grey, white
        return np.clip(rng.choice([0.05, 0.12, 0.3, 0.6, 0.9]) + rng.normal(0, 0.04, 3), 0.02, 1)
    if kind < 0.5:  # denim and navy
        return np.clip(np.array([0.15, 0.22, 0.4]) * rng.uniform(0.5, 2.0) + rng.normal(0, 0.04, 3), 0.02, 1)
    return np.clip(rng.random(3) * rng.uniform(0.5, 1.1), 0.02, 1)


def _random_style(rng: np.random.Generator) -> _Style:
    mix = rng.random()
    at = rng.uniform(0, len(_SKIN) - 1)
    i = min(int(at), len(_SKIN) - 2)
    skin = (_SKIN[i] * (1 - at + i) + _SKIN[i + 1] * (at - i)) * rng.uniform(0.85, 1.1)
    hair = _HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.6, 1.3)
    upper, lower, shoe = _cloth_colour(rng), _cloth_colour(rng), _cloth_colour(rng)
    if mix < 0.15:
        lower = upper  # one piece, a suit
    colour = np.zeros((21, 3), np.float32)
    colour[[13, 14, 15, 16, 17, BARE_TORSO]] = skin
    colour[1], colour[2], colour[3] = _cloth_colour(rng), hair, _cloth_colour(rng)
    colour[[5, 6, 7, 11]], colour[[9, 10, 12]] = upper, lower
    colour[8], colour[[18, 19]] = _cloth_colour(rng), shoe
    second = np.zeros((21, 3), np.float32)
    pattern = np.zeros((21, 6), np.float32)
    for group in ([5, 6, 7, 11], [9, 10, 12], [8], [1]):
        if rng.random() < 0.45:
            second[group] = _cloth_colour(rng)
            wave = rng.normal(0, 1, 3)
            if rng.random() < 0.6:
                wave = np.eye(3)[rng.choice([0, 1, 1])]  # plain upright or level stripes
            wave = wave / np.linalg.norm(wave) * np.exp(rng.uniform(np.log(15), np.log(160)))
            pattern[group] = [rng.integers(1, 5), *wave, rng.uniform(0, 6.3), rng.uniform(-0.6, 0.9)]
    light = rng.normal(0, 1, 3) + np.array([0, -1.0, -0.8])
    light /= np.linalg.norm(light)
    ambient = rng.uniform(0.3, 0.9)
    level = np.array([ambient, rng.uniform(0.3, 1.4) * (1.3 - ambient), rng.uniform(0, 0.15), rng.uniform(0, 0.4)])
    tint = np.clip(1 + rng.normal(0, 0.08, 3), 0.7, 1.3) * rng.uniform(0.75, 1.4)
    wrinkle = np.concatenate([[rng.uniform(0, 0.5)], rng.normal(0, 35, 6), rng.uniform(0, 6.3, 1)])
    return _Style(colour, second, pattern, *(np.asarray(v, np.float32) for v in (light, level, tint, wrinkle)))


@kernel
def _stored(x, y, view, ratio, stored):  # noqa: ANN001, ANN202
    """Where a point of the picture, measured from its middle in pixels, lies in the stored crop."""
    cosine, sine = view[1], view[2]
    if view[3] > 0.5:
        x = -x
    return stored / 2 + ratio * (cosine * x + sine * y), stored / 2 + ratio * (-sine * x + cosine * y)


@kernel
def _pixel_at(x, y, view, ratio, index):  # noqa: ANN001, ANN202
    """The packed pixel at a point of the picture, -1 where there is none."""
    stored = index.shape[0]
    sx, sy = _stored(x, y, view, ratio, stored)
    if sx < 0 or sy < 0 or sx >= stored or sy >= stored:
        return -1
    return index[int(sy), int(sx)]


@kernel
def _turned_normal(pixel, view):  # noqa: ANN001, ANN202
    """Unit normal of a packed pixel as the view shows it."""
    cosine, sine = view[1], view[2]
    nx, ny, nz = (pixel[1] - 128.0) / 127.0, (pixel[2] - 128.0) / 127.0, (pixel[3] - 128.0) / 127.0
    nx, ny = cosine * nx - sine * ny, sine * nx + cosine * ny
    if view[3] > 0.5:
        nx = -nx
    return nx, ny, nz


@kernel
def _in_pattern(px, py, pz, pattern):  # noqa: ANN001, ANN202
    """Has the cloth its second colour at a point of the rest body?"""
    kind = pattern[0]
    if kind <= 0.5:
        return False
    phase = pattern[4]
    w0, w1, w2 = pattern[1], pattern[2], pattern[3]
    value = np.sin(w0 * px + w1 * py + w2 * pz + phase)
    if kind > 3.5:  # soft blotches
        value = 0.6 * np.sin(0.3 * w1 * px + 0.4 * w0 * py + phase) + 0.6 * np.sin(
            0.3 * w0 * pz - 0.35 * w1 * py + 0.2 * w2 * px + 2 * phase
        )
    elif kind > 2.5:  # checks
        value = value * np.sin(w1 * px - w0 * py + w2 * pz + 2 * phase)
    elif kind > 1.5:  # a print on the chest
        value = -1.0
        if pz > 0 and abs(px) < 0.12 and abs(py - 0.15 - 0.05 * np.sin(phase)) < 0.10:
            value = 1.0
    return value > pattern[5]


@kernel
def _label(pixel, px, py, pz, part_atlas, outfit):  # noqa: ANN001, ANN202
    """Label code of a packed pixel: the stored one, or that of the painted outfit."""
    if len(pixel) > 7:
        return int(pixel[7])
    return label_at(int(pixel[0]), px, py, pz, part_atlas, outfit)


@kernel
def _albedo(px, py, pz, part, label, part_atlas, colour, second, pattern):  # noqa: ANN001, ANN202
    """Colour of cloth, hair or skin at a point of the rest body, with eyes, brows and mouth."""
    a0, a1, a2 = colour[label, 0], colour[label, 1], colour[label, 2]
    if _in_pattern(px, py, pz, pattern[label]):
        a0, a1, a2 = second[label, 0], second[label, 1], second[label, 2]
    if label == 13 and part == 15:
        ex, ey = abs(px) - part_atlas[9], py - part_atlas[10]
        if pz > part_atlas[11] - 0.03:
            if ex * ex + ey * ey < 0.00008 or (abs(ey - 0.022) < 0.005 and abs(ex) < 0.02):
                a0, a1, a2 = 0.35 * a0, 0.3 * a1, 0.3 * a2
            elif abs(py - part_atlas[12] + 0.04) < 0.009 and abs(px) < 0.024:
                a0, a1, a2 = 0.8 * a0, 0.5 * a1, 0.5 * a2
    return a0, a1, a2


@kernel
def _wrinkled(nx, ny, nz, px, py, pz, wrinkle):  # noqa: ANN001, ANN202
    """Normal of cloth that lies in small folds."""
    one = wrinkle[0] * np.cos(wrinkle[1] * px + wrinkle[2] * py + wrinkle[3] * pz + wrinkle[7])
    two = wrinkle[0] * np.cos(wrinkle[4] * px + wrinkle[5] * py + wrinkle[6] * pz)
    nx, ny = nx + one + 0.3 * two, ny + two - 0.3 * one
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
    return nx / length, ny / length, nz / length


@kernel
def _paint(
    canvas, index, pixels, view, shift, samples, part_atlas, outfit, low, step, colour, second, pattern, light, level,
    tint, wrinkle,
):  # noqa: ANN001, ANN202
    """Lay the lit person over the canvas, `samples` x `samples` points a pixel."""
    size = canvas.shape[0]
    ratio = index.shape[0] / (size * view[0])
    total = samples * samples
    for r in range(size):
        for c in range(size):
            red, green, blue, hits = 0.0, 0.0, 0.0, 0
            for s in range(total):
                x = c + (s % samples + 0.5) / samples - size / 2 - shift[0]
                y = r + (s // samples + 0.5) / samples - size / 2 - shift[1]
                k = _pixel_at(x, y, view, ratio, index)
                if k < 0:
                    continue
                hits += 1
                part = int(pixels[k, 0])
                nx, ny, nz = _turned_normal(pixels[k], view)
                px = low[0] + step[0] * pixels[k, 4]
                py = low[1] + step[1] * pixels[k, 5]
                pz = low[2] + step[2] * pixels[k, 6]
                label = _label(pixels[k], px, py, pz, part_atlas, outfit)
                a0, a1, a2 = _albedo(px, py, pz, part, label, part_atlas, colour, second, pattern)
                if 5 <= label <= 12 and label != 8:
                    nx, ny, nz = _wrinkled(nx, ny, nz, px, py, pz, wrinkle)
                lit = max(0.0, nx * light[0] + ny * light[1] + nz * light[2])
                shade = level[0] * (1.0 - level[3] * 0.5 * (1.0 + ny)) + level[1] * lit
                gloss = level[2] * lit**12
                red += a0 * shade + gloss
                green += a1 * shade + gloss
                blue += a2 * shade + gloss
            if hits > 0:
                rest = 1.0 - hits / total
                canvas[r, c, 0] = canvas[r, c, 0] * rest + 255.0 * tint[0] * red / total
                canvas[r, c, 1] = canvas[r, c, 1] * rest + 255.0 * tint[1] * green / total
                canvas[r, c, 2] = canvas[r, c, 2] * rest + 255.0 * tint[2] * blue / total


@kernel
def _dense(dense, size, index, pixels, view, low, step):  # noqa: ANN001, ANN202
    """Mask, normal and rest position at the middle of each cell of a picture `size` pixels wide."""
    ratio = index.shape[0] / (size * view[0])
    cells = dense.shape[1]
    sign = -1.0 if view[3] > 0.5 else 1.0
    for r in range(cells):
        for c in range(cells):
            x = (c + 0.5) * size / cells - size / 2
            y = (r + 0.5) * size / cells - size / 2
            k = _pixel_at(x, y, view, ratio, index)
            if k < 0:
                continue
            dense[0, r, c] = 1.0
            dense[1, r, c], dense[2, r, c], dense[3, r, c] = _turned_normal(pixels[k], view)
            dense[4, r, c] = sign * (low[0] + step[0] * pixels[k, 4])
            dense[5, r, c] = low[1] + step[1] * pixels[k, 5]
            dense[6, r, c] = low[2] + step[2] * pixels[k, 6]


@kernel
def _parse(parsing, index, pixels, view, shift, part_atlas, outfit, low, step, hidden):  # noqa: ANN001, ANN202
    """Labels at the pixel centres of a picture; background where `hidden`: another person, in front."""
    size = parsing.shape[0]
    ratio = index.shape[0] / (size * view[0])
    for r in range(size):
        for c in range(size):
            k = _pixel_at(c + 0.5 - size / 2 - shift[0], r + 0.5 - size / 2 - shift[1], view, ratio, index)
            if k < 0:
                continue
            px = low[0] + step[0] * pixels[k, 4]
            py = low[1] + step[1] * pixels[k, 5]
            pz = low[2] + step[2] * pixels[k, 6]
            parsing[r, c] = 0 if hidden else _label(pixels[k], px, py, pz, part_atlas, outfit)


@kernel
def _in_frame(r, c, size, view, stored, full_from_stored, height, width):  # noqa: ANN001, ANN202
    """Does the pixel show a part of the photograph?"""
    ratio = stored / (size * view[0])
    H = full_from_stored
    sx, sy = _stored(c + 0.5 - size / 2, r + 0.5 - size / 2, view, ratio, stored)
    w = H[2, 0] * sx + H[2, 1] * sy + H[2, 2]
    u = (H[0, 0] * sx + H[0, 1] * sy + H[0, 2]) / w
    v = (H[1, 0] * sx + H[1, 1] * sy + H[1, 2]) / w
    return not (w <= 0 or u < 0 or v < 0 or u > width or v > height)


@kernel
def _frame(canvas, view, stored, full_from_stored, height, width):  # noqa: ANN001, ANN202
    """Black where the crop shows what lies outside the photograph, as the warp of inference leaves it."""
    size = canvas.shape[0]
    for r in range(size):
        for c in range(size):
            if not _in_frame(r, c, size, view, stored, full_from_stored, height, width):
                canvas[r, c, 0], canvas[r, c, 1], canvas[r, c, 2] = 0.0, 0.0, 0.0


@kernel
def _frame_labels(parsing, view, stored, full_from_stored, height, width):  # noqa: ANN001, ANN202
    """Background outside the photograph."""
    size = parsing.shape[0]
    for r in range(size):
        for c in range(size):
            if not _in_frame(r, c, size, view, stored, full_from_stored, height, width):
                parsing[r, c] = 0


def _index_map(shard: Shard, i: int) -> np.ndarray:
    """(R, R) int32: which of the crop's packed pixels each stored pixel is, -1 where there is none."""
    inside = np.unpackbits(shard.where[i], axis=1, count=shard.crop_size)
    index = np.cumsum(inside.ravel(), dtype=np.int32).reshape(inside.shape) - 1
    return np.where(inside > 0, index, -1).astype(np.int32)


def _draw(
    canvas: np.ndarray, shard: Shard, i: int, view: np.ndarray, shift: tuple[float, float], atlas: np.ndarray,
    style: _Style, dense: np.ndarray | None = None, parsing: np.ndarray | None = None, hides: bool = False,
) -> None:  # fmt: skip
    """Paint crop i over the canvas, in place, and fill `dense` and `parsing` where they are given; a person who `hides`
    another leaves background in `parsing`."""
    samples = 2 if len(canvas) <= shard.crop_size else 1
    index, pixels = _index_map(shard, i), shard.pixels[shard.start[i] : shard.start[i + 1]]
    step = (REST_HIGH - REST_LOW) / 255.0
    _paint(
        canvas, index, pixels, view, np.asarray(shift, np.float32), samples, atlas, shard.labels["outfit"][i], REST_LOW,
        step, *style,
    )  # fmt: skip
    if dense is not None:
        _dense(dense, len(canvas), index, pixels, view, REST_LOW, step)
    if parsing is not None:
        outfit = shard.labels["outfit"][i]
        _parse(parsing, index, pixels, view, np.asarray(shift, np.float32), atlas, outfit, REST_LOW, step, hides)


def paint_person(
    canvas: np.ndarray, shard: Shard, i: int, rng: np.random.Generator, atlas: np.ndarray, *, like: _Style | None = None
) -> _Style:
    """Draw the person of crop i in random colours onto a picture, in place, with no change of view.

    Args:
        canvas: (S, S, 3) float32 RGB in [0, 255]; the crop is scaled to it, smoothly where it is stored larger.
        shard: geometry buffers, i: which crop. rng: source of colours and light. atlas: see `body_atlas`.
        like: what an earlier call returned, to put this person into the same light.

    Returns:
        Colours and light as drawn.
    """
    style = _random_style(rng)
    if like is not None:
        style = style._replace(light=like.light, level=like.level, tint=like.tint)
    _draw(canvas, shard, i, _numbers(View(1.0, 0.0, False)), (0.0, 0.0), atlas, style)
    return style


def cut_out_person(
    shard: Shard, i: int, view: View, size: int, rng: np.random.Generator, atlas: np.ndarray,
    *, like: _Style | None = None,
) -> tuple[np.ndarray, np.ndarray, _Style]:  # fmt: skip
    """Draw the person of crop i in random colours, alone, to be laid over any picture.

    Args:
        shard, i, rng, atlas, like: see `paint_person`. view: how the crop is shown. size: side of the cut-out, pixels.

    Returns:
        (size, size, 3) float32 RGB in [0, 255], times the share of each pixel that is covered; that share
        (size, size) float32; colours and light as drawn.
    """
    style = _random_style(rng)
    if like is not None:
        style = style._replace(light=like.light, level=like.level, tint=like.tint)
    # Painted twice as fine and shrunk; where it is larger than stored, as stored and magnified.
    fine = shard.crop_size if size > shard.crop_size else int(np.clip(2 * size, 32, 1.5 * shard.crop_size))
    canvas, labels = np.zeros((fine, fine, 3), np.float32), np.zeros((fine, fine), np.uint8)
    index, pixels = _index_map(shard, i), shard.pixels[shard.start[i] : shard.start[i + 1]]
    step, outfit = (REST_HIGH - REST_LOW) / 255.0, shard.labels["outfit"][i]
    numbers, still = _numbers(view), np.zeros(2, np.float32)
    _paint(canvas, index, pixels, numbers, still, 1, atlas, outfit, REST_LOW, step, *style)
    _parse(labels, index, pixels, numbers, still, atlas, outfit, REST_LOW, step, False)
    covered = (labels > 0).astype(np.float32)
    if size <= fine:
        rgb, share = (cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) for a in (canvas, covered))
        return rgb, share, style
    rgb, soft = (cv2.resize(cv2.GaussianBlur(a, (0, 0), 0.7), (size, size)) for a in (canvas, covered))
    share = np.clip((soft - 0.5) * size / fine + 0.5, 0, 1)  # a magnified outline is smooth, and sharp
    return rgb * (share / np.maximum(soft, 1e-3))[..., None], share, style


def compose(
    shard: Shard, i: int, view: View, size: int, rng: np.random.Generator, bank: np.ndarray, atlas: np.ndarray,
    *, augment: bool = True, parsing: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw crop i of a shard.

    Args:
        shard: geometry buffers. i: which crop. view: how it is shown. size: side of the picture, pixels.
        rng: source of clothes, light, background and faults. bank: see `background_bank`. atlas: see `body_atlas`.
        augment: False leaves out other people, occluders, blur and noise.
        parsing: (size, size) uint8, filled with the LIP label of what the person shows at each pixel's centre, as the
            picture has it (mirrored where the view is); 0 for background and for whatever is in front of the person.

    Returns:
        (size, size, 3) uint8 RGB, and (7, size / 4, size / 4) float32: mask, normal in the shown crop's frame, rest
        position in metres (mirrored where the view is).
    """
    canvas = background_window(rng, bank, size)
    dense = np.zeros((7, size // 4, size // 4), np.float32)
    numbers = _numbers(view)
    style = _random_style(rng)

    if parsing is not None:
        parsing[:] = 0

    def other(near: bool) -> None:
        away = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.6) * size
        zoom = view.zoom * (rng.uniform(0.9, 1.4) if near else rng.uniform(0.5, 1.0))
        turned = np.array([zoom, rng.normal(0, 0.1), float(rng.random() < 0.5)], np.float32)
        shift = (away, rng.normal(0, 0.1) * size)
        relit = _random_style(rng)._replace(light=style.light, level=style.level, tint=style.tint)
        who = int(rng.integers(len(shard)))
        _draw(canvas, shard, who, turned, shift, atlas, relit, parsing=parsing if near else None, hides=True)

    crowd = rng.random() if augment else 1.0
    if crowd < 0.15:
        other(near=False)
    _draw(canvas, shard, i, numbers, (0.0, 0.0), atlas, style, dense, parsing)
    if 0.10 < crowd < 0.20:
        other(near=True)
    if augment and rng.random() < 0.3:
        occlude(rng, canvas, bank, parsing)
    hw = shard.labels["image_hw"][i]
    full_from_stored = np.linalg.inv(shard.labels["crop_from_full"][i].astype(np.float64))
    _frame(canvas, numbers, shard.crop_size, full_from_stored, float(hw[0]), float(hw[1]))
    if parsing is not None:
        _frame_labels(parsing, numbers, shard.crop_size, full_from_stored, float(hw[0]), float(hw[1]))
        parsing[parsing == BARE_TORSO] = _TORSO_SKIN
        if view.mirrored:
            parsing[:] = mirror_label(parsing)
    if augment:
        # Pictures of painted people stay, bit for bit, what they were.
        return camera_faults(rng, canvas, motion=shard.garments == "geometry"), dense
    return np.clip(canvas, 0, 255).astype(np.uint8), dense
