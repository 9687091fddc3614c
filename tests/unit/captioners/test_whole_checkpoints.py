"""A checkpoint without all weights of its class is refused, whatever transformers would draw for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
import tiny_vl
from limner import captioners
from limner.captioners.blip2 import Captioner
from limner.errors import UserError


def without(folder: Path, part: str) -> Path:
    """The checkpoint without some weights."""
    file = folder / "model.safetensors"
    state = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(part)}
    save_file(state, file, metadata={"format": "pt"})
    return folder


def test_a_model_that_is_no_captioner_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        captioners.load("world:itm", device="cpu")
    said = str(caught.value)
    assert "weights of a Blip2ForConditionalGeneration are not in this checkpoint (language_model." in said
    assert "whose config.json says Blip2ForImageTextRetrieval; give a whole checkpoint of a captioner" in said


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (tiny.blip2_t5, "language_projection.bias"),
        (tiny.instructblip, "language_model.model.layers.0.mlp"),
        (tiny_vl.qwen2_5_vl, "model.visual.merger"),
        (tiny_vl.llava, "lm_head"),
    ],
)
def test_weights_that_are_missing_are_named(build, part: str, tmp_path: Path) -> None:
    folder = str(build(tmp_path))
    captioners.load(folder, device="cpu")
    state = load_file(tmp_path / "model.safetensors")
    names = [name for name in state if part in name or part.removeprefix("model.") in name]
    assert names
    for name in names:
        without(tmp_path, name)
    with pytest.raises(UserError, match=rf" {len(names)} of \d+ weights of a .* are not in this checkpoint"):
        captioners.load(folder, device="cpu")


def test_weights_of_another_size_are_named(tmp_path: Path) -> None:
    folder = tiny.blip2(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["num_query_tokens"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r" 1 of \d+ weights .* of another size .*\(query_tokens, "):
        captioners.load(str(folder), device="cpu")


def test_what_is_replaced_may_be_missing(tmp_path: Path) -> None:
    folder = str(without(tiny.blip2(tmp_path), "language_projection"))
    settings = Captioner(path=folder, fresh=("language_projection",))
    settings.load(device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(UserError, match="language_projection"):
        Captioner(path=folder, fresh=("qformer",)).load(device=torch.device("cpu"), dtype=torch.float32)
