"""Writes coco_metrics/captions.json and coco_metrics/scores.json with pycocoevalcap 1.2 (no Java).

`python tests/golden/make_coco_metrics.py`; run it again only to change the captions. The captions are tokens
joined by spaces, made by a small grammar and by hand; the scores are what its Bleu, Rouge and Cider say.
"""

import contextlib
import io
import json
import random
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

FOLDER = Path(__file__).parent / "coco_metrics"
BY_HAND = [
    (
        "a man is riding a horse on the beach",
        ["a man rides a horse along the beach", "a person on a brown horse"],
    ),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a dog", ["a dog", "two dogs run through the tall grass after a ball", "a dog"]),
    ("", ["a red bus", "a bus in the street"]),
    ("", ["", "a bus in the street"]),
    ("nothing is shared", ["a red bus", ""]),
    ("one", ["one"]),
    ("a b c d e f", ["f e d c b a", "a c e b d f"]),
    ("a", ["b"]),
    ("caf\u00e9 na\u00efve \u732b \U0001f408", ["un caf\u00e9 na\u00efve", "\u732b \U0001f408"]),
    ("1\u00a01/2 cups of flour", ["1 1/2 cups of flour", "1\u00a01/2 cups"]),
    ("a closest length of six words here", ["five words are in this", "this one has seven words in it"] * 2),
    (" ".join(["word"] * 70), [" ".join(["word"] * 69 + ["end"]), "word " * 3 + "end"]),
]
THINGS = ["man", "woman", "dog", "cat", "horse", "boy", "girl", "bird", "child", "group", "bicycle", "train"]
ACTS = ["riding", "holding", "eating", "watching", "chasing", "standing near", "looking at", "sitting on"]
PLACES = ["on the beach", "in a park", "next to a red bus", "at night", "in the kitchen", ""]


def sentence(rng: random.Random, things: list[str]) -> str:
    """A caption about some of the given things."""
    first, second = rng.sample(things, 2)
    words = [rng.choice(["a", "the", "two"]), first, *rng.choice([["is"], []]), rng.choice(ACTS)]
    words += [rng.choice(["a", "the"]), second, *rng.choice(PLACES).split()]
    return " ".join(words)


def scores(candidates: list[str], references: list[list[str]]) -> dict[str, object]:
    """What pycocoevalcap makes of them."""
    res = {image: [text] for image, text in enumerate(candidates)}
    gts = dict(enumerate(references))
    with contextlib.redirect_stdout(io.StringIO()):
        bleu, bleus = Bleu(4).compute_score(gts, res)
    rouge, rouges = Rouge().compute_score(gts, res)
    cider, ciders = Cider().compute_score(gts, res)
    return {
        "bleu": {"corpus": bleu, "images": [list(each) for each in zip(*bleus, strict=True)]},
        "rouge_l": {"corpus": float(rouge), "images": rouges.tolist()},
        "cider": {"corpus": float(cider), "images": ciders.tolist()},
    }


def main() -> None:
    """Write both files."""
    rng = random.Random(3)
    pairs = list(BY_HAND)
    for _ in range(150):
        things = rng.sample(THINGS, 3)
        pairs.append((sentence(rng, things), [sentence(rng, things) for _ in range(rng.randint(1, 6))]))
    candidates, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    FOLDER.mkdir(exist_ok=True)
    for name, content in {
        "captions.json": [{"candidate": c, "references": r} for c, r in pairs],
        "scores.json": scores(candidates, references),
    }.items():
        (FOLDER / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
