"""`limner assemble`: every tensor of the result is that of its source, and plain transformers loads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2ForCausalLM,
)

import tiny_qwen
from limner import assemble as parts
from limner import assemble_config as configs
from limner import assemble_tensors, cli
from limner.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("assemble")


@pytest.fixture(scope="module")
def vision(folder: Path) -> Path:
    return tiny_qwen.flattened(tiny_qwen.qwen25_vl(folder / "vision"))


@pytest.fixture(scope="module")
def language(folder: Path) -> Path:
    return tiny_qwen.qwen25(folder / "language")


@pytest.fixture(scope="module")
def made(folder: Path, vision: Path, language: Path) -> Path:
    parts.assemble(vision, language, folder / "made")
    return folder / "made"


def load(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The checkpoint as plain transformers loads it, where not one key is missing or too many."""
    model, about = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(about.values()), about
    return model


def same(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


def assert_parts_of(made: Path, vision: Path, language: Path) -> Qwen2_5_VLForConditionalGeneration:
    """Tower of the one, language model of the other, by what transformers loads of all three."""
    model, seen = load(made), load(vision)
    said = Qwen2ForCausalLM.from_pretrained(language)
    tower, source = model.model.visual.state_dict(), seen.model.visual.state_dict()
    merger = {key for key in tower if key.startswith("merger.")}
    assert len(merger) == 5
    assert same({k: tower[k] for k in tower.keys() - merger}, {k: source[k] for k in source.keys() - merger})
    assert same(model.model.language_model.state_dict(), said.model.state_dict())
    assert torch.equal(model.lm_head.weight, said.lm_head.weight)
    for key in merger - {"merger.ln_q.weight"}:
        assert tower[key].shape != source[key].shape or not torch.equal(tower[key], source[key])
    assert torch.equal(tower["merger.ln_q.weight"], torch.ones_like(tower["merger.ln_q.weight"]))
    return model


def test_every_part_is_of_its_source_as_plain_transformers_loads_it(made, vision, language):
    model = assert_parts_of(made, vision, language)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert model.config.text_config.rope_parameters["mrope_section"] == tiny_qwen.MROPE
    assert model.config.text_config.rope_parameters["rope_theta"] == 5e5, "the language weights know this one"
    assert model.config.image_token_id == load(vision).config.image_token_id


def test_the_layout_is_that_of_the_published_checkpoints(made, vision):
    names = set(load_file(made / "model.safetensors"))
    assert names == set(load_file(vision / "model.safetensors"))
    assert "visual.merger.mlp.2.weight" in names
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert "lm_head.weight" not in names
    config = json.loads((made / "config.json").read_text())
    assert "text_config" not in config, "vLLM and LLaMA-Factory read the flat form"
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": tiny_qwen.MROPE}


def test_tokenizer_template_and_image_processor_are_those_of_the_vision_language_model(made, vision):
    here, there = AutoTokenizer.from_pretrained(made), AutoTokenizer.from_pretrained(vision)
    assert here.get_vocab() == there.get_vocab()
    assert here.chat_template == there.chat_template == tiny_qwen.CHAT
    size = AutoImageProcessor.from_pretrained(made, backend="pil").size
    assert size == AutoImageProcessor.from_pretrained(vision, backend="pil").size


def test_origins_name_source_and_checksum_of_every_tensor(made, vision, language):
    origins = json.loads((made / parts.ORIGINS).read_text())
    state = load_file(made / "model.safetensors")
    sources = {
        "vision": load_file(vision / "model.safetensors"),
        "language": load_file(language / "model.safetensors"),
    }
    assert (origins["vision"], origins["language"], origins["seed"]) == (str(vision), str(language), 0)
    assert origins["tensors"].keys() == state.keys()
    for name, row in origins["tensors"].items():
        merger, visual = name.startswith("visual.merger."), name.startswith("visual.")
        assert row["origin"] == ("random" if merger else "vision" if visual else "language")
        assert row["shape"] == list(state[name].shape)
        if not merger:
            assert torch.equal(state[name], sources[row["origin"]][row["name"]])
    assert len({row["sha256"] for row in origins["tensors"].values()}) > 30


def test_the_merger_is_as_its_class_draws_it_and_of_the_seed(folder, vision, language, made):
    assert parts.check(vision, language, made)
    parts.assemble(vision, language, folder / "seed1", seed=1)
    one, zero = (load_file(each / "model.safetensors") for each in (folder / "seed1", made))
    differing = {name for name in zero if not torch.equal(zero[name], one[name])}
    linear = {f"visual.merger.mlp.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}
    assert differing == linear
    bound = (
        4 * 32
    ) ** -0.5  # torch's own start of a linear layer of 4 merged patches: uniform in 1/sqrt(fan in)
    drawn = zero["visual.merger.mlp.0.weight"]
    assert drawn.abs().max() <= bound
    assert drawn.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)  # 16,384 draws: 0.4% is one sigma


PUBLISHED_TEXT = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""Sizes of Qwen2.5-3B, and of the language model in Qwen2.5-VL-3B."""


def test_a_model_of_3b_sizes():
    """Without weights: names and shapes that a config of these sizes gives."""
    tower = {"hidden_size": 1280, "out_hidden_size": 2048, "in_chans": 3, "spatial_patch_size": 14}
    rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    seen = PUBLISHED_TEXT | {"model_type": "qwen2_5_vl", "vision_config": tower, "rope_scaling": rope}
    given = {"max_position_embeddings": 128000, "max_window_layers": 70}
    config = configs.combine(seen | given, PUBLISHED_TEXT | {"max_window_layers": 36}, "bfloat16")
    shapes = parts._expected(config)
    # 36 layers of 12 tensors, embeddings and a norm; 32 blocks of 12 tensors, patch embedding, merger of 5
    assert len(shapes) == 36 * 12 + 2 + 32 * 12 + 1 + 5
    # 3.75 billion parameters, as the recipes count them for the memory they need
    assert round(sum(torch.Size(shape).numel() for shape in shapes.values()) / 1e9, 2) == 3.75
    assert shapes["visual.merger.mlp.0.weight"] == (5120, 5120), "four patches of 1280"
    assert shapes["visual.merger.mlp.2.weight"] == (2048, 5120)
    assert (config["max_position_embeddings"], config["max_window_layers"]) == (32768, 36), "the language's"
    assert config["rope_scaling"] == rope


def test_other_sizes_untied_shards_and_newer_names(tmp_path):
    """A smaller tower's output for a wider language model, an output layer of its own, both in shards."""
    vision = tiny_qwen.qwen25_vl(tmp_path / "v", hidden=64, max_shard_size="100KB", dtype=torch.bfloat16)
    language = tiny_qwen.qwen25(
        tmp_path / "l", hidden=96, tied=False, max_shard_size="100KB", dtype=torch.bfloat16
    )
    as_in_memory(vision)
    parts.assemble(vision, language, tmp_path / "made")
    model = assert_parts_of(tmp_path / "made", vision, language)
    assert model.dtype == torch.bfloat16
    assert not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)
    assert model.config.vision_config.out_hidden_size == model.config.text_config.hidden_size == 96
    assert "text_config" in json.loads((tmp_path / "made" / "config.json").read_text()), "its form is kept"
    assert (vision / assemble_tensors.INDEX).is_file()
    assert (language / assemble_tensors.INDEX).is_file()


