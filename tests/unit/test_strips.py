"""Pictures of samples: strips show the frames in order, small ones with their pixels as they are."""

import numpy as np
import pytest
from PIL import Image

from limner.strips import CELL, COLUMNS, MOST, SIDE, picture


def frame(shade: int, size=(48, 48)) -> Image.Image:
    return Image.new("RGB", size, (shade, 0, 0))


def shades(strip: Image.Image, count: int, rows: int) -> list[int]:
    """The shade in the middle of every cell."""
    levels, height = np.asarray(strip), strip.height // rows
    return [
        int(levels[height * (n // COLUMNS) + height // 2, CELL * (n % COLUMNS) + CELL // 2, 0])
        for n in range(count)
    ]


def test_one_image_is_itself_made_smaller():
    assert picture([frame(9)]).size == (48, 48)
    assert picture([frame(9, (1000, 500))]).size == (SIDE, SIDE // 2)


@pytest.mark.parametrize(("frames", "rows"), [(2, 1), (4, 1), (5, 2), (8, 2)])
def test_frames_stand_in_order_row_by_row(frames, rows):
    strip = picture([frame(10 * n) for n in range(frames)])
    assert shades(strip, frames, rows) == [10 * n for n in range(frames)]
    assert strip.width <= SIDE


def test_of_many_frames_the_first_the_last_and_some_between_are_kept():
    found = shades(picture([frame(n) for n in range(32)]), MOST, 2)
    assert found[0] == 0
    assert found[-1] == 31
    assert found == sorted(set(found))


def test_small_frames_are_enlarged_by_a_whole_factor():
    checks = np.indices((30, 30)).sum(0) % 2 * 255
    strip = picture([Image.fromarray(np.stack([checks] * 3, 2).astype(np.uint8))] * 2)
    block = np.asarray(strip)[:87, 3:90, 0]
    assert set(np.unique(block)) == {0, 255}
    assert (block[::3, ::3] == block[1::3, 1::3]).all()


def test_small_frames_fill_their_cells():
    strip = picture([frame(200)] * 8)
    assert strip.size == (384, 192)
    assert (np.asarray(strip)[:, :, 1] == 0).mean() > 0.9
