import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import nasty_files
from limner.data.media import open_image
from nasty_files import encoded


def array(image):
    return np.asarray(image)


@pytest.fixture(scope="module")
def photo():
    return nasty_files.photograph().resize((64, 48))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_give_back_every_pixel(photo, kind):
    if kind == "GIF":
        photo = photo.quantize(200).convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    image = open_image(encoded(photo, kind, **options))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(array(image), array(photo))


def test_jpeg_is_close_to_the_original(photo):
    error = array(open_image(encoded(photo, "JPEG", quality=95, subsampling=0))).astype(int) - array(photo)
    assert np.abs(error).mean() < 4


def test_a_path_and_its_bytes_give_the_same(photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(photo, "JPEG"))
    expected = array(open_image(encoded(photo, "JPEG")))
    np.testing.assert_array_equal(array(open_image(tmp_path / "photo.jpg")), expected)
    np.testing.assert_array_equal(array(open_image(str(tmp_path / "photo.jpg"))), expected)


# How a camera would have stored the upright picture for each value of the EXIF tag: EXIF 2.32, tag 0x0112.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_is_undone_pixel_for_pixel(photo, kind, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](array(photo))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    image = open_image(encoded(stored, kind, exif=exif, **options))
    np.testing.assert_array_equal(array(image), array(photo))


@pytest.mark.parametrize("orientation", STORED)
def test_exif_rotation_of_jpeg(photo, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](array(photo))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_image(encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0))
    assert upright.size == photo.size
    assert np.abs(array(upright).astype(int) - array(photo)).mean() < 4


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.filterwarnings("default")
def test_broken_exif_does_not_cost_the_image(photo, exif):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert open_image(encoded(photo, "JPEG", exif=exif)).size == photo.size


def test_sixteen_bit_grey_golden_values():
    levels = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], dtype=np.uint16)
    # round(level / 257), by hand
    expected = np.array([0, 0, 1, 1, 128, 255, 255])
    for kind in ("PNG", "TIFF"):
        image = array(open_image(encoded(Image.fromarray(levels), kind)))
        for channel in range(3):
            np.testing.assert_array_equal(image[0, :, channel], expected)


def test_big_endian_sixteen_bit_tiff():
    levels = Image.frombytes("I;16B", (2, 1), bytes([0x80, 0x00, 0x01, 0x01]))
    np.testing.assert_array_equal(array(open_image(encoded(levels, "TIFF")))[0, :, 0], [128, 1])


def test_twelve_bit_tiff_is_scaled_by_its_own_white():
    # Two pixels of 12 bits, 4095 and 2048, packed into three bytes.
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[258], tags[259], tags[262], tags[277], tags[278] = 2, 1, 12, 1, 1, 1, 1
    tags[273], tags[279] = 0, 3  # the strip follows the tags
    head = io.BytesIO()
    head.write(b"II*\0\x08\0\0\0")
    tags.save(head)
    content = head.getvalue() + bytes([0xFF, 0xF8, 0x00])
    np.testing.assert_array_equal(array(open_image(content))[0, :, 0], [255, 128])


def test_sixteen_bit_tiff_with_white_as_zero():
    levels = np.array([[0, 65535]], dtype=np.uint16)
    content = encoded(Image.fromarray(levels), "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(content)) as stored:
        assert stored.tag_v2[262] == 0
    np.testing.assert_array_equal(array(open_image(content))[0, :, 0], [255, 0])


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([float("inf"), float("-inf"), 1.0], [0, 0, 255]),
        ([7e9, 7e9, 7e9], [0, 0, 0]),
    ],
)
def test_floating_point_pixels(levels, expected):
    image = Image.fromarray(np.array([levels], dtype=np.float32))
    np.testing.assert_array_equal(array(open_image(encoded(image, "TIFF")))[0, :, 0], expected)


def test_integer_pixels():
    for levels, expected in [
        ([0, 1, 255], [0, 1, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-10, 0, 10], [0, 128, 255]),
    ]:
        image = Image.fromarray(np.array([levels], dtype=np.int32))
        np.testing.assert_array_equal(array(open_image(encoded(image, "TIFF")))[0, :, 0], expected)


