"""Code for plain transformers and PEFT that captions with an export as its run did. Tests run it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.captioners import instructblip, prefixed, qformer
from limner.decoding import Decoding
from limner.model_card.text import public
from limner.paths import WORLD

if TYPE_CHECKING:
    from limner.captioners.base import Policy


@dataclass(frozen=True)
class Exported:
    """What an export's folder holds."""

    name: str
    """Of the folder."""
    adapters: bool = False
    """Adapters for the base model; otherwise the whole model."""
    rest: str = ""
    """The file with what was trained beside the adapters, where they do not hold it."""


def task(policy: Policy) -> str:
    """What the model does, as Hugging Face calls it."""
    return "image-to-text" if isinstance(policy, qformer.QFormerPolicy) else "image-text-to-text"


def code(policy: Policy, exported: Exported, decoding: Decoding) -> str:
    """Python that prints the caption of photo.jpg; empty for a family of which nothing is known here.

    Args:
        policy: what was exported.
        exported: what the export's folder holds.
        decoding: how captions are written.
    """
    kind = type(policy.model).__name__
    if isinstance(policy, qformer.QFormerPolicy):
        names, lines = ["AutoImageProcessor", "AutoTokenizer", kind], _qformer(policy, decoding)
    elif not isinstance(policy, prefixed.PrefixedPolicy):
        return ""
    else:
        names, lines = ["AutoProcessor", kind], _chat(policy, exported, decoding)
        names += ["AutoImageProcessor"] * exported.adapters
    torch = ["import torch"] if exported.rest or isinstance(policy, qformer.QFormerPolicy) else []
    base, world = public(policy.settings.path), policy.settings.path.startswith(WORLD)
    where = f"resolve({_quoted(base)})" if world else _quoted(base)
    load = (
        "load_file(REST)" if exported.rest.endswith(".safetensors") else "torch.load(REST, weights_only=True)"
    )
    return "\n".join([
        *torch,
        *["from limner.paths import resolve"] * (exported.adapters and world),
        *["from peft import PeftModel"] * exported.adapters,
        "from PIL import Image",
        *["from safetensors.torch import load_file"] * ("load_file" in load and bool(exported.rest)),
        f"from transformers import {', '.join(sorted(names))}",
        "",
        f"PATH = {_quoted(exported.name)}",
        f"BASE = {where}" if exported.adapters else "BASE = PATH",
        *[f"REST = {_quoted(exported.rest)}"] * bool(exported.rest),
        f"model = {kind}.from_pretrained(BASE).eval()",
        *[f"model.load_state_dict({load}, strict=False)"] * bool(exported.rest),
        *["model = PeftModel.from_pretrained(model, PATH).eval()"] * exported.adapters,
        'image = Image.open("photo.jpg").convert("RGB")',
        *lines,
        "",
    ])  # fmt: skip


def _qformer(policy: qformer.QFormerPolicy, decoding: Decoding) -> list[str]:
    reads = isinstance(policy, instructblip.InstructBlipPolicy)
    given = ["pixel_values=pixels", "input_ids=torch.tensor([ids])"]
    given += ["qformer_input_ids=torch.tensor([asked])"] * reads
    square, native = policy.processor.size, policy.model.config.vision_config.image_size
    given += ["interpolate_pos_encoding=True"] * ((square["height"], square["width"]) != (native, native))
    given += [f"eos_token_id={list(policy.lm.eos_ids)}", *_decoding(decoding)]
    reader = 'reader = AutoTokenizer.from_pretrained(BASE, subfolder="qformer_tokenizer")'
    return [
        "tokenizer = AutoTokenizer.from_pretrained(BASE)",
        *[reader] * reads,
        "processor = AutoImageProcessor.from_pretrained(PATH)",
        'pixels = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"])',
        f"prompt = {_quoted(policy.settings.prompt)}",
        "ids = [model.config.image_token_index] * model.config.num_query_tokens"
        ' + tokenizer(prompt)["input_ids"]',
        *['asked = reader(prompt)["input_ids"]'] * reads,
        *_generate(given),
        *["tokens = tokens[:, len(ids) :]"] * (not policy.language_model.config.is_encoder_decoder),
        "print(tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip())",
    ]


def _chat(policy: prefixed.PrefixedPolicy, exported: Exported, decoding: Decoding) -> list[str]:
    own = "processor.image_processor = AutoImageProcessor.from_pretrained(PATH)  # as it was trained"
    return [
        "processor = AutoProcessor.from_pretrained(BASE)",
        *[own] * exported.adapters,
        *_asked(policy),
        *_generate(["**inputs", *_decoding(decoding)]),
        'tokens = tokens[:, inputs["input_ids"].shape[1] :]',
        "print(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())",
    ]


def _asked(policy: prefixed.PrefixedPolicy) -> list[str]:
    """The chat with the picture; without a chat template the picture's token and the prompt."""
    prompt, chat = policy.settings.prompt, policy.chat
    if chat.template is None:
        return [
            f'inputs = processor(text={_quoted(chat.text(1, prompt))}, images=image, return_tensors="pt")'
        ]
    words = f', {{"type": "text", "text": {_quoted(prompt)}}}' if prompt else ""
    return [
        f'content = [{{"type": "image", "image": image}}{words}]',
        "inputs = processor.apply_chat_template(",
        '    [{"role": "user", "content": content}],',
        '    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",',
        ")",
    ]


def _quoted(text: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _generate(given: list[str]) -> list[str]:
    return ["tokens = model.generate(", *(f"    {argument}," for argument in given), ")"]


def _decoding(decoding: Decoding) -> list[str]:
    """Arguments of transformers' `generate`; what changes nothing is left out."""
    kept = {"do_sample": decoding.do_sample, "max_new_tokens": decoding.max_new_tokens}
    if decoding.do_sample:
        kept |= {"temperature": decoding.temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
    neutral = {"num_beams": 1, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "length_penalty": 1.0}
    kept |= {name: value for name, none in neutral.items() if (value := getattr(decoding, name)) != none}
    return [f"{name}={value!r}" for name, value in kept.items()]
