"""Numba kernel: light the samples of `rasterize_hard` and average them into pixels."""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.jit import inlined, kernel

_TINY, _ZERO, _HALF, _ONE = float32(1e-20), float32(0.0), float32(0.5), float32(1.0)
_SMOOTH = float32(0.98)  # length of the mean of a pixel's unit normals (spread by 11 degrees) that are lit as one


@inlined
def _lit(one, lights, material):
    """Display-coded r, g, b of a sample: one (8,) is its unit normal, its colour, and x and y of its viewing ray."""
    nx, ny, nz = one[0], one[1], one[2]
    # Unit direction from the surface to the eye.
    to_eye = -_ONE / np.sqrt(one[6] * one[6] + one[7] * one[7] + _ONE)
    ex, ey, ez = one[6] * to_eye, one[7] * to_eye, to_eye
    up = _HALF * (_ONE - ny)
    red = material[3] + (material[0] - material[3]) * up
    green = material[4] + (material[1] - material[4]) * up
    blue = material[5] + (material[2] - material[5]) * up
    highlight = _ZERO
    for j in range(lights.shape[0]):
        lx, ly, lz, wrap = lights[j, 0], lights[j, 1], lights[j, 2], lights[j, 6]
        diffuse = (nx * lx + ny * ly + nz * lz + wrap) / (_ONE + wrap)
        if diffuse <= _ZERO:
            continue
        red += diffuse * lights[j, 3]
        green += diffuse * lights[j, 4]
        blue += diffuse * lights[j, 5]
        hx, hy, hz = lx + ex, ly + ey, lz + ez
        shine = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + _TINY)
        if shine > _ZERO:
            for _ in range(int(material[7])):
                shine *= shine
            highlight += lights[j, 3] * material[6] * shine
    # Light adds up in linear intensities; a square stands for the display curve.
    return (
        min(np.sqrt(one[3] * one[3] * red + highlight), _ONE),
        min(np.sqrt(one[4] * one[4] * green + highlight), _ONE),
        min(np.sqrt(one[5] * one[5] * blue + highlight), _ONE),
    )


@kernel
def shade(face, bary, vertices, faces, normals, colours, rays, lights, material, samples, out):
    """Light every sample and add it, weighted by its share of the pixel, to (h, w, 4) premultiplied colour and alpha.

    A pixel that is covered whole by a smooth surface is lit once, by the mean of its normals and colours.

    Args:
        face, bary: (h s, w s) and (h s, w s, 3) from `rasterize_hard`, s samples along each side of a pixel.
        vertices: (V, 3) in the camera frame, to tell the side of a face that is seen.
        normals: (V, 3) unit normals, pointing to the outer side of the faces (counter-clockwise seen from there).
        colours: (V, 3) in [0, 1], display-coded.
        rays: (4,) x and y of the viewing ray (at depth 1) at the corner of sample (0, 0), and its step per sample.
        lights: (L, 7) unit direction towards the light, its r, g, b, and its wrap in [0, 1] (0: hard terminator).
        material: (8,) ambient r, g, b from above and from below, strength of the highlight, and how often its cosine is
            squared (4: exponent 16).
        out: (h, w, 4) float32, added to.
    """
    count = samples * samples
    share = float32(1.0 / count)
    seen = np.empty((count, 8), np.float32)  # of a pixel's samples: normal, colour, viewing ray
    for pr in range(out.shape[0]):
        for pc in range(out.shape[1]):
            covered = 0
            mx, my, mz, red, green, blue = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for i in range(samples):
                for j in range(samples):
                    r, c = pr * samples + i, pc * samples + j
                    f = face[r, c]
                    if f < 0:
                        continue
                    i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
                    b0, b1, b2 = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
                    nx = b0 * normals[i0, 0] + b1 * normals[i1, 0] + b2 * normals[i2, 0]
                    ny = b0 * normals[i0, 1] + b1 * normals[i1, 1] + b2 * normals[i2, 1]
                    nz = b0 * normals[i0, 2] + b1 * normals[i1, 2] + b2 * normals[i2, 2]
                    # Faces seen from inside are lit on that side: the volume of the tetrahedron to the eye tells which.
                    ax, ay, az = vertices[i0, 0], vertices[i0, 1], vertices[i0, 2]
                    bx, by, bz = vertices[i1, 0], vertices[i1, 1], vertices[i1, 2]
                    cx, cy, cz = vertices[i2, 0], vertices[i2, 1], vertices[i2, 2]
                    volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
                    scale = (-_ONE if volume > _ZERO else _ONE) / np.sqrt(nx * nx + ny * ny + nz * nz + _TINY)
                    one = seen[covered]
                    one[0], one[1], one[2] = nx * scale, ny * scale, nz * scale
                    one[3] = b0 * colours[i0, 0] + b1 * colours[i1, 0] + b2 * colours[i2, 0]
                    one[4] = b0 * colours[i0, 1] + b1 * colours[i1, 1] + b2 * colours[i2, 1]
                    one[5] = b0 * colours[i0, 2] + b1 * colours[i1, 2] + b2 * colours[i2, 2]
                    one[6] = rays[0] + (float32(c) + _HALF) * rays[2]
                    one[7] = rays[1] + (float32(r) + _HALF) * rays[3]
                    mx, my, mz = mx + one[0], my + one[1], mz + one[2]
                    red, green, blue = red + one[3], green + one[4], blue + one[5]
                    covered += 1
            length = np.sqrt(mx * mx + my * my + mz * mz) * share
            each = share
            if count > 1 and covered == count and length > _SMOOTH:
                scale = share / length
                one = seen[0]
                one[0], one[1], one[2] = mx * scale, my * scale, mz * scale
                one[3], one[4], one[5] = red * share, green * share, blue * share
                one[6] = rays[0] + (float32(pc) + _HALF) * float32(samples) * rays[2]
                one[7] = rays[1] + (float32(pr) + _HALF) * float32(samples) * rays[3]
                covered, each = 1, _ONE
            for k in range(covered):
                red, green, blue = _lit(seen[k], lights, material)
                out[pr, pc, 0] += each * red
                out[pr, pc, 1] += each * green
                out[pr, pc, 2] += each * blue
                out[pr, pc, 3] += each
