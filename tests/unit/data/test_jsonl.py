import json

import pytest
from PIL import Image

from limner.data.jsonl import Source
from limner.errors import Reject, UserError


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for colour in ("red", "lime", "blue"):
        Image.new("RGB", (2, 2), colour).save(tmp_path / "photos" / f"{colour}.png")
    return tmp_path


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return str(path)


def test_rows_with_captions(photos):
    path = write(
        photos,
        {"id": "x", "image": "photos/red.png", "captions": ["a red square", "red"]},
        {"id": 17, "image": "photos/lime.png", "captions": "green"},
        {"image": str(photos / "photos" / "blue.png")},
    )
    source = Source(path=path)
    assert source.ids() == ("x", "17", str(photos / "photos" / "blue.png"))
    samples = list(source)
    assert [sample.references for sample in samples] == [("a red square", "red"), ("green",), ()]
    assert [sample.image.getpixel((0, 0)) for sample in samples] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert samples[0].extra["path"] == photos / "photos" / "red.png"


def test_references_open_no_image(photos):
    source = Source(path=write(photos, {"image": "gone.png", "captions": ["a dog"]}, {"captions": "a cat"}))
    assert source.references(0) == ("a dog",)
    with pytest.raises(Reject, match=r"line 1: .*gone\.png|line 1: no such file"):
        source.read(0)
    with pytest.raises(Reject, match="line 2: neither an id nor an image"):
        source.references(1)


def test_a_row_may_ask_something_of_its_own(photos):
    row = {"image": "photos/red.png", "captions": "red"}
    path = write(
        photos, row | {"id": 1, "prompt": "Which colour?"}, row | {"id": 2}, row | {"id": 3, "prompt": 3}
    )
    source = Source(path=path)
    assert [source.read(n).extra.get("prompt") for n in (0, 1)] == ["Which colour?", None]
    with pytest.raises(Reject, match="line 3: the column 'prompt' is no string"):
        source.read(2)


def test_columns_and_root_are_settings(photos):
    (photos / "lists").mkdir()
    path = write(photos / "lists", {"key": "x", "file": "red.png", "text": "red"})
    source = Source(path=path, id="key", image="file", captions="text", root=str(photos / "photos"))
    assert source.ids() == ("x",)
    assert source.read(0).references == ("red",)


def test_bad_rows_are_rejected_with_their_line(photos):
    rows = [
        ({"id": "good", "image": "photos/red.png"}, None),
        (b"", None),
        (b"{torn", "line 3: no valid JSON"),
        (b"[1, 2]", "line 4: no JSON object"),
        ({"id": "none"}, "line 5: no image path in the column 'image'"),
        ({"id": "number", "image": 7}, "line 6: no image path"),
        ({"id": "good", "image": "photos/lime.png"}, "line 7: the id 'good' is that of line 1"),
        ({"id": ["x"], "image": "photos/red.png"}, "line 8: the column 'id' is neither"),
        (
            {"id": "web", "image": "https://example.org/a.jpg"},
            "line 9: https://example.org/a.jpg is an address",
        ),
        ({"id": "gone", "image": "photos/gone.png"}, "line 10: no such file"),
        (
            {"id": "words", "image": "photos/red.png", "captions": [1]},
            "line 11: the column 'captions' is neither",
        ),
        ({}, "line 12: neither an id nor an image"),
        (b"\xff\xfe\xfd", "line 13: no valid JSON"),
        ({"id": "zero", "image": "a\0b"}, "line 14: no valid file name"),
        ({"id": True, "image": "photos/red.png"}, "line 15: the column 'id' is neither"),
        (b"[" * 100_000, "line 16: no valid JSON"),
        ({"id": "text", "image": "rows.jsonl"}, "line 17: not an image"),
        ({"id": "last", "image": "photos/blue.png"}, None),
    ]
    source = Source(path=write(photos, *[row for row, _ in rows]))
    expected = [reason for row, reason in rows if row != b""]
    assert len(source) == len(expected) == len(set(source.ids()))
    assert source.ids()[1] == "rows.jsonl:3"
    for index, reason in enumerate(expected):
        if reason is None:
            assert source.read(index).id == source.ids()[index]
        else:
            with pytest.raises(Reject) as caught:
                source.read(index)
            assert caught.value.reason.startswith(reason)
    assert [sample.id for sample in source] == ["good", "last"]


def test_odd_ids_stay_unique(photos):
    rows = [{"id": "rows.jsonl:2"}, b"broken", {"id": "rows.jsonl:2'"}, {"id": "rows.jsonl:2'"}]
    ids = Source(path=write(photos, *rows)).ids()
    assert len(set(ids)) == len(ids) == 4


def test_windows_lines_and_a_byte_order_mark(photos):
    (photos / "rows.jsonl").write_bytes(
        b'\xef\xbb\xbf{"id": "a", "image": "photos/red.png"}\r\n\r\n'
        b'{"id": "b", "image": "photos/blue.png"}\r\n'
    )
    source = Source(path=str(photos / "rows.jsonl"))
    assert [sample.id for sample in source] == ["a", "b"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n  \n"])
def test_nothing_to_read_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.jsonl: (cannot be read \(No such file|no row in this file)"):
        Source(path=str(tmp_path / "rows.jsonl")).ids()


def test_a_file_that_goes_away_is_rejected_row_by_row(photos):
    source = Source(path=write(photos, {"id": "a", "image": "photos/red.png"}))
    assert source.ids() == ("a",)
    (photos / "rows.jsonl").unlink()
    with pytest.raises(Reject, match=r"line 1: .*rows\.jsonl cannot be read"):
        source.read(0)
