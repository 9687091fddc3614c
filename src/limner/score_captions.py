"""What `limner score` does: measures one file of captions against references, or two in pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from limner.errors import UserError
from limner.metrics.bootstrap import intervals, paired
from limner.metrics.captions import caption_measures, diversity_measures
from limner.metrics.cider import DocumentFrequencies
from limner.metrics.coco import frequencies_of, reference_measures
from limner.metrics.measures import MEASURES, chosen, columns_of, ratios
from limner.metrics.ptb import tokenise
from limner.score_files import Pairs, pair, read, some
from limner.scored import Scored, System

if TYPE_CHECKING:
    from limner.score_images import Looks, Seen

Floats = npt.NDArray[np.float64]

OF_REFERENCES = ("coco", "java", "colour_coverage")
"""Groups of measures that compare texts with references."""
OF_TEXTS = (*OF_REFERENCES, "captions", "diversity")
"""Groups of measures that need no model, and no import of one; the others look at the images."""


@dataclass(frozen=True)
class Rules:
    """What becomes of images that do not match."""

    allow_missing: bool = False
    """Leave out images without a caption, without references, or that cannot be opened."""
    several: bool = False
    """An image may have several captions; its value is the mean over them."""
    refuse_empty: bool = False
    """Refuse captions of no words, which otherwise score as pycocoevalcap scores them."""

    def of_ids(self) -> dict[str, bool]:
        """What `limner.score_files.pair` needs of them."""
        return {"allow_missing": self.allow_missing, "several": self.several}


def score(
    files: Sequence[Path],
    *,
    references: Path | None = None,
    metrics: Sequence[str] = ("coco",),
    looks: Looks | None = None,
    splits: Collection[str] = (),
    rules: Rules | None = None,
    df: Path | None = None,
    seed: int = 0,
) -> Scored:
    """Measure one file of captions, or two and their difference.

    Args:
        files: one or two, in a shape of `limner.score_files`.
        references: the file of references; those that the data of `looks` come with if None.
        metrics: groups of measures, or single ones.
        looks: where the images are and what judges them; its own metrics are not asked.
        splits: of the references, where their file names splits.
        rules: what becomes of images that do not match; refused if None.
        df: document frequencies for CIDEr (`limner data df`); if None of the references that are scored.
        seed: of the bootstrap.

    Raises:
        UserError: a file is wrong, images differ, or a measure lacks something.
    """
    rules, groups = rules or Rules(), chosen(metrics)
    known = _known(references, looks, splits)
    against = str(references) if looks is None or references is not None else looks.data
    pairs = [pair(read(path), known, names=(str(path), against), **rules.of_ids()) for path in files]
    ids = [id for id in pairs[0].candidates if all(id in each.candidates for each in pairs)]
    frequencies = None if df is None else DocumentFrequencies.load(df)
    seen = _seen(looks, pairs, ids, groups, of_data=references is None, rules=rules)
    theirs = {id: pairs[0].references[id] for id in ids} if seen is None else seen.references
    ids = list(theirs)
    if not ids:
        raise UserError(f"{against}: not one of its images can be scored in every file of captions")
    empty = _empty(pairs, ids, refuse=rules.refuse_empty)
    systems: list[System] = []
    for place, each in enumerate(pairs):
        rows = [(id, text) for id in ids for text in each.candidates[id]]
        columns = _text_columns(groups, rows, theirs, frequencies)
        columns |= {} if seen is None else seen.columns[place]
        systems.append(_system(str(files[place]), _by_image(columns, rows, ids), seed))
    changes = paired(*(ratios(system.columns) for system in systems), seed=seed) if len(files) > 1 else {}
    settings: dict[str, object] = {
        "captions": [system.name for system in systems],
        "references": against,
        **({} if seen is None or looks is None else {"data": looks.data, **seen.settings}),
        "metrics": list(metrics),
        "df": df and str(df),
        "several": rules.several,
        "seed": seed,
    }
    missing = tuple(id for id in known if known[id] and id not in theirs)
    surplus = tuple(dict.fromkeys(id for each in pairs for id in each.surplus))
    return Scored(tuple(ids), tuple(systems), changes, missing, surplus, empty, settings)


def _system(name: str, columns: Mapping[str, Floats], seed: int) -> System:
    ordered = {name: columns[name] for name in columns_of(columns)}
    return System(name, ordered, intervals(ratios(ordered), seed=seed))


def document_frequencies(references: Path, *, splits: Collection[str] = ()) -> DocumentFrequencies:
    """Document frequencies of a file of references, for CIDEr; images without references are left out.

    Raises:
        UserError: the file cannot be read or has no references.
    """
    return frequencies_of([captions for captions in read(references, splits=splits).values() if captions])


def _known(
    references: Path | None, looks: Looks | None, splits: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """References by id; where they come with the data, only the ids, each with a placeholder."""
    if references is not None:
        return read(references, splits=splits)
    if looks is None:
        raise UserError("give --references, a file of them, or --data, images that come with them")
    if splits:
        raise UserError("--split is of a file of references: give --references")
    from limner.score_images import ids_of

    return dict.fromkeys(ids_of(looks.data), ("",))


def _seen(
    looks: Looks | None,
    pairs: Sequence[Pairs],
    ids: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    of_data: bool,
    rules: Rules,
) -> Seen | None:
    """What the images are needed for: measures that look at them, or the references of the data."""
    if "language_model" in groups:
        raise UserError("metrics: language_model: needs a captioner's: `limner evaluate` measures it")
    if "qa" in groups:
        raise UserError("metrics: qa: needs somebody who answers: `limner evaluate --answerer` measures it")
    asked = tuple(name for group, members in groups.items() if group not in OF_TEXTS for name in members)
    if asked and looks is None:
        raise UserError(f"metrics: {asked[0]}: looks at the images: --data says where they are")
    if looks is None or not (asked or of_data):
        return None
    from limner.score_images import look

    return look(
        replace(looks, metrics=asked),
        [each.candidates for each in pairs],
        ids,
        references=None if of_data else pairs[0].references,
        allow_missing=rules.allow_missing,
    )


def _text_columns(
    groups: Mapping[str, Sequence[str]],
    rows: Sequence[tuple[str, str]],
    references: Mapping[str, tuple[str, ...]],
    frequencies: DocumentFrequencies | None,
) -> dict[str, Floats]:
    """(M,) values of the measures of texts, for M captions with the ids of their images."""
    ids, captions = [id for id, _ in rows], [text for _, text in rows]
    columns: dict[str, Floats] = {}
    names = [name for group in OF_REFERENCES for name in groups.get(group, ())]
    bare = [id for id, texts in references.items() if not texts]
    if names and bare:
        raise UserError(f"metrics: {names[0]}: {some(bare, 'image')} without references")
    if names:
        columns |= reference_measures(ids, captions, references, names=names, frequencies=frequencies)
    if "captions" in groups:
        columns |= caption_measures(captions)
    if "diversity" in groups:
        columns |= diversity_measures(captions)
    wanted = columns_of([name for members in groups.values() for name in members])
    columns = {name: values for name, values in columns.items() if name in wanted}
    return columns


def _by_image(
    columns: Mapping[str, Floats], rows: Sequence[tuple[str, str]], ids: Sequence[str]
) -> dict[str, Floats]:
    """Values of the images from those of their captions: totals are added, the rest averaged.

    Args:
        columns: (M,) values by measure, a caption each.
        rows: M captions with the ids of their images, those of an image together.
        ids: N ids in the same order.
    """
    if len(rows) == len(ids):
        return dict(columns)
    place = {id: number for number, id in enumerate(ids)}
    image = np.array([place[id] for id, _ in rows])

    def added(values: Floats) -> Floats:
        return np.bincount(image, values, minlength=len(ids)).astype(np.float64)

    averaged: dict[str, Floats] = {}
    for name, values in columns.items():
        measure = MEASURES.get(name)
        known = ~np.isnan(values)
        weights = known.astype(float)
        if measure is not None and measure.weight is not None:
            weights = np.where(known, columns[measure.weight], 0.0)
        total, weight = added(np.where(known, values, 0.0) * weights), added(weights)
        if measure is not None and measure.sums == "total":
            weight = np.ones(len(ids))
        averaged[name] = np.divide(total, weight, out=np.full(len(ids), np.nan), where=weight > 0)
    return averaged


def _empty(pairs: Sequence[Pairs], ids: Sequence[str], *, refuse: bool) -> tuple[str, ...]:
    """Ids with a caption in which the tokeniser finds no word."""
    texts = {id: [text for each in pairs for text in each.candidates[id]] for id in ids}
    # Nothing with a letter or digit in it is empty, which spares most captions the tokeniser.
    empty = tuple(
        id
        for id, captions in texts.items()
        if any(not any(map(str.isalnum, text)) and not tokenise(text) for text in captions)
    )
    if empty and refuse:
        raise UserError(
            f"captions of no words: {some(empty, 'image')}; without --refuse-empty they are scored"
        )
    return empty
