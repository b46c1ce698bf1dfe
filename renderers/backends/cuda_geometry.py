"""Triton functions: points against one face, and the tables of faces per tile that all CUDA kernels walk along.

On a GPU a program takes one tile of 8 x 8 pixels, its pixels as lanes. Triton's interpreter pays for every operation
instead of every lane, so there tiles are larger. The interpreter is chosen when this module is first imported, by
TRITON_INTERPRET=1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def edge(px, py, ax, ay, bx, by):
    """Twice the signed area of (p, a, b)."""
    return (px - ax) * (by - ay) - (py - ay) * (bx - ax)


@triton.jit
def load_face(faces, f):
    """The nine numbers of a face."""
    at = faces + 9 * f
    x0, y0, z0 = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    x1, y1, z1 = tl.load(at + 3), tl.load(at + 4), tl.load(at + 5)
    x2, y2, z2 = tl.load(at + 6), tl.load(at + 7), tl.load(at + 8)
    return x0, y0, z0, x1, y1, z1, x2, y2, z2


@triton.jit
def load_faces(faces, f, mask):
    """The nine numbers of each lane's own face; zeros where the mask is not set."""
    at = faces + 9 * f
    x0, y0, z0 = tl.load(at, mask, 0.0), tl.load(at + 1, mask, 0.0), tl.load(at + 2, mask, 0.0)
    x1, y1, z1 = tl.load(at + 3, mask, 0.0), tl.load(at + 4, mask, 0.0), tl.load(at + 5, mask, 0.0)
    x2, y2, z2 = tl.load(at + 6, mask, 0.0), tl.load(at + 7, mask, 0.0), tl.load(at + 8, mask, 0.0)
    return x0, y0, z0, x1, y1, z1, x2, y2, z2


@triton.jit
def segment(px, py, ax, ay, bx, by):
    """Squared distance to a segment, in the order of operations that decides which faces a pixel keeps."""
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    point = length2 <= 1e-8  # counts as its second end point
    t = tl.div_rn(dx * (px - ax) + dy * (py - ay), tl.where(point, 1.0, length2))
    t = tl.minimum(tl.maximum(t, 0.0), 1.0)
    ex, ey = px - tl.where(point, bx, ax + t * dx), py - tl.where(point, by, ay + t * dy)
    return ex * ex + ey * ey


@triton.jit
def distance(px, py, x0, y0, x1, y1, x2, y2):
    """Squared distance to the outline of a face, without sign."""
    d = tl.minimum(segment(px, py, x0, y0, x1, y1), segment(px, py, x0, y0, x2, y2))
    return tl.minimum(d, segment(px, py, x1, y1, x2, y2))


@triton.jit
def barycentric(
    px,
    py,
    x0,
    y0,
    z0,
    x1,
    y1,
    z1,
    x2,
    y2,
    z2,
    area,
    PERSPECTIVE: tl.constexpr,
    CLIP: tl.constexpr,
):
    """Insideness, depth and barycentric coordinates, rounded as the rules of coverage are written."""
    b0 = tl.div_rn(edge(px, py, x1, y1, x2, y2), area)
    b1 = tl.div_rn(edge(px, py, x2, y2, x0, y0), area)
    b2 = tl.div_rn(edge(px, py, x0, y0, x1, y1), area)
    if PERSPECTIVE:
        t0, t1, t2 = b0 * z1 * z2, b1 * z0 * z2, b2 * z0 * z1
        den = tl.maximum(t0 + t1 + t2, 1e-8)
        b0, b1, b2 = tl.div_rn(t0, den), tl.div_rn(t1, den), tl.div_rn(t2, den)
    inside = (b0 > 0.0) & (b1 > 0.0) & (b2 > 0.0)
    if CLIP:
        b0, b1, b2 = tl.maximum(b0, 0.0), tl.maximum(b1, 0.0), tl.maximum(b2, 0.0)
        total = tl.maximum(b0 + b1 + b2, 1e-5)
        b0, b1, b2 = tl.div_rn(b0, total), tl.div_rn(b1, total), tl.div_rn(b2, total)
    return inside, b0 * z0 + b1 * z1 + b2 * z2, b0, b1, b2


@triton.jit
def _side(px, x_rest, py, y_rest, ax, ay, bx, by, SHORT: tl.constexpr):
    # Cross product with the edge a b, the foot point's parameter, and the way from the point to the foot. Of an edge
    # too short for a direction, the foot is at parameter SHORT.
    dx, dy = bx - ax, by - ay
    x, y = (px - ax) + x_rest, (py - ay) + y_rest
    length2 = dx * dx + dy * dy
    point = length2 <= 1e-8
    t = (x * dx + y * dy) * (1.0 / tl.where(point, 1.0, length2))
    t = tl.where(point, SHORT, tl.minimum(tl.maximum(t, 0.0), 1.0))
    return x * dy - y * dx, t, t * dx - x, t * dy - y


