import json

import pytest

import data_sets
from limner.data.webvid import Source
from limner.errors import Reject, UserError

HEADER = b"videoid,contentUrl,duration,page_dir,name\r\n"


def reject(source, index):
    with pytest.raises(Reject) as caught:
        source.read(index)
    return caught.value.kind, caught.value.reason


def write(folder, *rows, header=HEADER):
    (folder / "rows.csv").write_bytes(header + b"".join(rows))
    data_sets.videos(folder / "videos", "1.mp4", "page/2.mp4", "page/3.mp4")
    return str(folder / "rows.csv")


def test_the_authors_rows_with_videos_by_page_or_in_one_folder(tmp_path):
    source = Source(**data_sets.webvid(tmp_path))
    assert source.ids() == ("21179416", "5629184", "1063125190")
    first, second = source.read(0), source.read(1)
    assert first.references == ("Aerial shot winter forest",)
    assert first.extra["path"] == tmp_path / "videos" / "077701_077750" / "21179416.mp4"
    assert second.references == ('Senior couple, "at home", looking through book',)
    assert second.extra["path"] == tmp_path / "videos" / "5629184.mp4"
    assert reject(source, 2) == ("missing", "listed and not there: 097301_097350/1063125190.mp4 in videos")
    assert source.references(2) == ("Lonely beautiful woman sitting on the tent",)


def test_wrong_rows_are_rejected_by_line(tmp_path):
    source = Source(
        path=write(
            tmp_path,
            b"1,u,PT1S,page,a dog\r\n",
            b"\r\n",
            b"2,u,PT1S,page\r\n",
            b",u,PT1S,page,a cat\r\n",
            b"3,u,PT1S,page,na\xefve\r\n",
            b"1,u,PT1S,page,again\r\n",
            b"../1,u,PT1S,page,outside\r\n",
            b'2,u,PT1S,page,"never closed\r\n',
            b"3,u,PT1S,page,lost\r\n",
        )
    )
    assert source.read(0).references == ("a dog",)
    unclosed = "a quotation mark that is not closed swallows lines 9 to 10"
    assert [reject(source, n) for n in range(1, len(source))] == [
        ("shape", 'rows.csv: line 4: ["2", "u", "PT1S", "page"]: must be a mapping'),
        ("shape", "rows.csv: line 5: videoid: empty"),
        ("encoding", 'rows.csv: line 6: name: not UTF-8: "na\\\\xefve"'),
        ("mismatch", "rows.csv: line 7: the videoid '1' is listed twice"),
        ("mismatch", "rows.csv: line 8: the videoid '../1' is no name of a file"),
        ("shape", f'rows.csv: line 9: "{unclosed}": must be a mapping'),
    ]
    assert source.ids()[2] == "rows.csv: line 5"


def test_files_without_pages_or_with_a_byte_order_mark(tmp_path):
    header = b"\xef\xbb\xbfvideoid,name\n"
    source = Source(path=write(tmp_path, b"1,a dog\n", b"\n", b"2,a cat", header=header))
    assert source.read(0).references == ("a dog",)
    assert reject(source, 1) == ("missing", "listed and not there: 2.mp4 in videos")
    assert source.references(1) == ("a cat",)
    with pytest.raises(UserError, match=r"line 1: no column 'videoid'; there are id, caption"):
        Source(path=write(tmp_path, header=b"id,caption\n")).ids()
    with pytest.raises(UserError, match="no row in this file"):
        Source(path=write(tmp_path)).ids()


def test_captions_of_a_captioner_stand_in_as_pseudo_labels(tmp_path):
    settings = data_sets.webvid(tmp_path)
    rows = [{"id": "21179416", "caption": "snow on trees", "image": "videos/077701_077750/21179416.mp4"}]
    (tmp_path / "pseudo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(**settings, captions=str(tmp_path / "pseudo.jsonl"))
    assert source.read(0).references == ("snow on trees",)
    assert reject(source, 1) == ("no references", "no caption in pseudo.jsonl")
    (tmp_path / "pseudo.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(UserError, match=r"pseudo\.jsonl: line 1: no row with id and caption"):
        Source(**settings, captions=str(tmp_path / "pseudo.jsonl")).read(0)


def test_strays_are_looked_for_in_the_folders_of_pages(tmp_path):
    source = Source(**data_sets.webvid(tmp_path))
    data_sets.videos(tmp_path / "videos", "077701_077750/9.mp4", "8.mp4", "7.mp4")
    (tmp_path / "results_2M_train.csv").write_bytes(HEADER + b"7,u,PT1S,page,listed for training\n")
    assert sorted(path.name for path in source.strays()) == ["8.mp4", "9.mp4"]
