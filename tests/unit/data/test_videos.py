"""A folder of videos as a data source, and what a path on the command line means."""

import json

import pytest

import nasty_videos
import tiny
from limner.authors import author
from limner.caption import Where, caption
from limner.data.named import source as named
from limner.data.videos import Source
from limner.decoding import Decoding
from limner.errors import Reject, UserError
from limner.types import Sample


def test_videos_are_found_by_name_and_folders_of_frames_are_videos(tmp_path):
    nasty_videos.video(tmp_path / "b.MP4", 2)
    nasty_videos.animation(tmp_path / "a.gif", 2)
    (tmp_path / "below").mkdir()
    nasty_videos.folder_of_frames(tmp_path / "below" / "frames", 4)
    (tmp_path / "no_suffix").write_bytes((tmp_path / "b.MP4").read_bytes())
    for passed_over in ("b.txt", "captions.json", ".hidden.mp4"):
        (tmp_path / passed_over).write_text("{}")
    source = Source(path=str(tmp_path), frames=2)
    assert list(source.ids()) == ["a.gif", "b.MP4", "below/frames", "no_suffix"]
    sample = source.read(2)
    assert sample.extra["path"] == tmp_path / "below" / "frames"
    assert sample.media == ()
    taken = {sample.id: nasty_videos.numbers(sample.media) for sample in source}
    assert taken == {"a.gif": [0, 1], "b.MP4": [0, 1], "below/frames": [0, 2], "no_suffix": [0, 1]}


def test_one_file_and_one_folder_of_frames(tmp_path):
    nasty_videos.video(tmp_path / "a.mp4", 2)
    assert Source(path=str(tmp_path / "a.mp4")).ids() == ("a.mp4",)
    nasty_videos.folder_of_frames(tmp_path / "frames", 4)
    (sample,) = Source(path=str(tmp_path / "frames"), frames=2)
    assert (sample.id, nasty_videos.numbers(sample.media)) == ("frames", [0, 2])


def test_a_folder_with_videos_and_images_holds_videos_only(tmp_path):
    nasty_videos.video(tmp_path / "a.mp4", 2)
    nasty_videos.frame(0).save(tmp_path / "thumbnail.png")
    (tmp_path / "a.srt").write_text("1\n")
    source = Source(path=str(tmp_path))
    assert source.ids() == ("a.mp4", "thumbnail.png")
    with pytest.raises(Reject, match="not a video file"):
        source.read(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder; give a folder of videos, or one video file"),
        (lambda path: path.mkdir(), "no video in this folder or below it; videos end in .mp4, "),
    ],
)
def test_nothing_to_read_is_an_error(tmp_path, make, message):
    make(tmp_path / "videos")
    with pytest.raises(UserError, match=message):
        Source(path=str(tmp_path / "videos")).ids()


def test_circles_of_links_end(tmp_path):
    (tmp_path / "below").mkdir()
    nasty_videos.video(tmp_path / "below" / "a.mp4", 1)
    (tmp_path / "below" / "up").symlink_to(tmp_path)
    (tmp_path / "odd\udcff.mp4").write_bytes(b"")
    assert Source(path=str(tmp_path)).ids() == ("below/a.mp4", "odd\\xff.mp4")


def test_a_path_means_videos_where_there_are_videos_and_no_images(tmp_path):
    kinds = {}
    for name in ("videos", "images", "both", "frames", "empty", "animations"):
        (tmp_path / name).mkdir()
    nasty_videos.video(tmp_path / "videos" / "a.MKV", 1)
    nasty_videos.frame(0).save(tmp_path / "images" / "a.png")
    nasty_videos.frame(0).save(tmp_path / "frames" / "frame1.png")
    nasty_videos.video(tmp_path / "both" / "a.mp4", 1)
    nasty_videos.frame(0).save(tmp_path / "both" / "a.png")
    nasty_videos.animation(tmp_path / "animations" / "a.gif", 2)
    for name in ("videos", "images", "both", "frames", "empty", "animations", "videos/a.MKV", "images/a.png"):
        source = named(str(tmp_path / name))
        kinds[name] = type(source).__module__.rpartition(".")[2]
    assert kinds == {
        "videos": "videos", "images": "folder", "both": "folder", "frames": "folder", "empty": "folder",
        "animations": "folder", "videos/a.MKV": "videos", "images/a.png": "folder",
    }  # fmt: skip
    (sample,) = named(str(tmp_path / "videos"))
    assert isinstance(sample, Sample)
    assert len(sample.media) == 8


def test_videos_are_captioned_each_once_beside_what_is_rejected(tmp_path):
    model = str(tiny.blip2(tmp_path / "model"))
    (tmp_path / "videos").mkdir()
    nasty_videos.video(tmp_path / "videos" / "a.mp4", 3)
    nasty_videos.video(tmp_path / "videos" / "a.mkv", 3)
    nasty_videos.folder_of_frames(tmp_path / "videos" / "frames", 3)
    (tmp_path / "videos" / "half.mp4").write_bytes((tmp_path / "videos" / "a.mp4").read_bytes()[:900])
    out, greedy = tmp_path / "captions.jsonl", Decoding(do_sample=False, max_new_tokens=4)
    source = Source(path=str(tmp_path / "videos"))

    def run():
        return caption(source, out, model=model, decoding=greedy, batch=2, where=Where(sidecar=True))

    first = run()
    assert (first.written, first.skipped_existing, first.rejected) == (3, 0, 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["video"]) for row in rows] == [
        (id, f"videos/{id}") for id in ("a.mkv", "a.mp4", "frames")
    ]
    texts = sorted(path.name for path in (tmp_path / "videos").glob("*.txt"))
    assert texts == ["a.mkv.txt", "a.mp4.txt", "frames.txt"]
    again = run()
    assert (again.written, again.skipped_existing, again.rejected) == (0, 3, 1)
    # The video that cannot be used has no caption, and needs none.
    assert author(str(out), source=source).write([source.read(0)]) == [rows[0]["caption"]]
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(UserError, match="no caption of frames"):
        author(str(out), source=source)
