"""config.json and tokenizer of an assembled captioner: those of the vision-language model, made to fit."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2Config

from limner.captioners import files
from limner.errors import UserError

Json = dict[str, Any]
LANGUAGE_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_dropout",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
)
"""What the language weights decide; ids of special tokens and mrope stay the vision-language model's."""
TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def read(folder: Path, model_type: str, what: str) -> Json:
    """The config.json of a checkpoint of one type.

    Raises:
        UserError: no such folder or file, or another type.
    """
    file = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"{what} {folder}: no such folder; `hf download NAME --local-dir FOLDER` makes one")
    if not file.is_file():
        raise UserError(f"{what} {folder}: there is no config.json in this folder")
    try:
        raw = json.loads(file.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{file}: is no JSON: {error}") from error
    found = raw.get("model_type") if isinstance(raw, dict) else None
    if found != model_type:
        hint = (
            "give a Qwen2.5-VL checkpoint"
            if model_type == "qwen2_5_vl"
            else "give the text-only Qwen2.5 checkpoint, whose weights no image has touched"
        )
        raise UserError(f"{what} {folder}: its model_type is {found!r}, not {model_type!r}; {hint}")
    return raw


def combine(vision: Mapping[str, Any], language: Mapping[str, Any], dtype: str) -> Json:
    """The vision-language config for the language weights, in the form (flat or nested) that it has.

    Args:
        vision: config.json of the vision-language checkpoint.
        language: config.json of the text-only checkpoint.
        dtype: of the language weights, as torch names it.

    Raises:
        UserError: the language model's rotary positions cannot be those of this vision-language model.
    """
    config = copy.deepcopy(dict(vision))
    with _readable("--language"):
        text = Qwen2Config.from_dict(copy.deepcopy(dict(language)))
    rope = cast(Json, text.rope_parameters or {})
    if rope.get("rope_type", "default") != "default":
        raise UserError(
            f"--language: its positions are scaled ({rope['rope_type']}); give the checkpoint without"
        )
    section = cast(Any, parsed(vision).text_config).rope_parameters.get("mrope_section", ())
    half = text.hidden_size // text.num_attention_heads // 2
    if sum(section) != half:
        raise UserError(
            f"--vision has the mrope section {section} for heads of {2 * sum(section)}; "
            f"--language has heads of {2 * half}: they do not fit"
        )
    given = {key: language.get(key, getattr(text, key)) for key in LANGUAGE_KEYS}
    nested = config.get("text_config")
    sections = [config] if nested is None else [nested, config]
    for place, holder in enumerate(sections):
        holder |= {key: value for key, value in given.items() if place == 0 or key in holder}
        if "layer_types" in holder:
            holder["layer_types"] = list(text.layer_types or ())
        for key in ("dtype", "torch_dtype"):
            if key in holder:
                holder[key] = dtype
        if "rope_parameters" in holder:
            holder["rope_parameters"]["rope_theta"] = rope["rope_theta"]
        elif place == 0 or "rope_theta" in holder:
            holder["rope_theta"] = rope["rope_theta"]
        holder["tie_word_embeddings"] = text.tie_word_embeddings
    config["vision_config"]["out_hidden_size"] = text.hidden_size
    return config


def parsed(config: Mapping[str, Any]) -> Qwen2_5_VLConfig:
    """What transformers reads in a config.json; it writes into what it is given, so that gets a copy.

    Raises:
        UserError: a value that transformers refuses.
    """
    with _readable("--vision"):
        return Qwen2_5_VLConfig.from_dict(copy.deepcopy(dict(config)))


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except StrictDataclassError as error:
        raise UserError(f"{what}: config.json is not one of this kind: {error}") from error


def check_words(vision: Path, language: Path, config: Json) -> int:
    """Refuse a tokenizer that the language weights do not read.

    Returns:
        Tokens of the vision-language tokenizer that the language model's does not have: their rows of the
        embedding are as the language checkpoint left them.

    Raises:
        UserError: a tokenizer is missing, a token has another id, or no row in the embedding.
    """
    for what, folder in (("--vision", vision), ("--language", language)):
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise UserError(f"{what} {folder}: there is no tokenizer.json and no vocab.json in this folder")
    with files.explained(str(vision)):
        tokenizer = AutoTokenizer.from_pretrained(vision, trust_remote_code=False)
    with files.explained(str(language)):
        known: dict[str, int] = AutoTokenizer.from_pretrained(language, trust_remote_code=False).get_vocab()
    words: dict[str, int] = tokenizer.get_vocab()
    if not tokenizer.chat_template:
        raise UserError(f"--vision {vision}: the tokenizer has no chat template; copy the whole checkpoint")
    other = [word for word, id in words.items() if known.get(word, id) != id]
    if other:
        shown = ", ".join(f"{word!r} {words[word]} and {known[word]}" for word in other[:3])
        raise UserError(
            f"--language {language}: reads {len(other)} tokens by other ids than --vision does ({shown}): "
            "its weights do not fit this tokenizer"
        )
    rows = _language_part(config)["vocab_size"]
    named = {name: config[name] for name in TOKEN_IDS if name in config}
    last = max(max(words.values()), *named.values())
    if last >= rows:
        raise UserError(
            f"--language {language}: its embedding has {rows} rows, and the tokenizer of --vision needs "
            f"{last + 1}: there is no weight for its last tokens"
        )
    return len(set(words) - set(known))


def _language_part(config: Json) -> Json:
    return config.get("text_config") or config
