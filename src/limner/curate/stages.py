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

_WRITES = ("source", "writes", "prompt", "temperature", "max_new_tokens")
_ANSWERS = ("answers", "answers without the image")
"""What made_with.json holds of the two stages that ask models."""


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
    if "generate" in stages or "parse" in stages:
        source.ids()  # before a model is loaded: there may be nothing to read
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{files.folder}: cannot be made ({error.strerror})") from error
    _check(source, files, settings, models, stages)
    if "generate" in stages:
        generate.generate(source, files, askers("writes"), settings)
    if "parse" in stages:
        if not files.raw.is_file():
            raise UserError(f"{files.raw}: no such file; run --stage generate first")
        parse_all(source, files)
    if "filter" in stages:
        filter.entries(files)  # before a model is loaded
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
    """Refuse to mix the work of different settings in one folder; what left no work behind does not count."""
    now: dict[str, object] = {}
    if "generate" in stages:
        now |= {
            "source": str(source), "writes": models["writes"], "prompt": settings.text_of_prompt(),
            "temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens,
        }  # fmt: skip
    if "filter" in stages:
        now |= {who: models[who] for who in _ANSWERS}
        now |= {"answer_temperature": settings.answer_temperature, "seed": settings.seed}
    try:
        before = json.loads(files.used.read_text(encoding="utf-8")) if files.used.exists() else {}
    except ValueError as error:
        raise UserError(f"{files.used}: is no JSON ({error}); delete it if the folder is yours") from error
    for file, keys in ((files.raw, _WRITES), (files.answers, (*_ANSWERS, "answer_temperature", "seed"))):
        if not (file.is_file() and file.stat().st_size):
            before = {key: value for key, value in before.items() if key not in keys}
    changed = [key for key in now if key in before and before[key] != now[key]]
    if changed:
        said = "; ".join(f"{key}: {_short(before[key])}, now {_short(now[key])}" for key in changed)
        raise UserError(
            f"{files.folder}: was made with other settings ({said}); choose another folder, or delete what "
            "is to be made anew"
        )
    beside = files.used.with_name(files.used.name + ".partial")
    beside.write_text(json.dumps({**before, **now}, indent=1) + "\n", encoding="utf-8")
    beside.replace(files.used)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]!r}..."
