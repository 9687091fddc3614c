"""Files of captions: every shape, every mistake by file, row and key, and how ids are matched."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.errors import UserError
from limner.score_files import pair, read

COCO = {
    "images": [{"id": 9}, {"id": 4}, {"id": 5}],
    "annotations": [
        {"id": 1, "image_id": 4, "caption": " a cat."},
        {"id": 2, "image_id": 9, "caption": "A dog"},
        {"id": 3, "image_id": 4, "caption": "the cat"},
    ],
}
KARPATHY = {
    "images": [
        {"cocoid": 9, "imgid": 0, "split": "test", "sentences": [{"raw": "A dog", "tokens": ["a", "dog"]}]},
        {"imgid": 4, "split": "restval", "sentences": [{"raw": " a cat."}, {"raw": "the cat"}]},
    ]
}
MSRVTT = {
    "videos": [{"video_id": "video9", "split": "test"}, {"video_id": "video4", "split": "train"}],
    "sentences": [
        {"video_id": "video4", "caption": " a cat.", "sen_id": 0},
        {"video_id": "video9", "caption": "A dog", "sen_id": 1},
        {"video_id": "video4", "caption": "the cat", "sen_id": 2},
    ],
}
CATS = (" a cat.", "the cat")


def written(folder: Path, content: object, name: str = "some.json") -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf8")
    return path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (COCO, {"9": ("A dog",), "4": CATS, "5": ()}),
        ({"annotations": COCO["annotations"]}, {"4": CATS, "9": ("A dog",)}),
        (COCO["annotations"], {"4": CATS, "9": ("A dog",)}),
        (KARPATHY, {"9": ("A dog",), "4": CATS}),
        (MSRVTT, {"video9": ("A dog",), "video4": CATS}),
        ([{"video": "v.mp4", "image_id": "v", "caption": ["A dog", ""]}], {"v": ("A dog", "")}),
        ([{"video": "v.mp4", "caption": "A dog"}], {"v.mp4": ("A dog",)}),
        ([{"videoID": "v", "enCap": ["A dog"], "chCap": ["?"]}], {"v": ("A dog",)}),
        ({"4": list(CATS), "9": "A dog", "3": [{"caption": "x"}]}, {"4": CATS, "9": ("A dog",), "3": ("x",)}),
    ],
)
def test_shapes(tmp_path, content, found):
    assert list(read(written(tmp_path, content)).items()) == list(found.items())
    marked = b"\xef\xbb\xbf" + json.dumps(content).encode()
    assert read(written(tmp_path, marked)) == found


def test_lines(tmp_path):
    rows = [
        {"id": "a.jpg", "caption": "one\u2028line"},
        {"id": 7, "captions": ["x", "y"]},
        {"image": "b", "caption": ""},
    ]
    text = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    found = read(written(tmp_path, text, "some.jsonl"))
    assert found == {"a.jpg": ("one\u2028line",), "7": ("x", "y"), "b": ("",)}


def test_splits(tmp_path):
    assert read(written(tmp_path, KARPATHY), splits=["restval"]) == {"4": CATS}
    assert read(written(tmp_path, MSRVTT), splits=["test"]) == {"video9": ("A dog",)}
    assert len(read(written(tmp_path, MSRVTT), splits=["test", "train"])) == 2
    with pytest.raises(UserError, match="no caption in this file of the split val"):
        read(written(tmp_path, MSRVTT), splits=["val"])
    with pytest.raises(UserError, match="names no splits of the split test; leave --split out"):
        read(written(tmp_path, COCO), splits=["test"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"some\.json: no valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("3", "must be a mapping"),
        ("[]", "no caption in this file"),
        ({"images": [{"id": 1}], "annotations": []}, "no caption in this file"),
        ([{"image_id": 1, "caption": "x"}, "text"], r"some\.json: \[1\]: \"text\": must be a mapping"),
        ([{"caption": "x"}], r"\[0\].*has no id: one of image_id, id"),
        ([{"image_id": 1, "text": "x"}], r"\[0\].*has no caption: one of caption"),
        ([{"image_id": None, "caption": "x"}], r"\[0\]\.image_id: null: must be text"),
        ([{"image_id": True, "caption": "x"}], r"\[0\]\.image_id: true: must be text"),
        ([{"image_id": 1.5, "caption": "x"}], r"\[0\]\.image_id: 1\.5: must be text"),
        ([{"image_id": "", "caption": "x"}], r"\[0\]\.image_id: empty"),
        ([{"image_id": 1, "caption": None}], r"\[0\]\.caption: null: must be text"),
        ([{"image_id": 1, "caption": ["x", 3]}], r"\[0\]\.caption\[1\]: 3: must be text"),
        ({"annotations": {"1": "x"}}, r"annotations: .*must be a list"),
        ({"images": [{"id": 1}, {}], "annotations": []}, r"images\[1\]\.id: missing"),
        (
            {"images": [{"cocoid": 1, "sentences": [{"tokens": []}]}]},
            r"images\[0\]\.sentences\[0\]\.raw: missing",
        ),
        ({"videos": [], "sentences": [{"video_id": 1, "caption": "x"}]}, r"sentences\[0\]: '1' is not among"),
        ({"a": {"b": 1}}, r"a\.caption: missing"),
        (b'[{"image_id": 1, "caption": "caf\xe9"}]', r"\[0\]\.caption: not UTF-8: .*caf"),
        ('[{"image_id": 1, "caption": "x \\ud83d"}]', r"\[0\]\.caption: not UTF-8: .*ud83d"),
        (b"\xff\xfe[\x00]\x00", "is UTF-16"),
    ],
)
def test_mistakes(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(written(tmp_path, content))
    assert str(tmp_path / "some.json") in str(error.value)


def test_mistakes_in_lines(tmp_path):
    good = '{"id": 1, "caption": "x"}\n\n'
    for line, message in (
        ("{", "no valid JSON"),
        ("[]", "must be a mapping"),
        ('{"id": 2}', "has no caption"),
    ):
        with pytest.raises(UserError, match=rf"some\.jsonl: line 3: .*{message}"):
            read(written(tmp_path, good + line, "some.jsonl"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read(tmp_path / "none.json")


NAMES = ("mine.json", "theirs.json")


def test_pairs_are_in_the_order_of_the_references():
    found = pair({"b": ("x",), "a": ("y",)}, {"a": ("r",), "b": ("s", "t"), "c": ()}, names=NAMES)
    assert list(found.candidates.items()) == [("a", ("y",)), ("b", ("x",))]
    assert list(found.references.items()) == [("a", ("r",)), ("b", ("s", "t"))]
    assert (found.missing, found.surplus) == ((), ())


def test_images_in_one_file_only():
    mine = dict.fromkeys("abcd", ("x",))
    theirs = dict.fromkeys("d1", ("r",)) | {"c": ()}
    with pytest.raises(UserError) as error:
        pair(mine, theirs, names=NAMES)
    assert str(error.value).splitlines() == [
        "mine.json and theirs.json are not of the same images: 1 are in both",
        "  only in mine.json: 3 images (a, b, c)",
        "  only in theirs.json: 1 image (1)",
        "  --allow-missing scores those that are in both",
    ]
    found = pair(mine, theirs, names=NAMES, allow_missing=True)
    assert list(found.candidates) == ["d"]
    assert (found.missing, found.surplus) == (("1",), ("a", "b", "c"))
    with pytest.raises(UserError, match="0 are in both"):
        pair({"x": ("x",)}, theirs, names=NAMES, allow_missing=True)


def test_several_captions_are_refused_unless_wanted():
    mine = dict.fromkeys("abcde", ("x", "x"))
    theirs = dict.fromkeys("abcde", ("r",))
    with pytest.raises(UserError, match=r"mine\.json: 5 images \(a, b, c, \.\.\.\) with several captions"):
        pair(mine, theirs, names=NAMES)
    assert pair(mine, theirs, names=NAMES, several=True).candidates == mine


@given(
    st.dictionaries(st.text("abc", max_size=2), st.lists(st.just("x"), max_size=2)),
    st.sets(st.text("abc", max_size=2)),
)
def test_what_goes_in_comes_out_or_is_named(mine, ids):
    theirs = dict.fromkeys(ids, ("r",))
    captioned = {id for id, texts in mine.items() if texts}
    if not captioned & ids:
        with pytest.raises(UserError, match="0 are in both"):
            pair(mine, theirs, names=NAMES, allow_missing=True, several=True)
        return
    found = pair(mine, theirs, names=NAMES, allow_missing=True, several=True)
    assert {*found.candidates, *found.surplus} == captioned
    assert {*found.references, *found.missing} == ids
    assert list(found.candidates) == list(found.references)
