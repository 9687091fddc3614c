"""What the page writes: escaped, with numbers beside every colour, and the same captions as files."""

from __future__ import annotations

import json
import math
import re

from PIL import Image

from limner.page.results import Earned, Side, Token, Told
from limner.page.show import Look, Trouble, address, html, jsonl, text

ATTACK = "<script>document.title='hacked'</script>\"onclick='x' {{ 7 * 7 }} ${7}"
NAN = math.nan


def told(words: str, logprobs: list[float], returns: list[float], **more: float) -> Told:
    cells = zip(words.split(), logprobs, returns, strict=True)
    parts = tuple(Earned(name, value, "why" if math.isnan(value) else "") for name, value in more.items())
    return Told(words, tuple(Token(*cell) for cell in cells), True, parts, sum(more.values()))


def look(*sides: Side, name: str = "a.png") -> Look:
    return Look(name, *address([Image.new("RGB", (48, 48))]), 1, sides)


def cells(page: str, kind: str) -> list[tuple[str, float, str]]:
    """Side, strength and number of the heat map's cells, in order."""
    found = re.findall(rf'lm-heat lm-{kind}(?: lm-(\w+))?" style="--heat:([\d.]+)">([^<]*)<', page)
    return [(side, float(strength), number) for side, strength, number in found]


def test_what_a_model_or_a_file_s_name_says_stays_text() -> None:
    side = Side(
        ATTACK, (Told(ATTACK, (Token(ATTACK, -1.0, 2.0),), False, (Earned("itm", 1.0, ATTACK),), 1.0),)
    )
    page = html([look(side, name=ATTACK)], [Trouble(ATTACK, ATTACK)])
    assert "<script" not in page
    assert "onclick='x'" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "{{ 7 * 7 }}" in page


def test_the_less_likely_a_token_the_stronger_its_colour_and_the_number_stands_there() -> None:
    page = html([look(Side("m", (told("a b c", [0.0, -1.0, -4.0], [NAN] * 3),)))])
    assert cells(page, "logprob") == [
        ("less", 0.0, "0.00"), ("less", 0.25, "\N{MINUS SIGN}1.00"), ("less", 1.0, "\N{MINUS SIGN}4.00"),
    ]  # fmt: skip
    assert cells(page, "return") == []
    assert "log-probability \N{MINUS SIGN}1.00 (36.8%)" in page


def test_returns_of_all_captions_share_one_scale_around_their_median() -> None:
    low, high = told("a b", [-1.0, -1.0], [0.0, 1.0], itm=0.0), told("c", [-1.0], [5.0], itm=5.0)
    page = html([look(Side("m", (low,)), Side("n", (high,)))])
    assert cells(page, "return") == [("less", 0.25, "0.00"), ("more", 0.0, "1.00"), ("more", 1.0, "5.00")]
    unscored = html([look(Side("m", (told("a", [-1.0], [NAN], itm=NAN), high)))])
    assert cells(unscored, "return") == [("", 0.0, "\N{EN DASH}"), ("more", 0.0, "5.00")]
    assert 'title="why"' in unscored


def test_files_hold_every_caption_and_null_where_nothing_was_scored() -> None:
    looks = [
        look(Side("m", (told("a b", [-1.0, -2.0], [NAN, NAN], itm=NAN), told("c", [-3.0], [1.5], itm=1.5))))
    ]
    rows = [json.loads(line) for line in jsonl(looks).splitlines()]
    assert [row["caption"] for row in rows] == ["a b", "c"]
    assert [row["reward"] for row in rows] == [None, 1.5]
    assert rows[0]["returns"] == [None, None]
    assert rows[0]["logprobs"] == [-1.0, -2.0]
    assert text(looks) == "a.png\tm\ta b\na.png\tm\tc\n"


def test_a_page_of_nothing_but_troubles_has_no_files_to_take() -> None:
    page = html([], [Trouble("x.png", "cannot be used.")])
    assert 'role="alert"' in page
    assert "download" not in page
