import json

import pytest
import yaml
from typer.testing import CliRunner

import data_sets
from data_sets import dump, msrvtt_info, msrvtt_sentences, msrvtt_video
from limner import cli, component, config
from limner.data.folder import Source as Folder
from limner.data.mixture import Source as Mixture
from limner.data.usable import usable
from limner.data_check import check
from limner.errors import UserError
from limner.selection import Evaluator


def source(kind, **settings):
    return component.find("data", kind)(**settings)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["data", "check", *map(str, arguments)])


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """MSR-VTT with one of everything that can be wrong: nine items, two of them usable."""
    folder = tmp_path_factory.mktemp("msrvtt")
    rows = [msrvtt_video(n, "train") for n in range(5)] + [{"split": "train"}, msrvtt_video(6, "test")]
    sentences = [row for n in (0, 1, 2, 3) for row in msrvtt_sentences(n, "a man sings", "a song")]
    sentences += msrvtt_sentences(0, "a caf#") + msrvtt_sentences(77, "lost")
    dump(folder / "videodatainfo.json", msrvtt_info(rows, sentences))
    content = (folder / "videodatainfo.json").read_bytes().replace(b"caf#", b"caf\xe9")
    (folder / "videodatainfo.json").write_bytes(content)
    data_sets.videos(folder / "videos", *(f"video{n}.mp4" for n in (0, 1, 4, 6)), "holiday.mp4")
    whole = (folder / "videos" / "video1.mp4").read_bytes()
    (folder / "videos" / "video3.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "videos" / "notes.txt").write_text("no video")
    return folder


KINDS = {
    "broken": ["video3"],
    "missing": ["video2"],
    "no references": ["video4"],
    "encoding": ["videodatainfo.json: sentences[8].caption"],
    "shape": ["videodatainfo.json: videos[5]"],
    "mismatch": ["video77"],
    "not listed": ["holiday.mp4"],
}


@pytest.mark.parametrize("quick", [False, True])
def test_everything_that_is_wrong_is_counted_by_kind_and_nothing_is_lost(broken, quick):
    train = source("msrvtt", path=str(broken), split="train", frames=2)
    (checked,) = check({"data": train}, quick=quick)
    found = {}
    for finding in checked.findings:
        found.setdefault(finding.kind, []).append(finding.id)
    assert found == ({kind: ids for kind, ids in KINDS.items() if kind != "broken"} if quick else KINDS)
    assert checked.usable == (3 if quick else 2)
    assert checked.items == len(train) + 1 == checked.usable + len(checked.findings)
    assert checked.references == 2 * checked.usable
    assert all("\n" not in finding.reason for finding in checked.findings)


def test_the_command_prints_a_table_writes_all_rejects_and_fails(broken, tmp_path):
    out = tmp_path / "below" / "rejects.jsonl"
    done = run("kind=msrvtt", f"path={broken}", "split=train", "--quick", "-o", out)
    assert done.exit_code == 1
    assert "there and not listed" in done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["kind"] for row in rows) == sorted(set(KINDS) - {"broken"})
    assert all(set(row) == {"id", "reason", "kind", "source"} for row in rows)

    printed = run("kind=msrvtt", f"path={broken}", "split=test", "--quick", "--json")
    assert printed.exit_code == 1
    value = json.loads(printed.stdout)
    assert value["ok"] is False
    (one,) = value["sources"]
    assert one["in"] == one["usable"] + one["rejected"]
    assert sum(one["kinds"].values()) == one["rejected"] == len(value["rejects"])


def test_whole_data_pass_and_a_mistake_is_no_finding(tmp_path):
    data_sets.lavis(tmp_path)
    done = run("kind=lavis", f"path={tmp_path / 'annotations'}", "split=test", "--quick")
    assert done.exit_code == 0
    assert "everything can be used" in done.output
    for given in (["kind=laviss", "path=x"], ["kind=lavis"], ["kind=lavis", "path=x", "splitt=test"]):
        assert isinstance(run(*given).exception, UserError)


def test_the_data_of_a_recipe_are_checked_together(tmp_path):
    train = tmp_path / "train_val_videodatainfo.json"
    test = tmp_path / "test_videodatainfo.json"
    dump(train, msrvtt_info([msrvtt_video(0, "train")], msrvtt_sentences(0, "x")))
    dump(test, msrvtt_info([msrvtt_video(1, "test")], msrvtt_sentences(1, "y")))
    data_sets.videos(tmp_path / "videos", "video0.mp4", "video1.mp4", "video2.mp4")
    sources = {
        "data": source("msrvtt", path=str(train), split="train"),
        "evaluate.test": source("msrvtt", path=str(test), split="test"),
        "evaluate.data": source("msrvtt", path=str(tmp_path / "nowhere.json"), split="val"),
    }
    data, tested, lost = check(sources, quick=True)
    # Each file alone would call the other's video unlisted.
    assert [finding.id for finding in data.findings] == ["video2.mp4"]
    assert tested.findings == ()
    assert [(finding.kind, finding.source) for finding in lost.findings] == [("annotations", "evaluate.data")]
    assert "no such file or folder" in lost.findings[0].reason


