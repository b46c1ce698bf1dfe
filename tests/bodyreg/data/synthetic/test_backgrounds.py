"""Backgrounds: never the same, from the user's pictures where there are some."""

import cv2
import numpy as np
import pytest

from bodyreg.data.synthetic.backgrounds import background_bank, dead_leaves, procedural_background


def test_procedural_backgrounds_differ_and_follow_the_seed():
    bank = background_bank(np.random.default_rng(0), 6, size=64)
    assert bank.shape == (6, 64, 64, 3) and bank.dtype == np.uint8
    assert len({picture.tobytes() for picture in bank}) == 6 and min(p.std() for p in bank) > 1
    np.testing.assert_array_equal(bank, background_bank(np.random.default_rng(0), 6, size=64))
    assert procedural_background(np.random.default_rng(1), 32).shape == (32, 32, 3)


def test_dead_leaves_have_the_spectrum_of_photographs():
    """Amplitude falls about as one over frequency, as in photographs; in noise it is flat."""
    pictures = np.stack([dead_leaves(np.random.default_rng(k), 128) for k in range(6)])
    assert pictures.dtype == np.uint8 and len({picture.tobytes() for picture in pictures}) == 6
    np.testing.assert_array_equal(pictures[2], dead_leaves(np.random.default_rng(2), 128))
    amplitude = np.abs(np.fft.fft2(pictures.mean(-1))).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    band = (frequency > 0.02) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[band]), np.log(amplitude[band]), 1)[0]
    assert -1.9 < slope < -0.8


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of one colour each, red falling, and a broken one."""
    for k, (h, w) in enumerate(((40, 90), (200, 100), (64, 64))):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((h, w, 3), (0, 0, 200 - 50 * k), np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    return tmp_path


def test_every_readable_picture_of_a_folder_serves(pictures):
    bank = background_bank(np.random.default_rng(0), 7, pictures, size=64)
    reds = bank[..., 0].reshape(7, -1)
    assert (reds == reds[:, :1]).all() and set(reds[:, 0]) == {200, 150, 100} and not bank[..., 1:].any()
    one = background_bank(np.random.default_rng(3), 1, pictures, size=32)
    assert one.shape == (1, 32, 32, 3)


def test_pictures_are_read_one_at_a_time(pictures, monkeypatch):
    """A bank as large as the folder reads each picture about once, and never keeps one."""
    from bodyreg.data import folder

    read, real = [], folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda path: read.append(path.name) or real(path))
    background_bank(np.random.default_rng(0), 400, pictures, size=32)
    assert len(read) <= 2 * 4


def test_windows_are_cut_from_all_over_a_picture(tmp_path):
    ramp = np.tile(np.arange(240, dtype=np.uint8)[None, :, None], (80, 1, 3))
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    bank = background_bank(np.random.default_rng(0), 60, tmp_path, size=32)
    lefts = bank[:, 16, 0, 0].astype(int)
    assert lefts.min() < 25 and lefts.max() > 120 and (np.diff(bank[:, 16, :, 0].astype(int)) >= 0).all()


def test_folder_without_a_readable_picture_is_an_error(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="None of the pictures .* could be read. Name a folder"):
        background_bank(np.random.default_rng(0), 3, tmp_path)
