"""Settings of a service that are refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_vl
from limner import captioners, cli_serve
from limner.errors import UserError
from limner.serve import run
from limner.serve.settings import Limits, Service, limits_of


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"key_env": "sk-1234"}, "never the key itself"),
        ({"allow_urls": ("http://example.org",)}, "is no host"),
        ({"allow_urls": ("Example.org",)}, "is no host"),
        ({"allow_urls": ("example.org/images",)}, "is no host"),
        ({"allow_urls": ("*",)}, "is no host"),
        ({"allow_urls": ("127.0.0.1",)}, "is no host"),
        ({"allow_urls": ("10.0.0.1:80",)}, "is no host"),
        ({"default_tokens": 300}, "above limits.tokens"),
        ({"max_batch": 4}, "above max_batch"),
    ],
)
def test_settings_that_would_not_do_what_was_meant(wrong: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Service("m", **wrong)
    assert "sk-1234" not in str(caught.value)


@pytest.mark.parametrize("held", [None, "", "two words", "schl\u00fcssel", "tab\t"])
def test_a_key_that_is_none(held: str | None) -> None:
    service = Service("m", key_env="SOME_KEY")
    with pytest.raises(ValueError, match="SOME_KEY") as caught:
        service.key({} if held is None else {"SOME_KEY": held})
    assert not held or held not in str(caught.value)
    assert service.key({"SOME_KEY": "right"}) == "right"
    assert Service("m").key({}) is None


def test_a_captioner_without_a_prompt_is_asked_without_one(tmp_path: Path) -> None:
    policy = captioners.load("world:captioner", device="cpu")
    assert run.with_prompt(Service("m"), policy).own_prompt is True
    assert run.with_prompt(Service("m", own_prompt=False), policy).own_prompt is False
    chats = captioners.load(str(tiny_vl.qwen2_5_vl(tmp_path / "qwen")), device="cpu")
    assert run.with_prompt(Service("m"), chats).own_prompt is False
    assert run.with_prompt(Service("m", own_prompt=True), chats).own_prompt is True


def test_limits_are_given_by_name() -> None:
    assert limits_of(["pixels=1000", "seconds=2.5"]) == Limits(pixels=1000, seconds=2.5)
    with pytest.raises(UserError, match="pixls"):
        limits_of(["pixls=1000"])
    with pytest.raises(UserError, match="tokens"):
        limits_of(["tokens=0"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"key_env": "sk-1234"}, "never the key itself"),
        ({"allow_urls": ["https://example.org"]}, "without http://"),
        ({"limits": ["pixls=1"]}, "pixls"),
    ],
)
def test_the_command_refuses_before_a_model_is_loaded(wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cli_serve.serve("no/such/model", **wrong)
