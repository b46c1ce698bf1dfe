"""Clothing labels by name: the 20 labels of human parsing (LIP), other parsers' labels, and the groups DSR compares.

Left and right are the person's. Numbers and groups are those that DSR (Dwivedi et al., ICCV 2021) was trained with.
CIHP, the data set of the usual parser, numbers alike but calls number 10 the skin of the torso where LIP says
jumpsuits; DSR counts it as upper clothing, and so does this file.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

__all__ = [
    "ATR_LABELS",
    "C_GROUPS",
    "C_GROUP_MATRIX",
    "CIHP_LABELS",
    "LABELS",
    "LIP_FROM_ATR",
    "MC_COLUMNS",
    "MC_LABELS",
    "MIRROR",
    "MIRROR_PAIRS",
    "PALETTE",
    "SMPL_JOINTS_OF_LABEL",
]

LABELS = (
    "background", "hat", "hair", "glove", "sunglasses", "upperclothes", "dress", "coat", "socks", "pants", "jumpsuits",
    "scarf", "skirt", "face", "leftArm", "rightArm", "leftLeg", "rightLeg", "leftShoe", "rightShoe",
)  # fmt: skip
"""LIP's 20 labels in their order."""

CIHP_LABELS = tuple("torsoSkin" if name == "jumpsuits" else name for name in LABELS)
"""CIHP's names of the same 20 numbers."""

MIRROR_PAIRS = ((14, 15), (16, 17), (18, 19))
"""Labels that change places when a picture is mirrored."""

MIRROR = np.arange(len(LABELS))
"""(20,) label of each label's mirror image; read-only."""
for _left, _right in MIRROR_PAIRS:
    MIRROR[[_left, _right]] = _right, _left
MIRROR.setflags(write=False)

PALETTE = np.array(
    [
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85), (0, 119, 221),
        (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255), (51, 170, 221), (0, 255, 255),
        (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
    ],
    np.uint8,
)  # fmt: skip
"""(20, 3) RGB that CIHP parsers (Graphonomy) paint the labels with; read-only."""
PALETTE.setflags(write=False)

MC_LABELS = ("leftShoe", "rightShoe", "leftArm", "rightArm", "face")
"""Labels whose region in a picture is that of the naked body, in DSR's order."""
MC_COLUMNS = tuple(LABELS.index(name) for name in MC_LABELS)
"""Their numbers."""

C_GROUPS = MappingProxyType(
    {
        "background": (0,),
        "head": (1, 2, 4, 11, 13),
        "upperclothes": (3, 5, 6, 7, 10),
        "pants": (8, 9, 12),
        "leftArm": (14,),
        "rightArm": (15,),
        "leftLeg": (16, 18),
        "rightLeg": (17, 19),
    }
)
"""DSR-C's eight groups of labels: gloves are upper clothing, socks are trousers, shoes are legs."""

C_GROUP_MATRIX = np.zeros((len(LABELS), len(C_GROUPS)), np.float32)
"""(20, 8), one where a label belongs to a group: prior @ C_GROUP_MATRIX are the groups' probabilities; read-only."""
for _column, _members in enumerate(C_GROUPS.values()):
    C_GROUP_MATRIX[list(_members), _column] = 1
C_GROUP_MATRIX.setflags(write=False)

ATR_LABELS = (
    "background", "hat", "hair", "sunglasses", "upperclothes", "skirt", "pants", "dress", "belt", "leftShoe",
    "rightShoe", "face", "leftLeg", "rightLeg", "leftArm", "rightArm", "bag", "scarf",
)  # fmt: skip
"""ATR's 18 labels in their order."""

# A belt is worn with trousers, and a bag is no clothing of the body: LIP leaves it to the background.
LIP_FROM_ATR = np.array(
    [LABELS.index({"belt": "pants", "bag": "background"}.get(name, name)) for name in ATR_LABELS], np.uint8
)
"""(18,) LIP's number of each of ATR's; read-only."""
LIP_FROM_ATR.setflags(write=False)

SMPL_JOINTS_OF_LABEL = MappingProxyType(
    {
        "leftShoe": (7, 10),
        "rightShoe": (8, 11),
        "leftArm": (18, 20, 22),
        "rightArm": (19, 21, 23),
        "face": (15,),
        "upperclothes": (0, 3, 6, 9, 13, 14, 16, 17),
        "pants": (1, 2, 4, 5),
    }
)
"""SMPL joints whose part of the body mostly shows a label: a default for the prior from skinning weights. The neck,
joint 12, is divided by whoever uses it."""
