"""Captions as training data for LLaMA-Factory."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from limner import paths
from limner.cli_data import export
from limner.data_export import INFO, PROMPT, Form, llamafactory
from limner.errors import UserError


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(folder / name)
    return folder


def captions(path: Path, *rows: object) -> Path:
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(name: str, caption: str = "a red wall") -> dict[str, str]:
    return {"id": name, "caption": caption, "image": f"{name}.png"}


def test_rows_and_what_names_them(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png")
    file = captions(tmp_path / "captions.jsonl", row("a"), {"image": "b.png", "caption": "caf\u00e9 "})
    report = llamafactory(file, tmp_path / "out", name="mine")
    assert str(report) == "2 rows written"
    first, second = rows_of(tmp_path / "out/mine.jsonl")
    assert first == {
        "id": "a",
        "messages": [
            {"role": "user", "content": f"<image>{PROMPT}"},
            {"role": "assistant", "content": "a red wall"},
        ],
        "images": [str(tmp_path / "a.png")],
    }
    assert second["id"] == "b.png"
    assert json.loads((tmp_path / "out" / INFO).read_text()) == {
        "mine": {
            "file_name": "mine.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"
            },
        }
    }  # fmt: skip
    assert not (tmp_path / "out/rejects.jsonl").exists()


def test_it_loads_as_llama_factory_loads_it(tmp_path: Path) -> None:
    """LLaMA-Factory reads the file with datasets' JSON reader and joins paths to its folder."""
    photos(tmp_path, *(f"{i}.png" for i in range(5)))
    file = captions(tmp_path / "captions.jsonl", *(row(str(i), f"wall {i}") for i in range(5)))
    llamafactory(file, tmp_path / "out", form=Form(relative=True, prompt="What is it?"))
    name = json.loads((tmp_path / "out" / INFO).read_text())["captions"]["file_name"]
    found = datasets.load_dataset(
        "json", data_files=str(tmp_path / "out" / name), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["messages"][3][0] == {"role": "user", "content": "<image>What is it?"}
    assert found["messages"][3][1]["content"] == "wall 3"
    assert all((tmp_path / "out" / images[0]).is_file() for images in found["images"])
    assert all(not images[0].startswith("/") for images in found["images"])


def test_bad_rows_are_counted_with_their_reason(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    file = captions(
        tmp_path / "captions.jsonl",
        *(row("a"), row("a"), "{torn", "[]", row("torn"), row("gone"), {"id": "c", "image": "a.png"}),
        *(
            {"caption": "x"},
            {"id": "d", "caption": "x"},
            {"id": "e", "image": "a.png", "caption": "an <image>"},
        ),
        {"id": "f", "image": "a.png", "caption": " "},
    )
    report = llamafactory(file, tmp_path / "out")
    assert report.written == 1
    assert sum(report.rejects.values()) == 9  # the second `a` is known by its id, which has a row
    reasons = {str(each["id"]): str(each["reason"]) for each in rows_of(tmp_path / "out/rejects.jsonl")}
    assert reasons["captions.jsonl:3"] == "no valid JSON"
    assert reasons["captions.jsonl:4"] == "no JSON object"
    assert "cannot be decoded" in reasons["torn"]
    assert reasons["gone"] == "the image file is missing"
    assert reasons["c"] == reasons["f"] == "no caption"
    assert reasons["captions.jsonl:8"] == "neither an id nor an image"
    assert "--data" in reasons["d"]
    assert "<image>" in reasons["e"]


def test_a_stopped_export_goes_on_and_mended_rows_are_taken(tmp_path: Path) -> None:
    photos(tmp_path, *(f"{i}.png" for i in range(4)))
    file = captions(tmp_path / "captions.jsonl", *(row(str(i)) for i in range(5)))
    whole = llamafactory(file, tmp_path / "whole")
    assert (whole.written, dict(whole.rejects)) == (4, {"the image file is missing": 1})
    out = tmp_path / "out"
    llamafactory(file, out)
    lines = (out / "captions.jsonl").read_bytes()
    (out / "captions.jsonl").write_bytes(lines[: len(lines) // 2])  # killed in the middle of a line
    (out / INFO).unlink()
    photos(tmp_path, "4.png")
    report = llamafactory(file, out)
    assert report.written + report.skipped_existing == 5
    assert not report.rejects
    assert [each["id"] for each in rows_of(out / "captions.jsonl")] == list("01234")
    assert (out / INFO).is_file()


def test_an_output_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    file = captions(tmp_path / "captions.jsonl", row("a"))
    out = tmp_path / "out"
    llamafactory(file, out)
    before = (out / "captions.jsonl").read_bytes()
    with pytest.raises(UserError, match="another prompt or caption for 'a'"):
        llamafactory(file, out, form=Form(prompt="Why?"))
    with pytest.raises(UserError, match="another prompt or caption for 'a'"):
        llamafactory(captions(tmp_path / "other.jsonl", row("a", "a dog")), out)
    assert (out / "captions.jsonl").read_bytes() == before
    llamafactory(captions(tmp_path / "other.jsonl", row("a", "a dog")), out, name="other")
    assert list(json.loads((out / INFO).read_text())) == ["captions", "other"]
    (out / INFO).write_text("{")
    with pytest.raises(UserError, match="mend it"):
        llamafactory(file, out)


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    file = captions(tmp_path / "captions.jsonl", row("gone"))
    with pytest.raises(UserError, match="not one row can be used"):
        llamafactory(file, tmp_path / "out")
    assert not (tmp_path / "out" / INFO).exists()
    with pytest.raises(UserError, match="cannot be read"):
        llamafactory(tmp_path / "none.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="--name"):
        llamafactory(file, tmp_path / "out", name="a/b")


def test_images_of_a_source_by_id_and_copied(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "below/a.png")
    file = captions(tmp_path / "captions.jsonl", {"id": "below/a.png", "caption": "red"})
    llamafactory(file, tmp_path / "out", data=str(tmp_path / "photos"))
    assert rows_of(tmp_path / "out/captions.jsonl")[0]["images"] == [str(tmp_path / "photos/below/a.png")]
    llamafactory(file, tmp_path / "copy", data=str(tmp_path / "photos"), form=Form(copy=True, relative=True))
    (found,) = rows_of(tmp_path / "copy/captions.jsonl")[0]["images"]  # type: ignore[misc]
    assert found == "images/below%2fa.png"
    copied, photo = tmp_path / "copy" / found, tmp_path / "photos/below/a.png"
    assert copied.read_bytes() == photo.read_bytes()


def test_scenes_of_the_miniature_world_become_files(tmp_path: Path) -> None:
    from limner.data.world import Source

    id = Source(split="test").ids()[0]
    file = captions(tmp_path / "captions.jsonl", {"id": id, "caption": "a scene"})
    with pytest.raises(UserError, match="not one row"):
        llamafactory(file, tmp_path / "out", data="world:test")
    options = ["-o", str(tmp_path / "copy"), "--data", "world:test", "--copy", "--relative"]
    result = CliRunner().invoke(export, ["llamafactory", str(file), *options])
    assert result.output == "1 rows written\n", result.output
    (found,) = rows_of(tmp_path / "copy/captions.jsonl")[0]["images"]  # type: ignore[misc]
    with Image.open(tmp_path / "copy" / found) as image:
        assert image.size == Source(split="test").read(0).image.size


STAGES = {"1_alignment": (1e-3, 256), "2_captions": (4e-5, 256), "3_instructions": (2e-5, 128)}


@pytest.mark.parametrize("name", STAGES)
def test_the_stages_have_the_published_settings(name: str) -> None:
    """Learning rates and batches of arXiv 2509.22647, over 8 devices."""
    text = (paths.recipes() / "pretrain" / "llamafactory" / f"{name}.yaml").read_text()
    stage = yaml.safe_load(text)
    batch = stage["per_device_train_batch_size"] * stage["gradient_accumulation_steps"] * 8
    assert (stage["learning_rate"], batch) == STAGES[name]
    assert (stage["stage"], stage["finetuning_type"], stage["template"]) == ("sft", "full", "qwen2_vl")
    assert not stage["freeze_multi_modal_projector"]
    assert stage["freeze_vision_tower"] == stage["freeze_language_model"] == (name == "1_alignment")
    assert not [each for each in paths.shipped_recipes() if "llamafactory" in each]
