"""METEOR and SPICE, by the Java programs that come with pycocoevalcap (the extra `metrics-java`).

METEOR 1.5 (Denkowski and Lavie 2014) is in the package. SPICE (Anderson et al. 2016, arXiv 1607.08822) also
needs Stanford CoreNLP 3.6.0, which is not: pycocoevalcap would download about 400 MB the first time, without
asking. limner does not start that; it says how. Both programs read their input in the encoding of the locale.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np

from limner.errors import UserError
from limner.metrics.ngrams import Empty, Floats, check

_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_SEPARATOR = "|||"


class MeteorScores(NamedTuple):
    """METEOR of N captions."""

    corpus: float
    """From the matches of all captions together; not the mean of the captions' scores."""
    images: Floats
    """(N,) of each caption."""


class _Meteor(Protocol):
    """pycocoevalcap's handle on the running program."""

    meteor_p: subprocess.Popen[bytes]
    lock: threading.Lock

    def compute_score(
        self, gts: Mapping[int, list[str]], res: Mapping[int, list[str]]
    ) -> tuple[float, list[float]]: ...

    def __del__(self) -> None: ...


class _Spice(Protocol):
    """pycocoevalcap's way to start the program."""

    def compute_score(
        self, gts: Mapping[int, list[str]], res: Mapping[int, list[str]]
    ) -> tuple[float, list[dict[str, dict[str, float]]]]: ...


def meteor(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    empty: Empty = "score",
) -> MeteorScores:
    """METEOR 1.5 (English, normalised), 0 to 1.

    Args:
        candidates: (N) captions as words, one for each image.
        references: (N, R_i) captions as words, one or more for each image.
        empty: "score" gives a candidate of no words 0, but 1 where a reference is empty too, as METEOR does;
            "refuse" refuses both.

    Raises:
        UserError: Java or pycocoevalcap is missing, the program fails, a caption holds its separator `|||`;
            see also `ngrams.check`.
    """
    check(candidates, references, empty=empty)
    scored, known = _texts(candidates, references)
    for image, texts in known.items():
        if any(_SEPARATOR in text for text in [*texts, *scored[image]]):
            raise UserError(
                f"a caption of image {image} holds {_SEPARATOR}, which separates captions for METEOR"
            )
    _require("METEOR")
    scorer = cast(_Meteor, import_module("pycocoevalcap.meteor.meteor").Meteor())
    process = scorer.meteor_p
    try:
        corpus, images = scorer.compute_score(known, scored)
    except (OSError, ValueError) as error:
        # Its destructor waits for this lock, which it still holds.
        scorer.lock.release()
        process.kill()
        said = process.communicate()[1].decode(errors="replace").strip()
        raise UserError(f"METEOR's Java program ended early: {said or error}") from error
    finally:
        del scorer
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return MeteorScores(corpus, np.array(images, dtype=np.float64))


def spice(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    empty: Empty = "score",
) -> Floats:
    """SPICE's F of each caption, 0 to 1; a corpus has the mean.

    Args:
        candidates: (N) captions as words, one for each image.
        references: (N, R_i) captions as words, one or more for each image.
        empty: "score" leaves captions of no words to the program; "refuse" refuses them.

    Returns:
        (N,), NaN where the program gives no number.

    Raises:
        UserError: Java, pycocoevalcap or Stanford CoreNLP is missing, or the program fails; see also
            `ngrams.check`.
    """
    check(candidates, references, empty=empty)
    folder = _require("SPICE") / "spice" / "lib"
    missing = [name for name in _CORENLP if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"SPICE needs {' and '.join(missing)} in {folder}; with access to the internet, "
            "`python -m pycocoevalcap.spice.get_stanford_models` downloads about 400 MB, or leave SPICE out"
        )
    scored, known = _texts(candidates, references)
    scorer = cast(_Spice, import_module("pycocoevalcap.spice.spice").Spice())
    try:
        _, images = scorer.compute_score(known, scored)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UserError(f"SPICE's Java program failed (it was written for Java 8): {error}") from error
    return np.array([image["All"]["f"] for image in images], dtype=np.float64)


def _texts(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Captions as pycocoevalcap takes them: by image number, words joined by spaces."""
    scored = {image: [" ".join(words)] for image, words in enumerate(candidates)}
    return scored, {image: [" ".join(words) for words in texts] for image, texts in enumerate(references)}


def _require(metric: str) -> Path:
    """The folder of pycocoevalcap.

    Raises:
        UserError: it or Java is missing.
    """
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{metric} needs pycocoevalcap: pip install 'limner[metrics-java]'")
    if shutil.which("java") is None:
        raise UserError(
            f"{metric} is a Java program and there is no `java` here: install a Java runtime (Debian: "
            f"apt-get install default-jre-headless), or leave {metric} out"
        )
    return Path(next(iter(package.submodule_search_locations)))
