"""Photographs: listing, reading, EXIF, odd modes, and everything that strangers' files get wrong."""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bodyreg.data import folder
from bodyreg.data.folder import ImageError, list_images, read_image

HEIC = Path(__file__).parent / "files" / "rotated.heic"


@pytest.fixture
def rgb():
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, 0 * x + 128], -1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, *, orientation: int = 0, f35: int | None = None, **options) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    if f35 is not None:
        (exif if path.suffix == ".tiff" else exif.get_ifd(0x8769))[41989] = f35  # Pillow writes no sub-folder into TIFF
    image.save(path, exif=exif, **options) if orientation or f35 is not None else image.save(path, **options)
    return path


def assert_refused(path: Path, pattern: str, **options) -> None:
    with pytest.raises(ImageError, match=pattern) as caught:
        read_image(path, **options)
    assert path.name in str(caught.value)
    assert str(caught.value).count(". ") >= 1  # what was found, and what to do


# ---- listing --------------------------------------------------------------------------------------------------------


def test_lists_recursively_in_order_whatever_the_case(tmp_path, rgb):
    for name in (
        "b.JPG",
        "a.png",
        "sub/c.Tiff",
        "sub/deep/d.heic",
        ".hidden/e.jpg",
        "._b.JPG",
        "notes.txt",
        "out/x.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, exclude=[tmp_path / "out"])]
    assert names == ["a.png", "b.JPG", "sub/c.Tiff", "sub/deep/d.heic"]


def test_link_loops_end_and_broken_links_are_listed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "p.jpg").write_bytes(b"x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "0link").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == ["a/b/p.jpg", "gone.jpg"]
    assert_refused(tmp_path / "gone.jpg", "broken link")


def test_no_folder_and_no_photographs_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        list_images(tmp_path / "missing")
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"holds no photographs\. Put"):
        list_images(tmp_path)


def test_a_single_file_gives_itself(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert list_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path, rgb, suffix):
    photo = read_image(save(tmp_path / f"a.{suffix}", rgb, **({"lossless": True} if suffix == "webp" else {})))
    np.testing.assert_array_equal(photo.rgb, rgb)
    assert photo.size_hw == (24, 40) and photo.exif_f35 is None and photo.orientation == 1
    assert photo.rgb.flags.c_contiguous


def test_content_decides_not_the_name(tmp_path, rgb):
    path = save(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "a.jpg")).rgb, rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_orientation_is_applied_to_the_pixels(tmp_path, rgb, orientation, suffix):
    path = save(tmp_path / f"a.{suffix}", rgb, orientation=orientation, f35=28)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    photo = read_image(path)
    np.testing.assert_array_equal(photo.rgb, want)
    assert photo.size_hw == ((40, 24) if orientation >= 5 else (24, 40))
    assert (photo.orientation, photo.exif_f35) == (orientation, 28.0)


def test_unknown_focal_length_and_bad_orientation_count_as_none(tmp_path, rgb):
    photo = read_image(save(tmp_path / "a.jpg", rgb, orientation=9, f35=0))
    assert photo.exif_f35 is None and photo.orientation == 1


def test_real_focal_length_alone_says_nothing(tmp_path, rgb):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[37386] = 4.2
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").exif_f35 is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_spoil_the_picture(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert read_image(tmp_path / "a.jpg").size_hw == (24, 40)


def test_heic_is_upright_and_carries_its_focal_length():
    photo = read_image(HEIC)
    assert photo.size_hw == (48, 32) and photo.exif_f35 == 26.0 and photo.orientation == 6
    corners = photo.rgb[[5, 5, 40], [5, 28, 5]].astype(int)
    assert np.abs(corners - [[200, 30, 30], [30, 200, 30], [30, 30, 200]]).max() < 12


def test_heic_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"pip install bodyreg\[heic\]"):
        read_image(HEIC)


# ---- odd pixels -----------------------------------------------------------------------------------------------------


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    for suffix in ("png", "tiff"):
        photo = read_image(save(tmp_path / f"a.{suffix}", levels))
        np.testing.assert_array_equal(photo.rgb[..., 1], np.rint(levels / 257))


