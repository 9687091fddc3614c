"""`limner data questions` on photographs, with a server that answers over HTTP, killed and started again."""

import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import nasty_files
from limner import cli
from limner.answering.base import Reply
from limner.curate import filter as asked
from limner.curate import stages
from limner.curate.settings import Files, Settings
from limner.data.caption_qa import Source
from limner.data.folder import Source as Folder
from limner.errors import UserError
from limner.questions import questions_of
from patience import until
from question_server import QuestionServer

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "cell.png", "coins.png")
DERIVED = ("questions.jsonl", "rejected.jsonl", "scored.jsonl", "kept.jsonl", "report.json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        nasty_files.photograph(name).resize((200, 150)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def arguments(photos, out, server, *more):
    return [
        "data",
        "questions",
        str(photos),
        "-o",
        str(out),
        "--model",
        server.base_url,
        "--name",
        "vlm",
        *more,
    ]


def run(*given):
    done = CliRunner().invoke(cli.app, list(given))
    assert done.exit_code == 0, done.output
    return done.output


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A folder that was made in one go, and the requests that it took."""
    folder = tmp_path_factory.mktemp("whole")
    with QuestionServer(folder / "server") as server:
        run(*arguments(photos, folder / "out", server))
        return folder / "out", server.requests()


def test_questions_that_need_the_image_are_kept(whole):
    out, requests = whole
    assert len(rows(out / "raw.jsonl")) == len(PHOTOS)
    assert [row["id"] for row in rows(out / "rejects.jsonl")] == ["broken.jpg"]
    verdicts = {
        (row["id"], row["question"].partition(":")[0]): row["verdict"] for row in rows(out / "scored.jsonl")
    }
    assert {word: verdicts["coffee.png", word] for word in ("Seen", "Guessed", "Unseen", "Refused")} == {
        "Seen": "kept", "Guessed": "guessed", "Unseen": "not seen", "Refused": "kept"
    }  # fmt: skip
    assert {row["reason"] for row in rows(out / "rejected.jsonl")} == {"answer outside the options"}
    with_image = [r["text"] for r in requests if r["image"] and not r["text"].startswith("Look")]
    # 4 questions about each of 6 images, 4 draws; without images equal prompts are asked once
    assert len(with_image) == 6 * 4 * 4
    assert sum(not r["image"] for r in requests) <= 6 * 4 * 4
    assert all(asked.NONE in text for text in with_image)
    assert not any(asked.NONE in r["text"] for r in requests if not r["image"])


def test_what_is_kept_is_a_data_source(whole):
    samples = list(Source(path=str(whole[0] / "kept.jsonl")))
    assert len(samples) == len(PHOTOS)
    assert all(len(questions_of(sample)) == 2 and sample.image.size == (200, 150) for sample in samples)
    for name in ("kept.parquet", "caprl.jsonl"):
        out = whole[0] / name
        said = run("data", "convert", str(whole[0] / "kept.jsonl"), "-o", str(out), "--format", "caprl")
        assert f"{len(PHOTOS)} rows written, 0 rows" in said
        again = list(Source(path=str(out)))
        assert [questions_of(s) for s in again] == [questions_of(s) for s in samples]


def test_the_report_counts_what_there_is(whole):
    found = json.loads((whole[0] / "report.json").read_text())
    assert found["verdicts"] == {
        "kept": 12,
        "not seen": 6,
        "guessed": 6,
        "not seen, guessed": 0,
        "unscored": 0,
    }
    assert found["right letters"]["counts"] == {"A": 6, "B": 18, "C": 0}
    assert found["right letters"]["expected"] == {"A": 11.0, "B": 11.0, "C": 2.0}
    assert found["duplicates"]["across images"] == 18
    assert found["categories"]["count"]["questions"] == 6
    assert found["right without image"]["share"] == pytest.approx(0.25)
    page = (whole[0] / "report.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http-equiv", "")


def wait_for_requests(server, wanted, process):
    until(lambda: len(server.requests()) >= wanted or process.poll() is not None)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same_and_does_nothing_twice(photos, whole, tmp_path):
    with QuestionServer(tmp_path / "server", delay=0.02) as server:
        command = [sys.executable, "-m", "limner", *arguments(photos, tmp_path / "out", server, "batch=2")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for wanted in (3, 60, 140):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_for_requests(server, wanted, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for name in DERIVED:
            assert (tmp_path / "out" / name).read_text().replace(str(tmp_path), "") == (
                whole[0] / name
            ).read_text()
        # the cache keeps answers as they come; only what was under way at a kill is asked again
        assert len(server.requests()) <= len(whole[1]) + 3 * 32
        before = len(server.requests())
        assert "report.html" in run(*arguments(photos, tmp_path / "out", server, "batch=2"))
        assert len(server.requests()) == before


def test_no_answer_is_not_a_wrong_answer_and_is_asked_for_again(photos, tmp_path):
    with QuestionServer(tmp_path / "server") as server:
        (tmp_path / "server" / "refuse").touch()
        run(*arguments(photos, tmp_path / "out", server, "draws=1"))
        scored = rows(tmp_path / "out" / "scored.jsonl")
        refused = [row for row in scored if row["question"].startswith("Refused")]
        assert {row["verdict"] for row in refused} == {"unscored"}
        assert {tuple(row["with_image"]) for row in refused} == {(0, 0)}
        (tmp_path / "server" / "refuse").unlink()
        before = len(server.requests())
        run(*arguments(photos, tmp_path / "out", server, "draws=1"))
        assert len(server.requests()) - before == len(PHOTOS)
        scored = rows(tmp_path / "out" / "scored.jsonl")
        assert {row["verdict"] for row in scored if row["question"].startswith("Refused")} == {"kept"}


def test_other_settings_do_not_go_on_with_the_work_of_these(photos, whole, tmp_path):
    with QuestionServer(tmp_path / "server") as server:
        done = CliRunner().invoke(cli.app, arguments(photos, whole[0], server, "temperature=0.7"))
    assert done.exit_code != 0
    said = " ".join(str(done.exception).split())
    assert "was made with other settings (writes: http://127.0.0.1:" in said
    assert "; temperature: 0.1, now 0.7; answers: " in said


MISTAKES = {
    "no name": (["--model", "http://localhost:1/v1"], "which model? --name NAME"),
    "no answerer's name": (
        ["--model", "world:captioner", "--answerer", "http://localhost:1/v1"],
        "which model? --answerer-name NAME",
    ),
    "no scheme": (["--model", "localhost:8000/v1", "--name", "m"], "begins with http:// or https://"),
    "no key": (
        ["--model", "http://localhost:1/v1", "--name", "m", "--key-env", "NOT_SET_HERE"],
        "NOT_SET_HERE, which key_env names, is not set",
    ),
    "a key": (
        ["--model", "http://localhost:1/v1", "--name", "m", "--key-env", "sk-abc"],
        "never the key itself",
    ),
    "no captioner": (["--model", "world:clip"], "no captioner family for model_type"),
    "no language model": (
        ["--model", "world:captioner", "--text-answerer", "world:captioner"],
        "is not a causal language model",
    ),
    "setting": (["--model", "world:captioner", "questions=0"], "questions: 0: must be greater"),
    "stage": (["--model", "world:captioner", "--stage", "pars"], "did you mean 'parse'?"),
    "nothing written": (["--model", "world:captioner", "--stage", "parse"], "run --stage generate first"),
    "nothing parsed": (["--model", "world:captioner", "--stage", "filter"], "run --stage parse first"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_said_before_anything_is_made(photos, tmp_path, name):
    given, message = MISTAKES[name]
    done = CliRunner().invoke(
        cli.app, ["data", "questions", str(photos), "-o", str(tmp_path / "out"), *given]
    )
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "sk-abc" not in str(done.exception)
    assert not (tmp_path / "out" / "raw.jsonl").exists()


def test_a_mistake_leaves_no_folder_that_refuses_the_right_command(photos, tmp_path):
    """A source that is not there, an output that cannot be; then the command as it was meant."""
    out = tmp_path / "out"
    with QuestionServer(tmp_path / "server") as server:
        for source, where, message in (
            (tmp_path / "gone", out, "no such folder"),
            (photos, photos / "coffee.png", "cannot be made"),
        ):
            done = CliRunner().invoke(cli.app, arguments(source, where, server))
            assert isinstance(done.exception, UserError)
            assert message in str(done.exception)
        meant = arguments(photos, out, server, "draws=1")
        stopped = CliRunner().invoke(cli.app, [*meant, "--stage", "filter", "temperature=0.9"])
        assert "run --stage parse first" in str(stopped.exception)
        assert "kept.jsonl" in run(*meant)


def test_no_question_is_converted_where_no_row_can_be_used(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"image": "gone.png"}\n{bad\n')
    (tmp_path / "out.jsonl").write_text("mine\n")
    given = ["data", "convert", str(tmp_path / "bad.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    done = CliRunner().invoke(cli.app, given)
    assert isinstance(done.exception, UserError)
    assert "not one row can be used" in str(done.exception)
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"
    assert [row["id"] for row in rows(tmp_path / "out.jsonl.rejects.jsonl")] == ["bad.jsonl:1", "bad.jsonl:2"]


class Mumbler:
    """Names no option the first time with the image, the right one then; without the image it never does."""

    def __init__(self):
        self.asked = []

    def ask(self, conversations, *, max_new_tokens, temperature, seed):
        replies = []
        for conversation in conversations:
            content = conversation[0]["content"]
            text = content if isinstance(content, str) else content[1]["text"]
            first = (text, isinstance(content, str)) not in self.asked
            self.asked.append((text, isinstance(content, str)))
            replies.append(Reply("I cannot see any image." if isinstance(content, str) or first else "red"))
        return replies


def test_a_reply_that_names_no_option(photos, tmp_path):
    files, settings = Files(tmp_path), Settings(draws=2)
    row = {"id": "x", "image": str(photos / "coffee.png"), "number": 1, "question": "What?"}
    asked.replace(files.questions, [{**row, "options": ["red", "green", "blue"], "answer": 0}])
    mumbler = Mumbler()
    asked.ask(files, mumbler, mumbler, settings)
    (scored,) = rows(files.scored)
    # with the image it is asked again; without the image "I cannot see" is an answer that is not right
    assert (scored["with_image"], scored["without_image"], scored["verdict"]) == ([2, 2], [0, 2], "kept")
    assert len(mumbler.asked) == 2 * 2 + 2
    asked.ask(files, mumbler, mumbler, settings)
    assert len(mumbler.asked) == 2 * 2 + 2


def test_a_captioner_in_process_writes_and_answers(tmp_path, photos):
    # The miniature's captioner writes captions, whatever it is asked: nothing is found, and that is counted.
    out = tmp_path / "out"
    (tmp_path / "one").mkdir()
    nasty_files.photograph().resize((48, 48)).save(tmp_path / "one" / "a.png")
    (tmp_path / "prompt.txt").write_text("a")
    given = ("--model", "world:captioner", "max_new_tokens=8", f"prompt={tmp_path / 'prompt.txt'}")
    run("data", "questions", str(tmp_path / "one"), "-o", str(out), *given)
    assert [row["id"] for row in rows(out / "raw.jsonl")] == ["a.png"]
    assert [row["reason"] for row in rows(out / "rejected.jsonl")] == ["nothing found"]
    assert rows(out / "kept.jsonl") == []


def test_images_without_files_are_kept_beside_the_questions(whole, tmp_path):
    class Writer:
        def ask(self, conversations, **_):
            return [Reply("Who?\nA) he\nB) she\nAnswer: A") for _ in conversations]

    source = Source(path=str(whole[0] / "kept.parquet"))
    run("data", "convert", str(whole[0] / "kept.jsonl"), "-o", source.path, "--format", "caprl")
    stages.run(
        source, Files(tmp_path), Settings(), models={"writes": "x"}, askers=lambda _: Writer(),
        stages=("generate", "parse", "report"),
    )  # fmt: skip
    for row in rows(tmp_path / "questions.jsonl"):
        assert (tmp_path / row["image"]).is_file()
    assert len(Folder(path=str(tmp_path / "images"))) == len(PHOTOS)
