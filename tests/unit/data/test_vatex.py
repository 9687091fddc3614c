import pytest

import data_sets
from data_sets import dump
from limner.data.vatex import Source
from limner.errors import Reject, UserError


def reject(source, index):
    with pytest.raises(Reject) as caught:
        source.read(index)
    return caught.value.kind, caught.value.reason


def test_the_file_of_a_split_with_the_captions_of_a_language(tmp_path):
    settings = data_sets.vatex(tmp_path)
    source = Source(**settings)
    assert source.ids() == ("Ptf_2VRj-V0_000122_000132", "T19WyWwSI_A_000053_000063")
    assert source.read(0).references == ("A man climbs a rope.", "Someone climbs.")
    missing = "listed and not there: no video T19WyWwSI_A_000053_000063 in videos"
    assert reject(source, 1) == ("missing", missing)
    assert source.references(1) == ("A boy runs.",)
    assert source.strays() == []  # the clip of private_test is listed in its own file
    chinese = Source(path=str(tmp_path / "vatex_training_v1.0.json"), language="ch")
    assert chinese.read(0).references == ("一个人在爬绳子。",)


def test_a_split_that_nobody_captioned(tmp_path):
    data_sets.vatex(tmp_path)
    assert reject(Source(path=str(tmp_path), split="private_test"), 0)[0] == "no references"
    kept = Source(path=str(tmp_path), split="private_test", without_references="keep")
    assert kept.read(0).references == ()


def test_a_folder_needs_a_split_and_a_file_has_none(tmp_path):
    data_sets.vatex(tmp_path)
    with pytest.raises(UserError, match="is a folder: name one of train, val, test, private_test"):
        Source(path=str(tmp_path)).ids()
    with pytest.raises(UserError, match="is one file: leave split out"):
        Source(path=str(tmp_path / "vatex_training_v1.0.json"), split="train").ids()
    with pytest.raises(
        UserError, match=r"none of VATEX's files in this folder: vatex_validation_v1\.0\.json"
    ):
        Source(path=str(tmp_path), split="val").ids()


def test_wrong_rows_are_rejected_with_row_and_key(tmp_path):
    rows = [
        {"videoID": "a_000001_000011", "enCap": ["fine", None, "fine too"]},
        {"videoID": "b_000001_000011", "enCap": "not a list"},
        {"enCap": ["whose?"]},
        {"videoID": "a_000001_000011", "enCap": ["again"]},
        7,
    ]
    path = dump(tmp_path / "vatex_validation_v1.0.json", rows)
    data_sets.videos(tmp_path / "videos", "a_000001_000011.mp4", "b_000001_000011.mp4")
    source = Source(path=path)
    file = "vatex_validation_v1.0.json: "
    assert source.read(0).references == ("fine", "fine too")
    assert {id: reject(source, n) for n, id in enumerate(source.ids()) if n} == {
        f"{file}[0].enCap[1]": ("shape", f"{file}[0].enCap[1]: null: must be text"),
        "b_000001_000011": ("shape", f'{file}[1].enCap: "not a list": must be a list'),
        f"{file}[2]": ("shape", f"{file}[2].videoID: missing"),
        f"{file}[3]": ("mismatch", f"{file}[3]: 'a_000001_000011' is listed twice"),
        f"{file}[4]": ("shape", f"{file}[4]: 7: must be a mapping"),
    }
