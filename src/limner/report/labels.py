"""How logged keys and measures are called on the page, and how their numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from limner.metrics.measures import MEASURES


@dataclass(frozen=True)
class Label:
    """What a key of metrics.jsonl or of an evaluation means to a reader."""

    title: str
    """A few words."""
    unit: str = ""
    """What is counted, for the axis."""
    form: Literal["number", "share", "whole"] = "number"
    """`share` is written in per cent, `whole` without decimals."""

    def text(self, value: float | None) -> str:
        """A number as people read it, with a true minus sign; a dash for no number."""
        if value is None or not math.isfinite(value):
            return "\N{EN DASH}"
        if self.form == "share":
            return signed(f"{100 * value:.1f}%")
        if self.form == "whole":
            return signed(f"{value:,.0f}")
        return signed(short(value))

    def tick(self, value: float) -> str:
        """A round number beside an axis."""
        return signed(f"{100 * value:.4g}%" if self.form == "share" else f"{value:,.4g}")


HEADLINES = {
    "clip_recall_r1": "R@1",
    "facts_f1": "Facts F1",
    "coverage": "Scene covered",
    "clip_recall_mrr": "MRR",
    "itm": "Image-text match",
}
"""Measures that can be the headline, with their short names there; the first that was measured is."""

BESIDE = ("coverage", "facts_true", "relations_true", "distinct_captions", "words", "itm", "bad_phrases")
"""Measures beside the headline, which alone can deceive; the first four that were measured."""

_LOGGED: dict[str, Label] = {
    "reward/total": Label("Total reward", "weighted sum a caption"),
    "watch/words": Label("Words", "words a caption"),
    "watch/tokens": Label("Tokens", "tokens a caption"),
    "watch/length": Label("Length", "tokens a caption"),
    "watch/cut": Label("Cut by the length limit", "share of captions", "share"),
    "watch/distinct": Label("Distinct captions", "share of the step's captions", "share"),
    "watch/repetition": Label("Repetition", "share of repeated words", "share"),
    "watch/colours": Label("Colours", "colour words a caption"),
    "watch/objects": Label("Objects", "things named a caption"),
    "watch/self_praise": Label("Self-praise", "share of captions", "share"),
    "watch/lm_logprob": Label("Language model", "log-probability a token"),
    "watch/kl": Label("KL to the start", "nats a token"),
    "watch/zero_spread": Label("No spread in the group", "share of groups", "share"),
    "unscored": Label("Unscored", "share of captions", "share"),
    "refused": Label("Refused steps", "1 where the step was refused"),
    "loss/policy": Label("Policy loss", "loss"),
    "loss/value": Label("Value loss", "mean squared error"),
    "value/explained_variance": Label("Explained variance", "of returns, by values", "share"),
    "policy/taking_part": Label("Captions in the loss", "share of captions", "share"),
    "policy/ratio": Label("Ratio to the policy before the step", "mean over tokens"),
    "policy/clip_fraction": Label("Held back by the clip", "share of tokens", "share"),
    "policy/kl_reference": Label("KL in the loss", "nats a token"),
    "policy/probability": Label("Probability of the tokens drawn", "mean", "share"),
    "policy/surprisal": Label("Surprisal of the tokens drawn", "nats a token"),
}


def label(key: str) -> Label:
    """The label of a logged key; one made from the key itself where the key is not known here."""
    if key in _LOGGED:
        return _LOGGED[key]
    group, _, name = key.rpartition("/")
    if group == "evaluate":
        return measure(name)
    title = name.replace("_", " ").strip() or key
    if group == "reward":
        return Label(title, "a caption, before its weight")
    if group == "gradient":
        return Label(_capital(f"{title} gradient"), "norm before clipping")
    return Label(_capital(title))


def measure(name: str) -> Label:
    """The label of a measure of an evaluation."""
    if name not in MEASURES:
        return Label(_capital(name.replace("_", " ")))
    known = MEASURES[name]
    form = "share" if known.percent else "whole" if known.sums == "total" else "number"
    return Label(_capital(known.title), form=form)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def short(value: float) -> str:
    """Three significant digits, without an exponent where that can be read."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def signed(text: str) -> str:
    """With a minus sign in place of the hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def seconds(value: float) -> str:
    """A duration as people say it: 12 ms, 0.43 s, 48 s, 3 min 20 s, 2 h 5 min."""
    if value < 0.1:
        return f"{1000 * value:.0f} ms"
    if value < 10:
        return f"{value:.2f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
