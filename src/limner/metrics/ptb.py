"""Penn Treebank tokens of captions, equal to what pycocoevalcap 1.2 gets from Java, without Java.

pycocoevalcap's `PTBTokenizer` writes captions to a file, one a line, runs Stanford CoreNLP 3.4.1 on it
(`edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase`) and drops `PUNCTUATION`. Here captions
of plain words take a short cut; all others go through a lexer with that tool's rules (`ptb_grammar`).

The tool looks ahead over line ends. A letter and a period before a line that starts with "The", "A" or the
like (`_OPENERS` of `ptb_abbreviations`) lose the period: `vitamin c.` ends in `c`, else in `c.`. And some
smileys, years (`'90`), file names and clitics are one token before a line end and others at the end of the
file (`you're` is `you 're`, there `you re`). `tokenise_all` heeds this as pycocoevalcap's file does;
`tokenise` takes a caption with a line end and no such word behind it.

Kept on purpose: the tool writes brackets in lower case, `-lrb-`, which pycocoevalcap means to drop
(`-LRB-`) and does not. A token may hold a no-break space (`1 1/2`, phone numbers, tags); pycocoevalcap's
BLEU and CIDEr split it there, its ROUGE does not.

What does not match:

1. A caption with a carriage return, vertical tab, form feed, U+2028 or U+2029 inside (a newline is no
   problem). The tool starts a line there, so that pycocoevalcap pairs all captions behind it with wrong
   images. Here it parts words as a space does.
2. A tag with a quoted attribute, or the smiley `x.[^x=`, opened in one caption and closed in a later one.
   The tool makes one token across captions, and pycocoevalcap pairs wrongly again. Here no token leaves its
   caption.
3. Half a surrogate pair, which pycocoevalcap cannot write. Here it is a sign that the tool does not know.
4. Lower case where it depends on the versions of Java and Python: capital sigma beside a hyphen or a digit,
   and, within web addresses, letters that Unicode 14 or later added.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from limner.metrics import ptb_abbreviations, ptb_grammar

PUNCTUATION = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))
"""Tokens that pycocoevalcap drops."""


def tokenise(caption: str) -> list[str]:
    """Tokens of one caption, in lower case, punctuation dropped.

    Joined with spaces they are what pycocoevalcap gives for a caption with others behind it, none of which
    starts with a word that counts (see above). No words: an empty list.
    """
    caption = caption.replace("\n", " ")
    plain = _plain(caption)
    return _lexed(caption, "\n") if plain is None else plain


def tokenise_all(captions: Sequence[str]) -> list[list[str]]:
    """Tokens of captions that pycocoevalcap tokenises in one call, in the order in which it gets them."""
    lines = [caption.replace("\n", " ") for caption in captions]
    tokens: list[list[str]] = []
    for number, line in enumerate(lines):
        plain = _plain(line) if number < len(lines) - 1 else None
        tokens.append(_lexed(line, _behind(lines, number)) if plain is None else plain)
    return tokens


def lex(text: str, stop: int | None = None) -> list[str]:
    """The tool's own tokens that start before `stop` (default: all), case kept, punctuation in."""
    return list(_tokens(text, len(text) if stop is None else stop, short_cuts=False))


def _tokens(text: str, stop: int, *, short_cuts: bool) -> Iterator[str]:
    """Tokens that start before `stop`; with short cuts, plain words as `tokenise` gives them."""
    astral = not text.isascii() and max(text) > "\uffff"
    if astral:
        stop = len(_surrogates(text[:stop]))
        text = _surrogates(text)
    lexer = ptb_grammar.lexer()
    classes = lexer.classes(text)
    at = 0
    while at < stop:
        if short_cuts and (at == 0 or text[at - 1] == " "):
            end = text.find(" ", at, stop)
            chunk = text[at : stop if end < 0 else end]
            words = _chunks[chunk] if "." not in chunk else None
            if words:
                yield from words
                at += len(chunk)
                if text[at + 1 : at + 2].isalnum():
                    at += 1
                continue
        action, end = lexer.match(classes, at)
        token, back = _ACTIONS[action](text[at:end])
        at = end - back
        if token:
            yield _joined(token) if astral else token


def _lexed(line: str, behind: str) -> list[str]:
    """Tokens of a line, as pycocoevalcap reads them from the tool's output, by what is behind the line."""
    return _read(_tokens(line + behind, len(line), short_cuts=behind != ""))


def _read(tokens: Iterable[str]) -> list[str]:
    """Tokens as pycocoevalcap reads the tool's output."""
    out = " ".join(tokens).lower().rstrip()
    return [token for token in out.split(" ") if token not in PUNCTUATION] if out else []


