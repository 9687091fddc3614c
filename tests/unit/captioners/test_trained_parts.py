"""What trains: patterns, LoRA beside other adapters, a trained ViT, half precision, dropout, the table."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import tiny
from limner import captioners, export
from limner.captioners import blip2
from limner.captioners.adapters import parts_and_projections
from limner.captioners.base import Policy, is_adapter, trained_table
from limner.decoding import Decoding
from limner.errors import UserError

CAPTIONS = ("a red triangle", "two men in green shirts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.blip2_t5(tmp_path_factory.mktemp("captioner") / "t5"))


def load(folder: str, *train: str, dtype: torch.dtype = torch.float32, **settings) -> Policy:
    made = blip2.Captioner(path=folder, train=train, **settings)
    return made.load(device=torch.device("cpu"), dtype=dtype)


def asked(policy: Policy, frames: int = 1):
    return (policy.encode(tiny.clips(2, frames)), *policy.tokenised(CAPTIONS))


@pytest.mark.parametrize(
    "patterns",
    [
        ("qformer", "lora(q,v)"),
        ("qformer", "lora(q", "v)"),
        ("qformer,lora(q, v)",),
        (" qformer ", "lora(q,v)"),
    ],
)
def test_yaml_may_split_lora_at_its_comma(patterns: tuple[str, ...]) -> None:
    assert parts_and_projections(patterns) == (["qformer"], ["q", "v"])


def test_lora_sits_on_the_named_projections_of_encoder_and_decoder(folder: str) -> None:
    policy = load(folder, "lora(q,v)", lora_rank=2)
    layers = {name.split(".lora_")[0].removeprefix("language_model.") for name in policy.trained()}
    # 2 encoder layers; 2 decoder layers with self- and cross-attention
    assert len(layers) == 2 * (2 + 2 + 2)
    assert {name.rpartition(".")[2] for name in layers} == {"q", "v"}
    assert {name.split(".")[0] for name in layers} == {"encoder", "decoder"}
    ranks = {p.shape[0] for name, p in policy.trained().items() if "lora_A" in name}
    assert ranks == {2}


def test_a_new_lora_changes_nothing_and_is_the_same_in_every_run(folder: str) -> None:
    before = torch.random.get_rng_state()
    policy, other = load(folder, "lora(q,v)"), load(folder, "lora(q,v)")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, other.trained()[name]) for name, p in policy.trained().items())
    plain = load(folder)
    assert torch.equal(policy.logprobs(*asked(policy)), plain.logprobs(*asked(plain)))


def test_what_names_nothing_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match=r"lora\(queries\): .* it has: .*\bq\b"):
        load(folder, "lora(queries)")
    with pytest.raises(UserError, match=r"'language_model.shared' is frozen.*lora\(q,v\)"):
        load(folder, "language_model.shared")


def test_half_precision_keeps_what_trains_in_float32(folder: str) -> None:
    policy = load(folder, "qformer", "lora(q,v)", dtype=torch.bfloat16)
    assert {p.dtype for p in policy.trained().values()} == {torch.float32}
    assert policy.language_model.dtype == torch.bfloat16
    inputs, tokens, caption_mask = asked(policy, 2)
    assert inputs.tensors["features"].dtype == policy.fixed_prefix(inputs).dtype == torch.bfloat16
    policy.logprobs(inputs, tokens, caption_mask).sum().backward()
    moved = {name for name, p in policy.trained().items() if p.grad is not None and p.grad.any()}
    assert any(".lora_B." in name for name in moved)
    assert all(p.grad.isfinite().all() for p in policy.trained().values() if p.grad is not None)
    made = policy.generate(inputs, Decoding(max_new_tokens=10), generator=torch.Generator().manual_seed(0))
    again = policy.logprobs(inputs, made.tokens, made.caption_mask)
    # bfloat16 has 8 bits: a cache and whole sequences round differently
    torch.testing.assert_close(again, made.logprobs, rtol=0.02, atol=0.1)


def test_a_trained_vit_gets_gradient_through_new_features(folder: str) -> None:
    part = "vision_model.encoder.layers.2"
    policy, frozen = load(folder, "qformer", part), load(folder, "qformer")
    assert policy.vision is None, "a reward may not share features that change"
    assert frozen.vision is not None
    clips = tiny.clips(2, (3, 1))
    inputs, (tokens, caption_mask) = policy.encode(clips), policy.tokenised(CAPTIONS)
    assert "features" not in inputs.tensors
    made = policy.logprobs(inputs, tokens, caption_mask)
    torch.testing.assert_close(made, frozen.logprobs(frozen.encode(clips), tokens, caption_mask))
    torch.testing.assert_close(policy.features(inputs), frozen.features(frozen.encode(clips)))
    made.sum().backward()
    moved = {n for n, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n for n in moved if n.startswith("vision_model")} == {
        n for n, _ in policy.model.named_parameters() if n.startswith(part + ".")
    }
    layer = policy.model.vision_model.encoder.layers[2].mlp.fc2.weight
    with torch.no_grad():
        layer.add_(0.1 * torch.randn(layer.shape, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(policy.logprobs(inputs, tokens, caption_mask), made)


def test_a_vit_trained_in_part_is_whole_in_float32(folder: str) -> None:
    policy = load(folder, "vision_model.post_layernorm", dtype=torch.bfloat16)
    assert {p.dtype for p in policy.model.vision_model.parameters()} == {torch.float32}
    assert policy.language_model.dtype == torch.bfloat16
    policy.logprobs(*asked(policy)).sum().backward()


def test_dropout_is_active_only_where_gradient_is_computed(folder: str) -> None:
    """The published SCST code searched with dropout on; here neither search nor scoring has it."""
    policy = load(folder, "lora(q,v)", lora_dropout=0.5)
    plain = load(folder, "lora(q,v)")
    with torch.no_grad():
        for name, p in policy.trained().items():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
            plain.trained()[name].copy_(p)
    inputs, tokens, caption_mask = asked(policy)
    for decoding in (Decoding(max_new_tokens=10), Decoding(do_sample=False, num_beams=3, max_new_tokens=10)):
        made = [
            each.generate(inputs, decoding, generator=torch.Generator().manual_seed(0))
            for each in (policy, policy, plain)
        ]
        assert all(torch.equal(made[0].tokens, other.tokens) for other in made[1:])
        assert all(torch.equal(made[0].logprobs, other.logprobs) for other in made[1:])
    torch.manual_seed(0)
    dropped = [policy.logprobs(inputs, tokens, caption_mask) for _ in range(2)]
    assert not torch.equal(dropped[0], dropped[1])
    with torch.no_grad():
        scored = policy.logprobs(inputs, tokens, caption_mask)
        assert torch.equal(scored, plain.logprobs(inputs, tokens, caption_mask))
    assert torch.equal(
        plain.logprobs(inputs, tokens, caption_mask), plain.logprobs(inputs, tokens, caption_mask)
    )
    assert not any(module.training for module in policy.modules() if module is not policy)


def test_the_table_counts_what_trains(folder: str) -> None:
    policy = load(folder, "query_tokens", "lora(q,v)")
    console = Console(width=100, file=io.StringIO())
    console.print(trained_table(policy))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lora = sum(p.numel() for name, p in policy.trained().items() if is_adapter(name))
    total = sum(p.numel() for p in policy.model.parameters())
    assert f"{policy.model.query_tokens.numel() + lora:,}" in text
    assert f"{total:,}" in text
    assert "language_model (LoRA)" in text


def test_adapters_and_a_vit_are_not_written_in_the_published_form(
    folder: str, tmp_path: Path, monkeypatch
) -> None:
    for train in ("lora(q,v)", "vision_model.post_layernorm"):
        policy = load(folder, "qformer", train)
        monkeypatch.setattr(export, "load_run", lambda *_, policy=policy, **__: policy)
        with pytest.raises(UserError, match="--partial: the published form holds query_tokens, qformer"):
            export.export(tmp_path, partial=tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("build", [tiny.blip2_t5, tiny.instructblip])
def test_fresh_parts_start_from_random_weights(build, tmp_path: Path) -> None:
    path = str(build(tmp_path / "captioner"))
    parts = ("query_tokens", "qformer", "language_projection.weight")
    loaded = captioners.load(path, device="cpu")
    before = torch.random.get_rng_state()
    family = type(loaded.settings)
    fresh, again = (
        family(path=path, fresh=parts).load(device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[call-arg]
        for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, parameter in fresh.model.state_dict().items():
        old = loaded.model.state_dict()[name]
        assert torch.equal(parameter, again.model.state_dict()[name]), "the same in every run"
        if not name.startswith(parts):
            assert torch.equal(parameter, old), name
        elif parameter.dim() > 1:  # the padding's embedding stays zero
            assert not torch.equal(parameter, old), name
            assert parameter[parameter != 0].std() == pytest.approx(0.02, rel=0.1)
    queries = fresh.model.query_tokens[0]
    assert len(queries.unique(dim=0)) == len(queries), "no two queries alike"
    with pytest.raises(UserError, match=r"captioner.fresh: 'qfromer' names no"):
        family(path=path, fresh=("qfromer",)).load(device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[call-arg]


def test_a_sample_without_a_picture_is_named(folder: str) -> None:
    policy = captioners.load(folder, device="cpu")
    empty = SimpleNamespace(id="video7", media=())
    with pytest.raises(UserError, match="video7: this sample has no picture"):
        policy.encode([*tiny.samples(1), empty])  # type: ignore[list-item]
