"""What a policy is written as, for every family: plain transformers and PEFT compute with it alike."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from safetensors.torch import load_file
from transformers import AutoProcessor

import tiny
import tiny_vl
import whole_forward
from captioner_variants import BUILDS, Q_FORMER
from limner import captioners, export, export_adapters
from limner.captioners.base import Policy, is_adapter
from limner.captioners.instructblip import InstructBlipPolicy
from limner.captioners.prefixed import PrefixedPolicy
from limner.decoding import Decoding
from limner.errors import UserError
from limner.model_card import usage
from limner.model_card.usage import Exported
from limner.types import Sample

PROMPT = "a red"
SHORT = Decoding(do_sample=False, num_beams=2, min_new_tokens=2, max_new_tokens=6)
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-4}  # (W + BA)x for Wx + B(Ax), in float32
BOTH = {tiny.blip2, tiny_vl.qwen2_5_vl, tiny_vl.llava}
Build = Callable[[Path], Path]
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # PEFT asks for it


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Build, str]:
    return {build: str(build(tmp_path_factory.mktemp(build.__name__) / "base")) for build in BUILDS}


def trained(path: str, *train: str, **settings: Any) -> Policy:
    """A policy whose trained parts, adapters too, are as after some steps."""
    family = captioners.family_of(path)
    policy = family(path=path, train=train, prompt=PROMPT, **settings).load(
        device=torch.device("cpu"), dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.trained().items():
            scale = 0.3 if is_adapter(name) else 0.01
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return policy


@torch.no_grad()
def ours(policy: Policy, samples: list[Sample], tokens: torch.Tensor) -> torch.Tensor:
    return policy.logprobs(policy.encode(samples), tokens, torch.ones_like(tokens, dtype=torch.bool))


@torch.no_grad()
def theirs(policy: Policy, plain: Any, samples: list[Sample], tokens: torch.Tensor) -> torch.Tensor:
    """By the whole forward of a model of transformers, which may be wrapped by PEFT."""
    if isinstance(policy, PrefixedPolicy):
        return torch.stack([
            _behind_chat(policy, plain, *one) for one in zip(samples, tokens, strict=True)
        ])  # fmt: skip
    further = {}
    if isinstance(policy, InstructBlipPolicy):
        further["qformer_input_ids"] = policy.instruction(PROMPT, len(samples))["instruction"]
    logits = whole_forward.logits(policy, plain, samples, tokens, PROMPT, **further)
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def _behind_chat(policy: PrefixedPolicy, plain: Any, sample: Sample, caption: torch.Tensor) -> torch.Tensor:
    read = policy.chat.row(sample.media, PROMPT)
    marks = {name: torch.cat([mark, torch.zeros_like(caption)])[None] for name, mark in read.marks.items()}
    takes = inspect.signature(policy.model.base_model.forward).parameters
    given = {name: tensor for name, tensor in (marks | dict(read.pixels)).items() if name in takes}
    logits = plain(input_ids=torch.cat([read.ids, caption])[None], **given).logits
    logprobs = logits[0, len(read.ids) - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, caption[:, None])[:, 0]


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_merged_and_adapters_compute_as_the_policy_does(build: Build, bases, tmp_path: Path) -> None:
    """LoRA alone; for some families then LoRA beside parts that are trained whole, too."""
    parts = BUILDS[build][1]
    samples, tokens = tiny.samples(2), torch.randint(5, 30, (2, 5))
    whole = [part for part in parts if part != "query_tokens" and "*" not in part]
    both = [(["lora(q,v)", *whole], "both")] * (build in BOTH)
    for train, folder in [(["lora(q,v)"], "lora"), *both]:
        policy = trained(bases[build], *train)
        expected = ours(policy, samples, tokens)
        plain = type(policy.model)
        assert not torch.allclose(
            theirs(policy, plain.from_pretrained(bases[build]), samples, tokens), expected
        )
        export.save_merged(policy, tmp_path / folder / "merged")
        model, found = plain.from_pretrained(tmp_path / folder / "merged", output_loading_info=True)
        assert not any(found.values()), "every weight and no other"
        torch.testing.assert_close(theirs(policy, model, samples, tokens), expected, **CLOSE)
        export_adapters.save(policy, tmp_path / folder / "peft", base=bases[build], alone=False)
        model = PeftModel.from_pretrained(
            plain.from_pretrained(bases[build]), tmp_path / folder / "peft"
        ).eval()
        torch.testing.assert_close(theirs(policy, model, samples, tokens), expected, **CLOSE)
        written = json.loads((tmp_path / folder / "peft" / "adapter_config.json").read_text())
        assert isinstance(written["target_modules"], str), "a pattern, not a list of layers"
        assert written["modules_to_save"] == (None if folder == "lora" else whole)


def test_adapters_name_their_base_model(bases, tmp_path: Path) -> None:
    policy = trained(bases[tiny.blip2], "lora(q,v)")
    export_adapters.save(policy, tmp_path, base=bases[tiny.blip2], alone=False, dtype=torch.bfloat16)
    model = AutoPeftModel.from_pretrained(tmp_path).eval()
    assert type(model.get_base_model()) is type(policy.model)
    state = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert all(name.startswith("base_model.model.language_model.") for name in state)


def test_what_adapters_cannot_hold_is_refused(bases, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained no LoRA"):
        export_adapters.check(trained(bases[tiny.blip2], "qformer"), alone=False)
    lone = trained(bases[tiny.blip2], "query_tokens", "lora(q,v)")
    with pytest.raises(UserError, match=r"query_tokens, which stands in no module.*--partial FILE too"):
        export_adapters.check(lone, alone=False)
    assert export_adapters.check(lone, alone=True) == []
    under = trained(
        bases[tiny_vl.llava], "model.language_model.layers.0.self_attn.q_proj.weight", "lora(q,v)"
    )
    with pytest.raises(UserError, match=r"changed model.language_model.*write everything with -o FOLDER$"):
        export_adapters.check(under, alone=False)
    weight = trained(bases[tiny.blip2], "language_projection.weight", "lora(q,v)")
    assert export_adapters.check(weight, alone=False) == ["language_projection"]


def test_parts_that_were_not_the_base_s_at_the_start_are_not_left_out(bases, tmp_path: Path) -> None:
    fresh = trained(bases[tiny.blip2], "lora(q,v)", fresh=("language_projection",))
    assert export_adapters.check(fresh, alone=False) == ["language_projection"]
    export._save_partial(trained(bases[tiny.blip2], *Q_FORMER), tmp_path / "x.pt", ".pt")
    loaded = trained(bases[tiny.blip2], "lora(q,v)", weights=str(tmp_path / "x.pt"))
    with pytest.raises(UserError, match="changed query_tokens"):
        export_adapters.check(loaded, alone=False)


@pytest.mark.parametrize("build", [tiny.blip2, tiny_vl.qwen2_5_vl], ids=lambda build: build.__name__)
def test_a_number_format_for_all_weights(build: Build, bases, tmp_path: Path) -> None:
    policy = trained(bases[build], "lora(q,v)", *BUILDS[build][1][-1:])
    export.save_merged(policy, tmp_path / "out", dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    model = type(policy.model).from_pretrained(tmp_path / "out")  # as the config says
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    export.save_merged(policy, tmp_path / "same")
    for name, tensor in type(policy.model).from_pretrained(tmp_path / "same").state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(torch.bfloat16)), name


def test_settings_of_the_base_s_processor_come_along(tmp_path: Path) -> None:
    base = tiny.blip2(tmp_path / "base")
    said = {"num_query_tokens": 8, "processor_class": "Blip2Processor", "image_processor": {"size": 1}}
    (base / "processor_config.json").write_text(json.dumps(said))
    export.save_merged(trained(str(base), "qformer", image_size=24), tmp_path / "out")
    assert AutoProcessor.from_pretrained(tmp_path / "out", backend="pil").num_query_tokens == 8
    kept = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert kept.keys() == {"num_query_tokens", "processor_class"}, "the image processor has its own file"


def without_template(where: Path) -> Path:
    """A LLaVA that reads a picture and a text, no chat."""
    tiny_vl.llava(where)
    (where / "chat_template.jinja").unlink()
    return where


@pytest.mark.parametrize(
    ("build", "adapters"),
    [
        *[(tiny.blip2, True), (tiny.blip2_t5, False), (tiny.instructblip, False), (tiny.instructblip, True)],
        *[(tiny_vl.llava, False), (tiny_vl.llava, True), (without_template, True)],
    ],
)
def test_the_card_s_code_writes_the_policy_s_captions(
    build: Build, adapters: bool, bases, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Those of the other families need torchvision, which their processors load for videos."""
    base = bases.get(build) or str(build(tmp_path / "base"))
    size = {} if build in (tiny_vl.llava, without_template) else {"image_size": 32}
    policy = trained(base, "lora(q,v)", **size)
    sample = tiny.samples(1)[0]
    sample.image.save(tmp_path / "photo.jpg", quality=100)
    monkeypatch.chdir(tmp_path)
    if adapters:
        export_adapters.save(policy, Path("made"), base="base", alone=False)
        if build in bases:
            Path("base").symlink_to(base)
    else:
        export.save_merged(policy, Path("made"))
    text = usage.code(policy, Exported("made", adapters=adapters), SHORT).replace(
        json.dumps(Path(base).name), '"base"'
    )
    capsys.readouterr()
    exec(text, {})
    from PIL import Image

    shown = Sample("photo", (Image.open("photo.jpg").convert("RGB"),))
    assert capsys.readouterr().out == policy.caption([shown], SHORT)[0] + "\n"
    assert len(policy.caption([shown], SHORT)[0]) > 3


def test_the_card_s_code_needs_nothing_of_limner(bases, tmp_path: Path) -> None:
    policy = trained(bases[tiny.blip2], "lora(q,v)")
    text = usage.code(policy, Exported("made", adapters=True), SHORT)
    assert "limner" not in text
    subprocess.run([sys.executable, "-c", f"import ast; ast.parse({text!r})"], check=True)
