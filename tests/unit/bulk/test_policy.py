"""Batches that do not fit into the device's memory."""

import logging

import torch

import tiny
from limner.bulk.policy import author
from limner.decoding import Decoding
from limner.errors import Reject

GREEDY = Decoding(do_sample=False, max_new_tokens=6)


class Small:
    """Memory for so many pictures."""

    def __init__(self, policy, room):
        self.encode, self.room, self.tried = policy.encode, room, []

    def __call__(self, samples, prompt=None):
        self.tried.append(len(samples))
        if len(samples) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.encode(samples, prompt)


def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(tmp_path, caplog):
    model = str(tiny.blip2(tmp_path / "blip2"))
    settings = {"device": "cpu", "dtype": "float32", "decoding": GREEDY, "rewards": {}}
    samples = tiny.samples(11)
    right = author(model, **settings).write(samples, None)

    made = author(model, **settings)
    made.policy.encode = memory = Small(made.policy, 3)
    with caplog.at_level(logging.WARNING, "limner.bulk"):
        assert made.write(samples, None) == right
    assert memory.tried[:3] == [11, 5, 2]
    assert max(memory.tried[2:]) <= 3
    assert len(caplog.records) == 2

    memory.tried.clear()
    assert made.write(samples[:9], None) == right[:9]
    assert max(memory.tried) <= 3, "what did not fit is not tried again"
    drafts = made.drafts(samples[:4], None, count=1, seed=0)
    assert [draft.text for (draft,) in drafts] == [text.caption for text in right[:4]]

    memory.room = 0
    (alone,) = made.write(samples[:1], None)
    assert isinstance(alone, Reject)
    assert alone.reason == "too little memory on the device to caption it"
