"""What a person names as a model that is asked: an address, or a language model for this process."""

from __future__ import annotations

import re

from limner.errors import UserError

_NO_SCHEME = re.compile(r"(localhost|[\w.-]+):\d+(/.*)?")


def is_address(model: str) -> bool:
    """Whether a model is named by the address of its endpoint.

    Raises:
        UserError: it looks like an address, but does not begin as one.
    """
    if _NO_SCHEME.fullmatch(model):
        raise UserError(f"{model}: an endpoint's address begins with http:// or https://: http://{model}")
    return model.startswith(("http://", "https://"))


def check_language_model(path: str) -> None:
    """Look whether a causal language model is there, without loading it.

    Raises:
        UserError: there is no such checkpoint, or it is of another kind.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from limner.captioners.files import read_config

    kind = read_config(path).get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"{path}: a model of type {kind} is not a causal language model")
