"""The commands on folders of photographs as they are found in the world, broken files among them."""

import json
import os
import random
import subprocess
import sys

import pytest

import nasty_files
from limner import cli
from limner.world.write import write_folder
from patience import until

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def limner(*arguments, folder):
    command = [sys.executable, "-m", "limner", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=ONE_THREAD, capture_output=True, text=True, check=False)


@pytest.fixture
def here(tmp_path, monkeypatch, capfd):
    """`limner` in this process, which has the libraries loaded already: its exit code and what it said."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["limner", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said, complained = capfd.readouterr()
        assert "Traceback" not in complained
        return subprocess.CompletedProcess(sys.argv, end.value.code or 0, said, complained)

    return run


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs, what is broken among them with its reason, and their folder."""
    folder = tmp_path_factory.mktemp("real") / "photos"
    good = [f"good/{name}" for name in nasty_files.good(folder / "good")]
    broken = {f"broken/{name}": reason for name, reason in nasty_files.broken(folder / "broken").items()}
    return folder, good, broken


def test_a_run_goes_on_over_broken_files_and_names_them(photos, here, tmp_path):
    folder, good, broken = photos
    steps, captions = 2, 32
    done = here(
        *("train", "recipes/tiny/vlrm.yaml", f"data.path={folder}", "run.name=real", "run.output=runs"),
        *(f"update.steps={steps}", f"update.captions={captions}", f"update.micro_batch={captions}"),
        *("evaluate.every=0", "evaluate.samples=8", "evaluate.test=null"),
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "real"
    rejects = {row["id"]: row["reason"] for row in rows_in(run / "rejects.jsonl")}
    # 64 images were used and there are 24: the run has been through every file at least once.
    assert steps * captions > 2 * len(good)
    assert rejects.keys() == broken.keys()
    assert all(broken[id] in reason for id, reason in rejects.items())
    assert [row["step"] for row in rows_in(run / "metrics.jsonl")] == [1, 2]
    assert {row["id"] for row in rows_in(run / "samples" / "step-000002.jsonl")} <= set(good)


@pytest.mark.parametrize(
    ("command", "name"),
    [("train", "empty"), ("caption", "empty"), ("caption", "nowhere"), ("caption", "hidden")],
)
def test_a_folder_without_images_is_one_clear_message(tmp_path, here, command, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden" / ".git").mkdir(parents=True)
    (tmp_path / "hidden" / "photo.txt").write_text("a caption without its photograph")
    arguments = {
        "train": ["recipes/tiny/vlrm.yaml", f"data.path={name}", "run.output=runs"],
        "caption": [name, "-o", "captions.jsonl"],
    }
    done = here(command, *arguments[command])
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {name}: no ")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "captions.jsonl").exists()


def test_captions_of_photographs_with_text_files(photos, here, tmp_path):
    folder, good, broken = photos
    first = limner("caption", folder, "--sidecar", "-o", "out/captions.jsonl", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    assert f"{len(good)} captions written, {len(broken)} rejected" in first.stdout
    assert "1 text files that hold something else left alone" in first.stdout
    rows = {row["id"]: row for row in rows_in(tmp_path / "out" / "captions.jsonl")}
    assert sorted(rows) == good
    assert all(row["caption"] for row in rows.values())
    assert all((tmp_path / "out" / row["image"]).samefile(folder / id) for id, row in rows.items())
    assert {row["id"] for row in rows_in(tmp_path / "out" / "rejects.jsonl")} == set(broken)
    assert (folder / "good" / "grey.txt").read_text() == "a woman in a space suit"
    written = (folder / "good" / "below" / "deeper" / "coffee with spaces é.txt").read_text(encoding="utf-8")
    assert written == rows["good/below/deeper/coffee with spaces é.jpg"]["caption"] + "\n"
    again = here("caption", folder, "--sidecar", "-o", "out/captions.jsonl")
    assert f"0 captions written, {len(good)} were there already" in again.stdout


def test_nothing_that_can_be_captioned_is_exit_code_1(here, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"no picture")
    command = ("caption", "photos", "-o", "out.jsonl", "num_beams=1")
    for _ in range(2):
        none = here(*command)
        assert none.returncode == 1
        assert "0 captions written, 2 rejected" in none.stdout
        assert none.stderr.splitlines()[-1] == "not one of photos could be captioned: rejects.jsonl says why"
    (tmp_path / "photos" / "0.png").write_bytes(nasty_files.png(30, 20))
    assert here(*command).returncode == 0
    again = here(*command)
    assert again.returncode == 0, "what can be captioned is"
    assert "0 captions written, 1 were there already, 1 rejected" in again.stdout


def wait_for_rows(out, rows, job):
    until(
        lambda: job.poll() is not None or (out.exists() and out.read_bytes().count(b"\n") >= rows),
        every=0.005,
    )


@pytest.mark.slow
def test_a_killed_captioning_job_ends_as_one_never_killed(tmp_path):
    write_folder(tmp_path / "scenes", "validation", 200)
    greedy = ["num_beams=1", "--batch", "4", "--sidecar"]
    whole = limner("caption", "scenes", *greedy, "-o", "whole.jsonl", folder=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for text in (tmp_path / "scenes").glob("*.txt"):
        text.unlink()
    chance = random.Random(0)
    command = [sys.executable, "-m", "limner", "caption", "scenes", *greedy, "-o", "killed.jsonl"]
    out = tmp_path / "killed.jsonl"
    for rows in sorted(chance.sample(range(1, 150), 2)):
        job = subprocess.Popen(command, cwd=tmp_path, env=ONE_THREAD, stderr=subprocess.DEVNULL)
        wait_for_rows(out, rows, job)
        job.kill()
        job.wait()
    killed = out.read_bytes().count(b"\n")
    assert killed > 0
    last = limner("caption", "scenes", *greedy, "-o", "killed.jsonl", folder=tmp_path)
    assert f"{200 - killed} captions written, {killed} were there already" in last.stdout
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    for row in rows_in(out):
        assert (tmp_path / "scenes" / f"{row['id']}").with_suffix(".txt").read_text() == row["caption"] + "\n"