@triton.jit
def outline(px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, area):
    """Where points are with respect to a face.

    Pixel centres come as two numbers, value and remainder: sharp edges feel the rounding of the first.

    Returns:
        signed: squared distance to the outline, negative inside.
        e0, e1, e2: twice the areas opposite of the corners.
        which: the nearest edge: 0 from corner 0 to 1, 1 from 2 to 0, 2 from 1 to 2.
        t, fx, fy: the foot point on it, as its parameter and as seen from the point.
    """
    e2, t, fx, fy = _side(px, x_rest, py, y_rest, x0, y0, x1, y1, 1.0)
    best = fx * fx + fy * fy
    e1, t1, gx, gy = _side(px, x_rest, py, y_rest, x2, y2, x0, y0, 0.0)
    d = gx * gx + gy * gy
    nearer = d < best
    which = nearer.to(tl.int32)
    best, t = tl.where(nearer, d, best), tl.where(nearer, t1, t)
    fx, fy = tl.where(nearer, gx, fx), tl.where(nearer, gy, fy)
    e0, t1, gx, gy = _side(px, x_rest, py, y_rest, x1, y1, x2, y2, 1.0)
    d = gx * gx + gy * gy
    nearer = d < best
    which = tl.where(nearer, 2, which)
    best, t = tl.where(nearer, d, best), tl.where(nearer, t1, t)
    fx, fy = tl.where(nearer, gx, fx), tl.where(nearer, gy, fy)
    turn = tl.where(area > 0.0, 1.0, -1.0)
    inside = (e0 * turn > 0.0) & (e1 * turn > 0.0) & (e2 * turn > 0.0)
    return tl.where(inside, -best, best), e0, e1, e2, which, t, fx, fy


@triton.jit
def beaten(signed, valid, px, x_rest, py, y_rest, faces, areas, f, mate, blur):
    """Where the other half of a face that the near plane cut counts instead: the one a point is deeper inside of."""
    x0, y0, z0, x1, y1, z1, x2, y2, z2 = load_face(faces, mate)
    area = tl.load(areas + mate)
    other, e0, e1, e2, which, t, fx, fy = outline(px, x_rest, py, y_rest, x0, y0, x1, y1, x2, y2, area)
    first = f < mate
    margin = 1e-4 * tl.abs(tl.where(first, signed, other)) + 1e-9
    usable = tl.where(valid & (other < blur), area, 0.0) != 0.0
    return usable & tl.where(first, other < signed - margin, other - margin <= signed)


@triton.jit
def pixels_of(xs, ys, height, width, across, tiles, SIDE: tl.constexpr):
    """The lanes of this program: pixel in the batch, whether it is in the image, its centre: value and remainder."""
    tile = tl.program_id(0)
    inner = tile % tiles
    lane = tl.arange(0, SIDE * SIDE)
    row = inner // across * SIDE + lane // SIDE
    column = inner % across * SIDE + lane % SIDE
    shown = (row < height) & (column < width)
    px, x_rest = tl.load(xs + column, shown, 1e6), tl.load(xs + width + column, shown, 0.0)
    py, y_rest = tl.load(ys + row, shown, 1e6), tl.load(ys + height + row, shown, 0.0)
    pixel = (tile // tiles * height + row).to(tl.int64) * width + column
    return pixel, shown, px, x_rest, py, y_rest


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), never overflowing."""
    return 1.0 / (1.0 + tl.exp(tl.minimum(-x, 60.0)))


@triton.jit
def edge_gradient(slope, which, t, fx, fy):
    """Sums over lanes of the gradient of slope * squared distance: x and y of the three corners."""
    gx, gy = 2.0 * slope * fx, 2.0 * slope * fy
    s = 1.0 - t
    to0 = tl.where(which == 0, s, tl.where(which == 1, t, 0.0))
    to1 = tl.where(which == 0, t, tl.where(which == 2, s, 0.0))
    to2 = tl.where(which == 1, s, tl.where(which == 2, t, 0.0))
    return to0 * gx, to0 * gy, to1 * gx, to1 * gy, to2 * gx, to2 * gy


@triton.jit
def _sum_slots(slots, slot_begin, out, faces, width, FACES: tl.constexpr, WIDTH: tl.constexpr):
    f = tl.program_id(0) * FACES + tl.arange(0, FACES)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = f < faces
    begin = tl.load(slot_begin + f, here, 0)
    count = tl.load(slot_begin + f + 1, here, 0) - begin
    inner = here[:, None] & (column < width)[None, :]
    total = tl.zeros((FACES, WIDTH), tl.float32)
    for j in range(0, tl.max(count, 0)):
        at = (begin + j).to(tl.int64)[:, None] * width + column[None, :]
        total += tl.load(slots + at, inner & (j < count)[:, None], 0.0)
    tl.store(out + f.to(tl.int64)[:, None] * width + column[None, :], total, inner)


INTERPRETED = not isinstance(_sum_slots, triton.JITFunction)
"""Whether the kernels run in Triton's interpreter, on tensors of any device."""
SIDE = 32 if INTERPRETED else 8
"""Pixels along the side of a tile."""


