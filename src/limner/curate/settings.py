"""What `limner data questions` can be told, the published values as defaults; and where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from limner.component import did_you_mean
from limner.config_build import Builder
from limner.config_read import put
from limner.errors import UserError

Stage = Literal["generate", "parse", "filter", "report"]
STAGES: tuple[Stage, ...] = ("generate", "parse", "filter", "report")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How questions are written and which of them are kept (CapRL, arXiv 2509.22647)."""

    questions: Annotated[int, Ge(1)] = 5
    """K, questions asked for an image."""
    prompt: str | None = None
    """File with the prompt that asks for questions, {count} in it for their number; our own if None."""
    temperature: Annotated[float, Ge(0)] = 0.1
    """Of the model that writes questions."""
    max_new_tokens: Annotated[int, Ge(1)] = 2048
    """Longest text of questions; the question it cuts is rejected."""
    draws: Annotated[int, Ge(1)] = 4
    """n, how often each question is asked with the image and as often without, options shuffled."""
    seen: Annotated[float, Ge(0), Le(1)] = 0.75
    """A question is kept if its share of right answers with the image is above this ..."""
    unseen: Annotated[float, Ge(0), Le(1)] = 0.25
    """... and its share without the image below this."""
    answer_temperature: Annotated[float, Ge(0)] = 0.0
    """Of the model that answers. The published value is not known."""
    answer_tokens: Annotated[int, Ge(1)] = 16
    """Longest answer."""
    tries: Annotated[int, Ge(1)] = 3
    """How often a question is asked at most in one order where the answer with the image names no option."""
    seed: Annotated[int, Ge(0)] = 0
    """Of the models' sampling and of the orders of options."""
    batch: Annotated[int, Ge(1)] = 32
    """Images whose questions are asked together; what a kill can lose, at most."""

    def text_of_prompt(self) -> str:
        """The prompt that asks for questions.

        Raises:
            UserError: no such file, or it is empty.
        """
        path = (
            Path(__file__).parent / "prompts" / "questions.txt" if self.prompt is None else Path(self.prompt)
        )
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: the prompt cannot be read ({error})") from error
        if not text:
            raise UserError(f"{path}: the prompt is empty")
        return text.replace("{count}", str(self.questions))


def stages_of(names: Sequence[str]) -> tuple[Stage, ...]:
    """The named stages, in their own order.

    Raises:
        UserError: there is no such stage.
    """
    for name in names:
        if name not in STAGES:
            raise UserError(f"--stage: {did_you_mean(name, STAGES)}; stages: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in names)


def read(overrides: Sequence[str]) -> Settings:
    """Settings from `setting=value`.

    Raises:
        UserError: everything that is wrong with them, one line each.
    """
    tree, origins, typed = put({}, {}, overrides)
    builder = Builder(origins, typed, complete=True)
    built = builder.build(Settings, tree)
    if builder.errors:
        raise UserError("\n".join(["settings of questions:", *builder.errors]))
    return built


@dataclass(frozen=True)
class Files:
    """The files of a folder of questions; each stage reads what the one before it wrote."""

    folder: Path
    """Where they are."""

    @property
    def used(self) -> Path:
        """What the folder was made with; work that was made otherwise is not gone on with."""
        return self.folder / "made_with.json"

    @property
    def raw(self) -> Path:
        """generate: {id, text, image}, a row an image."""
        return self.folder / "raw.jsonl"

    @property
    def rejects(self) -> Path:
        """generate: {id, reason} of images that do not open, and of those the model gave no text for."""
        return self.folder / "rejects.jsonl"

    @property
    def questions(self) -> Path:
        """parse: {id, image, number, question, options, answer, kind}, a row a question."""
        return self.folder / "questions.jsonl"

    @property
    def rejected(self) -> Path:
        """parse: {id, reason, text}, a row a question that cannot be used."""
        return self.folder / "rejected.jsonl"

    @property
    def answers(self) -> Path:
        """filter: a row every time a question was asked."""
        return self.folder / "answers.jsonl"

    @property
    def scored(self) -> Path:
        """filter: a row a question, with its counts and what became of it."""
        return self.folder / "scored.jsonl"

    @property
    def kept(self) -> Path:
        """filter: {id, image, questions}, a row an image: what the data source caption_qa reads."""
        return self.folder / "kept.jsonl"
