"""Grades by a judge at an endpoint: a real server in another process."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from limner.client import Endpoint
from limner.errors import UserError
from limner.rewards import judge
from limner.rewards.base import plain
from limner.types import Part, Sample
from server import ChatServer

GOOD = '{{"reason": "all is there", "score": 8}}'


def answers(*texts: str, when: str = "") -> dict[str, object]:
    return {"when": when, "steps": [{"answer": text} for text in texts]}


def graded(server: ChatServer, captions: list[str], samples: list[Sample], **settings: object) -> Part:
    where = Endpoint(base_url=server.base_url, model="m")
    reward = judge.Reward(**{"endpoint": where, **settings})  # type: ignore[arg-type]
    return reward.load(None)(plain(captions, samples=samples))  # type: ignore[arg-type]


def sample(name: str, size: tuple[int, int] = (40, 20), *, count: int = 1, **more: object) -> Sample:
    images = tuple(Image.new("RGB", size, (200, 20 * place, 30)) for place in range(count))
    return Sample(name, images, **more)  # type: ignore[arg-type]


def test_a_grade_of_a_caption_with_its_image(tmp_path: Path) -> None:
    with ChatServer(tmp_path, [answers(GOOD)]) as server:
        part = graded(server, ["a red wall"], [sample("a", (400, 200))], max_side=100)
        (sent,) = server.requests()
    assert part.values.tolist() == pytest.approx([0.8])
    assert part.details == ({"score": 8, "reason": "all is there"},)
    assert part.metrics["answered"].value == 1
    assert part.metrics["tokens"].value == 9
    image, text = sent["messages"][0]["content"]
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    seen = Image.open(io.BytesIO(base64.b64decode(data)))
    assert seen.size == (100, 50)
    assert all(abs(a - b) < 6 for a, b in zip(seen.getpixel((9, 9)), (200, 0, 30), strict=True))  # type: ignore[arg-type]
    assert "<caption>\na red wall\n</caption>" in text["text"]
    assert "from 0 to 10" in text["text"]
    assert "{" not in text["text"].replace('{"reason"', "")
    assert sent["response_format"]["json_schema"]["schema"]["properties"]["score"]["maximum"] == 10
    assert (sent["temperature"], sent["max_tokens"]) == (0.0, 256)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{{"score": 7.5, "reason": ""}}\n```', 0.75),
        ('I think {{so}}. {{"score": "9/10"}} is fair', 0.9),
        ('{{"score": 0}}', 0.0),
        ('{{"thoughts": {{"score": 3}}, "score": 4}}', 0.4),
        ('{{"score": 11}}', None),
        ('{{"score": -1}}', None),
        ('{{"score": true}}', None),
        ('{{"score": NaN}}', None),
        ('{{"grade": 7}}', None),
        ("[7]", None),
        ('{{"score": 7', None),
        ("8 out of 10", None),
    ],
)
def test_what_is_read_as_a_grade(tmp_path: Path, text: str, value: float | None) -> None:
    with ChatServer(tmp_path, [answers(text)]) as server:
        part = graded(server, ["a"], [sample("a")], tries=2)
        assert len(server.requests()) == (1 if value is not None else 2)
    if value is None:
        assert part.values.isnan().all()
        assert "no grade from 0 to 10 in" in str(part.details[0]["error"])
        assert part.metrics["answered"].value == 0
    else:
        assert part.values.tolist() == pytest.approx([value])


def test_an_unreadable_grade_is_asked_for_again_and_no_other_is(tmp_path: Path) -> None:
    rules = [answers("hm", GOOD, when="bad"), answers("hm", when="worse"), answers('{{"score": 5}}')]
    with ChatServer(tmp_path, rules) as server:
        part = graded(server, ["bad", "good", "worse"], [sample("a")], see_image=False)
        sent = [(row["messages"][0]["content"], row["seed"], row["temperature"]) for row in server.requests()]
    assert part.values[:2].tolist() == pytest.approx([0.8, 0.5])
    assert part.values[2].isnan()
    assert len(sent) == 3 + 2 + 1
    assert {row[1:] for row in sent if "bad" in row[0]} == {(0, 0.0), (1, 0.7)}
    # what was paid for grades that nobody could read counts
    assert part.metrics["tokens"].value == pytest.approx((18 + 9 + 27) / 3)


def test_a_refusal_is_no_grade_and_touches_no_other(tmp_path: Path) -> None:
    rules = [{"when": "rude", "steps": [{"status": 400}]}, answers(GOOD)]
    with ChatServer(tmp_path, rules) as server:
        part = graded(server, ["rude", "a dog"], [sample("a")])
        assert len(server.requests()) == 2
    assert part.values.isnan().tolist() == [True, False]
    assert part.details[0] == {"error": "bad request: HTTP 400: this is a 400"}


def test_a_rubric_of_ones_own_with_references(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("{references} | {caption} | 0 to {max}")
    samples = [sample("a", references=("a dog", "a hound {caption}")), sample("b")]
    with ChatServer(tmp_path / "server", [answers('{{"score": 3}}')]) as server:
        settings = {"rubric": str(rubric), "see_image": False, "max_score": 4, "json_schema": False}
        part = graded(server, ["a {max} cat", "a cat"], samples, **settings)
        (sent,) = server.requests()
    assert sent["messages"][0]["content"] == "a dog\na hound {caption} | a {max} cat | 0 to 4"
    assert "response_format" not in sent
    assert part.values[0] == 0.75
    assert part.values[1].isnan()
    assert "references" in str(part.details[1]["error"])


def test_frames_of_a_video_are_spread(tmp_path: Path) -> None:
    with ChatServer(tmp_path, [answers(GOOD)]) as server:
        graded(server, ["a", "b"], [sample("v", count=5)], images=2)
        urls = [[part["image_url"]["url"] for part in row["messages"][0]["content"][:-1]]
                for row in server.requests()]  # fmt: skip
    assert len(urls[0]) == 2
    assert urls[0] == urls[1]
    assert urls[0][0] != urls[0][1]


def test_a_rubric_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        judge.rubric_of(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("Grade it.")
    with pytest.raises(UserError, match=r"must hold \{caption\} once"):
        judge.rubric_of(str(tmp_path / "empty.txt"))
