"""Which frames of a video are wanted, against LAVIS's load_video."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.data.video import Video, choose

counts = st.integers(1, 5000)
wanted = st.integers(1, 64)


def chosen(sampling, frames, count, **settings):
    epoch, id = settings.pop("epoch", 0), settings.pop("id", "a")
    video = Video(Path("a.mp4"), frames=frames, sampling=sampling, **settings)
    return list(choose(video, range(count), id=id, epoch=epoch))


def lavis_uniform(frames, count):
    """As load_video of LAVIS has it."""
    frames = min(frames, count)
    return np.arange(0, count, count / frames).astype(int).tolist()


@pytest.mark.parametrize("frames", [4, 8, 16, 32])
def test_uniform_is_that_of_lavis(frames):
    for count in range(1, 600):
        expected = lavis_uniform(frames, count)
        expected += expected[-1:] * (frames - len(expected))
        assert chosen("uniform", frames, count) == expected


@given(frames=wanted, count=counts)
def test_uniform_differs_from_lavis_by_rounding_errors_only(frames, count):
    ours, theirs = chosen("uniform", frames, count), lavis_uniform(frames, count)
    assert len(ours) == frames
    assert len(theirs) - min(frames, count) in (0, 1)
    assert all(0 <= a - b <= 1 for a, b in zip(ours, theirs, strict=False))


@given(frames=wanted, count=counts, epoch=st.integers(0, 9), seed=st.integers(0, 2**32))
def test_headtail_draws_half_from_each_half(frames, count, epoch, seed):
    places = chosen("headtail", frames, count, epoch=epoch, seed=seed)
    assert len(places) == frames
    drawn = places[: min(frames, count)]
    assert drawn == sorted(set(drawn))
    assert all(place == drawn[-1] for place in places[len(drawn) :])
    assert sum(place < count // 2 for place in drawn) == len(drawn) // 2
    assert all(0 <= place < count for place in drawn)
    assert places == chosen("headtail", frames, count, epoch=epoch, seed=seed)


def test_headtail_draws_every_frame_equally_often_and_others_each_time():
    draws = [chosen("headtail", 4, 20, epoch=epoch) for epoch in range(1000)]
    times = np.bincount(np.ravel(draws), minlength=20)
    # 200 expected of each; five standard deviations of a binomial(1000, 1/5) are 63.2
    assert abs(times - 200).max() < 64
    assert chosen("headtail", 8, 500) != chosen("headtail", 8, 500, id="b")
    assert chosen("headtail", 8, 500) != chosen("headtail", 8, 500, seed=1)


@pytest.mark.parametrize(
    ("fps", "times", "expected"),
    [
        (1.0, [0.0, 0.5, 1.0, 1.5, 2.0, 2.4], [0, 2, 4]),
        (2.0, [10.0, 10.5, 11.0, 11.5], [0, 1, 2, 3]),
        (1.0, [0.0, 0.1, 5.0], [0, 1, 1, 1, 1, 2]),
        (1.0, [0.0, 0.9999999, 2.0000001], [0, 1, 2]),
        (4.0, [3.0], [0]),
        (0.1, [0.0, 1.0, 9.0], [0]),
    ],
)
def test_fps_takes_what_is_on_the_screen(fps, times, expected):
    video = Video(Path("a.mp4"), sampling="fps", fps=fps)
    assert list(choose(video, times, id="a")) == expected


@given(gaps=st.lists(st.floats(0.001, 3.0), max_size=60), fps=st.floats(0.1, 30.0), most=st.integers(1, 20))
def test_fps_rises_from_the_first_frame_and_keeps_its_limit(gaps, fps, most):
    times = [0.0, *np.cumsum(gaps).tolist()]
    places = choose(Video(Path("a.mp4"), sampling="fps", fps=fps, max_frames=most), times, id="a")
    assert places[0] == 0
    assert 1 <= len(places) <= most
    assert list(places) == sorted(places)
    assert len(places) == min(most, int(times[-1] * fps + 1e-6) + 1)
