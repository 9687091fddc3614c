"""Caption metrics against pycocoevalcap 1.2: a corpus from text to scores, and the reward of one SCST step.

`python benchmarks/metrics_vs_pycocoevalcap.py [--images 8000] [--runs 3] [--steps 100]`. Both sides run in
turns in one process, on captions of a small grammar with a Zipf-like vocabulary of a few thousand words; the
peer's tokeniser is a Java program. Wall time; the ratio is what to quote. Scores of both sides are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from limner.metrics.bleu import bleu
from limner.metrics.cider import DocumentFrequencies, Scorer, cider
from limner.metrics.ptb import tokenise, tokenise_all
from limner.metrics.rouge import rouge_l

PARTS = ("tokens", "bleu", "rouge_l", "cider", "total")
NOUNS, VERBS, ADJECTIVES = 2400, 600, 500
ENDS = (".", ".", "", "", " .", "!")
TEMPLATES = (
    "A {a} {n} {v} a {n} on the {n}{e}",
    "a {n} and a {n} {v} near a {a} {n}{e}",
    "Two {n}s {v} in front of the {a}, {a} {n}{e}",
    "the {n} is {v} while another {n} isn't{e}",
    "A man's {n} {v} next to a {a}-{a} {n}{e}",
    "There are 3 {n}s in the {n}; one {v} the {n}{e}",
    "{n} {v} {n} with a {a} {n} in the background{e}",
    "a close up of a {a} {n}{e}",
)
VIDEOS, CANDIDATES, REFERENCES, TRAINING_VIDEOS = 10, 5, 20, 1000


class Writer:
    """Writes captions about a topic, so that captions of one image share words."""

    def __init__(self, seed: int):
        """Make up the words."""
        self.rng = random.Random(seed)
        self.words = {
            "n": self._words(NOUNS, ""),
            "v": self._words(VERBS, "ing"),
            "a": self._words(ADJECTIVES, "y"),
        }

    def captions(self, number: int) -> list[str]:
        """Captions of one image."""
        topic = {kind: self._draw(words, 6) for kind, words in self.words.items()}
        return [self._caption(topic) for _ in range(number)]

    def _words(self, number: int, ending: str) -> list[str]:
        def syllable() -> str:
            return (
                self.rng.choice("bcdfghklmnprstw")
                + self.rng.choice("aeiou")
                + self.rng.choice(["", "n", "r", "t"])
            )

        words: set[str] = set()
        while len(words) < number:
            words.add("".join(syllable() for _ in range(self.rng.randint(1, 3))) + ending)
        return sorted(words)

    def _draw(self, words: list[str], number: int) -> list[str]:
        return self.rng.choices(words, [1 / (rank + 3) for rank in range(len(words))], k=number)

    def _caption(self, topic: dict[str, list[str]]) -> str:
        def word(kind: str) -> str:
            return (
                self.rng.choice(topic[kind])
                if self.rng.random() < 0.7
                else self._draw(self.words[kind], 1)[0]
            )

        template = self.rng.choice(TEMPLATES)
        for kind in ("n", "v", "a"):
            while f"{{{kind}}}" in template:
                template = template.replace(f"{{{kind}}}", word(kind), 1)
        return template.replace("{e}", self.rng.choice(ENDS))


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        """Start."""
        self.seconds: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last one."""
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last, self.seconds["total"] = now, now - self._start


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No output, that of Java included."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(io.StringIO()):
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def limner_corpus(candidates: list[str], references: list[list[str]]) -> tuple[dict[str, float], np.ndarray]:
    """Seconds of each part, and (6, N) scores."""
    clock = Clock()
    tokens = iter(tokenise_all([text for texts in references for text in texts]))
    known = [[next(tokens) for _ in texts] for texts in references]
    scored = tokenise_all(candidates)
    clock.lap("tokens")
    bleus = bleu(scored, known).images
    clock.lap("bleu")
    rouges = rouge_l(scored, known)
    clock.lap("rouge_l")
    ciders = cider(scored, known)
    clock.lap("cider")
    return clock.seconds, np.stack([*bleus.T, rouges, ciders])


