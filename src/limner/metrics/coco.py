"""Measures of captions, as whole texts, against their references: those of the COCO evaluation, colours.

Texts are tokenised as pycocoevalcap does. Corpus BLEU and METEOR are no means over images, so that with the
values of each image comes what they are made of, under the names of `PARTS`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from limner.metrics.bleu import bleu, of_counts
from limner.metrics.bootstrap import Compound
from limner.metrics.captions import colour_coverage
from limner.metrics.cider import DocumentFrequencies, Scorer
from limner.metrics.java import meteor, spice
from limner.metrics.ptb import tokenise_all
from limner.metrics.rouge import rouge_l

Floats = npt.NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

ORDERS = 4
BLEU = tuple(f"bleu_{order}" for order in range(1, ORDERS + 1))
BLEU_COUNTS = ("bleu_words", "bleu_reference_words", *(f"bleu_matches_{n}" for n in range(1, ORDERS + 1)))
"""Of each image: words of the caption, of the reference closest in length, and matching n-grams."""
METEOR_BEYOND = "meteor_beyond_mean"
"""Of each image the same number: corpus METEOR less the mean of the images' METEOR."""
PARTS = (*BLEU_COUNTS, METEOR_BEYOND)
"""What is no measure, but is needed of each image for the corpus value of one."""
CIDER = ("cider", "cider_d")
"""One measure under two names: what pycocoevalcap and papers call CIDEr is CIDEr-D."""


def reference_measures(
    ids: Sequence[str],
    candidates: Sequence[str],
    references: Mapping[str, Sequence[str]],
    *,
    names: Collection[str],
    frequencies: DocumentFrequencies | None = None,
) -> dict[str, Floats]:
    """Measures of N captions against their references.

    Args:
        ids: N ids of images; an image may have several captions.
        candidates: N captions, as pycocoevalcap would get them in one call.
        references: the references of each image by its id, one or more, likewise.
        names: which measures of the groups "coco", "java" and "colour_coverage" to compute.
        frequencies: what CIDEr weighs words by; those of `references`, each image once, if None.

    Returns:
        (N,) values by name, in natural units; with BLEU and METEOR also what their corpus values are made of.

    Raises:
        UserError: an image without references, CIDEr of a single image without frequencies, no Java.
    """
    columns: dict[str, Floats] = {}
    if "colour_coverage" in names:
        columns["colour_coverage"] = colour_coverage(candidates, [references[id] for id in ids])
    if not {*BLEU, "rouge_l", *CIDER, "meteor", "spice"} & set(names):
        return columns
    mine, known = tokenise_all(candidates), _tokenised(references)
    theirs = [known[id] for id in ids]
    if set(BLEU) & set(names):
        scores = bleu(mine, theirs)
        columns |= dict(zip(BLEU, scores.images.T, strict=True))
        counts = (scores.lengths, scores.reference_lengths, *scores.matches.T)
        columns |= {name: count.astype(float) for name, count in zip(BLEU_COUNTS, counts, strict=True)}
    if "rouge_l" in names:
        columns["rouge_l"] = rouge_l(mine, theirs)
    if set(CIDER) & set(names):
        columns |= dict.fromkeys(CIDER, Scorer(known, frequencies).score(ids, mine))
    if "meteor" in names:
        found = meteor(mine, theirs)
        beyond = found.corpus - float(found.images.mean())
        columns |= {"meteor": found.images, METEOR_BEYOND: np.full(len(ids), beyond)}
    if "spice" in names:
        columns["spice"] = spice(mine, theirs)
    return {name: values for name, values in columns.items() if name in names or name in PARTS}


def frequencies_of(references: Sequence[Sequence[str]]) -> DocumentFrequencies:
    """Document frequencies of N images' references, given as texts.

    Raises:
        UserError: no images, or one without references.
    """
    known = _tokenised(dict(enumerate(references)))
    return DocumentFrequencies.of(list(known.values()))


def _tokenised(references: Mapping[Name, Sequence[str]]) -> dict[Hashable, list[list[str]]]:
    """Captions by image as words, tokenised in one call."""
    tokens = iter(tokenise_all([caption for captions in references.values() for caption in captions]))
    return {id: list(islice(tokens, len(captions))) for id, captions in references.items()}


def corpus_bleu(rows: Mapping[str, Floats], order: int) -> Compound:
    """Corpus BLEU of one order from the counts of N images.

    Args:
        rows: (N,) values by name, among them `BLEU_COUNTS`.
        order: 1 to 4.
    """
    words, reference_words, *matches = (rows[name] for name in BLEU_COUNTS)
    guesses = [np.maximum(0.0, words - shorter) for shorter in range(ORDERS)]

    def value(sums: Floats) -> Floats:
        return of_counts(sums[:, 2:6], sums[:, 6:10], sums[:, 0], sums[:, 1])[:, order - 1]

    return Compound(np.stack([words, reference_words, *matches, *guesses], 1), value)
