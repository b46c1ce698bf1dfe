"""Windows of sequences: which frames belong to which, against rules written out."""

import numpy as np
import pytest

from bodyreg import windows


def test_centred_chunks_share_the_overhang():
    np.testing.assert_array_equal(windows.centred_chunks(31, 9), [[-2, 7], [7, 16], [16, 25], [25, 34]])
    np.testing.assert_array_equal(windows.centred_chunks(18, 9), [[0, 9], [9, 18]])


def test_tail_aligned_windows_end_with_the_sequence():
    np.testing.assert_array_equal(windows.tail_aligned(23, 9), [[0, 9], [9, 18], [14, 23]])
    np.testing.assert_array_equal(windows.tail_aligned(5, 9), [[0, 9]])


def test_strided_windows():
    np.testing.assert_array_equal(windows.strided(22, 9, 3), [[-1, 8], [2, 11], [5, 14], [8, 17], [11, 20], [14, 23]])
    assert len(windows.strided(5, 9, 3)) == 0  # too short for windows that overlap: left out


def test_frames_repeat_the_edges_and_widen():
    frames = windows.frames_of(np.array([[-2, 1], [3, 6]]), 5)
    np.testing.assert_array_equal(frames, [[0, 0, 0], [3, 4, 4]])
    np.testing.assert_array_equal(windows.frames_of(np.array([[0, 1]]), 3, pad=2), [[0, 0, 0, 1, 2]])


@pytest.mark.parametrize(("length", "frames", "overlap"), [(1, 9, 0), (5, 9, 4), (9, 9, 3), (40, 9, 3), (41, 9, 8)])
def test_blending_gives_every_frame_once(length, frames, overlap):
    tiles = windows.tiled(length, frames, overlap)
    source, target, weights = windows.blend_windows(tiles, length)
    np.testing.assert_allclose(np.bincount(target, weights, minlength=length), np.ones(length))
    # A quantity that is a function of the frame alone survives blending, whatever the weights.
    values = (tiles[:, :1] + np.arange(frames)).ravel().astype(float)
    blended = np.bincount(target, weights * values[source], minlength=length)
    np.testing.assert_allclose(blended, np.arange(length), atol=1e-9)


def test_weights_run_from_one_window_to_the_next_without_a_jump():
    tiles = windows.tiled(40, 9, 3)
    source, target, weights = windows.blend_windows(tiles, 40)
    shares = np.zeros((len(tiles), 40))
    shares[source // 9, target] = weights
    assert np.abs(np.diff(shares, axis=1)).max() <= 0.25 + 1e-9  # ramps of an overlap of three frames


def test_subset_is_one_run_that_depends_on_the_length_alone():
    start, end = windows.subset_of(100, 0.3, 5)
    assert end - start == 30 and 0 <= start <= 70 and windows.subset_of(100, 0.3, 5) == (start, end)
    assert windows.subset_of(100, 1) == (0, 100)


def test_mirror_map_pairs_by_position():
    assert windows.mirror_map(5, [1, 2], [4, 3]) == (0, 4, 3, 2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: windows.tiled(0, 9), "no windows"),
        (lambda: windows.tiled(9, 9, 9), "less than the window"),
        (lambda: windows.strided(9, 9, 0), "stride is 0"),
        (lambda: windows.subset_of(9, 0), "Give a share"),
        (lambda: windows.mirror_map(3, [1], [1]), "Mend the lists"),
        (lambda: windows.mirror_map(3, [1], [3]), "Mend the lists"),
        (lambda: windows.frames_of(np.array([[0, 2], [0, 3]]), 5), "Give one width"),
        (lambda: windows.frames_of(np.array([[0, 2]]), 0), "a frame or more"),
    ],
)
def test_impossible_windows_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
