import json

import numpy as np
import pytest

import data_sets
from data_sets import dump, msrvtt_info, msrvtt_sentences, msrvtt_video
from limner.data.msrvtt import Source
from limner.data.video import load
from limner.errors import Reject, UserError


def write(folder, videos, sentences, name="videodatainfo.json"):
    return dump(folder / name, msrvtt_info(videos, sentences))


def rejects(source):
    found = {}
    for index, id in enumerate(source.ids()):
        try:
            source.read(index)
        except Reject as reject:
            found[id] = (reject.kind, reject.reason)
    return found


def test_the_authors_file_with_all_references_of_a_split(tmp_path):
    settings = data_sets.msrvtt(tmp_path)
    train = Source(**settings)
    assert train.ids() == ("video0", "video1", "video2")
    sample = train.read(1)
    assert set(sample.references) == {"a person sings 1", "a song 1"}
    assert sample.extra["category"] == "people"
    assert sample.media == ()
    assert rejects(train) == {"video2": ("missing", "listed and not there: no video video2 in videos")}
    for split, id in (("val", "video3"), ("test", "video4")):
        assert Source(**{**settings, "split": split}).ids() == (id,)


def test_pictures_come_out_unflipped(tmp_path):
    sample = load(Source(**data_sets.msrvtt(tmp_path)).read(0))
    assert len(sample.media) == 2
    for image in sample.media:
        pixels = np.asarray(image).astype(int)
        left, right = pixels[:, :24].mean((0, 1)), pixels[:, 40:].mean((0, 1))
        assert left[0] > left[2] + 100  # red is on the left in the file
        assert right[2] > right[0] + 100


def test_train_val_and_test_files_of_the_challenge_are_one_data_set(tmp_path):
    both = [msrvtt_video(0, "train"), msrvtt_video(1, "validate")]
    write(tmp_path, both, msrvtt_sentences(0, "x") + msrvtt_sentences(1, "y"), "train_val_videodatainfo.json")
    write(tmp_path, [msrvtt_video(2, "test")], msrvtt_sentences(2, "z"), "test_videodatainfo.json")
    data_sets.videos(tmp_path / "TrainValVideo", "video0.mp4", "video1.mp4")
    data_sets.videos(tmp_path / "TestVideo", "video2.mp4", "video77.mp4")
    for split, id in (("train", "video0"), ("val", "video1"), ("test", "video2")):
        source = Source(path=str(tmp_path), split=split)
        assert [sample.id for sample in map(source.read, range(len(source)))] == [id]
        assert [path.name for path in source.strays()] == ["video77.mp4"]


def test_wrong_rows_are_rejected_with_file_row_and_key_and_nothing_is_lost(tmp_path):
    videos = [
        msrvtt_video(0, "train"),
        {"id": 1, "split": "train"},
        {"video_id": "video2"},
        msrvtt_video(3, "training"),
        msrvtt_video(0, "train"),
        "video5",
    ]
    sentences = [
        *msrvtt_sentences(0, "a man sings"),
        {"video_id": "video0", "sen_id": 1},
        {"video_id": "video0", "caption": 5, "sen_id": 2},
        {"caption": "whose?", "sen_id": 3},
        *msrvtt_sentences(99, "nobody's", "nobody's too"),
        {"video_id": "video0", "caption": " \n ", "sen_id": 6},
    ]
    path = write(tmp_path, videos, sentences)
    data_sets.videos(tmp_path / "videos", "video0.mp4")
    source = Source(path=path, split="train")
    file = "videodatainfo.json: "
    assert rejects(source) == {
        f"{file}videos[1]": ("shape", f"{file}videos[1].video_id: missing"),
        "video2": ("shape", f"{file}videos[2].split: missing"),
        "video3": ("shape", f'{file}videos[3].split: "training": must be one of train, validate, val, test'),
        f"{file}videos[4]": ("mismatch", f"{file}videos[4]: 'video0' is listed twice"),
        f"{file}videos[5]": ("shape", f'{file}videos[5]: "video5": must be a mapping'),
        f"{file}sentences[1]": ("shape", f"{file}sentences[1].caption: missing"),
        f"{file}sentences[2].caption": ("shape", f"{file}sentences[2].caption: 5: must be text"),
        f"{file}sentences[3]": ("shape", f"{file}sentences[3].video_id: missing"),
        f"{file}sentences[6].caption": ("shape", f"{file}sentences[6].caption: empty"),
        "video99": (
            "mismatch",
            f"{file}sentences[4] and 1 more: captions of 'video99', which videos does not list",
        ),
    }
    assert len(source) == 11
    assert source.read(0).references == ("a man sings",)


