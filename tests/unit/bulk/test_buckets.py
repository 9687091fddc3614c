"""Batches of like size."""

import random

from PIL import Image

from limner.bulk.buckets import WAITING, Buckets
from limner.types import Sample


def through(sizes, batch, *, shaped, prompts=None):
    buckets, out = Buckets(batch, shaped=shaped), []
    for number, size in enumerate(sizes):
        sample = Sample(str(number), (Image.new("RGB", size),))
        full = buckets.add(sample, prompts[number] if prompts else None)
        out += [full] if full is not None else []
    return [samples for _, samples in (*out, *buckets.rest())]


def test_every_sample_comes_out_once_and_few_pixels_are_padding():
    draw = random.Random(0)
    sizes = [draw.choice([(64, 48), (48, 64), (640, 480), (30, 900)]) for _ in range(500)]
    batches = through(sizes, 8, shaped=True)
    assert sorted(int(sample.id) for batch in batches for sample in batch) == list(range(500))
    assert max(map(len, batches)) == 8
    assert len(batches) <= 500 / 8 + 4
    for batch in batches:
        pixels = [sample.image.width * sample.image.height for sample in batch]
        assert max(pixels) <= 1.2 * min(pixels)


def test_samples_of_a_rare_size_do_not_pile_up():
    sizes = [(4 * (number + 1), 4 * (number + 1)) for number in range(60)]
    batches = through(sizes, 2, shaped=True)
    assert sum(map(len, batches)) == 60
    buckets = Buckets(2, shaped=True)
    held = 0
    for number, size in enumerate(sizes):
        held += 1
        full = buckets.add(Sample(str(number), (Image.new("RGB", size),)), None)
        held -= len(full[1]) if full else 0
        assert held <= WAITING * 2


def test_order_is_kept_where_size_does_not_matter_and_prompts_are_not_mixed():
    sizes = [(8 + 50 * (number % 2), 8) for number in range(10)]
    assert [[s.id for s in batch] for batch in through(sizes, 4, shaped=False)] == [
        list("0123"), list("4567"), list("89"),
    ]  # fmt: skip
    batches = through(sizes, 4, shaped=False, prompts=[f"p{number % 2}" for number in range(10)])
    assert all(len({int(sample.id) % 2 for sample in batch}) == 1 for batch in batches)