def as_in_memory(folder: Path) -> None:
    """Rename tensors as transformers 4.52 saved them: model.visual, model.language_model."""
    file = folder / assemble_tensors.INDEX
    index = json.loads(file.read_text())

    def renamed(name: str) -> str:
        return (
            f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.")
        )

    for shard in set(index["weight_map"].values()):
        save_file(
            {renamed(k): v for k, v in load_file(folder / shard).items()}, folder / shard, {"format": "pt"}
        )
    index["weight_map"] = {renamed(name): shard for name, shard in index["weight_map"].items()}
    file.write_text(json.dumps(index))


def test_a_checkpoint_above_the_limit_is_written_in_shards(tmp_path, vision, language):
    made = parts.plan(vision, language)
    tmp_path.joinpath("config.json").write_text(json.dumps(made.config))
    pieces = {name: each.piece for name, each in made.origins.items()}
    assemble_tensors.write(tmp_path, pieces, shard_bytes=100_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_parts_of(tmp_path, vision, language)


def test_the_command_prints_every_tensor_and_checks(monkeypatch, capsys, tmp_path, vision, language):
    words = ["assemble", "--vision", str(vision), "--language", str(language), "-o", str(tmp_path / "out")]

    def said(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["limner", *words, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (not err) == (not stop.value.code), err
        return out + err

    out = said()
    assert "visual.blocks.{0-1}.attn.qkv.weight" in out
    assert "model.layers.{0-1}.mlp.up_proj.weight" in out
    assert "random: 5 tensors" in out
    assert "every tensor is that of its source" in said("--check")
    assert "give a new folder" in said()
    state = load_file(tmp_path / "out" / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(state, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    wrong = said("--check")
    assert (
        "1 of 56 tensors are not those of their source: model.layers.1.mlp.up_proj.weight (language)" in wrong
    )


def edited(folder: Path, source: Path, **change: object) -> Path:
    """A copy of a checkpoint with another config.json."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refused(vision: Path, language: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError) as error:
        parts.assemble(vision, language, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_checkpoints_of_other_kinds(tmp_path, vision, language):
    assert "'qwen2', not 'qwen2_5_vl'" in refused(language, language, tmp_path)
    assert "text-only Qwen2.5 checkpoint" in refused(vision, vision, tmp_path)
    assert "no such folder" in refused(tmp_path / "nowhere", language, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty", language, tmp_path)


def test_sizes_that_do_not_fit(tmp_path, vision, language):
    heads = edited(tmp_path / "heads", language, num_attention_heads=2)
    assert "heads of 16; --language has heads of 32" in refused(vision, heads, tmp_path)
    wide = edited(tmp_path / "wide", language, intermediate_size=128)
    assert "model.layers.0.mlp.gate_proj.weight is of size [96, 64]" in refused(vision, wide, tmp_path)
    odd = edited(tmp_path / "odd", language, num_hidden_layers=3)
    assert "must be equal to the number of `layer_types`" in refused(vision, odd, tmp_path)
    layers = ["full_attention"] * 3
    deep = edited(tmp_path / "deep", language, num_hidden_layers=3, layer_types=layers)
    assert "model.layers.2.self_attn.q_proj.weight is missing" in refused(vision, deep, tmp_path)
    flat = edited(tmp_path / "flat", language, num_hidden_layers=1, layer_types=layers[:1])
    assert "tensors have no place in the model: model.layers.1." in refused(vision, flat, tmp_path)
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}
    long = edited(tmp_path / "long", language, rope_parameters=scaled)
    assert "its positions are scaled (linear)" in refused(vision, long, tmp_path)


def test_tokenizers_that_do_not_fit(tmp_path, vision, language):
    few = tiny_qwen.qwen25(tmp_path / "few", rows=len(tiny_qwen.tokenizer()) - 1)
    assert "its embedding has 337 rows, and the tokenizer of --vision needs 338" in refused(
        vision, few, tmp_path
    )
    file = edited(tmp_path / "swapped", language) / "tokenizer.json"
    file.write_text(
        file.read_text()
        .replace("<|image_pad|>", "<|other|>")
        .replace("<|video_pad|>", "<|image_pad|>")
        .replace("<|other|>", "<|video_pad|>")
    )
    assert "reads 2 tokens by other ids" in refused(vision, file.parent, tmp_path)
    silent = edited(tmp_path / "silent", vision)
    (silent / "chat_template.jinja").unlink()
    assert "no chat template" in refused(silent, language, tmp_path)
    (silent / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(silent, language, tmp_path)


def test_new_tokens_are_counted(tmp_path, vision, language):
    file = edited(tmp_path / "older", language) / "tokenizer.json"
    words = json.loads(file.read_text())
    words["added_tokens"] = [each for each in words["added_tokens"] if each["content"] != "<|video_pad|>"]
    words["model"]["vocab"].pop("<|video_pad|>", None)
    file.write_text(json.dumps(words))
    settings = json.loads((file.parent / "tokenizer_config.json").read_text())
    settings.get("added_tokens_decoder", {}).clear()
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if key in settings:
            settings[key] = [each for each in settings[key] if each != "<|video_pad|>"]
    (file.parent / "tokenizer_config.json").write_text(json.dumps(settings))
    assert parts.plan(vision, file.parent).untrained == 1


def test_files_that_are_missing_or_damaged(tmp_path, vision, language):
    lost = edited(tmp_path / "lost", language)
    weights = lost / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    assert "is cut short" in refused(vision, lost, tmp_path)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "only a pointer" in refused(vision, lost, tmp_path)
    weights.write_bytes((9).to_bytes(8, "little") + b"not JSON!")
    assert "is damaged" in refused(vision, lost, tmp_path)
    weights.unlink()
    assert "there is no model.safetensors" in refused(vision, lost, tmp_path)
    (lost / assemble_tensors.INDEX).write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert "model-1.safetensors: is missing" in refused(vision, lost, tmp_path)
    blind = edited(tmp_path / "blind", vision)
    (blind / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in refused(blind, language, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty"):
        parts.assemble(vision, language, tmp_path / "full")


def test_places_that_cannot_be_written_or_compared(tmp_path, vision, language, made):
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in refused(vision, language, tmp_path / "file" / "made")
    with pytest.raises(UserError, match="without --check it is written"):
        parts.check(vision, language, tmp_path / "nothing")
    with pytest.raises(UserError, match="is the merger of another --seed than 1"):
        parts.check(vision, language, made, seed=1)
