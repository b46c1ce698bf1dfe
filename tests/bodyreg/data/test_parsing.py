"""Parsing pictures: both forms there and back, and every way in which a file can be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bodyreg.data import parsing
from priors.clothing_labels import ATR_LABELS, LABELS, PALETTE


@pytest.fixture
def labels():
    return np.arange(60, dtype=np.uint8).reshape(6, 10) % 20


@pytest.mark.parametrize("form", ["palette", "labels"])
def test_written_and_read_back(tmp_path, labels, form) -> None:
    path = parsing.write_parsing(tmp_path / "a" / "x.png", labels, form)
    assert np.array_equal(parsing.read_parsing(path, (6, 10)), labels)


def test_indexed_pictures_are_read_by_their_colours_or_else_as_numbers(tmp_path, labels) -> None:
    picture = Image.fromarray((labels + 3) % 20, mode="P")
    picture.putpalette(np.roll(PALETTE, 3, axis=0).tobytes())  # the labels' colours in another order
    picture.save(tmp_path / "coloured.png")
    assert np.array_equal(parsing.read_parsing(tmp_path / "coloured.png"), labels)
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([7] * 768)
    picture.save(tmp_path / "numbers.png")
    assert np.array_equal(parsing.read_parsing(tmp_path / "numbers.png"), labels)


def test_atr_numbers_become_lips(tmp_path) -> None:
    Image.fromarray(np.arange(18, dtype=np.uint8)[None]).save(tmp_path / "atr.png")
    found = parsing.read_parsing(tmp_path / "atr.png", numbers="atr-18")[0]
    for number, name in enumerate(ATR_LABELS):
        if name in LABELS:
            assert LABELS[found[number]] == name
    assert {LABELS[found[ATR_LABELS.index(n)]] for n in ("belt", "bag")} == {"pants", "background"}


def test_colours_against_a_walk_over_pixels() -> None:
    rng = np.random.default_rng(0)
    rgb = PALETTE[rng.integers(0, 20, (5, 7))]
    rgb[2, 3] += 1
    found = parsing.labels_from_rgb(rgb)
    for r in range(5):
        for c in range(7):
            match = [k for k in range(20) if tuple(PALETTE[k]) == tuple(rgb[r, c])]
            assert found[r, c] == (match[0] if match else 255)


def test_a_mirrored_picture_exchanges_sides() -> None:
    names = ["leftArm", "face", "rightShoe", "leftLeg"]
    labels = np.array([[LABELS.index(n) for n in names] + [255]], np.uint8)
    found = [LABELS[k] if k < 20 else k for k in parsing.mirror_labels(labels)[0]]
    assert found == [255, "rightLeg", "leftShoe", "face", "rightArm"]


def test_wrong_files_say_what_is_wrong(tmp_path, labels) -> None:
    good = parsing.write_parsing(tmp_path / "good.png", labels)
    with pytest.raises(ValueError, match="6 x 10 pixels and its photograph 12 x 20"):
        parsing.read_parsing(good, (12, 20))
    noisy = parsing.rgb_from_labels(labels)
    noisy[1, 2] = 9
    cases = {
        "colours": (Image.fromarray(noisy), "colours that are no label's, \\[9, 9, 9\\] at row 1, column 2"),
        "alpha": (Image.new("RGBA", (4, 4)), "mode RGBA"),
        "deep": (Image.fromarray(np.zeros((4, 4), np.uint16)), "mode I;16"),
        "range": (Image.fromarray(np.full((4, 4), 20, np.uint8)), "number 20. Labels are 0 to 19"),
    }
    for name, (picture, message) in cases.items():
        picture.save(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match=message):
            parsing.read_parsing(tmp_path / f"{name}.png")
    Image.fromarray(noisy).save(tmp_path / "really.jpg")
    (tmp_path / "really.jpg").rename(tmp_path / "jpeg.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:40])
    for name in ("jpeg.png", "cut.png"):
        with pytest.raises(ValueError, match="no readable PNG"):
            parsing.read_parsing(tmp_path / name)
    with pytest.raises(ValueError, match="lip-20, atr-18"):
        parsing.read_parsing(good, numbers="pascal")
    with pytest.raises(ValueError, match="number 25"):
        parsing.write_parsing(tmp_path / "x.png", labels + 6)


def test_a_folder_is_converted_and_what_cannot_be_is_named(tmp_path, labels) -> None:
    parsing.write_parsing(tmp_path / "in" / "a" / "x.png", labels)
    (tmp_path / "in" / "broken.png").write_bytes(b"no")
    written, refused = parsing.convert_parsing_folder(tmp_path / "in", tmp_path / "out", form="labels")
    assert written == [tmp_path / "out" / "a" / "x.png"] and list(refused) == ["broken.png"]
    assert Image.open(written[0]).mode == "L" and np.array_equal(parsing.read_parsing(written[0]), labels)
    with pytest.raises(ValueError, match="no PNG"):
        parsing.convert_parsing_folder(tmp_path / "out" / "none", tmp_path)


def test_the_command_converts_and_names_what_it_refuses(tmp_path, labels) -> None:
    from typer.testing import CliRunner

    from bodyreg.cli import app

    parsing.write_parsing(tmp_path / "in" / "x.png", labels)
    (tmp_path / "in" / "broken.png").write_bytes(b"no")
    line = ["prepare", "parsing", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0 and "1 parsing pictures" in result.output and "broken.png" in result.output
