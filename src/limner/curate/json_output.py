"""Questions that a model wrote as JSON, whole or broken, or as the Python that it looks like."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

from limner.curate import marks
from limner.curate.drafts import Draft, Option
from limner.questions import LETTERS

_QUESTION = ("question", "question_text", "q", "stem", "text", "prompt", "\u95ee\u9898", "\u554f\u984c")
_OPTIONS = ("options", "choices", "answers", "answer_choices", "option", "\u9009\u9879")
_ANSWER = (
    "answer", "correct_answer", "correctanswer", "correct", "correct_option", "answer_key", "right_answer",
    "solution", "gold", "\u7b54\u6848", "\u6b63\u786e\u7b54\u6848",
)  # fmt: skip
_INDEX = ("answer_index", "correct_index", "answer_idx", "correct_answer_index")
_KIND = ("type", "category", "kind", "aspect")
_TRAILING = re.compile(r",(\s*[}\]])")
_TRIES = 200
"""Braces at which JSON is looked for; more are not a model's output but noise."""
_MENDED, _LONGEST = 20, 20_000
"""How often broken JSON is mended, and how many characters of it."""


def drafts(text: str) -> list[Draft] | None:
    """Drafts of the questions in JSON; None where there is no JSON with questions."""
    if "{" not in text:
        return None
    found: list[Draft] = []
    end = 0
    for value, stop in _values(text):
        end = stop
        found += [_draft(entry) for entry in _entries(value)]
    if not found:
        return None
    if re.search(r"[\"']question", text[end:], re.IGNORECASE):
        found.append(Draft([text[end:].strip()[:200]]))  # cut off in the middle
    return found


def _values(text: str) -> Iterator[tuple[object, int]]:
    """Whatever is JSON in a text, the outermost first, and where it ends."""
    decoder = json.JSONDecoder(strict=False)
    at = tries = mended = 0
    while tries < _TRIES and (match := re.compile(r"[\[{]").search(text, at)):
        tries += 1
        start = match.start()
        try:
            value, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            mended += 1
            value, stop = _mended(text, start) if mended <= _MENDED else (None, 0)
        if stop > start and isinstance(value, Mapping | list):
            yield value, stop
            at = stop
        else:
            at = start + 1


def _mended(text: str, start: int) -> tuple[object, int]:
    """What stands up to the matching bracket, read without trailing commas, then as Python; (None, 0)."""
    stop = _matching(text, start)
    if not stop:
        return None, 0
    piece = text[start:stop]
    try:
        return json.loads(_TRAILING.sub(r"\1", piece), strict=False), stop
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(piece), stop
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, 0


def _matching(text: str, start: int) -> int:
    """End of the bracket that opens at `start`, quotes and escapes minded; 0 where it never closes."""
    depth, quote, skip = 0, "", False
    for place in range(start, min(len(text), start + _LONGEST)):
        sign = text[place]
        if skip:
            skip = False
        elif sign == "\\":
            skip = bool(quote)
        elif quote:
            quote = "" if sign == quote else quote
        elif sign == '"' or (sign == "'" and not (text[place - 1 : place] or " ").isalnum()):
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
            if depth == 0:
                return place + 1
    return 0


def _entries(value: object, depth: int = 0) -> Iterator[Mapping[str, object]]:
    """The mappings in a value that look like questions."""
    if depth > 4:
        return
    if isinstance(value, Mapping):
        entry = {str(key).strip().lower(): item for key, item in value.items()}
        if isinstance(_first(entry, _QUESTION), str) and len(entry) > 1:
            yield entry
        else:
            for item in entry.values():
                yield from _entries(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item, depth + 1)


def _draft(entry: Mapping[str, object]) -> Draft:
    draft = Draft([marks.plain(" ".join(str(_first(entry, _QUESTION)).split()))])
    draft.style = "letter"
    given = _first(entry, _OPTIONS)
    if given is None:
        given = {
            key.removeprefix("option").strip("_ ").upper(): entry[key] for key in entry if _is_letter(key)
        }
    draft.options = _options(given)
    said, index, kind = _first(entry, _ANSWER), _first(entry, _INDEX), _first(entry, _KIND)
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(draft.options):
        draft.said.append(draft.options[index].letter)
    elif isinstance(said, Sequence) and not isinstance(said, str):
        draft.said += [_text(one) for one in said]
    elif said is not None and not isinstance(said, bool):
        draft.said.append(_text(said))
    if isinstance(kind, str) and "choice" not in kind.lower() and "mcq" not in kind.lower():
        draft.kind = kind.strip()
    return draft


def _options(given: object) -> list[Option]:
    if isinstance(given, str):
        given = [line for line in given.split("\n") if line.strip()]
    if isinstance(given, Mapping):
        pairs = [(str(key).strip("()[]. ").upper(), item, False) for key, item in given.items()]
    elif isinstance(given, list):
        pairs = [_pair(item) for item in given]
    else:
        pairs = []
    options: list[Option] = []
    lettered = [marks.option(_text(item)) for _, item, _ in pairs]
    all_lettered = [mark.letter for mark in lettered if mark] == list(LETTERS[: len(pairs)])
    for (letter, item, right), mark in zip(pairs, lettered, strict=True):
        text, marked = marks.marked_right(mark.text if mark and all_lettered else _text(item))
        name = mark.letter if mark and all_lettered else marks.latin(letter)
        options.append(Option([text] if text else [], name, right or marked))
    used = {option.letter for option in options}
    for place, option in enumerate(options):
        if not option.letter and LETTERS[place % 26] not in used:
            option.letter = LETTERS[place % 26]
    return options


def _pair(item: object) -> tuple[str, object, bool]:
    """Letter, text and whether it is marked right, of an option in a list."""
    if not isinstance(item, Mapping):
        return "", item, False
    entry = {str(key).strip().lower(): value for key, value in item.items()}
    letter = _first(entry, ("label", "letter", "id", "key", "option"))
    text = _first(entry, ("text", "value", "content", "answer", "option"))
    if text is None and len(entry) == 1:
        ((letter, text),) = entry.items()
    right = any(entry.get(name) is True for name in ("correct", "is_correct", "iscorrect", "right"))
    return str(letter or "").strip("()[]. ").upper(), text, right


def _first(entry: Mapping[str, object], names: Sequence[str]) -> object:
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def _is_letter(key: str) -> bool:
    return re.fullmatch(r"(?:option[_ ]?)?[a-h]", key) is not None


def _text(value: object) -> str:
    return "" if value is None else marks.plain(" ".join(str(value).split()))
