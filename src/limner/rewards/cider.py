"""CIDEr against all references of a sample: the reward of SCST (arXiv 1612.00563, 2502.13363).

The formula is the one that pycocoevalcap calls CIDEr, which is CIDEr-D (arXiv 1411.5726). How rare an n-gram
is says the whole training set, counted once: never the few samples of a batch, where next to nothing is rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from limner.errors import Reject, UserError
from limner.metrics.cider import DocumentFrequencies, Scorer
from limner.metrics.ptb import tokenise
from limner.rewards import base
from limner.types import Part, Rollouts

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.data.base import Source

TRAINING_DATA = "data"
References = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reward(base.LoadedReward):
    """CIDEr of the caption against every reference of its sample; 1 is what papers print as 100."""

    df: str = TRAINING_DATA
    """How many samples have each n-gram among their references: a file of `limner data df`, or `data`, which
    counts them in the run's training data when it starts."""

    needs = frozenset({"references"})

    def load(self, captioner: Policy, data: Source | None = None) -> Callable[[Rollouts], Part]:
        """Read or count the document frequencies, and make the vectors of all references of the data.

        Raises:
            UserError: the file can't be used, there is no training data, or fewer than two samples of it have
                references: then every n-gram is in every document, and every CIDEr 0.
        """
        references = [] if data is None else list(_references(data))
        if self.df != TRAINING_DATA:
            return Consensus(DocumentFrequencies.load(self.df), references)
        if data is None:
            raise UserError("cider: df: there is no training data here: name a file of `limner data df`")
        if len(references) < 2:
            raise UserError(
                f"cider: {data}: document frequencies need two samples with references; "
                f"of its {len(data)} samples {len(references)} have some"
            )
        return Consensus(DocumentFrequencies.of([_tokens(texts) for texts in references]), references)


class Consensus:
    """CIDEr with the document frequencies of a training set."""

    def __init__(self, frequencies: DocumentFrequencies, references: Sequence[References] = ()):
        """Make the vectors of these references; those of others are made when they are first met."""
        self.frequencies = frequencies
        self._scorers: dict[References, Scorer] = {}
        self._learn(references)

    def _learn(self, references: Iterable[References]) -> None:
        new: dict[Hashable, list[list[str]]] = {
            texts: _tokens(texts) for texts in references if texts not in self._scorers
        }
        if new:
            scorer = Scorer(new, self.frequencies)
            self._scorers.update(dict.fromkeys(cast(Iterable[References], new), scorer))

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) CIDEr; NaN where a sample has no references. A caption without words scores 0."""
        of = [rollouts.sample(row).references for row in range(len(rollouts.texts))]
        self._learn(filter(None, of))
        rows: defaultdict[Scorer, list[int]] = defaultdict(list)
        for row, references in enumerate(of):
            if references:
                rows[self._scorers[references]].append(row)
        values = torch.full((len(of),), float("nan"))
        for scorer, chosen in rows.items():
            candidates = [tokenise(rollouts.texts[row]) for row in chosen]
            scores = scorer.score([of[row] for row in chosen], candidates)
            values[chosen] = torch.as_tensor(scores, dtype=torch.float32)
        return Part(values)


def _tokens(references: References) -> list[list[str]]:
    return [tokenise(text) for text in references]


def _references(data: Source) -> Iterator[References]:
    """The references of every sample that has some."""
    for index in range(len(data)):
        try:
            references = data.references(index)
        except Reject:
            continue
        if references:
            yield references
