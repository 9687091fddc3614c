"""The stages of `limner data questions` in their order; each can be run alone, and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from limner.answering.base import Asker
from limner.curate import filter, generate, report
from limner.curate.parse import parse
from limner.curate.settings import STAGES, Files, Settings, Stage
from limner.data.base import Source
from limner.data.rows import GrowingRows
from limner.errors import UserError


def run(
    source: Source,
    files: Files,
    settings: Settings,
    *,
    models: dict[str, str],
    askers: Callable[[str], Asker],
    stages: Sequence[Stage] = STAGES,
) -> None:
    """Run stages, each where the last start left it.

    Args:
        source: the images.
        files: the folder.
        settings: see there.
        models: who "writes", "answers" and "answers without the image", for made_with.json.
        askers: loads one of these three, when it is needed.
        stages: which; in their own order.

    Raises:
        UserError: the folder was made with other settings, or a stage cannot run.
    """
    files.folder.mkdir(parents=True, exist_ok=True)
    _check(source, files, settings, models, stages)
    if "generate" in stages:
        generate.generate(source, files, askers("writes"), settings)
    if "parse" in stages:
        parse_all(source, files)
    if "filter" in stages:
        filter.ask(files, askers("answers"), askers("answers without the image"), settings)
    if "report" in stages:
        report.write(files, settings)


def parse_all(source: Source, files: Files) -> None:
    """Read all raw texts anew, in the order of the source."""
    raw = {str(row["id"]): row for row in GrowingRows(files.raw, ("id", "text")).existing}
    questions: list[dict[str, object]] = []
    rejected: list[dict[str, object]] = []
    for id in source.ids():
        if id not in raw:
            continue
        parsed = parse(str(raw[id]["text"]))
        for number, question in enumerate(parsed.questions, 1):
            questions.append({"id": id, "image": raw[id]["image"], "number": number, **question.plain()})
        for refused in parsed.refused:
            rejected.append({"id": id, "reason": refused.reason, "text": refused.text})
    filter.replace(files.questions, questions)
    filter.replace(files.rejected, rejected)


def _check(
    source: Source, files: Files, settings: Settings, models: dict[str, str], stages: Sequence[Stage]
) -> None:
    """Refuse to mix the work of different settings in one folder."""
    now: dict[str, object] = {}
    if "generate" in stages:
        now |= {
            "source": str(source), "writes": models["writes"], "prompt": settings.text_of_prompt(),
            "temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens,
        }  # fmt: skip
    if "filter" in stages:
        now |= {who: models[who] for who in ("answers", "answers without the image")}
        now |= {"answer_temperature": settings.answer_temperature, "seed": settings.seed}
    try:
        before = json.loads(files.used.read_text(encoding="utf-8")) if files.used.exists() else {}
    except ValueError as error:
        raise UserError(f"{files.used}: is no JSON ({error}); delete it if the folder is yours") from error
    changed = [key for key in now if key in before and before[key] != now[key]]
    if changed:
        raise UserError(
            f"{files.folder}: was made with other settings ({', '.join(changed)}); choose another folder, or "
            "delete what is to be made anew"
        )
    beside = files.used.with_name(files.used.name + ".partial")
    beside.write_text(json.dumps({**before, **now}, indent=1) + "\n", encoding="utf-8")
    beside.replace(files.used)