class Tiles(NamedTuple):
    """The faces that reach each tile of the images, by tile and within it by index. An entry is one face in one."""

    begin: Tensor
    """(tiles + 1,) int32: entries of tile t are begin[t] to begin[t + 1]; tiles row by row, image by image."""
    face: Tensor
    """(E,) int32 packed face of each entry."""
    slot: Tensor
    """(E,) int32 place of each entry when entries are sorted by face: where its gradient goes."""
    slot_begin: Tensor
    """(F + 1,) int32 slots of face f are slot_begin[f] to slot_begin[f + 1]."""
    areas: Tensor
    """(F,) twice the signed area, kept from zero; 0 for faces that cannot be drawn."""
    grid: tuple[int, int]
    """Tiles across, and tiles of one image."""

    @property
    def entries(self) -> int:
        return len(self.face)


def require_device(face_verts: Tensor) -> Tensor:
    """The faces, if the kernels can take them."""
    if face_verts.dtype == torch.float32 and (face_verts.is_cuda or INTERPRETED):
        return face_verts
    raise ValueError(
        f"The faces are {face_verts.dtype} on {face_verts.device}. The cuda back end takes float32 on CUDA; before it "
        "is first used, TRITON_INTERPRET=1 in the environment makes it run on the CPU, slowly, for tests."
    )


def launch(kernel, grid: tuple[int, ...], *arguments, **options) -> None:
    """Run a kernel on the device of its first argument, with fused multiply-add unless it is told otherwise."""
    options.setdefault("enable_fp_fusion", True)
    if INTERPRETED:
        kernel[grid](*arguments, **options)
    else:
        with torch.cuda.device(arguments[0].device):
            kernel[grid](*arguments, **options)


def bin_faces(face_verts: Tensor, counts: list[int], size_hw: tuple[int, int], blur: float, turn: int) -> Tiles:
    """Sort the faces of each mesh into the tiles of its image.

    `turn` is 1 or -1 to keep only faces whose corners run counter-clockwise or clockwise as displayed, 0 for both.
    Faces without area and those with a corner at or behind the camera are left out.
    """
    device, (h, w) = face_verts.device, size_hw
    across, down = -(-w // SIDE), -(-h // SIDE)
    v0, v1, v2 = face_verts.unbind(1)
    winding = _area(v0, v1, v2).double()
    usable = (winding.abs() > 1e-8) & (face_verts[..., 2].amin(1).double() >= 1e-8)
    if turn:
        usable &= winding * turn >= 0
    areas = torch.where(usable, (_area(v2, v0, v1).double() + 1e-8).float(), 0.0)
    # Which tiles a box covers may be judged generously: kernels look again.
    unit, reach = min(h, w) / 2, math.sqrt(blur)
    middle = torch.tensor([w / 2 - 0.5, h / 2 - 0.5], device=device)
    size = torch.tensor([w, h], device=device)
    low = middle - (face_verts[..., :2].amax(1) + reach) * unit - 0.05
    high = middle - (face_verts[..., :2].amin(1) - reach) * unit + 0.05
    first = low.clamp(min=0).minimum(size).ceil().int()
    last = high.clamp(min=-1).minimum(size - 1).floor().int()
    usable &= (first <= last).all(1)
    first, last = first // SIDE, last // SIDE
    extent = last - first + 1
    amount = torch.where(usable, extent[:, 0] * extent[:, 1], 0)
    slot_begin = torch.nn.functional.pad(amount.cumsum(0), (1, 0)).int()
    face = torch.arange(len(face_verts), device=device).repeat_interleave(amount)
    sizes = torch.tensor(counts, device=device, dtype=torch.int64)
    mesh = torch.arange(len(counts), device=device).repeat_interleave(sizes)
    place = torch.arange(len(face), device=device) - slot_begin[face]
    row = first[face, 1] + place // extent[face, 0]
    tile = (mesh[face] * down + row) * across + first[face, 0] + place % extent[face, 0]
    tile, order = tile.sort(stable=True)
    begin = torch.searchsorted(tile, torch.arange(len(counts) * across * down + 1, device=device)).int()
    return Tiles(begin, face[order].int(), order.int(), slot_begin, areas, (across, across * down))


def _area(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a[:, 0] - b[:, 0]) * (c[:, 1] - b[:, 1]) - (a[:, 1] - b[:, 1]) * (c[:, 0] - b[:, 0])


def centres(size: int, other: int, device: torch.device) -> Tensor:
    """(2, size) float32: the coordinates of pixel centres and what rounding left of them."""
    from renderers.rasterize import pixel_centres

    rounded = pixel_centres(size, other)
    rest = pixel_centres(size, other, torch.float64) - rounded
    return torch.stack([rounded, rest.float()]).to(device)


def sum_slots(slots: Tensor, tiles: Tiles) -> Tensor:
    """(F, width) sums of the slots of each face, always in the order of the tiles: the same bits every time."""
    faces, width = len(tiles.areas), slots.shape[1]
    out = slots.new_zeros(faces, width)
    if tiles.entries:
        block, columns = (1024 if INTERPRETED else 32), min(64, triton.next_power_of_2(width))
        grid = (triton.cdiv(faces, block), triton.cdiv(width, columns))
        launch(_sum_slots, grid, slots, tiles.slot_begin, out, faces, width, FACES=block, WIDTH=columns)
    return out