def test_cmyk_golden_values():
    # Without ink: white. All black ink: black. One ink of three: the other two colours remain.
    inks = [(0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (255, 255, 0, 0)]
    expected = [(255, 255, 255), (0, 0, 0), (0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 255)]
    for ink, colour in zip(inks, expected, strict=True):
        image = Image.new("CMYK", (16, 16), ink)
        np.testing.assert_array_equal(array(open_image(encoded(image, "TIFF")))[8, 8], colour)
        jpeg = array(open_image(encoded(image, "JPEG", quality=100)))[8, 8]
        np.testing.assert_allclose(jpeg, colour, atol=3)


def test_transparent_parts_are_white():
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    for kind, options in [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]:
        image = open_image(encoded(Image.fromarray(pixels), kind, **options))
        np.testing.assert_array_equal(array(image)[0], expected)


def test_grey_with_alpha_and_transparent_palette():
    grey = Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8))
    np.testing.assert_array_equal(array(open_image(encoded(grey, "PNG")))[0, :, 0], [100, 255])
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putdata([0, 1])
    image = open_image(encoded(palette, "PNG", transparency=1))
    np.testing.assert_array_equal(array(image)[0], [[10, 20, 30], [255, 255, 255]])


def test_transparent_level_of_sixteen_bit_grey():
    levels = Image.fromarray(np.array([[0, 300, 65535]], dtype=np.uint16))
    content = encoded(levels, "PNG", transparency=300)
    np.testing.assert_array_equal(array(open_image(content))[0, :, 0], [0, 255, 255])


def test_lab_tiff():
    # L* = 50 %, a* = b* = 0 is the grey of sRGB level 119 (CIE 1976, D50).
    lab = Image.frombytes("LAB", (1, 1), bytes([128, 0, 0]))
    np.testing.assert_allclose(array(open_image(encoded(lab, "TIFF")))[0, 0], [119, 119, 119], atol=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = open_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    np.testing.assert_array_equal(array(image)[4, 4], [255, 0, 0])


def test_one_pixel():
    assert array(open_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))).tolist() == [[[1, 2, 3]]]


def test_max_side_keeps_the_proportions_and_leaves_small_images_alone(photo):
    large = photo.resize((640, 480))
    for kind in ("JPEG", "PNG"):
        assert open_image(encoded(large, kind), max_side=320).size == (320, 240)
        assert open_image(encoded(large, kind), max_side=640).size == (640, 480)
        for side in (640, 700, 5000):
            same = open_image(encoded(large, kind), max_side=side)
            np.testing.assert_array_equal(array(same), array(open_image(encoded(large, kind))))


def test_pictures_of_two_lens_cameras_give_the_first():
    photo, other = nasty_files.photograph(), nasty_files.photograph("chelsea.png")
    content = encoded(photo, "MPO", save_all=True, append_images=[other])
    assert content.startswith(b"\xff\xd8\xff")
    plain = encoded(photo, "JPEG")
    for side in (None, 100):
        error = array(open_image(content, max_side=side)).astype(int) - array(
            open_image(plain, max_side=side)
        )
        assert np.abs(error).mean() < 1


def test_reduced_images_look_like_plainly_resized_ones():
    photo = nasty_files.photograph()
    reference = array(photo.resize((100, 100), Image.Resampling.BICUBIC)).astype(int)
    for kind in ("JPEG", "PNG"):
        reduced = array(
            open_image(encoded(photo, kind, **({"quality": 95} if kind == "JPEG" else {})), max_side=100)
        )
        assert np.abs(reduced.astype(int) - reference).mean() < 2


def test_large_jpeg_files_are_decoded_at_a_fraction_of_their_size():
    content = encoded(nasty_files.photograph().resize((1024, 512)), "JPEG")
    with Image.open(io.BytesIO(content)) as halved:
        halved.draft(None, (512, 256))
        expected = halved.copy()
    assert expected.size == (512, 256)
    expected.thumbnail((300, 300), Image.Resampling.BICUBIC, reducing_gap=2.0)
    np.testing.assert_array_equal(array(open_image(content, max_side=300)), array(expected))


def test_many_threads_give_what_one_gives(photo):
    contents = [encoded(photo.rotate(angle), "JPEG") for angle in range(12)]
    expected = [array(open_image(content)) for content in contents]
    with ThreadPoolExecutor(4) as pool:
        for image, same in zip(pool.map(open_image, contents * 3), expected * 3, strict=True):
            np.testing.assert_array_equal(array(image), same)
