"""Written captions become the tokens that the policy itself would generate after its prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from limner import captioners
from limner.captioners.words import after_prompt
from limner.decoding import Decoding
from toy_tokenizers import LINES, toy

CAPTIONS = ("a red triangle above a blue star", "it's a close-up of the dog")
GREEDY = Decoding(do_sample=False, max_new_tokens=24)


def test_what_a_trained_captioner_writes_is_tokenised_as_it_was_generated() -> None:
    policy = captioners.load("world:captioner", device="cpu")
    inputs = policy.encode(tiny.samples(12))
    made = policy.generate(inputs, GREEDY)
    assert made.ended.all()
    tokens, caption_mask = policy.tokenised(policy.texts(made.tokens, made.caption_mask))
    assert torch.equal(tokens, made.tokens)
    assert torch.equal(caption_mask, made.caption_mask)


@pytest.mark.parametrize("build", [tiny.blip2_bytes, tiny.blip2_t5, tiny.instructblip])
def test_what_was_taught_is_generated_token_by_token(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """Cross-entropy on tokenised captions, then greedy: ids, text and ids made from the text again agree."""
    folder = build(tmp_path / "captioner")
    projections = "q,v,fc1,fc2" if build is tiny.blip2_bytes else "q,v"
    train = ("query_tokens", "qformer", "language_projection", f"lora({projections})")
    policy = captioners.load(str(folder), device="cpu", prompt="a video of", train=train)
    inputs = policy.encode(tiny.samples(len(CAPTIONS)))
    tokens, caption_mask = policy.tokenised(CAPTIONS)
    optimiser = torch.optim.Adam(policy.trained().values(), lr=0.01)
    for _ in range(100):
        chosen = policy.logprobs(inputs, tokens, caption_mask)[caption_mask]
        if chosen.exp().amin() > 0.5:  # then greedy cannot choose anything else
            break
        optimiser.zero_grad()
        chosen.mean().neg().backward()
        optimiser.step()
    made = policy.generate(policy.encode(tiny.samples(len(CAPTIONS))), GREEDY)
    assert policy.texts(made.tokens, made.caption_mask) == CAPTIONS
    assert torch.equal(made.caption_mask, caption_mask)
    assert torch.equal(made.tokens[caption_mask], tokens[caption_mask])


@pytest.mark.parametrize("kind", ["byte_level", "llama", "t5"])
@pytest.mark.parametrize("prompt", ["", "a video of", "Question: what is it? Answer:", "a photo of "])
@given(words=st.lists(st.sampled_from(" ".join(LINES).split()), min_size=1, max_size=8))
def test_prompt_and_caption_read_as_one_text(kind: str, prompt: str, words: list[str]) -> None:
    tokenizer = toy(kind)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = after_prompt(tokenizer, prompt, " ".join(words))
    decoded = tokenizer.decode([*before, *ids], skip_special_tokens=True).split()
    alone = tokenizer.decode(
        tokenizer(prompt, add_special_tokens=False)["input_ids"], skip_special_tokens=True
    )
    unknown = [tokenizer.decode(tokenizer(w, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
               for w in words]  # fmt: skip
    assert decoded == [*alone.split(), *" ".join(unknown).split()]


def test_a_byte_level_caption_has_a_space_in_front_only_after_a_prompt() -> None:
    tokenizer = toy("byte_level")
    assert tokenizer.decode(after_prompt(tokenizer, "", "red ball")) == "red ball"
    assert tokenizer.decode(after_prompt(tokenizer, "a video of", "red ball")) == " red ball"
    assert tokenizer.decode(after_prompt(tokenizer, "a video of ", "red ball")) in ("red ball", " red ball")


def test_captions_are_padded_cut_and_kept_free_of_special_tokens(tmp_path: Path) -> None:
    policy = captioners.load(str(tiny.blip2_bytes(tmp_path / "captioner")), device="cpu")
    tokens, caption_mask = policy.tokenised(["a  red\n ball", "", "a </s> b"])
    assert policy.texts(tokens, caption_mask) == ("a red ball", "", "a </s> b")
    assert (tokens == 2).sum(1).tolist() == [1, 1, 1]
    lengths = caption_mask.sum(1)
    assert lengths[1] == 1
    assert (tokens[torch.arange(3), lengths - 1] == 2).all()
    cut, cut_mask = policy.tokenised(["a red ball"], 2)
    assert torch.equal(cut[0], tokens[0, :2])
    assert cut_mask.all()
