"""What the text of captions tells without an image: length, variety, colours, repetition, bad phrases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from limner.metrics.diversity import distinct, self_bleu
from limner.metrics.phrases import bad_spans, colours, exempt_words, is_mark, load_phrases, repeated, words
from limner.metrics.ptb import tokenise_all

Floats = npt.NDArray[np.float64]


def caption_measures(captions: Sequence[str]) -> dict[str, Floats]:
    """Measures of N captions from their texts alone; words are those of `limner.metrics.phrases.words`.

    Args:
        captions: the texts; an empty one is a caption of no words.

    Returns:
        (N,) values by name:

        * "words": words, punctuation not counted.
        * "distinct_captions": 1 / how many captions are the same words; sums to the number of different
          captions.
        * "vocabulary": for each different word 1 / how many captions hold it; sums to the number of
          different words.
        * "colours": different colour words.
        * "repetition": share of the words that occurred before in the caption and are neither colours,
          prepositions nor articles; NaN without words.
        * "bad_phrases": 1 where a bad phrase of VLRM (table 6) or a year occurs, else 0.
    """
    texts = [words(caption) for caption in captions]
    spoken = [[word for word in text if not is_mark(word)] for text in texts]
    phrases, exempt = load_phrases(), exempt_words()
    measures = {
        "words": [len(text) for text in spoken],
        "distinct_captions": _shares([(tuple(text),) for text in texts]),
        "vocabulary": _shares([set(text) for text in spoken]),
        "colours": [len(set(colours(text))) for text in spoken],
        "repetition": [sum(repeated(text, exempt)) / len(text) if text else np.nan for text in spoken],
        "bad_phrases": [bool(bad_spans(text, phrases)) for text in texts],
    }
    return {name: np.array(values, dtype=np.float64) for name, values in measures.items()}


def diversity_measures(captions: Sequence[str]) -> dict[str, Floats]:
    """How little N captions repeat each other; words are PTB tokens, as in BLEU.

    Returns:
        (N,) values by name:

        * "distinct_1", "distinct_2": for each different n-gram of the caption 1 / how many captions hold it,
          over its n-grams; NaN without any. Weighted by "ngrams_1" and "ngrams_2", its number of n-grams,
          they give different n-grams / n-grams of the set.
        * "self_bleu": BLEU-4 with all other captions as references; NaN where there are none.
    """
    texts = tokenise_all(captions)
    columns: dict[str, Floats] = {}
    for n in (1, 2):
        shares, counts = distinct(texts, n)
        ngrams = counts.astype(np.float64)
        columns[f"distinct_{n}"] = np.divide(
            shares, ngrams, out=np.full(len(texts), np.nan), where=ngrams > 0
        )
        columns[f"ngrams_{n}"] = ngrams
    return columns | {"self_bleu": self_bleu(texts)[:, 3]}


def colour_coverage(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """(N,) share of the colours named by its references that a caption names; NaN where they name none."""
    values: list[float] = []
    for caption, texts in zip(captions, references, strict=True):
        wanted = {colour for text in texts for colour in colours(words(text))}
        named = set(colours(words(caption)))
        values.append(len(wanted & named) / len(wanted) if wanted else np.nan)
    return np.array(values, dtype=np.float64)


def _shares(things: Sequence[Iterable[Hashable]]) -> list[float]:
    """For each row the sum over its things of 1 / rows that have the thing; each row names a thing once."""
    rows = Counter(thing for row in things for thing in row)
    return [sum(1 / rows[thing] for thing in row) for row in things]
