"""Where garments lie on the body: signed fields over the rest vertices, and the label that a point's fields give.

Each garment is a field in metres, positive inside, made of bounds on coordinates of the rest body (along the arm, the
leg, the torso, around the neck). Fields are interpolated over the faces and looked at in each pixel, so borders are
smooth lines across triangles. Labels are LIP's twenty; code 20 is the bare skin of the torso, which is painted as
skin and reads 10 in parsing maps (CIHP's parsers call that number torso skin, LIP jumpsuits).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderers.backends.jit import kernel

__all__ = ["BARE_TORSO", "FIELDS", "FIT", "fill_fields", "fill_labels", "lip_label"]

BARE_TORSO = 20


class FIT(NamedTuple):
    """Fields of a fit vector, which says how an outfit is cut; metres unless stated otherwise."""

    looseness: int = 0  # of the whole person, 0 skin-tight to 1 very loose
    upper_ease: int = 1  # distance of the upper garment from the body on the torso
    sleeve_ease: int = 2  # and on the arm
    lower_ease: int = 3  # of trousers
    sleeve_flare: int = 4  # extra distance at the end of the sleeve
    leg_flare: int = 5  # extra distance at the end of the trousers
    drape: int = 6  # 0 follows the body below the chest, 1 hangs down from it
    cone_flare: int = 7  # growth of a skirt's half width per metre of height
    waist: int = 8  # height of the lower garment's upper end above the hip joints
    inner_hem: int = 9  # leg coordinate where the shirt below an open coat ends
    opening: int = 10  # half width of an open coat's front; 0 closed
    neck_radius: int = 11  # half width of the neckline
    neck_dip: int = 12  # how much lower the neckline is in front
    shoe_top: int = 13  # height of the shoe's upper end above the ankle joint
    hair_length: int = 14  # how far long hair reaches below the neck joint; 0 short
    brim: int = 15
    glasses: int = 16  # above 0.5 worn
    scarf: int = 17  # thickness; 0 none
    folds: int = 18  # number of folds around a skirt
    fold: int = 19  # amplitude of folds


class FIELDS(NamedTuple):
    """Columns of a field array, from the outermost layer inwards; the last three divide the skin."""

    glasses: int = 0
    hat: int = 1
    hair: int = 2
    scarf: int = 3
    coat: int = 4
    upper: int = 5
    lower: int = 6
    shoe: int = 7
    sock: int = 8
    glove: int = 9
    arm: int = 10
    leg: int = 11
    torso: int = 12
    side: int = 13  # positive on the person's left


HEM_INSIDE, HEM_OUTSIDE = 0.018, 0.04
"""Vertices this near to the end of a sleeve, a leg or a hem, metres, are moved onto it: ends are straight. Outside it
is less at wrists and ankles, where the mesh is finer."""
_NOT = -1.0
_COAT, _JUMPSUIT = 7, 10


@kernel
def lip_label(f: np.ndarray, upper_kind: float, lower_kind: float) -> int:
    """Label code of a point with fields `f` (14,): LIP's number, or `BARE_TORSO`."""
    left = f[13] > 0
    if f[0] > 0:
        return 4
    if f[1] > 0:
        return 1
    if f[2] > 0:
        return 2
    if f[3] > 0:
        return 11
    if f[4] > 0:
        return 7
    if f[5] > 0:
        return 5 if upper_kind == 7 else int(upper_kind)
    if f[6] > 0:
        return int(lower_kind)
    if f[7] > 0:
        return 18 if left else 19
    if f[8] > 0:
        return 8
    if f[9] > 0:
        return 3
    if f[10] > 0:
        return 14 if left else 15
    if f[11] > 0:
        return 16 if left else 17
    return 20 if f[12] > 0 else 13


@kernel
def fill_labels(fields, upper_kind, lower_kind, out):  # noqa: ANN001, ANN202
    """Label codes (N,) of rows of fields (N, 14)."""
    for i in range(fields.shape[0]):
        out[i] = lip_label(fields[i], upper_kind, lower_kind)


@kernel
def sleeve_bound(x, y, atlas, outfit):  # noqa: ANN001, ANN202
    """Distance to the sleeve's end along the arm, without sleeves to the edge of the shoulder above the armpit."""
    if outfit[0] >= 0.1:
        return atlas[0] + outfit[0] * (atlas[1] - atlas[0]) - abs(x)
    return max((0.97 + 0.4 * outfit[0]) * atlas[0] - abs(x), atlas[5] - 0.19 - y)


@kernel
def neck_bound(x, y, z, atlas, outfit, fit):  # noqa: ANN001, ANN202
    """Distance to the neckline: what is open lies above it and within its half width of the middle."""
    front = min(max((z - atlas[15]) / 0.04 + 0.5, 0.0), 1.0)
    bend = max(0.0, 1.0 - (x / fit[11]) ** 2)
    top = atlas[4] + outfit[3] * (atlas[5] - atlas[4]) - fit[12] * front * bend
    return min(max(top - y, abs(x) - fit[11]), max(atlas[5] + 0.03, top) - y)


