"""The sheet of bodies: every kind of cell shows one whole person on paper, and the sheet in the docs is such a one."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sheet():
    sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("body_contact_sheet", ROOT / "scripts" / "body_contact_sheet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "scripts"))


def coloured(picture, paper):
    """Pixels that are neither paper nor shadow: shadows darken the grey of the paper and stay grey."""
    return (np.ptp(picture.astype(int), axis=2) > 12) | (picture.min(2) > paper + 3)


def test_cells_show_whole_people(sheet):
    rng = np.random.default_rng(0)
    people = sheet.shapes(rng)
    assert len(people) == 2 * sheet.COLUMNS and len({caption for _, caption in people}) == len(people)
    tall = {}
    for picture, caption in people + sheet.outfits(rng, 2):
        rows, columns = np.nonzero(coloured(picture, sheet._PAPER))
        assert rows.min() > 0 and rows.max() < picture.shape[0] - 1, caption  # nothing is cut off
        assert columns.min() > 0 and columns.max() < picture.shape[1] - 1, caption
        tall[caption] = np.ptp(rows)
    assert tall["beta 0 = -2.5"] < tall["neutral"] < tall["beta 0 = +2.5"]
    assert tall["child mix 1.0"] < tall["child mix 0.7"] < tall["child mix 0.4"] < tall["neutral"]
    assert tall["female"] < tall["male"]


def test_sheet_in_the_docs_has_the_size_the_script_makes(sheet):
    picture = cv2.imread(str(ROOT / "docs" / "free_body.png"))
    rows = 6
    assert picture.shape[1] == 6 + sheet.COLUMNS * (sheet.SIZE_HW[1] + 6)
    assert picture.shape[0] > rows * sheet.SIZE_HW[0]
