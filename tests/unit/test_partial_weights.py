"""The published form of weights: the trained part only, every key counted, a partial match refused."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

import tiny
from limner import captioners
from limner.captioners.files import load_partial
from limner.devices import torch_device
from limner.errors import UserError

PARTS = ("query_tokens", "qformer", "language_projection")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("captioner"), seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The trained part of another captioner, fp16 as published."""
    policy = captioners.load(
        str(tiny.blip2(tmp_path_factory.mktemp("other"), seed=1)), train=PARTS, device="cpu"
    )
    return {name: p.detach().half().contiguous() for name, p in policy.trained().items()}


@pytest.mark.parametrize("wrapper", ["", "model.", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_loaded_over_the_checkpoint(
    folder: Path, other, tmp_path: Path, wrapper: str, suffix: str
) -> None:
    file = tmp_path / f"vlrm{suffix}"
    state = {wrapper + name: tensor for name, tensor in other.items()}
    torch.save(state, file) if suffix == ".pt" else save_file(state, file)
    from limner.captioners.blip2 import Captioner

    policy = Captioner(path=str(folder), weights=str(file)).load(
        device=torch_device("cpu"), dtype=torch.float32
    )
    assert set(policy.trained()) == set(other)
    assert all(torch.equal(p, other[name].float()) for name, p in policy.trained().items())
    assert load_partial(policy.model, file, parts=PARTS) == len(other)


def broken(other: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(other)
    name = next(iter(state))
    if how == "missing":
        del state[name]
    elif how == "unknown":
        state["blip.qformer.x"] = state[name].clone()
    elif how == "of another shape":
        state[name] = state[name][..., :1].clone()
    else:
        state = {"blip." + key: tensor for key, tensor in state.items()}
    return state


@pytest.mark.parametrize("how", ["missing", "unknown", "of another shape", "moved"])
def test_a_partial_match_is_refused_with_counts(folder: Path, other, tmp_path: Path, how: str) -> None:
    file = tmp_path / "vlrm.safetensors"
    save_file(broken(other, how), file)
    model = captioners.load(str(folder), device="cpu").model
    before = {name: p.clone() for name, p in model.named_parameters()}
    count = 0 if how == "moved" else len(other) - (how != "unknown")
    with pytest.raises(UserError, match=rf"{count} of {len(other)} keys match") as error:
        load_partial(model, file, parts=PARTS)
    assert how == "moved" or how in str(error.value)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "nothing is loaded"


def test_a_file_with_code_in_it_is_refused(folder: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    file = tmp_path / "vlrm.pt"
    torch.save({"query_tokens": Harm()}, file)
    with pytest.raises(UserError, match="more than tensors"):
        load_partial(captioners.load(str(folder), device="cpu").model, file, parts=PARTS)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_file_is_a_clear_error(folder: Path, tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"vlrm{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match="vlrm"):
        load_partial(captioners.load(str(folder), device="cpu").model, file, parts=PARTS)
    with pytest.raises(UserError, match="no such file"):
        load_partial(captioners.load(str(folder), device="cpu").model, tmp_path / "none.pt", parts=PARTS)


def test_what_cannot_be_trained_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="frozen"):
        captioners.load(str(folder), train=["language_model"], device="cpu")
    with pytest.raises(UserError, match=r"captioner.train: 'qfromer' names no parameter.*qformer"):
        captioners.load(str(folder), train=["qfromer"], device="cpu")


def test_what_is_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json"):
        captioners.load(str(tmp_path), device="cpu")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        captioners.load(str(tmp_path / "nowhere"), device="cpu")


def test_a_folder_that_is_missing_among_others_is_named_as_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"runs/best: .*there is no such folder, and on the hub: "):
        captioners.load("runs/best", device="cpu")
    with pytest.raises(UserError, match=r"cannot load this checkpoint: (?!there is no such folder)"):
        captioners.load("other/best", device="cpu")
