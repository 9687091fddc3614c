"""Prism from end to end: read the sets, caption, ask, score, and write it all into one folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from limner.answering.base import Asker
from limner.answering.named import check_language_model, is_address
from limner.client import Client, Endpoint
from limner.decoding import Decoding
from limner.devices import torch_device, torch_dtype
from limner.errors import Reject, UserError
from limner.evaluation import write_whole
from limner.paths import resolve
from limner.prism.asking import Answer, AnswerFile, Answering
from limner.prism.captions import CaptionFile, Captions, contents, given_captions
from limner.prism.items import Item
from limner.prism.published import published
from limner.prism.reading import QuestionSet, read_set
from limner.prism.result import PrismResult, Scored, SetResult, macro, summed_up
from limner.prism.scorers import SCORERS, math_verify
from limner.prism.sets import named
from limner.prism.writers import (
    CAPTIONS,
    DECODING,
    PROMPT,
    EndpointWriter,
    Writer,
    fingerprint,
    policy_writer,
)
from limner.run import environment

UNSCORED = float("nan")


@dataclass(frozen=True, kw_only=True)
class Captioning:
    """The first stage's settings."""

    model: str
    """A captioner, a run's folder, an endpoint's address, or a .jsonl file of captions."""
    endpoint_model: str = ""
    """The model's name at the endpoint."""
    key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key."""
    captions: int | None = None
    """n, captions an image; 4, or as many as the file holds, if None."""
    prompt: str | None = None
    """Text that asks for a caption; a run's own, else the published one where one is needed, if None."""
    decoding: Decoding = field(default=DECODING)
    """How captions are drawn."""
    batch: int = 8
    """Images captioned together."""


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """The second stage's model."""

    path: str
    """A causal language model, or an endpoint's address."""
    endpoint_model: str = ""
    """The model's name at the endpoint."""
    key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Files and devices."""

    out: Path
    """Folder for captions.jsonl, answers.jsonl, prism.json and prism.html."""
    root: Path | None = None
    """Folder that image paths of the sets start from; that of each set's file if None."""
    samples: int | None = None
    """Only the first so many rows of each set."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    dtype: str = "float32"
    """Number format of the models' weights."""


@dataclass(frozen=True)
class Found:
    """What a run of Prism leaves: the result, and what its page shows."""

    result: PrismResult
    """The numbers."""
    sets: tuple[QuestionSet, ...]
    """The questions."""
    captions: Captions
    """The captions."""
    answers: Mapping[str, Sequence[Answer]]
    """Replies by question, one a caption."""


def prism(
    sets: Sequence[str],
    *,
    captioning: Captioning,
    answerer: Answerer,
    where: Where,
    answering: Answering | None = None,
    strict_published: bool = False,
    seed: int = 0,
) -> Found:
    """Ask sets of questions about captions and score the answers; both stages go on where they stopped.

    Args:
        sets: FILE[:kind] each, see `limner.prism.sets`.
        captioning: who writes the captions, and how.
        answerer: who answers.
        where: files and devices.
        answering: how it answers; as published if None.
        strict_published: score as the published code does, too.
        seed: of captions, answers and bootstrap.

    Raises:
        UserError: something given cannot be used.
    """
    questions = tuple(
        read_set(one, pictures=where.out / "images", root=where.root, limit=where.samples)
        for one in named(list(sets))
    )
    if strict_published or any(
        item.scorer in ("math", "relaxed") for made in questions for item in made.items
    ):
        math_verify()
    if is_address(answerer.path):
        _answering_client(answerer)
    else:
        check_language_model(answerer.path)
    content = contents(questions)
    with _bar() as bar:
        captions, model, how = _captions(questions, content, captioning, where, bar, seed=seed)
        _write_rejects(questions, where.out)
        items = [item for made in questions for item in made.items]
        if not items:
            raise UserError("no question is left: rejects.jsonl in the output folder says why")
        asker, answering = _asker(answerer, answering or Answering(seed=seed), where)
        task = bar.add_task("answers", total=sum(len(captions.of(item)) for item in items))
        file = AnswerFile(where.out / "answers.jsonl", asker, answering)
        answers = file.ask(items, captions, done=lambda count: bar.advance(task, count))
    made = [_scored(one, answers, strict_published=strict_published, seed=seed) for one in questions]
    result = PrismResult(
        model, answering.name, captions.count, tuple(made),
        macro([one.questions for one in made], seed=seed),
        {"images": len(content), "captions_failed": len(captions.failed)},
        {"sets": list(sets), "captioning": how, "answering": asdict(answering), "seed": seed},
        environment(),
        dict(Counter(each.error for row in answers.values() for each in row if each.error).most_common()),
    )  # fmt: skip
    result.save(where.out / "prism.json")
    return Found(result, questions, captions, answers)


