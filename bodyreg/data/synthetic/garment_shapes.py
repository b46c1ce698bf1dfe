"""Cloth around a body: rest vertices moved onto shells and cones, and posed with their own skinning.

Shells stand off a smoothed body by their ease and hang down from the chest; skirts and the lower parts of dresses and
coats map each leg's cross-section, by its angle about the leg, onto half an ellipse, the inner side onto a wall in the
middle. Everything stays one closed surface of the body's own topology.
"""

from __future__ import annotations

import numpy as np

from renderers.backends.jit import kernel

__all__ = ["pose_cloth", "shape_cloth"]


@kernel
def _smooth_step(x):  # noqa: ANN001, ANN202
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


@kernel
def _leg_axis(y, joints, side, template_y, atlas):  # noqa: ANN001, ANN202
    """x and z of the axis a cone's half turns about at height y: the leg's, towards the middle above the crotch."""
    hip, knee, ankle = (1, 4, 7) if side > 0 else (2, 5, 8)
    if y > joints[knee, 1]:
        t = min(max((joints[hip, 1] - y) / (joints[hip, 1] - joints[knee, 1]), 0.0), 1.0)
        x = joints[hip, 0] * (1 - t) + joints[knee, 0] * t
        z = joints[hip, 2] * (1 - t) + joints[knee, 2] * t
    else:
        t = min((joints[knee, 1] - y) / (joints[knee, 1] - joints[ankle, 1]), 1.0)
        x = joints[knee, 0] * (1 - t) + joints[ankle, 0] * t
        z = joints[knee, 2] * (1 - t) + joints[ankle, 2] * t
    apart = _smooth_step((atlas[2] - 0.04 - template_y) / 0.09)
    return x * apart, z, apart


@kernel
def _on_cone(v, template_y, joints, half, atlas, ease, flare, folds, fold, phase):  # noqa: ANN001, ANN202
    """Point of the cone for a vertex v (3): `half` are the half axes at the hips, sideways, to the front and back."""
    side = 1.0 if v[0] > 0 else -1.0
    cx, cz, apart = _leg_axis(v[1], joints, side, template_y, atlas)
    angle = np.arctan2(v[2] - cz, side * (v[0] - cx))
    most = 0.5 * np.pi + apart * 0.45
    below = max(0.0, joints[0, 1] - v[1])
    grow = ease + flare * below
    if abs(angle) <= most:
        turn = angle * 0.5 * np.pi / most
        around = turn if side > 0 else np.pi - turn
        wave = 1.0 + fold * min(1.0, 2.0 * below) * np.sin(folds * around + phase)
        across = half[0] + grow
        depth = (half[1] if turn > 0 else half[2]) + grow
        return side * max(across * np.cos(turn) * wave, 0.002), half[3] + depth * np.sin(turn) * wave
    # The wall begins at full depth: otherwise the seam in the middle of the front would be a groove.
    inner = min(1.0, 2.0 * (np.pi - abs(angle)) / (np.pi - most))
    depth = (half[1] if angle > 0 else half[2]) + grow
    return side * 0.002, half[3] + depth * inner * (1.0 if angle > 0 else -1.0)


