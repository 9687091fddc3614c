"""Both stages of Prism with a real small captioner and a real server: resuming, reuse, failures."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest

import tiny
import tiny_answerers
import tiny_qwen
from limner.decoding import Decoding
from limner.errors import UserError
from limner.prism.asking import Answering
from limner.prism.result import PrismResult, Scored, macro, summed_up
from limner.prism.stages import Answerer, Captioning, Where, prism
from limner.prism.writers import policy_writer
from limner.world import scenes
from patience import until
from server import ChatServer

SHORT = Decoding(max_new_tokens=8)
NAN = math.nan


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return str(tiny.blip2(tmp_path_factory.mktemp("captioner")))


@pytest.fixture
def sets(tmp_path):
    """Five questions about three images, one of them in both sets."""
    for place in range(3):
        scenes.picture(0, place, "test").save(tmp_path / f"{place}.png")
    star = [
        {"image": f"{place}.png", "prompt": f"Which letter, {place}?\nA. a\nB. b", "answer": letter}
        for place, letter in enumerate("ABA")
    ]
    chart = [
        {"image": "0.png", "prompt": f"How many {what}?", "answer": answer}
        for what, answer in (("dogs", "100"), ("cats", "3"))
    ]
    (tmp_path / "mmstar.json").write_text(json.dumps(star))
    (tmp_path / "chartqa.json").write_text(json.dumps(chart))
    return [str(tmp_path / "mmstar.json"), str(tmp_path / "chartqa.json")]


def run(tmp_path, sets, server, *, model, **more):
    captioning = {"captions": 2, "decoding": SHORT, "batch": 2} | more.pop("captioning", {})
    return prism(
        sets,
        captioning=Captioning(model=model, **captioning),
        answerer=Answerer(path=server.base_url, endpoint_model=more.pop("name", "small")),
        where=Where(out=tmp_path / "out", device="cpu"),
        **more,
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


RULES = [
    {"when": "Which letter", "steps": [{"answer": "A"}]},
    {"when": "dogs", "steps": [{"answer": "<think>.</think><answer>\\boxed{{105.2}}</answer>"}]},
    {"when": "", "steps": [{"answer": "\\boxed{{3}}"}]},
]


def test_from_images_to_numbers(tmp_path, sets, captioner):
    with ChatServer(tmp_path / "server", RULES) as server:
        found = run(tmp_path, sets, server, model=captioner, strict_published=True)
        star, chart = found.result.sets
        assert (star.summary["mean"].value, star.summary["mean"].n) == (pytest.approx(2 / 3), 3)
        assert (chart.summary["mean"].value, chart.summary["best"].value) == (0.5, 0.5)
        # 105.2 is within 5% of itself, not of 100; and \boxed{3} stands outside of the tags
        assert chart.summary["published_mean"].value == 0.5
        assert [q.published for q in chart.questions] == [(1.0, 1.0), (0.0, 0.0)]
        assert found.result.macro["mean"].value == pytest.approx((2 / 3 + 0.5) / 2)
        captions = lines(tmp_path / "out" / "captions.jsonl")
        assert [row["image"] for row in captions] == ["../0.png", "../1.png", "../2.png"]
        assert all(len(row["captions"]) == 2 for row in captions)
        asked = server.requests()
        assert len(asked) == 10 == len(lines(tmp_path / "out" / "answers.jsonl"))
        first = captions[0]["captions"][0]
        told = [body["messages"][0]["content"] for body in asked]
        assert any(
            text.startswith(f"Here is a detailed caption of an image: {first}. Please") for text in told
        )
        # the published settings of an answer
        assert {(body["temperature"], body["max_tokens"]) for body in asked} == {(1.0, 2048)}
        assert PrismResult.load(tmp_path / "out" / "prism.json").plain() == found.result.plain()
        again = run(tmp_path, sets, server, model=captioner, strict_published=True)
        assert len(server.requests()) == 10
        assert again.result == found.result


def test_captions_are_kept_by_image_captioner_and_settings(tmp_path, sets, captioner):
    with ChatServer(tmp_path / "server", RULES) as server:
        run(tmp_path, sets[:1], server, model=captioner)
        path = tmp_path / "out" / "captions.jsonl"
        before = path.read_text()
        run(tmp_path, sets[1:], server, model=captioner)  # another set, an image that is known
        assert path.read_text() == before
        run(tmp_path, sets, server, model=captioner, captioning={"captions": 1})  # fewer of the same
        assert path.read_text() == before
        run(tmp_path, sets[1:], server, model=captioner, captioning={"captions": 3})  # one is missing
        assert [len(row["captions"]) for row in lines(path)] == [2, 2, 2, 1]
        run(tmp_path, sets[1:], server, model=captioner, captioning={"decoding": Decoding(max_new_tokens=5)})
        assert len(lines(path)) == 5
        assert len({row["settings"] for row in lines(path)}) == 2


def test_a_job_that_was_cut_gives_what_it_would_have_given(tmp_path, sets, captioner):
    with ChatServer(tmp_path / "server", RULES) as server:
        whole = run(tmp_path, sets, server, model=captioner)
        out = tmp_path / "out"
        written = (out / "captions.jsonl").read_text()
        rows = written.splitlines(keepends=True)
        (out / "captions.jsonl").write_text("".join(rows[:2]) + rows[2][:30])  # killed in the second batch
        answers = (out / "answers.jsonl").read_text().splitlines(keepends=True)
        (out / "answers.jsonl").write_text("".join(answers[:4]) + answers[4][:25])
        asked = len(server.requests())
        again = run(tmp_path, sets, server, model=captioner)
        assert (out / "captions.jsonl").read_text() == written
        assert len(server.requests()) == asked + 6
        assert again.result == whole.result


KILLED = """
import sys
from limner import cli
sys.argv = ["limner", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow  # a process that imports torch is started and killed
def test_a_killed_process_is_gone_on_with(tmp_path, sets, captioner):
    """Killed by the kernel while the server is slow; the second time nothing is asked twice."""
    rules = [
        {"when": "dogs", "steps": [{"answer": "1", "hang": True}]},
        {"when": "", "steps": [{"answer": "A"}]},
    ]
    answers = tmp_path / "out" / "answers.jsonl"
    with ChatServer(tmp_path / "server", rules) as server:
        command = [
            *(sys.executable, "-c", KILLED, "evaluate", "prism", captioner, "max_new_tokens=8"),
            *("--set", sets[0], "--set", sets[1], "--answerer", server.base_url, "--answerer-model", "small"),
            *("--captions", "1", "--device", "cpu", "--out", str(tmp_path / "out")),
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            until(lambda: len(server.requests()) == 5)
            process.send_signal(signal.SIGKILL)
        assert len(lines(tmp_path / "out" / "captions.jsonl")) == 3
        assert not answers.read_text()  # one batch, written when all of it is there
    with ChatServer(tmp_path / "second", RULES) as server:
        found = run(tmp_path, sets, server, model=captioner, captioning={"captions": 1})
        assert len(lines(tmp_path / "out" / "captions.jsonl")) == 3
        assert len(lines(answers)) == 5
    assert found.result.sets[0].summary["mean"].n == 3


def test_a_failed_answer_is_unscored_counted_and_asked_again(tmp_path, sets, captioner):
    failing = [{"when": "Which letter, 1", "steps": [{"status": 400}]}, *RULES]
    with ChatServer(tmp_path / "server", failing) as server:
        found = run(tmp_path, sets[:1], server, model=captioner)
        made = found.result.sets[0]
        assert made.unscored == 2
        assert made.summary["mean"].value == 1.0  # questions 0 and 2; a failure is no wrong answer
        assert made.summary["mean"].n == 2
        assert "2 answers are missing" in " ".join(found.result.notes())
        assert sum(found.result.errors.values()) == 2
        assert any("2 x bad request" in note for note in found.result.notes())
    with ChatServer(tmp_path / "second", RULES) as server:
        made = run(tmp_path, sets[:1], server, model=captioner).result.sets[0]
        assert len(server.requests()) == 2
        assert made.unscored == 0
        assert made.summary["mean"].n == 3


def test_an_image_that_does_not_open_is_named_and_left_out(tmp_path, sets, captioner):
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with ChatServer(tmp_path / "server", RULES) as server:
        found = run(tmp_path, sets, server, model=captioner)
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert [(row["file"], row["row"]) for row in rejects] == [(sets[0], 2)]
    assert rejects[0]["reason"].startswith("image 1.png: ")
    assert (found.result.sets[0].rejected, len(found.result.sets[0].questions)) == (1, 2)


def test_captions_of_a_file(tmp_path, sets):
    rows = [
        {"id": "a", "caption": "a cat", "image": "0.png"},
        {"id": "1.png", "caption": "a dog"},
        {"id": "2", "captions": ["a cow"]},
    ]
    path = tmp_path / "given.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with ChatServer(tmp_path / "server", RULES) as server:
        found = run(tmp_path, sets, server, model=str(path), captioning={"captions": None})
        assert found.result.captions == 1
        assert not (tmp_path / "out" / "captions.jsonl").exists()
        told = " ".join(body["messages"][0]["content"] for body in server.requests())
        assert all(f"image: {caption}. Please" in told for caption in ("a cat", "a dog", "a cow"))
        path.write_text(json.dumps(rows[0]))
        with pytest.raises(UserError, match="no caption of 2 of the sets' images"):
            run(tmp_path, sets, server, model=str(path))


def test_a_captioner_behind_an_endpoint_sees_the_image(tmp_path, sets):
    rules = [{"when": "describe this image", "steps": [{"answer": "caption {seed}"}]}, *RULES]
    with ChatServer(tmp_path / "server", rules) as server:
        found = run(tmp_path, sets[:1], server, model=server.base_url, captioning={"endpoint_model": "vlm"})
        asked = [body for body in server.requests() if body["model"] == "vlm"]
    assert len(asked) == 6
    assert all(body["messages"][0]["content"][0]["type"] == "image_url" for body in asked)
    rows = lines(tmp_path / "out" / "captions.jsonl")
    assert all(len(set(row["captions"])) == 2 for row in rows)  # drawn with different seeds
    assert found.result.sets[0].summary["mean"].n == 3


def test_a_chat_model_is_asked_in_the_published_words(tmp_path):
    written = policy_writer(
        str(tiny_qwen.qwen25_vl(tmp_path / "qwen")), prompt=None, decoding=SHORT, device="cpu"
    )
    assert written.identity["prompt"] == "Please describe this image in detail"
    picture = scenes.picture(0, 0, "test").resize((64, 64))
    rows = written.write([picture, picture], 3, seed=0)
    assert [len(row) for row in rows] == [3, 3]
    assert rows == written.write([picture, picture], 3, seed=0)


def test_several_images_are_captioned_each_for_itself(tmp_path, sets, captioner):
    both = [{"image": ["0.png", "1.png"], "prompt": "Which letter?\nA. a\nB. b", "answer": "A"}]
    (tmp_path / "mmmu.json").write_text(json.dumps(both))
    with ChatServer(tmp_path / "server", RULES) as server:
        run(tmp_path, [str(tmp_path / "mmmu.json")], server, model=captioner)
        told = server.requests()[0]["messages"][0]["content"]
    assert "an image: Image 1: " in told
    assert "\n\nImage 2: " in told


def test_an_answerer_in_this_process(tmp_path, sets, captioner):
    words = tiny_answerers.words("Which letter, Here is a detailed")
    path = tiny_answerers.saved(tmp_path / "answerer", words, answers="AB")

    def answered(longest: int) -> PrismResult:
        return prism(
            sets[:1],
            captioning=Captioning(model=captioner, captions=2, decoding=SHORT),
            answerer=Answerer(path=str(path)),
            answering=Answering(template="{caption} {question}", max_new_tokens=longest, temperature=0.0),
            where=Where(out=tmp_path / "out", device="cpu"),
        ).result

    made = answered(3).sets[0]
    assert made.unscored == made.unread == 0
    assert {answer for q in made.questions for answer in q.answers} <= {"A", "B"}
    (why, *_) = answered(600).errors
    assert "and an answer of up to 600; the model has 512 positions" in why


def test_what_is_missing_is_told_before_anything_slow(tmp_path, sets):
    where = Where(out=tmp_path / "out", device="cpu")
    captioning = Captioning(model="never/there")
    for answerer, message in (
        (Answerer(path="no/such/model"), "no/such/model"),
        (Answerer(path="world:captioner"), "is not a causal language model"),
        (Answerer(path="localhost:8000/v1", endpoint_model="m"), "begins with http:// or https://"),
        (Answerer(path="http://localhost:1/v1"), "--answerer-model"),
        (Answerer(path="http://localhost:1/v1", endpoint_model="m", key_env="NOT_SET"), "NOT_SET"),
    ):
        with pytest.raises(UserError, match=message):
            prism(sets, captioning=captioning, answerer=answerer, where=where)
    with pytest.raises(UserError, match="must hold"):
        Answering(template="{caption}")


def test_no_key_is_written(tmp_path, sets, captioner, monkeypatch):
    monkeypatch.setenv("PRISM_KEY", "sk-very-secret")
    with ChatServer(tmp_path / "server", RULES, key="sk-very-secret") as server:
        prism(
            sets[:1],
            captioning=Captioning(model=captioner, captions=1, decoding=SHORT),
            answerer=Answerer(path=server.base_url, endpoint_model="small", key_env="PRISM_KEY"),
            where=Where(out=tmp_path / "out", device="cpu"),
        )
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()


def test_means_and_best_of_n_by_hand():
    questions = [
        Scored("a", (1.0, 0.0), ("x", "y")),
        Scored("b", (0.0, NAN), ("x", None)),  # the missing answer could have been right: no best
        Scored("c", (1.0, NAN), ("x", None)),  # nothing is better than right
        Scored("d", (NAN, NAN), (None, None)),
    ]
    made = summed_up(questions)
    assert (made["mean"].value, made["mean"].n) == (pytest.approx((0.5 + 0 + 1) / 3), 3)
    assert (made["best"].value, made["best"].n) == (1.0, 2)
    other = [Scored("e", (0.0, 0.0), ("x", "x"))]
    both = macro([questions, other])
    assert both["mean"].value == pytest.approx((0.5 + 0) / 2)
    assert both["mean"].low <= both["mean"].value <= both["mean"].high
    nothing = macro([[Scored("f", (NAN,), (None,))]])
    assert nothing["mean"].n == 0
    unscored = macro([other, [Scored("f", (NAN,), (None,))]])  # a set without a score is left out
    assert asdict(unscored["mean"]) == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 1}


def test_a_file_that_is_no_result(tmp_path):
    path = tmp_path / "prism.json"
    path.write_text(json.dumps({"sets": 3}))
    with pytest.raises(UserError, match="is not a file of"):
        PrismResult.load(path)


def test_an_output_folder_of_another_job_is_left_alone(tmp_path, sets, captioner):
    out = tmp_path / "out"
    out.mkdir()
    (out / "captions.jsonl").write_text('{"id": "mine", "caption": "x"}\n')
    with ChatServer(tmp_path / "server", RULES) as server, pytest.raises(UserError, match="left as it is"):
        run(tmp_path, sets, server, model=captioner)
    assert (out / "captions.jsonl").read_text() == '{"id": "mine", "caption": "x"}\n'
