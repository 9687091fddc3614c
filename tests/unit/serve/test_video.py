"""Videos in requests: frames, evenly; what cannot be decoded is the asker's fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import nasty_videos
import served
from limner.serve.media import Medium, Opener
from limner.serve.problems import Problem
from limner.serve.settings import Limits


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    opener = Opener(Limits(frames=4, images=5), None)
    yield opener
    opener.close()


def medium(content: bytes, kind: str = "video/mp4", *, video: bool = False) -> Medium:
    return Medium(served.encoded(content, kind), video, "messages.0.content.0")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return nasty_videos.video(tmp_path_factory.mktemp("film") / "film.mp4", 20).read_bytes()


def test_a_video_is_shown_as_frames_in_order_of_time(opener: Opener, film: bytes) -> None:
    frames = opener.open([medium(film)])
    assert nasty_videos.numbers(frames) == [0, 5, 10, 15]
    assert nasty_videos.numbers(opener.open([medium(film, "application/octet-stream", video=True)])) == [
        0, 5, 10, 15,
    ]  # fmt: skip


def test_frames_count_as_images(opener: Opener, film: bytes) -> None:
    assert len(opener.open([medium(film), medium(picture(), "image/png")])) == 5
    with pytest.raises(Problem, match="more than 5 images or frames"):
        opener.open([medium(film), medium(film)])


def picture() -> bytes:
    import nasty_files

    return nasty_files.encoded(served.picture(), "PNG")


def test_what_is_no_video(opener: Opener, tmp_path: Path) -> None:
    for name, reason in nasty_videos.broken(tmp_path).items():
        if not (tmp_path / name).is_file() or reason == "not a video file":  # by its name only
            continue
        with pytest.raises(Problem) as caught:
            opener.open([medium((tmp_path / name).read_bytes())])
        assert caught.value.status == 400
        assert reason in caught.value.message
        assert str(tmp_path) not in caught.value.message
