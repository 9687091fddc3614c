"""The nine published settings of SCST for video: their values, and two steps of each on small models."""

import shlex
from pathlib import Path

import pytest

import data_sets
import tiny
from limner import config, paths
from limner.run import read_metrics
from limner.train import train

NAMES = sorted(name.rpartition("/")[2] for name in paths.shipped_recipes() if name.startswith("video/"))
PAGE = Path(__file__).parents[2] / "docs" / "methods" / "scst.md"
START = ["data.path=D", "captioner.path=START"]


def ablations() -> list[str]:
    block = PAGE.read_text().split("## The ablations")[1].split("```")[1]
    return [line.split("  #")[0].strip() for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "flant5xl": tiny.blip2_t5(folder / "t5"),
        "opt2.7b": tiny.blip2(folder / "opt"),
        "opt6.7b": tiny.blip2(folder / "opt6", seed=1),
        "vicuna7b": tiny.instructblip(folder / "vicuna"),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of the data sets with two videos in each split."""
    folder = tmp_path_factory.mktemp("data")
    splits = ("train", "train", "validate", "validate", "test", "test")
    rows = [data_sets.msrvtt_video(n, split) for n, split in enumerate(splits)]
    told = [
        row for n in range(6) for row in data_sets.msrvtt_sentences(n, f"a red square {n}", f"the ring {n}")
    ]
    data_sets.dump(folder / "msrvtt" / "videodatainfo.json", data_sets.msrvtt_info(rows, told))
    data_sets.videos(folder / "msrvtt" / "videos", *(f"video{n}.mp4" for n in range(6)))
    clips = [f"clip{n}_0_10" for n in range(6)]
    (folder / "msvd").mkdir()
    lines = [f"{clip} {text} {n}" for n, clip in enumerate(clips) for text in ("a red square", "the ring")]
    (folder / "msvd" / "AllVideoDescriptions.txt").write_text("\n".join(lines) + "\n")
    for n, split in enumerate(("train", "val", "test")):
        (folder / "msvd" / f"{split}_list.txt").write_text(
            "".join(f"{c}\n" for c in clips[2 * n : 2 * n + 2])
        )
    data_sets.videos(folder / "msvd" / "YouTubeClips", *(f"{clip}.avi" for clip in clips))
    ids = [f"abcdefghij{n}_000001_000011" for n in range(6)]
    for n, split in enumerate(("training", "validation", "public_test_english")):
        told = [{"videoID": id, "enCap": [f"A red ring {n}.", "Rings."]} for id in ids[2 * n : 2 * n + 2]]
        data_sets.dump(folder / "vatex" / f"vatex_{split}_v1.{1 if n == 2 else 0}.json", told)
    data_sets.videos(folder / "vatex" / "videos", *(f"{id}.mp4" for id in ids))
    data_sets.webvid(folder / "webvid")
    (folder / "pseudo.jsonl").write_text('{"id": "21179416", "caption": "a red ring"}\n')
    return folder


def small(name: str, models, data: Path, output: Path) -> list[str]:
    """What makes a recipe two steps of a few videos; its classes, losses and decoding stay."""
    benchmark, model, stage = name.split("_")
    captions = 10 if stage == "scst" else 2
    return [
        f"captioner.path={models[model]}", f"data.path={data / benchmark}", f"run.output={output}",
        "run.name=two", "run.device=cpu", "update.steps=2", f"update.captions={captions}",
        f"update.micro_batch={captions}", "rollout.min_new_tokens=2", "rollout.max_new_tokens=6",
        "evaluate.decoding.max_new_tokens=6", "evaluate.test_decoding.max_new_tokens=6",
    ]  # fmt: skip


def two_steps(recipe) -> list[dict[str, float | None]]:
    """What a run of two steps logged, where nothing was refused and everything scored."""
    rows = read_metrics(train(recipe))
    assert len(rows) == 2
    assert all(row["refused"] == row["unscored"] == 0.0 for row in rows)
    assert rows[-1]["evaluate/cider"] is not None
    return rows


def test_all_nine_are_there():
    assert NAMES == [
        "msrvtt_flant5xl_scst", "msrvtt_flant5xl_xe", "msrvtt_opt2.7b_scst", "msrvtt_opt2.7b_xe",
        "msrvtt_opt6.7b_xe", "msrvtt_vicuna7b_xe", "msvd_flant5xl_scst", "msvd_flant5xl_xe",
        "vatex_flant5xl_xe",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "frames", "captions", "lr", "final", "steps"),
    [
        ("msrvtt_flant5xl_xe", 8, 512, 5e-5, 1e-5, 15000),
        ("msvd_flant5xl_xe", 16, 512, 5e-5, 1e-5, 15000),
        ("vatex_flant5xl_xe", 8, 512, 5e-5, 1e-5, 10152),
        ("msrvtt_opt2.7b_xe", 8, 128, 1e-5, 0, 20353),
        ("msrvtt_opt6.7b_xe", 8, 128, 1e-5, 0, 20353),
        ("msrvtt_vicuna7b_xe", 8, 128, 1e-5, 0, 20353),
        ("msrvtt_flant5xl_scst", 16, 80, 1e-5, 1e-6, 20000),
        ("msvd_flant5xl_scst", 16, 80, 1e-6, 1e-7, 15000),
        ("msrvtt_opt2.7b_scst", 4, 640, 1e-6, 0, 20353),
    ],
)
def test_the_published_settings(name, frames, captions, lr, final, steps):
    """Tables of methods.md 2.2 and 2.3: the authors' configurations."""
    recipe = config.load(f"video/{name}", START)
    update, captioner, scst = recipe.update, recipe.captioner, name.endswith("scst")
    assert (recipe.data.frames, recipe.data.sampling) == (frames, "headtail")
    assert (recipe.evaluate.test.frames, recipe.evaluate.test.sampling) == (frames, "uniform")
    assert (update.captions, update.lr, update.final_lr, update.steps) == (captions, lr, final, steps)
    assert (update.optimiser, update.weight_decay, update.schedule) == ("adamw", 0.05, "cosine")
    assert captioner.train == ("query_tokens", "qformer", "language_projection", "lora(q,v)")
    assert (captioner.lora_rank, captioner.lora_alpha) == (8, 16)
    assert captioner.lora_dropout == (0 if scst else 0.05)
    assert captioner.prompt == ("a video of" if "flant5" in name else "")
    assert recipe.run.seed == 42
    decoding = recipe.evaluate.test_decoding
    assert (decoding.num_beams, decoding.min_new_tokens, decoding.max_new_tokens) == (5, 5, 32)
    assert recipe.evaluate.best == "cider"
    if scst:
        assert (recipe.rollout.captions, recipe.rollout.num_beams) == (5, 5)
        assert recipe.advantage.baseline == "mean"
    else:
        assert (update.warmup_steps, update.warmup_from) == (1000, 1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_two_steps_on_small_models_of_its_classes(name, models, data, tmp_path):
    rows = two_steps(config.load(f"video/{name}", small(name, models, data, tmp_path)))
    assert rows[-1]["rejected"] == 0.0


@pytest.mark.parametrize("line", ablations())
def test_an_ablation_of_the_log_runs_two_steps(line, models, data, tmp_path):
    for word, path in (
        ("WEBVID", "webvid/results_2M_val.csv"),
        ("PSEUDO", "pseudo.jsonl"),
        ("MSRVTT", "msrvtt"),
    ):
        line = line.replace(word, str(data / path))
    name, *overrides = shlex.split(line)
    given = [each for each in small(name, models, data, tmp_path) if not each.startswith("data.path")]
    if not overrides[0].startswith("data={"):
        given.append(f"data.path={data / 'msrvtt'}")
    rows = two_steps(config.load(f"video/{name}", [*overrides, *given]))
    mixed = overrides[0].startswith("data={")
    assert (rows[-1]["rejected"] == 0.0) != mixed, "one row of the small WebVid has no video"
