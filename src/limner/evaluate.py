"""Measures captions: those of a captioner, of a run, of a file, or the references that people wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from limner.answering.exam import Exam
from limner.answering.settings import Asking
from limner.authors import Author, author
from limner.data.named import source as source_of
from limner.data.usable import usable
from limner.devices import torch_device, torch_dtype
from limner.errors import UserError
from limner.evaluation import Evaluation, Row, summed_up
from limner.meters import (
    CaptionMeter,
    ClipRecallMeter,
    ClipScoreMeter,
    DiversityMeter,
    FactMeter,
    Floats,
    ItmMeter,
    LanguageModelMeter,
    Meter,
    QaMeter,
    ReferenceMeter,
)
from limner.metrics.measures import chosen, columns_of
from limner.paths import WORLD
from limner.run import environment
from limner.types import Sample
from limner.vision_language import ClipModel, ItmModel, load_clip, load_itm

if TYPE_CHECKING:
    from limner.captioners.base import Policy
    from limner.decoding import Decoding

Given = TypeVar("Given")


def evaluate(
    captions: Sequence[str],
    samples: Sequence[Sample],
    *,
    metrics: Sequence[str] = ("captions",),
    clip: str | ClipModel | None = None,
    itm: str | ItmModel | None = None,
    qa: Asking | Exam | None = None,
    captioner: Policy | None = None,
    batch: int = 64,
    seed: int = 0,
) -> Evaluation:
    """Measure captions of samples.

    Args:
        captions: N captions.
        samples: the N samples they describe.
        metrics: groups of measures, or single ones (docs/metrics.md).
        clip: for "clip_recall" and "clip_score": a checkpoint, or a loaded CLIP.
        itm: for "itm": a checkpoint, or a loaded model.
        qa: for "qa": who answers questions and how, or a loaded answerer.
        captioner: for "language_model": the captioner whose language model is asked.
        batch: images and texts in one pass.
        seed: of the bootstrap.

    Raises:
        UserError: there is nothing to measure, or a measure needs what was not given.
    """
    device = str(captioner.device) if captioner is not None else "auto"
    gauge = Gauge(metrics, clip=clip, itm=itm, qa=qa, captioner=captioner, device=device)
    if len(captions) != len(samples):
        raise ValueError(f"{len(captions)} captions of {len(samples)} samples")
    for start in range(0, len(samples), batch):
        gauge.add(captions[start : start + batch], samples[start : start + batch])
    return gauge.result(seed=seed)


class Gauge:
    """Measures captions that come batch by batch; holds no images."""

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        clip: str | ClipModel | None = None,
        itm: str | ItmModel | None = None,
        qa: Asking | Exam | None = None,
        captioner: Policy | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ):
        """Load what the measures need; an answerer in `dtype`.

        Raises:
            UserError: a measure is unknown or needs what was not given.
        """
        self.chosen = chosen(metrics)
        self.settings: dict[str, object] = {"metrics": list(metrics)}
        self.rows: list[tuple[str, str]] = []
        self.meters: dict[str, Meter] = {}
        for group, members in self.chosen.items():
            if group in ("clip_recall", "clip_score"):
                model = _given(clip, group, "a CLIP checkpoint: --clip, or evaluate.clip in a recipe")
                clip = load_clip(model, torch_device(device)) if isinstance(model, str) else model
                self.meters[group] = (ClipRecallMeter if group == "clip_recall" else ClipScoreMeter)(clip)
                self.settings.setdefault("clip", _name(model))
            elif group in ("coco", "java", "colour_coverage"):
                self.meters[group] = ReferenceMeter(members)
            elif group == "itm":
                model = _given(itm, "itm", "an ITM checkpoint: --itm, or evaluate.itm in a recipe")
                itm = load_itm(model, torch_device(device)) if isinstance(model, str) else model
                self.meters[group], self.settings["itm"] = ItmMeter(itm), _name(model)
            elif group == "qa":
                exam = _given(qa, "qa", "an answerer: --answerer, or evaluate.qa in a recipe")
                if isinstance(exam, Asking):
                    exam = Exam.load(exam, device=torch_device(device), dtype=torch_dtype(dtype))
                self.meters[group], self.settings["qa"] = QaMeter(exam), exam.settings.plain()
            elif group == "language_model":
                needed = "a captioner's language model, but the captions come from a file"
                self.meters[group] = LanguageModelMeter(_given(captioner, group, needed))
            else:
                texts = {"captions": CaptionMeter, "diversity": DiversityMeter, "facts": FactMeter}
                self.meters[group] = texts[group]()

    def add(self, captions: Sequence[str], samples: Sequence[Sample]) -> None:
        """Measure a batch."""
        self.rows += [(sample.id, caption) for sample, caption in zip(samples, captions, strict=True)]
        for meter in self.meters.values():
            meter.add(captions, samples)

    def columns(self) -> dict[str, Floats]:
        """(N,) values of all measures, in the order of tables, with what corpus values are made of.

        Raises:
            UserError: nothing was measured.
        """
        if not self.rows:
            raise UserError("there is not one caption to measure")
        values = {name: column for meter in self.meters.values() for name, column in meter.values().items()}
        names = columns_of({name for members in self.chosen.values() for name in members})
        return {name: values[name] for name in names}

    def result(self, *, seed: int = 0) -> Evaluation:
        """All that was measured, with intervals.

        Raises:
            UserError: nothing was measured.
        """
        columns = self.columns()
        facts = self.meters.get("facts")
        claims = facts.facts() if isinstance(facts, FactMeter) else [()] * len(self.rows)
        qa = self.meters.get("qa")
        asked = qa.questions() if isinstance(qa, QaMeter) else [()] * len(self.rows)
        values = [{name: float(column[n]) for name, column in columns.items()} for n in range(len(self.rows))]
        rows = tuple(
            Row(id, caption, values[n], claims[n], asked[n]) for n, (id, caption) in enumerate(self.rows)
        )
        settings = self.settings | {"seed": seed}
        return Evaluation(rows, summed_up(columns, seed=seed), settings=settings, environment=environment())


def evaluate_command(
    model: str,
    *,
    data: str,
    out: Path,
    metrics: Sequence[str] = ("captions",),
    clip: str | None = None,
    itm: str | None = None,
    qa: Asking | None = None,
    samples: int | None = None,
    decoding: Decoding | None = None,
    batch: int = 64,
    device: str = "auto",
    dtype: str = "float32",
    centre_crop: bool = True,
    allow_missing: bool = False,
    prism: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Evaluation:
    """What `limner evaluate` does: caption, measure, print a table, write the file.

    Args:
        model: what `limner.authors.author` takes: a captioner, a run, a file of captions, or "references".
        data: `world:SPLIT` (`world` is `world:test`), a folder, a .jsonl file that names images, or settings.
        out: the JSON file to write.
        metrics: groups of measures, or single ones.
        clip: checkpoint for "clip_recall" and "clip_score".
        itm: checkpoint for "itm".
        qa: who answers for "qa", and how.
        samples: only the first so many usable samples.
        decoding: how captions are written; None: the run's `evaluate.test_decoding`, or VLRM's own.
        batch: samples in one pass.
        device: where models run.
        dtype: of the captioner's frozen parts, and of the answerer.
        centre_crop: cut each image to the square in its middle, as VLRM does (section 4).
        allow_missing: measure on what can be used where a published data set is not whole.
        prism: what questions about the captions found, to stand beside it (`PrismResult.plain`).
        seed: of the bootstrap.

    Raises:
        UserError: something given cannot be used.
    """
    found = source_of(f"{WORLD}test" if data == WORLD.removesuffix(":") else data)
    rejects: list[str] = []
    looked_at = usable(found, samples, allow_missing=allow_missing, rejects=rejects)
    writer = author(model, source=found, samples=samples, decoding=decoding, device=device, dtype=dtype)
    gauge = Gauge(metrics, clip=clip, itm=itm, qa=qa, captioner=writer.captioner, device=device, dtype=dtype)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("captions", total=min(samples or len(found), len(found)))
        for group in _groups(map(cropped, looked_at) if centre_crop else looked_at, batch):
            gauge.add(writer.write(group), group)
            bar.advance(task, len(group))
    if rejects:
        console.print(f"{len(rejects)} items are left out, the first: {rejects[0]}", markup=False)
    result = _named(gauge.result(seed=seed), writer, str(found), centre_crop=centre_crop, prism=prism)
    result.save(out)
    Console().print(result.table())
    console.print(f"written to {out}", markup=False)
    return result


def cropped(sample: Sample) -> Sample:
    """The sample with each image cut to the square in its middle."""
    images = []
    for image in sample.media:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        images.append(image.crop((left, top, left + side, top + side)))
    return replace(sample, media=tuple(images))


def _named(
    result: Evaluation, writer: Author, data: str, *, centre_crop: bool, prism: Mapping[str, Any] | None
) -> Evaluation:
    decoding = None if writer.decoding is None else asdict(writer.decoding)
    settings: Mapping[str, object] = {**result.settings, "centre_crop": centre_crop}
    return replace(result, model=writer.name, data=data, decoding=decoding, settings=settings, prism=prism)


def _given(value: Given | None, measure: str, needed: str) -> Given:
    if value is None:
        raise UserError(f"metrics: {measure}: needs {needed}")
    return value


def _name(model: str | ClipModel | ItmModel) -> str:
    return model if isinstance(model, str) else model.model.name_or_path


def _groups(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while group := list(islice(samples, size)):
        yield group