def _behind(lines: Sequence[str], number: int) -> str:
    """As much of the file behind a line as the tool may look at: the next line with words and its end."""
    if number == len(lines) - 1:
        return ""
    if not lines[number].rstrip().endswith("."):
        return "\n"
    after = number + 1
    while after < len(lines) - 1 and not lines[after].strip():
        after += 1
    return "\n" + "\n".join(lines[number + 1 : after + 1]) + ("\n" if after < len(lines) - 1 else "")


class _Chunks(dict[str, tuple[str, ...] | None]):
    """Tokens of what stands between spaces; None where what is around it counts.

    Behind them is a space or a line end: at the end of a file `it's` has a quotation mark.
    """

    limit = 1 << 16
    longest = 32
    simple = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*[,!?;:]?|[A-Za-z]{2,}\.|[.,!?;:-]")
    looks_ahead = re.compile(rf"(?:{ptb_abbreviations.LISTS['BEFORE_NUMBER']}|pt[ey])\.", re.IGNORECASE)

    def __missing__(self, chunk: str) -> tuple[str, ...] | None:
        tokens = None
        if not chunk:
            tokens = ()
        elif self.simple.fullmatch(chunk) and not self.looks_ahead.fullmatch(chunk):
            tokens = tuple(_read(lex(chunk + "\n", len(chunk))))
        if len(chunk) <= self.longest:
            if len(self) >= self.limit:
                self.clear()
            self[chunk] = tokens
        return tokens


_chunks = _Chunks()


def _plain(line: str) -> list[str] | None:
    """Tokens of a line of plain words, on which nothing around them bears; None for any other line."""
    parts = [_chunks[chunk] for chunk in line.split(" ")]
    if None in parts:
        return None
    return list(chain.from_iterable(part for part in parts if part))


_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def _surrogates(text: str) -> str:
    """The text in the units that Java has: two surrogates for a character above U+FFFF."""
    return _ASTRAL.sub(_pair, text)


def _pair(match: re.Match[str]) -> str:
    code = ord(match[0]) - 0x10000
    return chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF))


def _joined(text: str) -> str:
    """The text with pairs of surrogates made characters again."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


_AMPERSAND = re.compile("&amp;", re.IGNORECASE)
_ROUND = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "{": "-LCB-", "}": "-RCB-", "[": "-LSB-", "]": "-RSB-"}
_FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_CURRENCIES = {"\u00a2": "cents", "\u00a3": "#", **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")}
_CURLY = str.maketrans(
    {
        **dict.fromkeys("\u0091\u2018\u201b\u2039", "`"),
        **dict.fromkeys("\u0092\u2019\u203a", "'"),
        **dict.fromkeys("\u0093\u201c\u00ab", "``"),
        **dict.fromkeys("\u0094\u201d\u00bb", "''"),
    }
)


def _quote(text: str, mark: str) -> str:
    text = text.replace("&apos;", mark).replace("'", mark)
    return text.replace('"', mark * 2).replace("&quot;", mark * 2).translate(_CURLY)


def _spaces(text: str) -> str:
    return text.replace(" ", "\u00a0")


_ACTIONS: dict[str, Callable[[str], tuple[str, int]]] = {
    "keep": lambda text: (text, 0),
    "nothing": lambda text: ("", 0),
    "split 2": lambda text: (text[:-2], 2),
    "split 3": lambda text: (text[:-3], 3),
    "opener": lambda text: (text[:-1] if len(text) == 2 else text, 1),
    "again": lambda text: (text, 1),
    "soft": lambda text: (text.replace("\u00ad", "") or "-", 0),
    "spaces": lambda text: (_spaces(text), 0),
    "dash": lambda text: ("--", 0),
    "ampersand": lambda text: (_AMPERSAND.sub("&", text), 0),
    "quote": lambda text: (_quote(text, "'"), 0),
    "open quote": lambda text: (_quote(text, "`"), 0),
    "fraction": lambda text: (_FRACTIONS.get(text, text), 0),
    "currency": lambda text: (_CURRENCIES.get(text, text), 0),
    "phone": lambda text: (_spaces(text).translate(_ROUND), 0),
    "parentheses": lambda text: (text.translate(_ROUND), 0),
    "bracket": lambda text: (_BRACKETS[text], 0),
    "hyphens": lambda text: ("--" if 3 <= len(text) <= 4 else text, 0),
    "ellipsis": lambda text: ("...", 0),
    "less": lambda text: ("<", 0),
    "greater": lambda text: (">", 0),
}
"""What a rule's text becomes: the token (empty: none), and how many of its characters are read again."""
