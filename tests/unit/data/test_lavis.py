import pytest

import data_sets
from data_sets import dump
from limner.data.lavis import Source
from limner.errors import Reject, UserError


def reject(source, index):
    with pytest.raises(Reject) as caught:
        source.read(index)
    return caught.value.kind, caught.value.reason


def test_rows_of_one_video_are_one_item_with_all_captions(tmp_path):
    settings = data_sets.lavis(tmp_path)
    train = Source(**settings)
    assert train.ids() == ("video0", "video1")
    assert train.read(0).references == ("a man sings", "a song is sung")
    assert reject(train, 1) == ("missing", "listed and not there: video1.mp4 in videos")
    assert Source(**{**settings, "split": "test"}).ids() == ("video7010", "video7011")
    assert train.strays() == []
    data_sets.videos(tmp_path / "videos", "video3.mp4")
    assert [path.name for path in Source(**settings).strays()] == ["video3.mp4"]


def test_a_file_of_references_stands_in_for_the_rows(tmp_path):
    data_sets.lavis(tmp_path)
    truth = {
        "images": [{"id": "video7010"}, {"id": "video7011"}],
        "annotations": [
            {"id": 0, "image_id": "video7010", "caption": "one"},
            {"id": 1, "image_id": "video7010", "caption": "two"},
            {"id": 2, "image_id": "video404", "caption": "lost"},
        ],
    }
    source = Source(
        path=str(tmp_path / "annotations" / "cap_test.json"), truth=dump(tmp_path / "gt.json", truth)
    )
    assert source.read(0).references == ("one", "two")
    assert reject(source, 1) == ("no references", "not one usable reference caption")
    lost = "gt.json: annotations[2]: captions of 'video404', which cap_test.json does not list"
    assert reject(source, 2) == ("mismatch", lost)
    with pytest.raises(UserError, match=r"gt\.json: annotations: missing"):
        Source(
            path=str(tmp_path / "annotations" / "cap_test.json"), truth=dump(tmp_path / "gt.json", {})
        ).ids()


def test_wrong_rows_are_rejected_with_row_and_key(tmp_path):
    rows = [
        {"video": "video0.mp4", "caption": ["a list", "of captions"], "image_id": 5},
        {"video": "video9.mp4", "caption": "x", "image_id": 5},
        {"caption": "x", "image_id": "video1"},
        {"video": "/etc/passwd", "caption": "x"},
        {"video": "video0.mp4", "caption": 3, "image_id": 5},
        {"video": "video1.mp4", "caption": "named by its file"},
    ]
    data_sets.videos(tmp_path / "videos", "video0.mp4", "video1.mp4")
    source = Source(path=dump(tmp_path / "annotations" / "cap_val.json", rows))
    file = "cap_val.json: "
    assert source.read(0).references == ("a list", "of captions")
    where = {id: n for n, id in enumerate(source.ids())}
    assert source.read(where.pop("video1")).references == ("named by its file",)
    del where["5"]
    assert {id: reject(source, n) for id, n in where.items()} == {
        f"{file}[1]": ("mismatch", f"{file}[1]: '5' is video0.mp4 in another row"),
        f"{file}[2]": ("shape", f"{file}[2].video: missing"),
        f"{file}[3]": ("shape", f"{file}[3].video: /etc/passwd: must be a name in the folder of the videos"),
        f"{file}[4].caption": ("shape", f"{file}[4].caption: 3: must be text"),
    }


def test_a_folder_needs_a_split(tmp_path):
    settings = data_sets.lavis(tmp_path)
    with pytest.raises(UserError, match="is a folder: name one of train, val, test"):
        Source(path=settings["path"]).ids()
    with pytest.raises(UserError, match=r"none of LAVIS's files in this folder: cap_train\.json"):
        Source(path=str(tmp_path), split="train").ids()