@kernel
def shape_cloth(
    v,
    smooth,
    draped,
    normals,
    shoe_normals,
    chest,
    rest,
    arm,
    joints,
    half,
    fields,
    shift,
    atlas,
    outfit,
    fit,
    moved,
    cone,
):  # noqa: ANN001, ANN202
    """Rest vertices in their clothes.

    Args:
        v, smooth, draped: (V, 3) shaped rest body, a little and much smoothed.
        normals, shoe_normals: (V, 3) of `smooth` and of `draped`.
        chest: (V,) vertex at the height of the chest in the same direction from the torso's axis.
        rest, arm: (V, 3) template and (V,) weight of the arms. joints: (24, 3) rest joints of this shape.
        half: (4,) half width of the hips, their depth to the front and the back of the last number, z of the middle.
        fields, shift: see `fill_fields`. atlas, outfit, fit: see there.
        moved: (V, 3) output. cone: (V,) output, how far a vertex is moved with the cone instead of its body part.
    """
    leg_length = atlas[2] - atlas[3]
    has_skirt = outfit[11] > 11.5 and outfit[10] != 10 and outfit[10] != 6
    hem = outfit[1] if (outfit[10] < 9 and outfit[1] > 0.12) else -1.0
    cone_hem = max(hem, outfit[2] if has_skirt else -1.0)
    cone_hem_y = atlas[2] - cone_hem * leg_length
    from_upper = hem >= cone_hem
    cone_top = atlas[2] + (0.08 if from_upper else min(0.08, fit[8]))
    phase = outfit[17]
    for i in range(v.shape[0]):
        f = fields[i]
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        upper, lower = max(f[4], f[5]), f[6]
        n = normals[i]
        shod = f[7] > 0 and f[6] <= 0
        if shod:
            n = shoe_normals[i]
        ease, soft = 0.0, 0.0
        along = min(max((abs(x) - atlas[0]) / (atlas[1] - atlas[0]), 0.0), 1.0)
        down = min(max((atlas[2] - y) / leg_length, 0.0), 1.0)
        sleeve = _smooth_step(2.0 * arm[i] - 0.3)
        if lower > 0:
            ease = fit[3] + fit[5] * down
        if upper > 0:
            own = fit[1] * (1 - sleeve) + (fit[2] + fit[4] * along) * sleeve
            own *= 0.35 + 0.65 * _smooth_step((atlas[5] + 0.02 - y) / 0.12)  # cloth lies on the shoulders
            ease = max(own, ease + 0.004) if lower > 0 else own
        if f[4] > 0:
            ease += 0.006
        cloth = ease
        if ease > 0:
            soft = min(1.0, ease / 0.012)
        if f[8] > 0 and ease <= 0:
            ease, soft = 0.003, 0.3
        if f[9] > 0 and ease <= 0:
            ease, soft = 0.004, 0.7
        if shod:
            ease, soft = 0.003 + outfit[15], 1.0
        if f[2] > 0:
            ease = max(ease, outfit[14] * _smooth_step(f[2] / 0.03) + 0.002)
            soft = 0.9
        if f[1] > 0:
            ease, soft = 0.012, 1.0
        if f[0] > 0 and f[2] <= 0:
            ease = 0.006
        if f[3] > 0:
            ease, soft = fit[17] * (0.6 + 0.4 * _smooth_step(f[3] / 0.03)) + max(ease, 0.0), 1.0
        for k in range(3):
            moved[i, k] = v[i, k] + soft * (smooth[i, k] - v[i, k])
        loose = min(max((cloth - 0.012) / 0.04, 0.0), 1.0)
        if shod:
            loose = 1.0  # toes disappear in a shoe, which is longer than they are
        if loose > 0:
            for k in range(3):
                moved[i, k] += loose * (draped[i, k] - moved[i, k])
        # Where smoothing went into the body, out again.
        inside = 0.0
        for k in range(3):
            inside += (moved[i, k] - v[i, k]) * n[k]
        push = ease - (0.0 if shod else min(inside, 0.0))
        if cloth > 0.0:
            waves = np.sin(31.0 * y + 17.0 * x + phase) + 0.7 * np.sin(23.0 * z - 19.0 * y + 2.0 * phase)
            push += min(fit[19], 0.5 * cloth) * waves
        for k in range(3):
            moved[i, k] += push * n[k]
        if f[1] > 0 and f[1] < 0.016:
            span = np.sqrt(x * x + (z - atlas[7]) ** 2) + 1e-6
            moved[i, 0] += fit[15] * x / span
            moved[i, 2] += fit[15] * (z - atlas[7]) / span
        if shod:
            moved[i, 2] += 0.014 * _smooth_step((z - atlas[15]) / 0.15)
            if y < atlas[3] - 0.03:
                moved[i, 1] = min(moved[i, 1], v[i, 1]) - 0.3 * outfit[15]
        if upper > 0 and sleeve < 0.5:
            _hang(v, moved, i, chest[i], y, joints, atlas, fit)
        cone[i] = 0.0
        worn = upper if from_upper else lower
        if cone_hem > 0 and worn > 0 and abs(x) < 0.3 and y < cone_top and y > cone_hem_y - 1e-6:
            share = _smooth_step((cone_top - y) / 0.10)
            ease_cone = (fit[1] if from_upper else fit[3]) + (0.006 if f[4] > 0 else 0.0)
            cx, cz = _on_cone(v[i], y, joints, half, atlas, ease_cone, fit[7], fit[18], min(0.12, 8 * fit[19]), phase)
            moved[i, 0] += share * (cx - moved[i, 0])
            moved[i, 1] += share * (v[i, 1] - moved[i, 1])
            moved[i, 2] += share * (cz - moved[i, 2])
            cone[i] = share
        moved[i, 0] += shift[i, 0]
        moved[i, 1] += shift[i, 1]


