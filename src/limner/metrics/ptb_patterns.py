r"""Regular expressions of the tokeniser's grammar, read into trees for `ptb_lexer`.

Written as for `re`, but a letter outside brackets matches both its cases, one inside only itself, and
`{name}` is another pattern or a named set of characters. Supported: alternation, groups, `* + ?`, `{m}`,
`{m,n}`, brackets with ranges and negation, `.` for any character at all, escapes by a backslash, `\uXXXX`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

CharacterSet = Callable[[str], bool]
"""Whether a character belongs to a set."""


@dataclass(frozen=True, slots=True)
class One:
    """One character of a set; equal names are equal sets."""

    name: str
    belongs: CharacterSet


@dataclass(frozen=True, slots=True)
class All:
    """Parts one after another."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """One of the parts."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part, at least and at most so many times; None: any number."""

    part: "Node"
    least: int
    most: int | None


Node = One | All | Either | Repeat


def characters(inside: str) -> frozenset[str]:
    r"""The characters that the inside of brackets, such as `a-z\u00ad`, names."""
    found: list[str] = []
    given = list(_unescaped(inside))
    while given:
        char, bare = given.pop(0)
        if char == "-" and bare and found and given:
            found += [chr(code) for code in range(ord(found[-1]) + 1, ord(given.pop(0)[0]) + 1)]
        else:
            found.append(char)
    return frozenset(found)


_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "0": "\0"}


def _unescaped(text: str) -> Iterator[tuple[str, bool]]:
    """Each character, and whether it stood without a backslash."""
    at = 0
    while at < len(text):
        if text[at] != "\\":
            yield text[at], True
            at += 1
            continue
        length = 6 if text[at + 1] == "u" else 2
        escape = text[at + 1 : at + length]
        yield (chr(int(escape[1:], 16)) if length == 6 else _ESCAPES.get(escape, escape)), False
        at += length


_FURTHER_CASES = {"i": "\u0130\u0131", "k": "\u212a", "s": "\u017f"}
"""Signs outside ASCII that are another case of a letter."""


class Grammar:
    """Named patterns and sets, and the trees of patterns that use them."""

    def __init__(self, macros: Mapping[str, str], sets: Mapping[str, CharacterSet]):
        self._macros, self._sets = macros, sets
        self._trees: dict[str, Node] = {}

    def tree(self, pattern: str) -> Node:
        """The tree of a pattern. Raises ValueError where it cannot be read, KeyError on an unknown name."""
        return _Reader(self, pattern).read()

    def named(self, name: str) -> Node:
        """The tree of `{name}`."""
        if name not in self._trees:
            known = name in self._sets
            self._trees[name] = One(name, self._sets[name]) if known else self.tree(self._macros[name])
        return self._trees[name]


class _Reader:
    """Reads one pattern by recursive descent."""

    def __init__(self, grammar: Grammar, text: str):
        self._grammar, self._text, self._at = grammar, text, 0

    def read(self) -> Node:
        tree = self._either()
        if self._at != len(self._text):
            raise ValueError(f"pattern {self._text!r} cannot be read at character {self._at}")
        return tree

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, length: int = 1) -> str:
        self._at += length
        return self._text[self._at - length : self._at]

    def _either(self) -> Node:
        parts = [self._all()]
        while self._next() == "|":
            self._take()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Node:
        parts: list[Node] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._repeats(self._atom()))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _repeats(self, part: Node) -> Node:
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._next() in simple:
            return self._repeats(Repeat(part, *simple[self._take()]))
        if self._next() == "{" and self._text[self._at + 1].isdigit():
            least, _, most = self._until("}")[1:-1].partition(",")
            return self._repeats(Repeat(part, int(least), int(most or least)))
        return part

    def _until(self, stop: str) -> str:
        """The text up to and with `stop`, which no backslash escapes."""
        start = self._at
        while self._next() != stop:
            self._take(2 if self._next() == "\\" else 1)
        return self._text[start : self._at] + self._take()

    def _atom(self) -> Node:
        char = self._next()
        if char == "(":
            self._take()
            tree = self._either()
            self._take()
            return tree
        if char == "{":
            return self._grammar.named(self._until("}")[1:-1])
        if char == "[":
            inside = self._until("]")[1:-1]
            members = characters(inside.removeprefix("^"))
            return One(f"[{inside}]", _outside(members) if inside.startswith("^") else members.__contains__)
        if char == ".":
            self._take()
            return One(".", lambda _: True)
        length = 1 if char != "\\" else 6 if self._text[self._at + 1] == "u" else 2
        literal = next(_unescaped(self._take(length)))[0].lower()
        cases = frozenset((literal, literal.upper(), *_FURTHER_CASES.get(literal, "")))
        return One(f"literal {literal}", cases.__contains__)


def _outside(members: frozenset[str]) -> CharacterSet:
    return lambda char: char not in members