def test_captions_that_are_no_utf8_are_rejected_and_the_others_kept(tmp_path):
    path = write(tmp_path, [msrvtt_video(0, "train")], msrvtt_sentences(0, "a café", "a caf#", "a pub"))
    content = (tmp_path / "videodatainfo.json").read_bytes().replace(b"caf#", "café".encode("latin-1"))
    (tmp_path / "videodatainfo.json").write_bytes(content)
    data_sets.videos(tmp_path / "videos", "video0.mp4")
    source = Source(path=path, split="train")
    assert source.read(0).references == ("a café", "a pub")
    place = "videodatainfo.json: sentences[1].caption"
    assert rejects(source) == {place: ("encoding", f'{place}: not UTF-8: "a caf\\\\xe9"')}
    assert all(id.encode() for id in source.ids())


@pytest.mark.parametrize(
    ("written", "shown"),
    [(r"half \ud83d", r"half \\ud83d"), (r"\udce9 \ud83d", r"\\udce9 \\ud83d"), (r"caf\udce9", r"caf\\xe9")],
)
def test_half_of_a_character_in_json_is_rejected_and_spelled_out(tmp_path, written, shown):
    path = write(tmp_path, [msrvtt_video(0, "train")], msrvtt_sentences(0, "a pub", "HERE"))
    file = tmp_path / "videodatainfo.json"
    file.write_text(file.read_text().replace("HERE", written))
    data_sets.videos(tmp_path / "videos", "video0.mp4")
    place = "videodatainfo.json: sentences[1].caption"
    assert rejects(Source(path=path, split="train"))[place] == ("encoding", f'{place}: not UTF-8: "{shown}"')


def test_a_video_without_captions_is_rejected_unless_it_is_kept(tmp_path):
    path = write(tmp_path, [msrvtt_video(0, "test")], [])
    data_sets.videos(tmp_path / "videos", "video0.mp4")
    assert rejects(Source(path=path, split="test")) == {
        "video0": ("no references", "not one usable reference caption")
    }
    assert Source(path=path, split="test", without_references="keep").read(0).references == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b"[]", "videodatainfo.json: []: must be a mapping"),
        (b'{"videos": []}', "videodatainfo.json: sentences: missing"),
        (
            b'{"videos": {"video0": 1}, "sentences": []}',
            'videodatainfo.json: videos: {"video0": 1}: must be a list',
        ),
        (b'{"videos": [], "sentences": []}', "lists nothing"),
        (json.dumps({"videos": []}).encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"[" * 100_000, "no valid JSON (nested too deeply)"),
    ],
)
def test_a_file_of_another_shape_is_the_user_s_mistake(tmp_path, content, said):
    (tmp_path / "videodatainfo.json").write_bytes(content)
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError) as error:
        Source(path=str(tmp_path), split="train").ids()
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        Source(path=str(tmp_path / "nowhere"), split="train").ids()
    with pytest.raises(UserError, match="none of MSR-VTT's files in this folder: videodatainfo"):
        Source(path=str(tmp_path), split="train").ids()
    path = write(tmp_path, [msrvtt_video(0, "train")], msrvtt_sentences(0, "x"))
    with pytest.raises(
        UserError, match=r"no folder videos or TrainValVideo or .* data\.videos names the folder"
    ):
        Source(path=path, split="train").ids()
    with pytest.raises(UserError, match="no such folder"):
        Source(path=path, split="train", videos=str(tmp_path / "films")).ids()


def test_a_folder_of_frames_is_a_video_and_mp4_comes_before_others(tmp_path):
    sentences = [row for n in range(2) for row in msrvtt_sentences(n, "x")]
    path = write(tmp_path, [msrvtt_video(0, "train"), msrvtt_video(1, "train")], sentences)
    data_sets.videos(tmp_path / "videos", "video1.avi", "video1.mp4")
    for n in range(3):
        data_sets.picture(tmp_path / "videos" / "video0" / f"{n}.jpg")
    source = Source(path=path, split="train", frames=2)
    assert [source.read(n).extra["path"].name for n in range(2)] == ["video0", "video1.mp4"]
    assert [len(load(source.read(n)).media) for n in range(2)] == [2, 2]
    assert list(source.strays()) == []
