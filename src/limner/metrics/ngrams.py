"""Captions as arrays of n-gram counts: what BLEU, CIDEr and the measures of variety share.

The n-grams of each order (1 to 4 words) are numbered 0, 1, ... in one input. An n-gram of two words or more
is its first words' number in the order below and its last word, so that no n-gram is built as text unless
somebody asks for its text. Numbers of one input are found in another by binary search.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from limner.errors import UserError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Empty = Literal["score", "refuse"]
"""What is done with captions of no words: scored as pycocoevalcap scores them, or refused."""

ORDERS = 4
"""n-grams of 1, 2, 3 and 4 words."""
_NAMED = 5
"""Images that an error names."""


class Counts(NamedTuple):
    """How often each n-gram of one order occurs in each caption, sorted by caption, then by n-gram."""

    caption: Ints
    """(P,) which caption."""
    gram: Ints
    """(P,) which n-gram of this order."""
    times: Ints
    """(P,) how often, 1 or more."""


@dataclass(frozen=True, eq=False)
class Grams:
    """The n-grams of C captions."""

    lengths: Ints
    """(C,) words a caption."""
    words: tuple[str, ...]
    """The different words, in order of appearance: the n-grams of order 1."""
    keys: tuple[Ints, ...]
    """For orders 2, 3, 4 the different n-grams, ascending: first words' number * len(words) + last word."""
    orders: tuple[Counts, ...]
    """Counts for orders 1, 2, 3, 4."""

    def sizes(self) -> tuple[int, ...]:
        """How many different n-grams each order has."""
        return len(self.words), *map(len, self.keys)

    def texts(self, order: int, numbers: Ints) -> list[str]:
        """The given n-grams of an order (1 to 4), their words joined by a space."""
        columns: list[Ints] = []
        for keys in reversed(self.keys[: order - 1]):
            numbers, last = np.divmod(keys[numbers], len(self.words))
            columns.append(last)
        rows: list[list[int]] = np.stack([numbers, *reversed(columns)], 1).tolist()
        return [" ".join([self.words[word] for word in row]) for row in rows]

    def numbers_in(self, words: Mapping[str, int], keys: Sequence[Ints]) -> list[Ints]:
        """For each order the numbers that these n-grams have in another input, -1 where it lacks them.

        Args:
            words: number of each word in the other input.
            keys: of the other input.
        """
        word = np.array([words.get(each, -1) for each in self.words], dtype=np.int64)
        found = [word]
        for mine, theirs in zip(self.keys, keys, strict=True):
            first, last = np.divmod(mine, max(1, len(self.words)))
            first, last = found[-1][first], word[last]
            found.append(find(theirs, np.where((first < 0) | (last < 0), -1, first * len(words) + last)))
        return found


def count(captions: Sequence[Sequence[str]]) -> Grams:
    """Count the n-grams of C captions.

    A token that holds white space counts as several words and an empty token as none: pycocoevalcap joins the
    tokens by spaces and splits the text anew, and the tokenizer writes some numbers with a no-break space.
    """
    flat = list(chain.from_iterable(captions))
    if " ".join(flat).split() != flat:
        captions = [" ".join(tokens).split() for tokens in captions]
        flat = list(chain.from_iterable(captions))
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    numbers = {word: number for number, word in enumerate(dict.fromkeys(flat))}
    word = np.fromiter(map(numbers.__getitem__, flat), np.int64, len(flat))
    caption = np.repeat(np.arange(len(captions)), lengths)
    left = np.cumsum(lengths)[caption] - np.arange(len(flat))
    start, gram, keys = np.arange(len(flat)), word, list[Ints]()
    orders = [_counts(caption, gram, len(numbers))]
    for order in range(2, ORDERS + 1):
        fits = left[start] >= order
        start = start[fits]
        different, gram = np.unique(gram[fits] * len(numbers) + word[start + order - 1], return_inverse=True)
        keys.append(different)
        orders.append(_counts(caption[start], gram, len(different)))
    return Grams(lengths, tuple(numbers), tuple(keys), tuple(orders))


def _counts(caption: Ints, gram: Ints, size: int) -> Counts:
    pairs, counts = np.unique(caption * size + gram, return_counts=True)
    return Counts(*np.divmod(pairs, max(1, size)), counts)


def find(ascending: Ints, values: Ints) -> Ints:
    """Where each value stands among ascending different numbers, -1 where it doesn't."""
    if not len(ascending):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[at] == values, at, -1)


def check(
    candidates: Sequence[Sequence[object]],
    references: Sequence[Sequence[Sequence[object]]],
    *,
    empty: Empty = "score",
) -> None:
    """Refuse what would be scored as something else than it is.

    Args:
        candidates: (N) captions, each a sequence of words.
        references: (N, R_i) captions.
        empty: "refuse" refuses captions without words too.

    Raises:
        UserError: no images; numbers of images differ; an image without references; a text that was not
            split into words; several candidates for an image; with "refuse" an empty caption.
    """
    if len(candidates) != len(references):
        raise UserError(
            f"there are {len(candidates)} candidates and references of {len(references)} images; "
            "give one candidate for each image, in the same order"
        )
    if not candidates:
        raise UserError("there are no captions to score")
    check_references(enumerate(references))
    check_words(candidates, "candidate")
    if empty == "refuse":
        refuse_empty({f"candidate {image}": [words] for image, words in enumerate(candidates)})
        refuse_empty({f"references of image {image}": texts for image, texts in enumerate(references)})


def check_references(references: Iterable[tuple[Hashable, Sequence[Sequence[object]]]]) -> None:
    """Refuse images without references and references that are not split into words.

    Args:
        references: of each image, with its id or number.

    Raises:
        UserError: names the images.
    """
    images = list(references)
    none = [image for image, texts in images if not texts]
    if none:
        raise UserError(f"no references: image {_some(none)}; leave out images without any")
    check_words([words for _, texts in images for words in texts], "reference")


def check_words(captions: Iterable[Sequence[object]], kind: str) -> None:
    """Refuse texts and lists of captions where lists of words are expected.

    Args:
        captions: each a sequence of words.
        kind: "candidate" or "reference", for the message.

    Raises:
        UserError: names the number of the caption.
    """
    for number, words in enumerate(captions):
        if isinstance(words, str):
            raise UserError(
                f"{kind} {number} is a text, {words[:40]!r}; give its words (limner.metrics.ptb.tokenise)"
            )
        if words and not isinstance(words[0], str):
            raise UserError(
                f"{kind} {number} holds {type(words[0]).__name__}, not words; an image has one candidate "
                "(several are scored by cider.Scorer, or one after the other)"
            )


def refuse_empty(captions: Mapping[str, Sequence[Sequence[object]]]) -> None:
    """Refuse captions without words.

    Raises:
        UserError: names the first of them.
    """
    names = [name for name, texts in captions.items() if not all(map(len, texts))]
    if names:
        raise UserError(f"no words in {_some(names)}; empty='score' scores them as pycocoevalcap does")


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