def peer_corpus(candidates: list[str], references: list[list[str]]) -> tuple[dict[str, float], np.ndarray]:
    """The same by pycocoevalcap."""
    clock = Clock()
    gts = {image: [{"caption": text} for text in texts] for image, texts in enumerate(references)}
    res = {image: [{"caption": text}] for image, text in enumerate(candidates)}
    with quiet():
        gts, res = PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res)
        clock.lap("tokens")
        _, bleus = Bleu(4).compute_score(gts, res)
        clock.lap("bleu")
        _, rouges = Rouge().compute_score(gts, res)
        clock.lap("rouge_l")
        _, ciders = Cider().compute_score(gts, res)
        clock.lap("cider")
    return clock.seconds, np.array([*bleus, rouges, ciders])


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(name: str, ours: Sequence[float], peers: Sequence[float], unit: float = 1.0) -> None:
    """One line: least and median of both, and their ratios."""
    least, median = min(peers) / min(ours), statistics.median(peers) / statistics.median(ours)
    print(
        f"{name:<10}{min(ours) * unit:9.3f}{statistics.median(ours) * unit:9.3f}"
        f"{min(peers) * unit:12.3f}{statistics.median(peers) * unit:9.3f}{least:11.1f}{median:8.1f}"
    )


def corpus(images: int, runs: int) -> None:
    """Text to scores, both sides in turns."""
    writer = Writer(0)
    texts = [writer.captions(5) for _ in range(images)]
    candidates, references = [each[0] for each in texts], [each[1:] for each in texts]
    everything = [text for each in texts for text in each]
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    splits: list[float] = []
    for _ in range(runs):
        seconds, mine = limner_corpus(candidates, references)
        ours.append(seconds)
        seconds, theirs = peer_corpus(candidates, references)
        peers.append(seconds)
        splits.append(timed(lambda: [text.split() for text in everything]))
        print(f"largest difference of a score: {np.abs(mine - theirs).max():.1e}")
    words = [word for text in everything for word in text.split()]
    print(f"{images} images x 4 references + 1 candidate; {len(words)} words, {len(set(words))} different")
    print(
        f"{'seconds':<10}{'limner':>9}{'median':>9}{'pycocoeval':>12}{'median':>9}{'min/min':>11}{'median':>8}"
    )
    for part in PARTS:
        report(part, [run[part] for run in ours], [run[part] for run in peers])
    total = min(run["total"] for run in ours)
    print(f"str.split of all texts: {min(splits):.3f} s; limner takes {total / min(splits):.0f} times that")


def step(steps: int, runs: int) -> None:
    """The reward of one step of SCST."""
    writer = Writer(1)
    videos = {f"video{number}": writer.captions(REFERENCES + CANDIDATES) for number in range(TRAINING_VIDEOS)}
    known = {name: [tokenise(text) for text in texts[:REFERENCES]] for name, texts in videos.items()}
    start = time.perf_counter()
    frequencies = DocumentFrequencies.of(list(known.values()))
    scorer = Scorer(dict(known), frequencies)
    once = time.perf_counter() - start
    chosen = list(videos)[:VIDEOS]
    ids = [name for name in chosen for _ in range(CANDIDATES)]
    texts = [text for name in chosen for text in videos[name][REFERENCES:]]

    def peer() -> None:
        gts = {row: [{"caption": text} for text in videos[name][:REFERENCES]] for row, name in enumerate(ids)}
        res = {row: [{"caption": text}] for row, text in enumerate(texts)}
        with quiet():
            Cider().compute_score(PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res))

    ours: list[float] = []
    peers: list[float] = []
    busy: list[float] = []
    for _ in range(runs):
        cpu = time.process_time()
        ours += [timed(lambda: scorer.score(ids, [tokenise(text) for text in texts])) for _ in range(steps)]
        busy.append((time.process_time() - cpu) / steps)
        peers.append(timed(peer))
    print(f"\nreward of {VIDEOS} videos x {CANDIDATES} candidates x {REFERENCES} references, milliseconds")
    report("step", ours, peers, 1000)
    print(f"limner's CPU time: {1000 * min(busy):.3f} ms a step in the mean")
    print(f"once, for {TRAINING_VIDEOS} videos: document frequencies and vectors {once:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8000, help="of the corpus")
    parser.add_argument("--runs", type=int, default=3, help="of both sides, in turns")
    parser.add_argument("--steps", type=int, default=100, help="rewards a run; the peer takes one")
    given = parser.parse_args()
    corpus(given.images, given.runs)
    step(given.steps, given.runs)


if __name__ == "__main__":
    main()
