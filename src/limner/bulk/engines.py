"""The engine that settings mean."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from limner.answering.base import Asker
from limner.bulk import BATCH
from limner.bulk.choose import MERGE, Chooser, Rules
from limner.bulk.engine import Author, Engine, Local
from limner.bulk.prompts import Prompt
from limner.decoding import Decoding
from limner.errors import UserError

if TYPE_CHECKING:
    from limner.rewards.base import AnyReward

_ADDRESSES = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class Who:
    """Who captions, and how."""

    model: str
    """A captioner: hub id, folder, `world:captioner`, a run's folder (its best checkpoint), or an endpoint's
    address."""
    decoding: Decoding
    """How captions are drawn."""
    engine: str | None = None
    """inprocess, ray, or endpoint; endpoint if the model is an address, else inprocess, if None."""
    batch: int = BATCH
    """Images or videos captioned together; the next ones are opened meanwhile. At an endpoint, the requests
    under way."""
    workers: int | None = None
    """Of Ray; one a GPU, or one a core, if None."""
    prompt: Prompt = field(default_factory=Prompt)
    """What is asked."""
    dedup: bool = False
    """Images that are equal pixel by pixel are captioned once."""
    model_name: str = ""
    """The model's name at its endpoint."""
    key_env: str | None = None
    """Environment variable with the endpoint's key."""
    device: str = "auto"
    """Of the captioner: auto, cpu, cuda, ..."""
    dtype: str = "float32"
    """Of the captioner's frozen parts: float32, bfloat16 or float16; a run has its own."""

    @property
    def kind(self) -> str:
        """The engine."""
        return self.engine or ("endpoint" if _is_address(self.model) else "inprocess")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which candidate stands."""

    candidates: int = 1
    """Candidates an image."""
    rules: Rules = field(default_factory=Rules)
    """What may stand."""
    rewards: Mapping[str, AnyReward] = field(default_factory=dict[str, "AnyReward"])
    """What says how good a candidate is; the captioner's own log-probability if empty."""
    merge: str | None = None
    """A language model, or the address of one, that makes one caption of all candidates; None chooses one."""
    merge_name: str = ""
    """Its name at its endpoint."""
    merge_prompt: str | None = None
    """What it is asked, with {captions}; a text of limner's if None."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to choose."""
        return self != Choice()


def engine_of(who: Who, choice: Choice) -> Callable[[dict[str, str]], Engine]:
    """What makes the engine, given the captions by what images look like.

    Raises:
        UserError: the settings do not go together.
    """
    _refuse(who, choice)
    kind, batch, prompt = who.kind, who.batch, who.prompt
    if kind == "endpoint":
        from limner.bulk import endpoint

        client = endpoint.client(
            who.model, model=who.model_name, key_env=who.key_env, requests=batch, decoding=who.decoding
        )
        together = max(1, batch // endpoint.AT_ONCE)

        def at_endpoint(seen: dict[str, str]) -> Engine:
            author = endpoint.EndpointAuthor(client, who.decoding)
            if choice.rewards:
                from limner.bulk.judge import TextJudge

                author.judge = TextJudge.load(choice.rewards, device=who.device)
            made = _chosen(author, who, choice)
            return Local(made, together, prompt, endpoint.AT_ONCE, seen=seen if who.dedup else None)

        return at_endpoint
    if kind == "ray":
        from limner.bulk.ray_actors import Ray

        load = functools.partial(_here, who, choice, os.path.abspath(who.model))
        gpu = who.device == "auto" or "cuda" in who.device
        return lambda seen: Ray(load, batch, prompt, who.workers, gpu=gpu)

    def in_process(seen: dict[str, str]) -> Engine:
        from limner.bulk.policy import PolicyAuthor

        made = _here(who, choice)
        lanes = made.lanes() if isinstance(made, PolicyAuthor) else 1
        cores = torch.get_num_threads() if lanes > 1 else 0
        return Local(made, batch, prompt, lanes, cores, seen if who.dedup else None)

    return in_process


def _here(who: Who, choice: Choice, folder: str = "") -> Author:
    """The author in this process; `folder` is where the model is if that is a folder."""
    from limner.bulk.policy import author

    made = author(
        folder if os.path.isdir(folder) else who.model,
        device=who.device, dtype=who.dtype, decoding=who.decoding, rewards=choice.rewards,
    )  # fmt: skip
    return _chosen(made, who, choice)


def _chosen(author, who: Who, choice: Choice) -> Author:
    if not choice.wanted:
        return author
    merger = None
    if choice.merge is not None:
        merger = functools.partial(
            _merger, choice.merge, choice.merge_name, who.key_env, who.device, who.dtype
        )
    text = MERGE if choice.merge_prompt is None else choice.merge_prompt
    return Chooser(author, choice.candidates, choice.rules, merger, text)


@functools.cache
def _merger(model: str, name: str, key_env: str | None, device: str, dtype: str) -> Asker:
    """The language model that merges, loaded once a process."""
    if _is_address(model):
        from limner.bulk.endpoint import FIRST_SECONDS
        from limner.client import Client, Endpoint

        try:
            endpoint = Endpoint(base_url=model, model=name, key_env=key_env)
            return Client(endpoint, first_seconds=FIRST_SECONDS)
        except ValueError as error:
            raise UserError(f"--merge: {error}") from error
    from limner.answering.local import LocalModel
    from limner.devices import torch_device, torch_dtype

    return LocalModel.load(model, device=torch_device(device), dtype=torch_dtype(dtype))


def _refuse(who: Who, choice: Choice) -> None:
    kind = who.kind
    if (kind == "endpoint") != _is_address(who.model):
        wanted = "an address: http://localhost:8000/v1" if kind == "endpoint" else "a checkpoint or a run"
        raise UserError(f"--model {who.model}: --engine {kind} wants {wanted}")
    if (kind == "endpoint") != bool(who.model_name):
        raise UserError("--model-name is the model's name at an endpoint: it goes with --model http://...")
    if who.workers is not None and kind != "ray":
        raise UserError(f"--workers are those of --engine ray, and this is {kind}")
    if who.dedup and kind == "ray":
        raise UserError(
            "--dedup compares images in one process: it goes with inprocess and endpoint, not ray"
        )
    search = not who.decoding.do_sample
    if kind != "endpoint" and search and choice.candidates > who.decoding.num_beams:
        raise UserError(
            f"--candidates {choice.candidates}: a search with {who.decoding.num_beams} beams cannot give so "
            "many; draw them: do_sample=true num_beams=1"
        )
    if choice.merge is not None:
        if _is_address(choice.merge) != bool(choice.merge_name):
            raise UserError(
                "--merge-name is the model's name at an endpoint: it goes with --merge http://..."
            )
        if choice.candidates < 2:
            raise UserError("--merge makes one caption of several: give --candidates 2 or more")
    elif choice.merge_prompt is not None or choice.merge_name:
        raise UserError("--merge-prompt and --merge-name go with --merge")
    if choice.merge_prompt is not None and "{captions}" not in choice.merge_prompt:
        raise UserError("--merge-prompt: {captions} has to stand in it")
    if choice.rewards and (choice.candidates < 2 or choice.merge is not None):
        raise UserError("rewards choose among candidates: give --candidates 2 or more, and no --merge")


def _is_address(text: str) -> bool:
    return text.startswith(_ADDRESSES)
