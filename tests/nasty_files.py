"""A folder of photographs as they are found in the world, and of files that only look like photographs."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def photograph(name: str = "astronaut.png") -> Image.Image:
    """A real photograph that ships inside the scikit-image wheel."""
    with Image.open(PHOTOGRAPHS / name) as image:
        return image.convert("RGB")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file of this format."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def png(width: int, height: int, *, bits: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG of one flat colour, cheap at any size; `rows` overrides its raw data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    if rows is None:
        deflate = zlib.compressobj(1)
        row = bytes(1 + width * bits // 8)
        data = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    else:
        data = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def good(folder: Path) -> list[str]:
    """Write photographs in every form that must be read; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    small = photograph().resize((96, 96))
    grey = np.asarray(small.convert("L")).astype(np.uint16)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    small.save(folder / "photo.jpg", quality=90)
    small.save(folder / "PHOTO2.JPEG", quality=90, progressive=True)
    small.save(folder / "rotated.jpg", exif=rotated)
    small.convert("CMYK").save(folder / "cmyk.jpg")
    small.convert("L").save(folder / "grey.jpg")
    small.save(folder / "photo.png")
    small.quantize(16).save(folder / "palette.png")
    small.convert("1").save(folder / "bilevel.png")
    Image.fromarray(grey * 257).save(folder / "grey16.png")
    with_alpha = small.copy()
    with_alpha.putalpha(small.convert("L"))
    with_alpha.save(folder / "alpha.png")
    with_alpha.convert("LA").save(folder / "grey_alpha.png")
    small.save(folder / "photo.webp")
    with_alpha.save(folder / "alpha.webp")
    frames = [small, photograph("chelsea.png").resize((96, 96)), photograph("coffee.png").resize((96, 96))]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    small.convert("CMYK").save(folder / "cmyk.tiff", compression="tiff_lzw")
    Image.fromarray(grey * 257).save(folder / "grey16.tif")
    Image.fromarray((grey / 255).astype(np.float32)).save(folder / "float.tif")
    small.save(folder / "photo.bmp")
    Image.new("RGB", (1, 1), "red").save(folder / "one_pixel.png")
    small.save(folder / "really_a.png", format="JPEG")
    (folder / "no_suffix").write_bytes((folder / "photo.jpg").read_bytes())
    (folder / "below" / "deeper").mkdir(parents=True)
    photograph("coffee.png").save(folder / "below" / "deeper" / "coffee with spaces é.jpg")
    # Beside images on purpose, or hidden: passed over without a word.
    (folder / "grey.txt").write_text("a woman in a space suit")
    (folder / "captions.jsonl").write_text("{}\n")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "._photo.jpg").write_bytes(b"\0\5\26\7")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if name[0] != "." and not name.endswith((".txt", ".jsonl")))


def broken(folder: Path) -> dict[str, str]:
    """Write files that cannot be used; returns their names, each with a part of the reason to be given."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole"
    small = photograph().resize((96, 96))
    expected = {}
    truncated = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp"}
    for kind, suffix in truncated.items():
        small.save(whole, format=kind)
        content = whole.read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(content[: len(content) // 2])
        expected[f"truncated.{suffix}"] = "truncated image file"
        (folder / f"only_head.{suffix}").write_bytes(content[:12])
        expected[f"only_head.{suffix}"] = ""
    whole.unlink()
    contents = {
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"I am no photograph.\n" * 50, "not an image"),
        "page.png": (b"<!doctype html><title>404 not found</title>", "not an image"),
        "program.gif": (b"\x7fELF" + bytes(200), "not an image"),
        "notes.md": (b"# Notes", "not an image file"),
        "film.mp4": (b"\0\0\0\x18ftypmp42", "not an image file"),
        "archive.zip": (b"PK\3\4", "not an image file"),
        "bomb.png": (png(30_000, 30_000, rows=b""), "30000 x 30000 pixels, more than the limit"),
        "no_pixels.png": (png(0, 5, rows=b""), ""),
    }
    for name, (content, reason) in contents.items():
        (folder / name).write_bytes(content)
        expected[name] = reason
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    expected["gone.jpg"] = "broken symbolic link"
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    expected["circle.jpg"] = "cannot be read: too many levels of symbolic links"
    (folder / "into_itself").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    expected["pipe.png"] = "a pipe, socket or device"
    return expected