def test_a_recipe_s_sections_and_the_parts_of_a_mixture(tmp_path):
    data_sets.vatex(tmp_path / "vatex")
    data_sets.msrvtt(tmp_path / "msrvtt")
    recipe = tmp_path / "recipe.yaml"
    parts = {name: {"path": str(tmp_path / name), "split": "train"} for name in ("vatex", "msrvtt")}
    sections = {
        "captioner": {"kind": "blip2", "path": "nowhere"},
        "data": {"kind": "mixture", "ratio": {"vatex": 7, "msrvtt": 1}, "parts": parts},
        "rewards": {"length": {}},
        "advantage": {"kind": "token_returns"},
        "objective": {"kind": "policy_gradient"},
        "update": {"captions": 4, "lr": 1e-5, "steps": 1},
        "evaluate": {"data": {**parts["msrvtt"], "kind": "msrvtt", "split": "val"}},
    }
    recipe.write_text(yaml.safe_dump(sections))
    done = run(recipe, "--quick", "--json")
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    counted = {one["where"]: (one["in"], one["usable"]) for one in value["sources"]}
    assert counted == {"data.parts.vatex": (2, 1), "data.parts.msrvtt": (3, 2), "evaluate.data": (1, 1)}
    assert isinstance(run("vlrm").exception, UserError)

    holes = config.load(recipe, ["evaluate.data.split=train"])
    with pytest.raises(UserError, match="1 of its items cannot be used: video2: listed and not there"):
        Evaluator(holes, None)  # before the policy is asked for anything


def test_evaluation_refuses_annotated_data_with_holes_unless_they_are_allowed(broken):
    train = source("msrvtt", path=str(broken), split="train", frames=1)
    with pytest.raises(UserError, match=r"5 of its items cannot be used: video2: listed and not there"):
        usable(train)  # at once, not when the first sample is asked for
    with pytest.raises(UserError, match="1 of its items"):
        usable(train, 3)
    assert [sample.id for sample in usable(train, 2)] == ["video0", "video1"]
    rejects = []
    samples = list(usable(train, allow_missing=True, rejects=rejects))
    assert [sample.id for sample in samples] == ["video0", "video1"]
    assert all(len(sample.media) == 1 for sample in samples)
    assert len(rejects) == len(train) - 2


def test_limner_evaluate_takes_settings_and_says_what_is_missing_before_it_captions(broken, tmp_path):
    data = f"kind=msrvtt path={broken} split=train frames=1"
    given = ["evaluate", "references", "--data", data, "-o", str(tmp_path / "out.json")]
    done = CliRunner().invoke(cli.app, given)
    assert isinstance(done.exception, UserError)
    assert "5 of its items cannot be used" in str(done.exception)
    assert "--allow-missing" in str(done.exception)
    assert CliRunner().invoke(cli.app, [*given, "--allow-missing"]).exit_code == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["id"] for row in rows] == ["video0", "video1"]


def test_a_file_that_does_not_open_is_refused_when_its_turn_comes(tmp_path):
    rows = [msrvtt_video(n, "test") for n in range(2)]
    path = dump(
        tmp_path / "videodatainfo.json",
        msrvtt_info(rows, msrvtt_sentences(0, "x") + msrvtt_sentences(1, "y")),
    )
    data_sets.videos(tmp_path / "videos", "video0.mp4")
    (tmp_path / "videos" / "video1.mp4").write_text("no video")
    part = source("msrvtt", path=path, split="test", frames=1)
    for found, id in ((part, "video1"), (Mixture(parts={"a": part}, ratio={"a": 1}), "a/video1")):
        samples = usable(found)
        next(samples)
        with pytest.raises(UserError, match=f"1 of its items cannot be used: {id}: not a video"):
            next(samples)


def test_plain_folders_are_measured_on_what_is_there(tmp_path):
    data_sets.picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("no image")
    rejects = []
    assert [sample.id for sample in usable(Folder(str(tmp_path)), rejects=rejects)] == ["a.jpg"]
    assert len(rejects) == 1
