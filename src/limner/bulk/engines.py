"""The engine that settings mean."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from limner.bulk.engine import Engine, Local
from limner.bulk.prompts import Prompt
from limner.decoding import Decoding
from limner.errors import UserError

_ADDRESSES = ("http://", "https://")


def engine_of(
    model: str,
    *,
    engine: str | None,
    decoding: Decoding,
    prompt: Prompt,
    batch: int,
    workers: int | None,
    dedup: bool,
    model_name: str,
    key_env: str | None,
    device: str,
    dtype: str,
) -> Callable[[dict[str, str]], Engine]:
    """What makes the engine, given the captions by what images look like; see `limner.caption.caption`.

    Raises:
        UserError: the settings do not go together.
    """
    kind = engine or ("endpoint" if model.startswith(_ADDRESSES) else "inprocess")
    _refuse(kind, model, workers=workers, dedup=dedup, model_name=model_name)
    if kind == "endpoint":
        from limner.bulk import endpoint

        client = endpoint.client(model, model=model_name, key_env=key_env, requests=batch, decoding=decoding)
        asked = Prompt(endpoint.PROMPT) if prompt.template is None else prompt
        together = max(1, batch // endpoint.AT_ONCE)

        def at_endpoint(seen: dict[str, str]) -> Engine:
            author = endpoint.EndpointAuthor(client, decoding)
            return Local(author, together, asked, endpoint.AT_ONCE, seen=seen if dedup else None)

        return at_endpoint
    if kind == "ray":
        from limner.bulk.policy import author
        from limner.bulk.ray_actors import Ray

        where = os.path.abspath(model) if os.path.isdir(model) else model
        load = functools.partial(author, where, device=device, dtype=dtype, decoding=decoding)
        return lambda seen: Ray(load, batch, prompt, workers, gpu=device == "auto" or "cuda" in device)

    def here(seen: dict[str, str]) -> Engine:
        from limner.bulk.policy import author

        made = author(model, device=device, dtype=dtype, decoding=decoding)
        return Local(made, batch, prompt, seen=seen if dedup else None)

    return here


def _refuse(kind: str, model: str, *, workers: int | None, dedup: bool, model_name: str) -> None:
    if (kind == "endpoint") != model.startswith(_ADDRESSES):
        raise UserError(f"--model {model}: --engine {kind} wants {_wanted(kind)}")
    if (kind == "endpoint") != bool(model_name):
        raise UserError("--model-name is the model's name at an endpoint: it goes with --model http://...")
    if workers is not None and kind != "ray":
        raise UserError(f"--workers are those of --engine ray, and this is {kind}")
    if dedup and kind == "ray":
        raise UserError(
            "--dedup compares images in one process: it goes with inprocess and endpoint, not ray"
        )


def _wanted(kind: str) -> str:
    return "an address: http://localhost:8000/v1" if kind == "endpoint" else "a checkpoint or a run"