def _captions(
    questions: Sequence[QuestionSet],
    content: Mapping[Path, str],
    captioning: Captioning,
    where: Where,
    bar: Progress,
    *,
    seed: int,
) -> tuple[Captions, str, Mapping[str, object]]:
    """The captions, who wrote them, and how."""
    path = Path(captioning.model)
    if path.suffix == ".jsonl":
        texts, missing = given_captions(path, content)
        if missing:
            raise UserError(f"{path}: no caption of {len(missing)} of the sets' images, such as {missing[0]}")
        count = captioning.captions or max(map(len, texts.values()))
        return Captions(texts, content, {}, count), str(path), {"file": str(path)}
    writer, count = _writer(captioning, where), captioning.captions or CAPTIONS
    images = {hashed: file for file, hashed in content.items()}
    file = CaptionFile(where.out / "captions.jsonl", writer, seed=seed)
    task = bar.add_task("captions", total=len(images))
    failed, broken = file.write(
        images, count, batch=captioning.batch, done=lambda done: bar.advance(task, done)
    )
    for made in questions:
        _reject_broken(made, content, broken)
    texts = {hashed: rows[:count] for hashed, rows in file.known.items()}
    return Captions(texts, content, failed, count), writer.name, {**writer.identity, "captions": count}


def _reject_broken(made: QuestionSet, content: Mapping[Path, str], broken: Mapping[str, Reject]) -> None:
    for item in list(made.items):
        wrong = next((path for path in item.images if content[path] in broken), None)
        if wrong is not None:
            made.reject(item, f"image {wrong.name}: {broken[content[wrong]].reason}")


def _writer(captioning: Captioning, where: Where) -> Writer:
    if is_address(captioning.model):
        name = captioning.endpoint_model
        client = _client(captioning.model, name, captioning.key_env, option="--captioner-model")
        return EndpointWriter(name, client, captioning.prompt or PROMPT, captioning.decoding)
    return policy_writer(
        captioning.model,
        prompt=captioning.prompt,
        decoding=captioning.decoding,
        device=where.device,
        dtype=where.dtype,
    )


def _asker(answerer: Answerer, answering: Answering, where: Where) -> tuple[Asker, Answering]:
    if is_address(answerer.path):
        return _answering_client(answerer), replace(answering, name=answerer.endpoint_model)
    from limner.answering.local import LocalModel

    folder = Path(resolve(answerer.path))
    mark = fingerprint(folder) if folder.is_dir() else ""
    model = LocalModel.load(answerer.path, device=torch_device(where.device), dtype=torch_dtype(where.dtype))
    return model, replace(answering, name=answerer.path, checkpoint=mark)


def _answering_client(answerer: Answerer) -> Client:
    name, key = answerer.endpoint_model, answerer.key_env
    return _client(answerer.path, name, key, option="--answerer-model")


def _client(address: str, model: str, key_env: str | None, *, option: str) -> Client:
    if not model:
        raise UserError(f"{address}: name the model there: {option} NAME")
    try:
        return Client(Endpoint(base_url=address, model=model, key_env=key_env))
    except ValueError as error:
        raise UserError(str(error)) from error


def _scored(
    made: QuestionSet, answers: Mapping[str, Sequence[Answer]], *, strict_published: bool, seed: int
) -> SetResult:
    rules = made.named.rules
    questions = tuple(
        _score(item, answers[item.id], rules.published if strict_published else None) for item in made.items
    )
    return SetResult(
        made.named.name, _title(made), questions, len(made.rejected), summed_up(questions, seed=seed)
    )


def _score(item: Item, answers: Sequence[Answer], rules: str | None) -> Scored:
    verdicts = [
        None if answer.reply is None else SCORERS[item.scorer](answer.reply, item.gold) for answer in answers
    ]
    scores = tuple(UNSCORED if verdict is None else verdict.score for verdict in verdicts)
    texts = tuple(None if verdict is None else verdict.answer for verdict in verdicts)
    theirs: tuple[float, ...] = ()
    if rules in ("math", "chart", "info"):
        theirs = tuple(
            UNSCORED if answer.reply is None else published(answer.reply, item.answer, rules=rules)
            for answer in answers
        )
    return Scored(item.id, scores, texts, theirs)


def _title(made: QuestionSet) -> str:
    named_, kind = made.named, made.named.kind
    title = named_.rules.title
    return title if named_.name == kind else f"{title} ({Path(named_.path).stem})"


def _write_rejects(questions: Sequence[QuestionSet], out: Path) -> None:
    rows = [asdict(rejected) for made in questions for rejected in made.rejected]
    path = out / "rejects.jsonl"
    if rows or path.exists():
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _bar() -> Progress:
    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