def test_sixteen_bit_colour_png_is_scaled(tmp_path):
    levels = np.linspace(0, 65535, 4 * 5 * 3).reshape(4, 5, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    (tmp_path / "a.png").write_bytes(png(5, 4, depth=16, kind=2, data=zlib.compress(rows)))
    assert np.abs(read_image(tmp_path / "a.png").rgb.astype(float) - levels / 257).max() <= 1


def test_float_tiff_between_zero_and_one(tmp_path):
    levels = np.linspace(0, 1, 20).reshape(4, 5).astype(np.float32)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", levels)).rgb[..., 0], np.rint(levels * 255))


def test_cmyk_is_converted(tmp_path, rgb):
    flat = Image.new("CMYK", (40, 24), (0, 255, 255, 0))
    photo = read_image(save(tmp_path / "a.jpg", flat, quality=95))
    assert np.abs(photo.rgb.astype(int) - [255, 0, 0]).max() <= 6


def test_alpha_is_laid_on_white(tmp_path, rgb):
    alpha = np.zeros((24, 40, 1), np.uint8)
    alpha[:, :20] = 255
    photo = read_image(save(tmp_path / "a.png", np.concatenate([rgb, alpha], -1)))
    np.testing.assert_array_equal(photo.rgb[:, :20], rgb[:, :20])
    assert (photo.rgb[:, 20:] == 255).all()


def test_grey_palette_and_bilevel(tmp_path, rgb):
    grey = Image.fromarray(rgb).convert("L")
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", grey)).rgb[..., 2], np.asarray(grey))
    palette = Image.fromarray(rgb).quantize(16)
    photo = read_image(save(tmp_path / "p.png", palette))
    np.testing.assert_array_equal(photo.rgb, np.asarray(palette.convert("RGB")))
    hole = read_image(save(tmp_path / "t.png", palette, transparency=int(np.asarray(palette)[0, 0])))
    assert (hole.rgb[0, 0] == 255).all()
    assert set(np.unique(read_image(save(tmp_path / "b.png", grey.convert("1"))).rgb)) == {0, 255}


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", noise)
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert_refused(path, "damaged or truncated|has no pixels")


def test_truncated_heic_is_refused(tmp_path):
    whole = HEIC.read_bytes()
    for size in (20, 300, 600):
        (tmp_path / "cut.heic").write_bytes(whole[:size])
        assert_refused(tmp_path / "cut.heic", "damaged or truncated")


def test_text_named_png_and_zero_bytes_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("this is not a picture, only its name says so")
    assert_refused(tmp_path / "text.png", "not a picture")
    (tmp_path / "empty.jpg").touch()
    assert_refused(tmp_path / "empty.jpg", "zero bytes")
    (tmp_path / "short.jpg").write_bytes(b"\xff\xd8\xff")
    assert_refused(tmp_path / "short.jpg", "damaged or truncated")


def png(w: int, h: int, *, depth: int = 8, kind: int = 0, data: bytes = b"") -> bytes:
    """A PNG file with this header and compressed data, however little of it there is."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_header_bomb_is_refused_before_decoding(tmp_path, monkeypatch, rgb, suffix):
    bomb = tmp_path / f"bomb.{suffix}"
    if suffix == "png":
        bomb.write_bytes(png(20_000, 20_000, data=zlib.compress(bytes(1000))))
    else:
        data = bytearray(save(bomb, rgb).read_bytes())
        if suffix == "jpg":
            start = data.index(b"\xff\xc0") + 5
            data[start : start + 4] = struct.pack(">HH", 20_000, 20_000)
        else:
            data[18:26] = struct.pack("<ii", 20_000, 20_000)
        bomb.write_bytes(data)

    def decode(*_args):
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    assert_refused(bomb, "20000 x 20000 pixels")


def test_size_limit_is_an_argument_and_holds_for_heic(tmp_path, rgb):
    path = save(tmp_path / "a.png", rgb)
    assert_refused(path, "megapixels", max_pixels=24 * 40 - 1)
    assert read_image(path, max_pixels=24 * 40).size_hw == (24, 40)
    assert_refused(HEIC, "megapixels", max_pixels=100)


def test_pictures_beyond_pillows_own_limit_are_ours_to_allow(tmp_path, monkeypatch, rgb):
    path = save(tmp_path / "a.png", rgb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(path).size_hw == (24, 40)


def test_unreadable_file_is_refused(tmp_path, rgb, monkeypatch):
    path = save(tmp_path / "locked.png", rgb)

    def denied(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder, "open", denied, raising=False)  # root may read everything, so modes prove nothing
    assert_refused(path, "permission denied")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "folder" or not hasattr(os, "mkfifo"):
        path.mkdir()
    else:
        os.mkfifo(path)
        assert stat.S_ISFIFO(path.stat().st_mode)
    assert_refused(path, "not a regular file")
