"""In how many images of a corpus each n-gram occurs: what CIDEr weighs words by."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self, cast

import numpy as np

from limner.errors import UserError
from limner.metrics.ngrams import Counts, Grams, Ints, check_references, count

_FORMAT = "limner document frequencies 1"


@dataclass(frozen=True)
class DocumentFrequencies:
    """Document frequencies of the n-grams (1 to 4 words) of a corpus.

    A document is an image with all its references.
    """

    documents: int
    """Images."""
    counts: Mapping[str, int]
    """Images whose references hold the n-gram, by the words joined by a space; only where two or more do.

    CIDEr takes an n-gram that never occurs for one that occurs once, so that the many that do occur once
    need no room.
    """

    @classmethod
    def of(cls, references: Sequence[Sequence[Sequence[str]]]) -> Self:
        """Of a corpus.

        Args:
            references: (N, R_i) captions as words.

        Raises:
            UserError: no images, an image without references, or a caption that is not split into words.
        """
        if not references:
            raise UserError("document frequencies need at least one image")
        check_references(enumerate(references))
        grams = count(list(chain.from_iterable(references)))
        image = np.repeat(np.arange(len(references)), list(map(len, references)))
        counts: dict[str, int] = {}
        for order, documents in enumerate(document_counts(grams, image), 1):
            kept = np.flatnonzero(documents > 1)
            counts.update(zip(grams.texts(order, kept), documents[kept].tolist(), strict=True))
        return cls(len(references), counts)

    def images(self, grams: Grams) -> list[Ints]:
        """For each order in how many images each n-gram occurs; 0 stands for 0 or 1."""
        words, keys, held = self._numbered
        found = grams.numbers_in(words, keys)
        return [images[numbers] for images, numbers in zip(held, found, strict=True)]

    @cached_property
    def _numbered(self) -> tuple[dict[str, int], tuple[Ints, ...], list[Ints]]:
        """Words and keys of these n-grams, counted as captions; for each order their images and a last 0."""
        grams = count([ngram.split() for ngram in self.counts])
        images = np.array(list(self.counts.values()), dtype=np.int64)
        held: list[Ints] = []
        for length, (order, size) in enumerate(zip(grams.orders, grams.sizes(), strict=True), 1):
            whole = grams.lengths[order.caption] == length
            held.append(np.zeros(size + 1, dtype=np.int64))
            held[-1][order.gram[whole]] = images[order.caption[whole]]
        return {word: number for number, word in enumerate(grams.words)}, grams.keys, held

    def save(self, path: str | Path) -> None:
        """Write JSON, compressed where the name ends in .gz; the same frequencies give the same bytes."""
        content = {
            "format": _FORMAT,
            "documents": self.documents,
            "counts": dict(sorted(self.counts.items())),
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        Path(path).write_bytes(gzip.compress(text, mtime=0) if Path(path).suffix == ".gz" else text)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or is something else.
        """
        wrong = f"{path} is no file of document frequencies; `limner data df` writes one"
        try:
            data = Path(path).read_bytes()
            content: object = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise UserError(f"{wrong} ({error})") from error
        if not isinstance(content, dict):
            raise UserError(wrong)
        fields = cast(dict[str, object], content)
        documents, counts = fields.get("documents"), fields.get("counts")
        if fields.get("format") != _FORMAT or not isinstance(documents, int) or not isinstance(counts, dict):
            raise UserError(wrong)
        entries = cast(dict[str, object], counts)
        for ngram, images in entries.items():
            if not isinstance(images, int) or not 1 <= images <= documents:
                raise UserError(f"{path}: {ngram!r} cannot occur in {images!r} of {documents} images")
        return cls(documents, cast(dict[str, int], entries))


def document_counts(grams: Grams, image: Ints) -> list[Ints]:
    """For each order the number of images that hold each n-gram.

    Args:
        grams: of R references.
        image: (R,) whose reference it is, ascending.
    """
    return [_documents(order, image, size) for order, size in zip(grams.orders, grams.sizes(), strict=True)]


def _documents(order: Counts, image: Ints, size: int) -> Ints:
    pairs = np.sort(image[order.caption] * size + order.gram)
    first = np.diff(pairs, prepend=-1) > 0
    return np.bincount(pairs[first] % max(1, size), minlength=size).astype(np.int64)
