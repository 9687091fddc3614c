"""Prism beside the other measures of `limner evaluate`, and the page of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.authors import REFERENCES
from limner.data.named import source as source_of
from limner.errors import UserError
from limner.evaluate import evaluate_command
from limner.evaluation import Evaluation
from limner.paths import WORLD
from limner.prism.result import PrismResult
from limner.prism.stages import Answerer, Captioning, Where, prism
from limner.report import evaluation as evaluation_page
from limner.report import single

GROUP = "prism"
"""Among --metrics: Prism has to be there."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Where Prism's numbers come from: a folder of an earlier `limner evaluate prism`, or sets to ask now."""

    folder: Path | None = None
    """Output folder of `limner evaluate prism`."""
    sets: Sequence[str] = ()
    """FILE[:kind] each."""
    answerer: Answerer | None = None
    """Who answers the sets."""


def evaluate_all(
    model: str,
    *,
    data: str,
    out: Path,
    metrics: Sequence[str],
    questions: Questions,
    report: Path | None = None,
    **settings: Any,
) -> Evaluation:
    """What `limner evaluate` does: captions measured, Prism beside it, one table, one JSON, one page.

    Args:
        model: who wrote the captions.
        data: what they are of.
        out: the JSON file.
        metrics: groups of measures, or single ones; "prism" among them asks for `questions`.
        questions: where Prism comes from, if from anywhere.
        report: the page to write; None writes none.
        settings: the others of `limner.evaluate.evaluate_command`.

    Raises:
        UserError: something given cannot be used.
    """
    found = _prism(model, out, questions, settings)
    if GROUP in metrics and found is None:
        raise UserError("metrics: prism: needs --prism FOLDER, or --set FILE[:kind] and --answerer")
    kept = tuple(name for name in metrics if name != GROUP) or ("captions",)
    plain = None if found is None else found.plain()
    evaluation = evaluate_command(model, data=data, out=out, metrics=kept, prism=plain, **settings)
    if report is not None:
        source = source_of(f"{WORLD}test" if data == WORLD.removesuffix(":") else data)
        single.write(evaluation_page.page(evaluation, source), report)
    return evaluation


def _prism(model: str, out: Path, questions: Questions, settings: dict[str, Any]) -> PrismResult | None:
    if questions.folder is not None:
        if questions.sets:
            raise UserError("give --prism FOLDER or --set, not both")
        return PrismResult.load(questions.folder / "prism.json")
    if not questions.sets:
        return None
    if questions.answerer is None:
        raise UserError("--set needs --answerer, who answers the questions")
    if model == REFERENCES:
        raise UserError(
            "references: Prism asks about captions: give a .jsonl file of captions or a captioner"
        )
    where = Where(
        out=out.with_name(f"{out.stem}-prism"),
        device=settings.get("device", "auto"),
        dtype=settings.get("dtype", "float32"),
    )
    captioning = Captioning(model=model)
    seed = settings.get("seed", 0)
    return prism(
        questions.sets, captioning=captioning, answerer=questions.answerer, where=where, seed=seed
    ).result
