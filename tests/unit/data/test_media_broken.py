import contextlib
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import nasty_files
from limner.data.media import MAX_PIXELS, open_image
from limner.errors import Reject
from nasty_files import encoded
from patience import SECONDS


def test_a_hundred_megapixels_are_read_and_more_are_not():
    image = open_image(nasty_files.png(10_000, 10_000), max_side=100)
    assert image.size == (100, 100)
    with pytest.raises(Reject, match="10001 x 10000 pixels, more than the limit of 100,000,000"):
        open_image(nasty_files.png(10_001, 10_000, rows=b""))


@pytest.mark.parametrize("shape", [(MAX_PIXELS, 1), (1, MAX_PIXELS // 100)])
def test_very_long_images(shape):
    width, height = shape
    rows = bytes(1 + width) if height == 1 else bytes(2 * height)
    assert max(open_image(nasty_files.png(width, height, rows=rows), max_side=64).size) == 64


def test_bombs_are_refused_from_the_header_without_decoding(monkeypatch):
    # 2 billion pixels, and nothing behind the header: decoding would fail in another way.
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for side in (20_000, 45_000, 2_000_000):
        with pytest.raises(Reject, match="more than the limit"):
            open_image(nasty_files.png(side, side, rows=b""))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_limits_are_inclusive_in_every_format(kind):
    content = encoded(Image.new("RGB", (10, 10)), kind)
    assert open_image(content, max_pixels=100, max_bytes=len(content)).size == (10, 10)
    with pytest.raises(Reject, match="10 x 10 pixels, more than the limit of 99"):
        open_image(content, max_pixels=99)
    with pytest.raises(Reject, match="bytes, more than the limit"):
        open_image(content, max_bytes=len(content) - 1)


def test_the_guard_of_other_code_is_not_removed():
    open_image(encoded(Image.new("RGB", (10, 10)), "PNG"))
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS


def test_a_hundred_megapixel_tiff_raises_no_warning():
    # Pillow warns from 89 megapixels when it allocates a TIFF; warnings are errors in these tests.
    content = encoded(Image.new("L", (10_000, 10_000)), "TIFF", compression="packbits")
    assert open_image(content, max_side=10).size == (10, 10)


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(open_image, tmp_path / "pipe.jpg").exception(timeout=SECONDS)
    assert isinstance(error, Reject)
    assert "pipe" in error.reason
    with pytest.raises(Reject, match="device"):
        open_image("/dev/zero")
    with pytest.raises(Reject, match="a folder, not a file"):
        open_image(tmp_path)
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)


@contextlib.contextmanager
def ordinary_user():
    """Rights of nobody: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(nasty_files.photograph(), "JPEG"))
    path.chmod(0)
    with ordinary_user(), pytest.raises(Reject, match="cannot be read: permission denied"):
        open_image(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing.jpg", "no such file"),
        ("a" * 300 + ".jpg", "name too long"),
        ("zero\0byte.jpg", "no valid file name"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, name, reason):
    with pytest.raises(Reject, match=reason):
        open_image(tmp_path / name)


def test_every_good_file_opens_and_every_broken_one_is_rejected(tmp_path):
    for name in nasty_files.good(tmp_path / "good"):
        image = open_image(tmp_path / "good" / name)
        assert image.mode == "RGB"
        assert min(image.size) >= 1
    for name, reason in nasty_files.broken(tmp_path / "broken").items():
        with pytest.raises(Reject) as caught:
            open_image(tmp_path / "broken" / name)
        if reason != "not an image file":  # known from the name alone: the folder's business
            assert reason in caught.value.reason
        assert "\n" not in caught.value.reason
        assert str(tmp_path) not in caught.value.reason


HEADS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x00\x01\x00\x00WEBPVP8 ",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"",
]


@settings(max_examples=300)
@given(head=st.sampled_from(HEADS), body=st.binary(max_size=300))
@pytest.mark.filterwarnings("ignore")
def test_random_bytes_give_an_image_or_a_reject(head, body):
    with contextlib.suppress(Reject):
        assert open_image(head + body).mode == "RGB"


def mutated_files():
    photo = nasty_files.photograph().resize((40, 30))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    alpha = photo.copy()
    alpha.putalpha(100)
    kinds = [("JPEG", photo), ("PNG", alpha), ("GIF", photo), ("WEBP", alpha), ("BMP", photo)]
    whole = [
        encoded(image, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif})) for kind, image in kinds
    ]
    whole += [
        encoded(photo, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate")
    ]
    return [*whole, encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG")]


@settings(max_examples=500)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_an_image_or_a_reject(data):
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Reject):
        assert open_image(bytes(content), max_pixels=10**6).mode == "RGB"


FILES = mutated_files()


def test_warnings_as_errors_do_not_escape(tmp_path):
    """In a process with -W error a warning of Pillow is a Reject, not a traceback."""
    path = tmp_path / "odd.tif"
    path.write_bytes(encoded(nasty_files.photograph(), "TIFF")[:-40])
    code = "import sys; from limner.data.media import open_image; open_image(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, path], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith("limner.errors.Reject: ")
