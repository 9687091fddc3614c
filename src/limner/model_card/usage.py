"""Code for plain transformers and PEFT that captions with an export as its run did. Tests run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from limner.captioners import instructblip, qformer
from limner.decoding import Decoding
from limner.model_card.text import public

if TYPE_CHECKING:
    from limner.captioners.base import Policy


def task(policy: Policy) -> str:
    """What the model does, as Hugging Face calls it."""
    return "image-to-text" if isinstance(policy, qformer.QFormerPolicy) else "image-text-to-text"


def code(policy: Policy, name: str, decoding: Decoding, *, adapters: bool) -> str:
    """Python that prints the caption of photo.jpg.

    Args:
        policy: what was exported.
        name: the folder of the export.
        decoding: how captions are written.
        adapters: whether the export holds adapters.
    """
    base = public(policy.settings.path) if adapters else name
    made = _qformer if isinstance(policy, qformer.QFormerPolicy) else _chat
    return "\n".join([*made(policy, name, base, decoding, adapters), ""])


def _qformer(policy: Policy, name: str, base: str, decoding: Decoding, adapters: bool) -> list[str]:
    kind, reads = type(policy.model).__name__, isinstance(policy, instructblip.InstructBlipPolicy)
    language = policy.language_model.config
    given = ["pixel_values=pixels", "input_ids=torch.tensor([ids])"]
    given += ["qformer_input_ids=torch.tensor([asked])"] * reads
    square = policy.processor.size
    native = policy.model.config.vision_config.image_size
    given += ["interpolate_pos_encoding=True"] * ((square["height"], square["width"]) != (native, native))
    ends = policy.lm.eos_ids if isinstance(policy, qformer.QFormerPolicy) else ()
    given += [f"eos_token_id={list(ends)}", *_decoding(decoding)]
    reader = 'reader = AutoTokenizer.from_pretrained(BASE, subfolder="qformer_tokenizer")'
    return [
        "import torch",
        *["from peft import PeftModel"] * adapters,
        "from PIL import Image",
        f"from transformers import AutoImageProcessor, AutoTokenizer, {kind}",
        "",
        *_names(name, base, adapters),
        *_model(kind, adapters),
        "tokenizer = AutoTokenizer.from_pretrained(BASE)",
        *[reader] * reads,
        "processor = AutoImageProcessor.from_pretrained(PATH)",
        'image = Image.open("photo.jpg").convert("RGB")',
        'pixels = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"])',
        f"prompt = {_quoted(policy.settings.prompt)}",
        "ids = [model.config.image_token_index] * model.config.num_query_tokens"
        ' + tokenizer(prompt)["input_ids"]',
        *['asked = reader(prompt)["input_ids"]'] * reads,
        *_generate(given),
        *["tokens = tokens[:, len(ids) :]"] * (not language.is_encoder_decoder),
        "print(tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip())",
    ]


def _chat(policy: Policy, name: str, base: str, decoding: Decoding, adapters: bool) -> list[str]:
    kind = type(policy.model).__name__
    own = ["processor.image_processor = AutoImageProcessor.from_pretrained(PATH)  # as it was trained"]
    return [
        *["from peft import PeftModel"] * adapters,
        "from PIL import Image",
        f"from transformers import {'AutoImageProcessor, ' * adapters}AutoProcessor, {kind}",
        "",
        *_names(name, base, adapters),
        *_model(kind, adapters),
        "processor = AutoProcessor.from_pretrained(BASE)",
        *own * adapters,
        'image = Image.open("photo.jpg").convert("RGB")',
        *_asked(policy),
        *_generate(["**inputs", *_decoding(decoding)]),
        'tokens = tokens[:, inputs["input_ids"].shape[1] :]',
        "print(processor.batch_decode(tokens, skip_special_tokens=True)[0].strip())",
    ]


def _asked(policy: Policy) -> list[str]:
    """The chat with the picture; without a chat template the picture's token and the prompt."""
    prompt = policy.settings.prompt
    if policy.tokenizer.chat_template is None and policy.chat.template is None:  # type: ignore[attr-defined]
        text = policy.chat.text(1, prompt)  # type: ignore[attr-defined]
        return [f'inputs = processor(text={_quoted(text)}, images=image, return_tensors="pt")']
    words = f', {{"type": "text", "text": {_quoted(prompt)}}}' if prompt else ""
    return [
        f'content = [{{"type": "image", "image": image}}{words}]',
        "inputs = processor.apply_chat_template(",
        '    [{"role": "user", "content": content}],',
        '    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",',
        ")",
    ]


def _names(name: str, base: str, adapters: bool) -> list[str]:
    """PATH is the export, BASE what holds tokenizer and weights."""
    return [f"PATH = {_quoted(name)}", f"BASE = {_quoted(base)}" if adapters else "BASE = PATH"]


def _model(kind: str, adapters: bool) -> list[str]:
    model = f"model = {kind}.from_pretrained(BASE).eval()"
    return [model, "model = PeftModel.from_pretrained(model, PATH).eval()"] if adapters else [model]


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
