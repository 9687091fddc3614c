import os

import numpy as np
import pytest
from PIL import Image

import nasty_files
from limner.data.folder import Source
from limner.errors import Reject, UserError


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path)


def test_ids_are_sorted_paths_below_the_folder(tmp_path):
    for name in ["b.png", "a/z.png", "a/b/c.jpg", "B.PNG", "a.png"]:
        picture(tmp_path / name)
    assert Source(path=str(tmp_path)).ids() == ("B.PNG", "a.png", "a/b/c.jpg", "a/z.png", "b.png")


def test_ids_do_not_depend_on_how_the_folder_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "photos" / "a" / "b.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ["photos", "photos/", "./photos", "link", "~/photos", str(tmp_path / "photos")]:
        source = Source(path=path)
        assert source.ids() == ("a/b.png",)
        assert source.read(0).image.getpixel((0, 0)) == (255, 0, 0)


def test_a_sample_knows_its_file_and_pixels(tmp_path):
    picture(tmp_path / "below" / "blue.png", "blue")
    sample = Source(path=str(tmp_path)).read(0)
    assert sample.id == "below/blue.png"
    assert sample.extra["path"] == tmp_path / "below" / "blue.png"
    assert np.asarray(sample.image).reshape(-1, 3).tolist() == [[0, 0, 255]] * 16


def test_good_files_are_read_and_broken_ones_rejected_with_their_reason(tmp_path):
    good = nasty_files.good(tmp_path / "good")
    broken = nasty_files.broken(tmp_path / "broken")
    source = Source(path=str(tmp_path))
    assert set(source.ids()) == {f"good/{name}" for name in good} | {f"broken/{name}" for name in broken}
    for index, id in enumerate(source.ids()):
        name = id.split("/", 1)[1]
        if id.startswith("good/"):
            assert source.read(index).id == id
        else:
            with pytest.raises(Reject) as caught:
                source.read(index)
            assert broken[name] in caught.value.reason
    assert [sample.id for sample in source] == [f"good/{name}" for name in good]


def test_every_folder_is_read_once_however_many_links_lead_to_it(tmp_path):
    picture(tmp_path / "photos" / "m" / "one.png")
    picture(tmp_path / "elsewhere" / "two.png")
    for place, target in [("a", "m"), ("m/up", "."), ("z", "../elsewhere"), ("y", "../elsewhere")]:
        (tmp_path / "photos" / place).symlink_to(tmp_path / "photos" / target)
    ids = Source(path=str(tmp_path / "photos")).ids()
    assert "m/one.png" in ids
    assert len(ids) == 2
    assert ids[1].endswith("/two.png")


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: (path / "deep").mkdir(parents=True)]
)
def test_nothing_to_read_is_an_error(tmp_path, make):
    make(tmp_path / "photos")
    with pytest.raises(UserError, match=r"photos: (no such folder|no image in this folder)"):
        Source(path=str(tmp_path / "photos")).ids()


def test_a_folder_of_hidden_files_and_captions_is_empty(tmp_path):
    for name in [".hidden.jpg", "a.txt", "rows.jsonl", "meta.json", "x.caption", ".git/photo.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="no image in this folder"):
        len(Source(path=str(tmp_path)))


def test_one_file(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    source = Source(path=str(tmp_path / "b.png"))
    assert source.ids() == ("b.png",)
    assert source.read(0).extra["path"] == tmp_path / "b.png"


def test_names_of_any_bytes(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in [
        b"caf\xe9.png",
        b"new\nline.png",
        "日本.png".encode(),
        b" .png",
        b"-o.png",
        b"100%.png",
        b"a:b.png",
    ]:
        Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", os.path.join(folder, name))
    source = Source(path=str(tmp_path))
    assert len(list(source)) == 7
    assert "caf\\xe9.png" in source.ids()
    for id in source.ids():
        id.encode("utf-8")


@pytest.fixture
def ordinary_user():
    """Rights of nobody: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def locked(tmp_path):
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.owner() == "root" and os.geteuid() == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    picture(tmp_path / "photos" / "open" / "a.png")
    picture(tmp_path / "photos" / "locked" / "b.png")
    (tmp_path / "photos").chmod(0o755)
    (tmp_path / "photos" / "locked").chmod(0)
    yield tmp_path / "photos"
    (tmp_path / "photos" / "locked").chmod(0o755)


def test_folders_without_permission(locked, ordinary_user):
    source = Source(path=str(locked))
    assert source.ids() == ("locked", "open/a.png")
    with pytest.raises(Reject, match="folder cannot be read: permission denied"):
        source.read(0)
    with pytest.raises(UserError, match="locked: folder cannot be read: permission denied"):
        Source(path=str(locked / "locked")).ids()


def test_limits_are_settings(tmp_path):
    nasty_files.photograph("coffee.png").save(tmp_path / "coffee.jpg")
    assert Source(path=str(tmp_path)).read(0).image.size == (600, 400)
    assert Source(path=str(tmp_path), max_side=300).read(0).image.size == (300, 200)
    for limits in ({"max_pixels": 239_999}, {"max_bytes": 100}):
        with pytest.raises(Reject, match="more than the limit"):
            Source(path=str(tmp_path), **limits).read(0)
    (tmp_path / "large.png").write_bytes(nasty_files.png(3000, 1500))
    assert Source(path=str(tmp_path)).read(1).image.size == (1024, 512)
    assert Source(path=str(tmp_path), max_side=None).read(1).image.size == (3000, 1500)
