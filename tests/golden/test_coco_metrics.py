"""BLEU, ROUGE-L and CIDEr equal what pycocoevalcap 1.2 said of the golden captions (make_coco_metrics.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from limner.metrics.bleu import bleu
from limner.metrics.cider import cider
from limner.metrics.rouge import rouge_l

FOLDER = Path(__file__).parent / "coco_metrics"
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((FOLDER / "scores.json").read_text())


@pytest.fixture(scope="module")
def captions() -> tuple[list[list[str]], list[list[list[str]]]]:
    rows = json.loads((FOLDER / "captions.json").read_text())
    return (
        [row["candidate"].split(" ") if row["candidate"] else [] for row in rows],
        [[text.split(" ") if text else [] for text in row["references"]] for row in rows],
    )


def test_bleu(captions, golden: dict):
    ours = bleu(*captions)
    np.testing.assert_allclose(ours.corpus, golden["bleu"]["corpus"], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(ours.images, golden["bleu"]["images"], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("name", "metric"), [("rouge_l", rouge_l), ("cider", cider)])
def test_metrics_of_one_value_a_caption(name: str, metric, captions, golden: dict):
    ours = metric(*captions)
    np.testing.assert_allclose(ours, golden[name]["images"], rtol=0, atol=ROUNDING)
    assert ours.mean() == pytest.approx(golden[name]["corpus"], abs=ROUNDING)
