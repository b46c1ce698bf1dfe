"""Numba kernel: light the samples of `rasterize_hard` and average them into pixels."""

from __future__ import annotations

import numpy as np
from numba import float32

from renderers.backends.jit import kernel


@kernel
def shade(face, bary, vertices, faces, normals, colours, rays, lights, material, samples, out):
    """Light every sample and add it, weighted by its share of the pixel, to (h, w, 4) premultiplied colour and alpha.

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
    share = float32(1.0 / (samples * samples))
    light = np.zeros(3, np.float32)
    tiny = float32(1e-20)
    squarings = int(material[7])
    zero, one = float32(0.0), float32(1.0)
    for r in range(face.shape[0]):
        vy = rays[1] + float32(r + 0.5) * rays[3]
        for c in range(face.shape[1]):
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
            scale = float32(-1.0 if volume > zero else 1.0) / np.sqrt(nx * nx + ny * ny + nz * nz + tiny)
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            vx = rays[0] + float32(c + 0.5) * rays[2]
            # Unit direction from the surface to the eye.
            to_eye = float32(-1.0) / np.sqrt(vx * vx + vy * vy + float32(1.0))
            ex, ey, ez = vx * to_eye, vy * to_eye, to_eye
            up = float32(0.5) * (float32(1.0) - ny)
            for k in range(3):
                light[k] = material[3 + k] + (material[k] - material[3 + k]) * up
            highlight = float32(0.0)
            for j in range(lights.shape[0]):
                lx, ly, lz, wrap = lights[j, 0], lights[j, 1], lights[j, 2], lights[j, 6]
                diffuse = (nx * lx + ny * ly + nz * lz + wrap) / (float32(1.0) + wrap)
                if diffuse <= zero:
                    continue
                for k in range(3):
                    light[k] += diffuse * lights[j, 3 + k]
                hx, hy, hz = lx + ex, ly + ey, lz + ez
                shine = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + tiny)
                if shine > zero:
                    for _ in range(squarings):
                        shine *= shine
                    highlight += lights[j, 3] * material[6] * shine
            pr, pc = r // samples, c // samples
            for k in range(3):
                base = b0 * colours[i0, k] + b1 * colours[i1, k] + b2 * colours[i2, k]
                # Light adds up in linear intensities; a square stands for the display curve.
                value = np.sqrt(base * base * light[k] + highlight)
                out[pr, pc, k] += share * min(value, one)
            out[pr, pc, 3] += share
