"""CIDEr-D, which pycocoevalcap calls CIDEr, and the original CIDEr (Vedantam et al. 2015, arXiv 1411.5726).

A caption is four vectors, one for each length of n-grams (1 to 4 words): how often each n-gram occurs times
log(images / images whose references hold it). A candidate's score is the mean over its references and over
the four lengths of the cosine between its vector and the reference's, times 10.

* CIDEr-D (`d=True`, the default) cuts the candidate's entries at the reference's and multiplies by a Gaussian
  of the difference in words (sigma 6), so that repeating words does not pay. pycocoevalcap 1.2 ships this
  alone, in `cider/`, and calls it "CIDEr": what papers print as CIDEr is CIDEr-D. Equal to it within 1e-9.
* CIDEr (`d=False`) does neither. It is `cider/` of the authors' repository (vrama91/cider), the factor 10
  included, which the paper has for CIDEr-D only. The paper stems the words; the repository and this do not.

In both an n-gram that no reference holds weighs as much as one that the references of one image hold.

Natural units: 1.0 is what papers print as 100. A caption can score from 0 to 10; a corpus has the mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from limner.errors import UserError
from limner.metrics.frequencies import DocumentFrequencies, document_counts
from limner.metrics.ngrams import (
    ORDERS,
    Counts,
    Empty,
    Floats,
    Grams,
    Ints,
    check,
    check_references,
    check_words,
    count,
    find,
)

__all__ = ["DocumentFrequencies", "Scorer", "cider"]

Id = TypeVar("Id", bound=Hashable)
_TWO_SIGMA_SQUARED = 2 * 6.0**2


def cider(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    frequencies: DocumentFrequencies | None = None,
    d: bool = True,
    empty: Empty = "score",
) -> Floats:
    """CIDEr-D (pycocoevalcap's "CIDEr") or the original CIDEr of each caption.

    Args:
        candidates: (N) captions as words, one for each image.
        references: (N, R_i) captions as words, one or more for each image.
        frequencies: of a larger corpus; None takes them from `references`, as pycocoevalcap does. Then an
            image that stands twice (for two candidates) counts twice: score several with `Scorer`.
        d: CIDEr-D, else the original CIDEr.
        empty: "score" gives a candidate of no words 0, and an empty reference counts as one with which
            nothing is shared, as pycocoevalcap does; "refuse" refuses both.

    Returns:
        (N,).

    Raises:
        UserError: one image without `frequencies` (pycocoevalcap gives it 0 whatever the caption says); see
            also `ngrams.check`.
    """
    check(candidates, references, empty=empty)
    scorer = Scorer(dict(enumerate(references)), frequencies, d=d)
    return scorer.score(range(len(candidates)), candidates)


class _Postings(NamedTuple):
    """Which references hold an n-gram of one order, sorted by image and n-gram."""

    pairs: Ints
    """(P,) image * n-grams + n-gram, ascending."""
    starts: Ints
    """(P + 1,) where each pair's references begin."""
    reference: Ints
    """(Q,) the reference."""
    weight: Floats
    """(Q,) the n-gram's entry in the reference's vector."""
    norms: Floats
    """(R,) length of each reference's vector; 1 where it is 0."""
    idf: Floats
    """(G,) log(images / images that hold the n-gram)."""


class Scorer(Generic[Id]):
    """Scores any number of candidates against references whose vectors are made once: the reward of SCST."""

    def __init__(
        self,
        references: Mapping[Id, Sequence[Sequence[str]]],
        frequencies: DocumentFrequencies | None = None,
        *,
        d: bool = True,
    ):
        """Make the vectors of all references.

        Args:
            references: captions as words, one or more for each image or video, by its id.
            frequencies: of the corpus to weigh words by; None takes `references`.
            d: CIDEr-D, else the original CIDEr.

        Raises:
            UserError: no images, an image without references, a caption that is not split into words, or
                frequencies of a single image, with which every score is 0.
        """
        if not references:
            raise UserError("CIDEr needs the references of at least one image")
        check_references(references.items())
        documents = len(references) if frequencies is None else frequencies.documents
        if documents < 2:
            raise UserError(
                "CIDEr weighs words by how many images hold them: with document frequencies of one image "
                "every score is 0; give those of a larger corpus (`limner data df` writes them)"
            )
        self._d, self._unseen = d, float(np.log(documents))
        self._images = {id: image for image, id in enumerate(references)}
        self._sizes = np.fromiter(map(len, references.values()), np.int64, len(references))
        image = np.repeat(np.arange(len(references)), self._sizes)
        texts = list(chain.from_iterable(references.values()))
        grams = count(texts)
        held = document_counts(grams, image) if frequencies is None else frequencies.images(grams)
        self._frequencies = frequencies
        self._lengths = grams.lengths
        self._words = {word: number for number, word in enumerate(grams.words)}
        self._keys = grams.keys
        self._orders = [
            _postings(order, image, self._unseen - np.log(np.maximum(1, images)))
            for order, images in zip(grams.orders, held, strict=True)
        ]

    def score(self, ids: Sequence[Id], candidates: Sequence[Sequence[str]]) -> Floats:
        """Scores of N captions; an id may stand for several.

        Args:
            ids: (N) whose references each caption is compared with.
            candidates: (N) captions as words; one of no words scores 0.

        Returns:
            (N,).

        Raises:
            UserError: numbers of ids and captions differ, an id is not known, or a caption is not split into
                words.
        """
        if len(ids) != len(candidates):
            raise UserError(f"there are {len(ids)} ids and {len(candidates)} candidates")
        check_words(candidates, "candidate")
        unknown = [id for id in ids if id not in self._images]
        if unknown:
            raise UserError(f"no references are known for {unknown[0]!r} ({len(unknown)} such ids)")
        image = np.fromiter((self._images[id] for id in ids), np.int64, len(ids))
        grams = count(candidates)
        total = np.zeros(len(ids))
        held = None if self._frequencies is None else self._frequencies.images(grams)
        for order, found in enumerate(grams.numbers_in(self._words, self._keys)):
            postings = self._orders[order]
            if held is None:
                idf = np.append(postings.idf, self._unseen)[found]
            else:
                idf = self._unseen - np.log(np.maximum(1, held[order]))
            self._add(total, grams, order, found, idf, image)
        return total / ORDERS / self._sizes[image] * 10

    def _add(self, total: Floats, grams: Grams, order: int, found: Ints, idf: Floats, image: Ints) -> None:
        """Add to (N,) `total` the sums over references of the similarities of one order.

        Args:
            total: changed in place.
            grams: of the N candidates.
            order: 0 to 3, for n-grams of 1 to 4 words.
            found: for each of the candidates' n-grams its number among the references', or -1.
            idf: for each of the candidates' n-grams.
            image: (N,).
        """
        counts, postings = grams.orders[order], self._orders[order]
        entry = counts.times * idf[counts.gram]
        norms = _norms(counts.caption, entry, len(total))
        number = found[counts.gram]
        pair = np.where(number < 0, -1, image[counts.caption] * len(postings.idf) + number)
        at = find(postings.pairs, pair)
        shared = np.flatnonzero(at >= 0)
        first = postings.starts[at[shared]]
        each = postings.starts[at[shared] + 1] - first
        row = np.repeat(shared, each)
        posting = np.repeat(first - np.cumsum(each) + each, each) + np.arange(len(row))
        mine, theirs = entry[row], postings.weight[posting]
        caption, reference = counts.caption[row], postings.reference[posting]
        likeness = theirs / (norms[caption] * postings.norms[reference])
        if self._d:
            longer = grams.lengths[caption] - self._lengths[reference]
            likeness *= np.minimum(mine, theirs) * np.exp(-(longer**2) / _TWO_SIGMA_SQUARED)
        else:
            likeness *= mine
        total += np.bincount(caption, likeness, len(total))


def _postings(counts: Counts, image: Ints, idf: Floats) -> _Postings:
    """Vectors of the references for one order.

    Args:
        counts: of the R references.
        image: (R,) ascending.
        idf: (G,).
    """
    weight = counts.times * idf[counts.gram]
    pair = image[counts.caption] * len(idf) + counts.gram
    by_pair = np.argsort(pair, kind="stable")
    pairs, starts = np.unique(pair[by_pair], return_index=True)
    return _Postings(
        pairs,
        np.append(starts, len(pair)),
        counts.caption[by_pair],
        weight[by_pair],
        _norms(counts.caption, weight, len(image)),
        idf,
    )


def _norms(caption: Ints, entry: Ints | Floats, captions: int) -> Floats:
    """(captions,) lengths of the vectors, 1 in place of 0."""
    norms = np.sqrt(np.bincount(caption, entry**2, captions))
    return np.where(norms > 0, norms, 1.0)