@kernel
def head_fields(x, y, z, ear, atlas, outfit, fit, out):  # noqa: ANN001, ANN202
    """Glasses, hat, hair and scarf of one vertex."""
    up, back = y - atlas[6], atlas[7] - z
    r = atlas[8]
    if fit[16] > 0.5:
        out[0] = min(0.015 - abs(y - atlas[10]), z - atlas[11] + 0.03, 0.066 - abs(x))
    if abs(x) < 0.13 and y > atlas[6] - r:
        out[1] = up - outfit[9] * r - 0.2 * back
        hair = np.sin(outfit[7]) * back + np.cos(outfit[7]) * up - (0.35 + outfit[8]) * r
        if fit[14] <= 0.0:
            hair = min(hair, np.sqrt((abs(x) - ear[0]) ** 2 + (y - ear[1]) ** 2 + (z - ear[2]) ** 2) - 0.03)
        out[2] = hair
    if fit[14] > 0.0 and outfit[8] < 2.0:
        long = min(0.1 - abs(x), -0.005 - z, y - (atlas[5] - fit[14]), atlas[6] - y)
        out[2] = max(out[2], long)
    if fit[17] > 0.0:
        out[3] = min(atlas[5] + 0.045 - y, y - (atlas[5] - 0.055), 0.12 - abs(x))


@kernel
def _reach(height, atlas):  # noqa: ANN001, ANN202
    return min(HEM_OUTSIDE, max(0.012, height - atlas[3] - 0.03))


@kernel
def _end(bound, reach):  # noqa: ANN001, ANN202
    """A bound whose first vertices outside, which are moved onto the end, lie just outside: the ring between cloth and
    skin belongs to the cloth."""
    return 0.05 * bound if -reach < bound < 0.0 else bound


@kernel
def cloth_fields(x, y, z, atlas, outfit, fit, out, shift):  # noqa: ANN001, ANN202
    """Coat, upper and lower garment of one vertex, and how far it is moved along x and y onto the end of one."""
    leg = atlas[2] - atlas[3]
    sleeve, neck = sleeve_bound(x, y, atlas, outfit), neck_bound(x, y, z, atlas, outfit, fit)
    end_y = atlas[2] - outfit[2] * leg
    hem_y = end_y if outfit[10] == _JUMPSUIT else atlas[2] - outfit[1] * leg
    at_sleeve = 0.6 * HEM_OUTSIDE if outfit[0] < 0.85 else 0.012
    at_hem, at_end = _reach(hem_y, atlas), _reach(end_y, atlas)
    if outfit[0] < 0.1:
        upper = min(sleeve, neck, _end(y - hem_y, at_hem))
    else:
        upper = min(_end(sleeve, at_sleeve), neck, _end(y - hem_y, at_hem))
    if outfit[10] == _COAT:
        out[4] = upper
        if fit[10] > 0.0:
            out[4] = min(upper, max(abs(x) - fit[10], atlas[15] + 0.03 - z))
        out[5] = min(sleeve, neck, y - (atlas[2] - fit[9] * leg))
    else:
        out[5] = upper
    if outfit[10] != _JUMPSUIT:
        out[6] = min(_end(y - end_y, at_end), atlas[2] + fit[8] - y, 0.3 - abs(x))
    if -at_sleeve < sleeve < HEM_INSIDE and outfit[0] >= 0.1 and neck > 0:
        shift[0] = sleeve if x > 0 else -sleeve
    if -at_hem < y - hem_y < HEM_INSIDE and sleeve > 0 and neck > 0:
        shift[1] = hem_y - y
    elif -at_end < y - end_y < HEM_INSIDE and abs(x) < 0.3 and upper <= 0:
        shift[1] = end_y - y


@kernel
def fill_fields(rest, arm, ear, atlas, outfit, fit, fields, shift):  # noqa: ANN001, ANN202
    """Fields (V, 14) of all rest vertices (V, 3), metres, and hem shifts (V, 2)."""
    leg = atlas[2] - atlas[3]
    for i in range(rest.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        out = fields[i]
        for k in range(10):
            out[k] = _NOT
        shift[i, 0] = shift[i, 1] = 0.0
        head_fields(x, y, z, ear, atlas, outfit, fit, out)
        cloth_fields(x, y, z, atlas, outfit, fit, out, shift[i])
        if outfit[5] > 0.5:
            out[7] = atlas[3] + fit[13] - y
        if outfit[4] <= 1.0:
            out[8] = atlas[2] - outfit[4] * leg - y
        if outfit[6] > 0.5:
            out[9] = abs(x) - atlas[1]
        out[10] = arm[i] - 0.5
        out[11] = min(atlas[2] + 0.02 - y, 0.3 - abs(x))
        out[12] = atlas[5] - 0.015 - y
        out[13] = x
