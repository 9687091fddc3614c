"""What is put on the desk: within the service's limits it is looked at, else one sentence says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import served
from limner import captioners
from limner.errors import UserError
from limner.page.desk import Desk, Subject, Wanted, gallery
from limner.page.rewards import Scorer
from limner.page.show import Look
from limner.page.studio import Studio
from limner.serve.house import House
from limner.serve.metrics import Metrics
from limner.serve.settings import Limits, Service


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    policy = captioners.load("world:captioner", device="cpu")
    studio = Studio(("served", policy), Metrics(), other=None, scorer=Scorer({}, {}))
    service = Service(
        "served",
        limits=Limits(images=2, body_bytes=50_000, captions=4, tokens=40),
        default_tokens=40,
        own_prompt=True,
    )
    house = House(service, studio, Metrics(), key=None)
    yield house
    house.close()


def test_limits_are_the_service_s_and_what_is_wrong_is_one_sentence(house: House, tmp_path: Path) -> None:
    desk = Desk(house, ())
    large, good, broken = (tmp_path / name for name in ("large.png", "good.png", "broken.mp4"))
    large.write_bytes(bytes(60_000))
    served.picture().save(good)
    broken.write_bytes(b"no video")

    async def files(*paths: Path, wanted: Wanted) -> tuple[list[Look], list[str]]:
        looks, troubles = await desk.files([str(path) for path in paths], wanted)
        return looks, [trouble.message for trouble in troubles]

    def run(*paths: Path, **wanted: object) -> tuple[list[Look], list[str]]:
        return asyncio.run(files(*paths, wanted=replace(Wanted(max_tokens=30), **wanted)))

    looks, said = run(good, large)
    assert [look.name for look in looks] == ["good.png"]
    assert said == ["cannot be used: more than 50,000 bytes."]
    looks, said = run(broken)
    assert not looks
    assert said[0].startswith("cannot be used: ")
    assert run(good, good, good)[1] == ["At most 2 files at a time; there are 3."]
    assert run(good, max_tokens=41)[1] == ["At most 40 tokens."]
    assert run(good, captions=2)[1] == ["2 different captions need a temperature above 0, or as many beams."]
    looks, said = run(good, captions=2, beams=2)
    assert [len(side.captions) for side in looks[0].sides] == [2]


def test_a_full_house_is_said_and_not_waited_for(house: House) -> None:
    desk = Desk(house, ())
    leaving = [house.enter() for _ in range(house.service.limits.waiting)]
    try:
        _, troubles = asyncio.run(desk.looks([Subject("x", (served.picture(),))], Wanted(max_tokens=30)))
        assert [trouble.message for trouble in troubles] == ["Too many requests are waiting."]
    finally:
        for leave in leaving:
            leave()


def test_the_gallery_is_the_first_pictures_of_a_folder_that_can_be_used(tmp_path: Path) -> None:
    for number in range(2):
        served.picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert [subject.name for subject in gallery(str(tmp_path))] == ["0.png", "1.png"]
    for path in tmp_path.glob("[01].png"):
        path.unlink()
    with pytest.raises(UserError, match="nothing in it can be used"):
        gallery(str(tmp_path))
