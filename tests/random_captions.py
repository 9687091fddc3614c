"""Random captions for hypothesis, and what pycocoevalcap 1.2 says of them."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

Caption = list[str]
Pair = tuple[Caption, list[Caption]]

words = st.sampled_from(["a", "b", "c", "dog", "caf\u00e9", "\u732b", "1\u00a01/2", "x\u2028y", ""])
captions = st.lists(words, max_size=12) | st.lists(st.sampled_from("ab"), max_size=40)
pairs = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=2, max_size=6)

hunt = settings(max_examples=50)

ROUNDING = 1e-9
"""Both sides add the same few hundred terms in another order; the issue asks for this."""


def split(given: Sequence[Pair]) -> tuple[list[Caption], list[list[Caption]]]:
    """Candidates and references."""
    return [candidate for candidate, _ in given], [references for _, references in given]


def peer(
    scorer: Bleu | Rouge | Cider, candidates: Sequence[Caption], references: Sequence[list[Caption]]
) -> tuple[np.ndarray, np.ndarray]:
    """Corpus and image values of pycocoevalcap."""
    res = {image: [" ".join(each)] for image, each in enumerate(candidates)}
    gts = {image: [" ".join(each) for each in texts] for image, texts in enumerate(references)}
    with contextlib.redirect_stdout(io.StringIO()):
        corpus, images = scorer.compute_score(gts, res)
    return np.array(corpus), np.array(images)
