import pytest

import data_sets
from limner.data.msvd import SIZES, Source
from limner.errors import Reject, UserError


def clips(count):
    return [f"clip{n:04d}AAAA_{n}_{n + 9}" for n in range(count)]


def describe(folder, lines):
    (folder / "AllVideoDescriptions.txt").write_bytes(b"".join(line + b"\n" for line in lines))


def rejects(source):
    found = {}
    for index, id in enumerate(source.ids()):
        try:
            source.read(index)
        except Reject as reject:
            found[id] = (reject.kind, reject.reason)
    return found


def test_lists_beside_the_descriptions_are_the_splits(tmp_path):
    settings = data_sets.msvd(tmp_path)
    train = Source(**{**settings, "split": "train"})
    assert train.ids() == ("-4wsuPCjDBc_5_15",)
    assert train.read(0).references == (
        "a squirrel is eating a peanut in it's shell",
        "a chipmunk is eating",
    )
    assert train.read(0).extra["path"].name == "-4wsuPCjDBc_5_15.avi"
    assert train.strays() == []
    test = Source(**settings)
    assert test.ids() == ("zzit5b_-ukg_5_20", "-7KMZQEsJW4_300_308")
    assert rejects(test) == {"-7KMZQEsJW4_300_308": ("no references", "not one usable reference caption")}


def test_without_lists_the_first_1200_the_next_100_and_the_last_670_clips_are_the_splits(tmp_path):
    names = clips(1970)
    lines = [f"{id} caption {n} of {id}".encode() for id in names for n in range(2)]
    describe(tmp_path, [b"# a header", b"", *lines])
    (tmp_path / "YouTubeClips").mkdir()
    found = {split: Source(path=str(tmp_path), split=split).ids() for split in SIZES}
    assert {split: len(ids) for split, ids in found.items()} == {"train": 1200, "val": 100, "test": 670}
    assert [*found["train"], *found["val"], *found["test"]] == names
    described = Source(path=str(tmp_path), split="val").references(0)
    assert described == (f"caption 0 of {names[1200]}", f"caption 1 of {names[1200]}")


def test_the_order_of_part_of_the_clips_tells_no_split(tmp_path):
    describe(tmp_path, [f"{id} x".encode() for id in clips(1969)])
    (tmp_path / "YouTubeClips").mkdir()
    with pytest.raises(UserError, match=r"describes 1969 clips, not 1970, .* put train_list\.txt"):
        Source(path=str(tmp_path), split="train").ids()
    (tmp_path / "train_list.txt").write_text(clips(1)[0] + "\n")
    assert len(Source(path=str(tmp_path), split="train")) == 1 + 1968  # the others are in no list
    with pytest.raises(UserError, match=r"val_list\.txt: no such file, but train_list\.txt is there"):
        Source(path=str(tmp_path), split="val").ids()


def test_wrong_lines_are_rejected_by_number(tmp_path):
    data_sets.msvd(tmp_path)
    describe(
        tmp_path,
        [
            b"-4wsuPCjDBc_5_15 a squirrel eats",
            b"-4wsuPCjDBc_5_15",
            b" a caption of nobody",
            b"-4wsuPCjDBc_5_15 a na\xefve squirrel\r",
            b"-4wsuPCjDBc_5_15 a line\xe2\x80\xa8separator is no line",
            b"unlisted_1_2 a dog",
        ],
    )
    source = Source(path=str(tmp_path), split="train")
    file = "AllVideoDescriptions.txt: line"
    assert rejects(source) == {
        f"{file} 2": ("shape", f"{file} 2: not a clip's name, a space and a caption"),
        f"{file} 3": ("shape", f"{file} 3: not a clip's name, a space and a caption"),
        f"{file} 4": ("encoding", f'{file} 4: not UTF-8: "a na\\\\xefve squirrel"'),
        "unlisted_1_2": (
            "mismatch",
            f"{file} 6: captions of 'unlisted_1_2', which train_list.txt does not list",
        ),
    }
    (first,) = [n for n, id in enumerate(source.ids()) if id == "-4wsuPCjDBc_5_15"]
    assert source.read(first).references == ("a squirrel eats", "a line separator is no line")