@kernel
def _hang(v, moved, i, anchor, y, joints, atlas, fit):  # noqa: ANN001, ANN202
    """Move a vertex of the torso out to where cloth hangs from the chest."""
    start = atlas[5] - 0.14
    if y > start or fit[6] <= 0.0:
        return
    cz = joints[6, 2] + 0.03
    dx, dz = moved[i, 0], moved[i, 2] - cz
    r = np.sqrt(dx * dx + dz * dz) + 1e-6
    ax, az = moved[anchor, 0], moved[anchor, 2] - cz
    if anchor > i:  # not moved yet: the body's own chest and the ease
        ax, az = v[anchor, 0], v[anchor, 2] - cz
    wanted = np.sqrt(ax * ax + az * az) + (fit[1] if anchor > i else 0.0)
    share = fit[6] * _smooth_step((start - y) / 0.08)
    grow = 1.0 + share * max(0.0, wanted - r) / r
    moved[i, 0], moved[i, 2] = dx * grow, cz + dz * grow


@kernel
def pose_cloth(posed, v, moved, cone, index, value, skirt_index, skirt_value, R, t, down, fit, out):  # noqa: ANN001, ANN202
    """Posed clothes: shells keep the posed body (correctives included) below them, cones have their own skinning.

    Args:
        posed: (V, 3) posed body. v, moved: (V, 3) rest body without and with clothes. cone: (V,).
        index, value: (V, k) joints and weights of the body; skirt_index, skirt_value: (V, m) those of cones.
        R, t: (24, 3, 3), (24, 3) posed from rest. down: (3,) unit vector of gravity. fit: see `FIT`. out: (V, 3).
    """
    for i in range(posed.shape[0]):
        dx, dy, dz = moved[i, 0] - v[i, 0], moved[i, 1] - v[i, 1], moved[i, 2] - v[i, 2]
        sx = sy = sz = 0.0
        for k in range(index.shape[1]):
            j, w = index[i, k], value[i, k]
            sx += w * (R[j, 0, 0] * dx + R[j, 0, 1] * dy + R[j, 0, 2] * dz)
            sy += w * (R[j, 1, 0] * dx + R[j, 1, 1] * dy + R[j, 1, 2] * dz)
            sz += w * (R[j, 2, 0] * dx + R[j, 2, 1] * dy + R[j, 2, 2] * dz)
        # Loose cloth lies on what is below it and hangs away from what is above.
        length = np.sqrt(sx * sx + sy * sy + sz * sz)
        if length > 0.012 and cone[i] < 0.5:
            facing = (sx * down[0] + sy * down[1] + sz * down[2]) / length
            scale = 1.0 + 0.6 * facing * min(1.0, (length - 0.012) / 0.02)
            sx, sy, sz = sx * scale, sy * scale, sz * scale
        px, py, pz = posed[i, 0] + sx, posed[i, 1] + sy, posed[i, 2] + sz
        c = cone[i]
        if c > 0.0:
            qx = qy = qz = 0.0
            mx, my, mz = moved[i, 0], moved[i, 1], moved[i, 2]
            for k in range(skirt_index.shape[1]):
                j, w = skirt_index[i, k], skirt_value[i, k]
                qx += w * (R[j, 0, 0] * mx + R[j, 0, 1] * my + R[j, 0, 2] * mz + t[j, 0])
                qy += w * (R[j, 1, 0] * mx + R[j, 1, 1] * my + R[j, 1, 2] * mz + t[j, 1])
                qz += w * (R[j, 2, 0] * mx + R[j, 2, 1] * my + R[j, 2, 2] * mz + t[j, 2])
            px, py, pz = px + c * (qx - px), py + c * (qy - py), pz + c * (qz - pz)
        out[i, 0], out[i, 1], out[i, 2] = px, py, pz
