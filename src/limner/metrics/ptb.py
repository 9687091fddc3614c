"""Penn Treebank tokenisation as pycocoevalcap 1.2 does it, without Java.

pycocoevalcap's PTBTokenizer writes the captions, one a line, for Stanford CoreNLP 3.4.1 (`PTBTokenizer -preserveLines -lowerCase`)
and drops 17 punctuation marks from what comes back.
"""

import re
from collections.abc import Sequence

from limner.metrics import ptb_grammar

PUNCTUATION = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))
"""Tokens that pycocoevalcap drops. Its brackets never occur, for tokens are in lower case: `-lrb-` stays."""

_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "{": "-LCB-", "}": "-RCB-", "[": "-LSB-", "]": "-RSB-"}
_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_CURRENCIES = {"\u00a2": "cents", "\u00a3": "#", **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")}
_QUOTES = {
    **dict.fromkeys("\u0091\u2018\u201b\u2039", "`"),
    **dict.fromkeys("\u0092\u2019\u203a", "'"),
    **dict.fromkeys("\u0093\u201c\u00ab", "``"),
    **dict.fromkeys("\u0094\u201d\u00bb", "''"),
}
_ROUND = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
_CURLY = str.maketrans(_QUOTES)


def tokenise(caption: str) -> list[str]:
    """Tokens of one caption, in lower case, punctuation dropped: what pycocoevalcap makes of a file with this caption alone."""
    return finish(lex(caption.replace("\n", " ")))


def finish(tokens: Sequence[str]) -> list[str]:
    """Tokens as pycocoevalcap reads them from the Java tool's line: lower case, split at spaces, punctuation dropped."""
    line = " ".join(tokens).lower().rstrip()
    return [word for word in line.split(" ") if word not in PUNCTUATION]


def lex(text: str, stop: int | None = None) -> list[str]:
    """The lexer's tokens that start before `stop` (default: all), case kept and punctuation in."""
    lexer = ptb_grammar.lexer()
    units = text
    classes = lexer.classes(units)
    tokens: list[str] = []
    at, stop = 0, len(units) if stop is None else stop
    while at < stop:
        action, end = lexer.match(classes, at)
        token, at = _act(action, units[at:end], end)
        if token is not None:
            tokens.append(token)
    return tokens


def _act(action: str, text: str, end: int) -> tuple[str | None, int]:
    """The token of a match, or None, and where the next match starts."""
    if action.startswith("split "):
        back = int(action.removeprefix("split "))
        return text[:-back], end - back
    if action == "opener":
        return (text[:-1] if len(text) == 2 else text), end - 1
    if action == "again":
        return text, end - 1
    return _token(action, text), end


def _token(action: str, text: str) -> str | None:
    match action:
        case "keep":
            return text
        case "nothing":
            return None
        case "soft":
            return text.replace("\u00ad", "") or "-"
        case "spaces":
            return text.replace(" ", "\u00a0")
        case "dash":
            return "--"
        case "ampersand":
            return re.sub("&amp;", "&", text, flags=re.IGNORECASE)
        case "quote" | "open quote":
            mark = "`" if action == "open quote" else "'"
            return (
                text.replace("&apos;", mark)
                .replace("'", mark)
                .replace('"', mark * 2)
                .replace("&quot;", mark * 2)
                .translate(_CURLY)
            )
        case "fraction":
            return _FRACTIONS.get(text, text)
        case "currency":
            return _CURRENCIES.get(text, text)
        case "phone":
            return text.replace(" ", "\u00a0").translate(_ROUND)
        case "parentheses":
            return text.translate(_ROUND)
        case "bracket":
            return _BRACKETS[text]
        case "hyphens":
            return "--" if 3 <= len(text) <= 4 else text
        case "ellipsis":
            return "..."
        case "less":
            return "<"
        case "greater":
            return ">"
        case _:
            raise AssertionError(action)
