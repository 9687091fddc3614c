"""CapRL-QA-75K's rows and limner's own: read, refused question by question, written and read again."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import nasty_files
from limner import cli
from limner.data import qa_rows, qa_write
from limner.data.batches import Batches
from limner.data.caption_qa import Source
from limner.data.named import source as named
from limner.data.qa_rows import QuestionRow
from limner.data.rejects import RejectLog
from limner.data_check import check
from limner.errors import Reject, UserError
from limner.questions import Question, questions_of

COLOUR = {
    "question": "What colour is the suit?",
    "choices": ["A) red", "B) orange", "C) blue"],
    "answer": "B",
}
COUNT = {"question": "How many flags?", "choices": ["A) one", "B) two"], "answer": "A"}
ASKED = (
    Question("What colour is the suit?", ("red", "orange", "blue"), 1),
    Question("How many flags?", ("one", "two"), 0),
)


@pytest.fixture(scope="module")
def jpeg():
    return nasty_files.encoded(nasty_files.photograph().resize((64, 48)), "JPEG")


def published(id, image, *questions, **more):
    prompt = [{"role": "user", "content": "<image>Please describe this image in detail."}]
    return {
        "id": id, "image": image, "prompt": prompt, "data_source": "sam",
        "reward_model": {"ground_truth": list(questions)}, **more,
    }  # fmt: skip


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path))


def test_rows_of_the_published_set(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    text = base64.b64encode(jpeg).decode()
    as_json = {**published("json", "a.jpg"), "reward_model": json.dumps({"ground_truth": [COLOUR, COUNT]})}
    inner = {**published("inner", "a.jpg"), "reward_model": {"ground_truth": json.dumps([COLOUR, COUNT])}}
    source = jsonl(
        tmp_path / "qa.jsonl",
        published("path", "a.jpg", COLOUR, COUNT),
        published(17, text, COLOUR, COUNT),
        published("address", f"data:image/jpeg;base64,{text}", COLOUR, COUNT),
        as_json,
        inner,
        {**published("asked", "a.jpg", COLOUR, COUNT), "prompt": f"<image>\n{qa_write.PROMPT}"},
    )
    assert source.ids() == ("path", "17", "address", "json", "inner", "asked")
    for sample in source:
        assert questions_of(sample) == ASKED
        assert sample.image.size == (64, 48)
        assert sample.extra["prompt"] == qa_write.PROMPT
        assert sample.extra["data_source"] == "sam"
    assert source.read(0).extra["path"] == tmp_path / "a.jpg"
    assert "path" not in source.read(1).extra


def test_limner_s_own_rows(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    row = {"id": "x", "image": "a.jpg", "questions": [q.plain() for q in ASKED], "captions": ["an astronaut"]}
    source = jsonl(tmp_path / "own.jsonl", row)
    assert questions_of(source.read(0)) == ASKED
    assert source.read(0).references == source.references(0) == ("an astronaut",)


WRONG = [
    ({**COLOUR, "answer": "D"}, "the answer 'D' is outside of the options A to C"),
    ({**COLOUR, "answer": None}, "without a right answer"),
    ({**COLOUR, "answer": ""}, "without a right answer"),
    ({**COLOUR, "answer": 2}, "the answer must be a letter: 2"),
    ({**COLOUR, "answer": "green"}, "the answer 'green' is none of the options"),
    ({**COLOUR, "answer": "A) orange"}, "the letter of one option and the text of another"),
    ({**COLOUR, "choices": ["A) red"]}, "1 options; at least two are needed"),
    ({**COLOUR, "choices": []}, "0 options; at least two are needed"),
    ({**COLOUR, "choices": "A) red"}, "`choices` must be a list of texts"),
    ({**COLOUR, "choices": ["A) red", "B) "]}, "an option without text"),
    ({**COLOUR, "question": " "}, "without text"),
    ({"choices": ["A) red", "B) blue"], "answer": "A"}, "must have text in `question`"),
    ({"question": "?", "options": ["red", "blue"], "answer": 2}, "no option 2"),
    ("no question at all", "must be a mapping"),
]


@pytest.mark.parametrize(("entry", "reason"), WRONG)
def test_a_bad_question_is_left_out_with_file_and_row_and_the_others_are_kept(tmp_path, jpeg, entry, reason):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    source = jsonl(tmp_path / "qa.jsonl", published("x", "a.jpg", COLOUR, entry, COUNT))
    sample = source.read(0)
    assert questions_of(sample) == ASKED
    (said,) = sample.extra[qa_rows.REJECTED]
    assert said.startswith("qa.jsonl: line 1: question 2: ")
    assert reason in said


def test_rows_that_cannot_be_used_are_rejected_with_file_and_row(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "torn.jpg").write_bytes(jpeg[:300])
    rows = [
        (published("fine", "a.jpg", COLOUR), None),
        (published("none", "a.jpg"), "line 2: not one usable question"),
        (
            published("bad", "a.jpg", {**COLOUR, "answer": "E"}),
            "line 3: not one usable question; question 1: ",
        ),
        (published("torn", "torn.jpg", COLOUR), "line 4: truncated image file"),
        (published("gone", "gone.jpg", COLOUR), "line 5: no such file"),
        (
            published("web", "https://example.org/a.jpg", COLOUR),
            "line 6: https://example.org/a.jpg is an address",
        ),
        (published("empty", None, COLOUR), "line 7: no image under 'image'"),
        (published("fine", "a.jpg", COLOUR), "line 8: the id 'fine' is that of line 1"),
        (published([1], "a.jpg", COLOUR), "line 9: `id` is neither"),
        ({"id": "shape", "image": "a.jpg"}, "line 10: no list of questions"),
        ({"id": "text", "image": "a.jpg", "questions": "what?"}, "line 11: no list of questions"),
        ([1], "line 12: no JSON object"),
    ]
    source = jsonl(tmp_path / "qa.jsonl", *(row for row, _ in rows))
    assert len(set(source.ids())) == len(rows)
    for index, (_, reason) in enumerate(rows):
        if reason is None:
            assert source.read(index).media
        else:
            with pytest.raises(Reject) as rejected:
                source.read(index)
            assert f"qa.jsonl: {reason}" in rejected.value.reason
    with pytest.raises(UserError, match=r"gone\.parquet: no such file"):
        Source(path=str(tmp_path / "gone.parquet")).ids()
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"text\.parquet: cannot be read as parquet"):
        Source(path=str(tmp_path / "text.parquet")).ids()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.parquet file in this folder"):
        Source(path=str(tmp_path / "empty")).ids()


def shards(folder, images, *, group=5):
    """Two shards of the published shape with a question of its own about each image."""
    rows = [
        published(f"row {n}", {"bytes": image, "path": None}, {**COUNT, "question": f"question {n}?"})
        for n, image in enumerate(images)
    ]
    folder.mkdir()
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"train-{number}.parquet", row_group_size=group)
    return Source(path=str(folder))


def test_parquet_shards_give_every_row_at_any_place(tmp_path, jpeg):
    source = shards(tmp_path / "set", [jpeg] * 41, group=9)
    assert source.ids() == tuple(f"row {n}" for n in range(41))
    for index in [*range(41), *reversed(range(41)), 3, 40, 0, 22, 21, 20]:
        sample = source.read(index)
        assert sample.id == f"row {index}"
        assert questions_of(sample)[0].text == f"question {index}?"


def test_parquet_rows_are_named_by_file_and_row(tmp_path, jpeg):
    source = shards(tmp_path / "set", [jpeg, jpeg, b"", jpeg[:300]])
    with pytest.raises(Reject, match=r"train-1\.parquet: row 1: empty file"):
        source.read(2)
    with pytest.raises(Reject, match=r"train-1\.parquet: row 2: truncated image file"):
        source.read(3)


def test_reading_in_order_decodes_every_batch_once(tmp_path, jpeg, monkeypatch):
    source = shards(tmp_path / "set", [jpeg] * 60, group=30)
    source.ids()
    decoded = []
    original = type(source._rows)._batches

    def counting(self, number, group):
        for batch in original(self, number, group):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(type(source._rows), "_batches", counting)
    assert [sample.id for sample in source] == list(source.ids())
    assert sum(decoded) == 60


def test_a_large_row_group_is_not_held_in_memory(tmp_path):
    # 400 rows of 200 kB in one row group: 80 MB, of which a few batches may be held at once.
    image = b"\xff\xd8" + bytes(range(256)) * 800
    rows = [published(n, {"bytes": image + str(n).encode(), "path": None}, COUNT) for n in range(400)]
    pq.write_table(
        pa.Table.from_pylist(rows), tmp_path / "big.parquet", compression="none", use_dictionary=False
    )
    del rows
    source = Source(path=str(tmp_path / "big.parquet"))
    before, highest = pa.total_allocated_bytes(), 0
    for index in (0, 399, 200, *range(0, 400, 7)):
        assert source.row(index).image[len(image) :] == str(index).encode()
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert highest < 20e6


def test_a_missing_pyarrow_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pip install 'limner\[parquet\]'"):
        Source(path=str(tmp_path / "a.parquet")).ids()


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
@pytest.mark.parametrize("form", ["limner", "caprl"])
@pytest.mark.parametrize("stored", ["file", "bytes"])
def test_what_is_written_is_read_again(tmp_path, jpeg, name, form, stored):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg)
    image = tmp_path / "photos" / "a.jpg" if stored == "file" else jpeg
    kinds = form == "limner"
    questions = (
        Question("Which?\nOf these?", ("one\ntwo", "A) one", "one", "B"), 3, "colour" if kinds else ""),
        Question("¿Cuántos?", ("dos", "tres"), 0),
    )
    rows = [(f"id/{n}", QuestionRow(image, questions, prompt="Say.", data_source="x")) for n in range(70)]
    (tmp_path / "deep").mkdir()
    assert qa_write.write(iter(rows), tmp_path / "deep" / name, form=form) == 70
    source = Source(path=str(tmp_path / "deep" / name))
    assert source.ids() == tuple(id for id, _ in rows)
    for index in (0, 69, 3):
        sample = source.read(index)
        assert questions_of(sample) == questions
        assert sample.image.size == (64, 48)
        assert ("prompt" in sample.extra) == (form == "caprl")
    assert not list(tmp_path.rglob("*.partial"))


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).map(str.strip)


@settings(max_examples=200)
@given(
    texts.filter(bool),
    st.lists(texts.filter(bool), min_size=2, max_size=25),
    st.integers(min_value=0, max_value=24),
)
def test_any_question_survives_the_published_form(text, options, answer):
    question = Question(text, tuple(options), answer % len(options))
    assert qa_rows.question(json.loads(json.dumps(qa_rows.plain(question)))) == question


def test_options_lose_only_the_letters_of_options():
    def texts(*choices):
        return qa_rows.unlettered(choices).texts

    assert (
        texts("A) red", "B) blue") == texts("(a) red", "(b) blue") == texts("red", "blue") == ("red", "blue")
    )
    assert texts("A. Lincoln", "Washington") == ("A. Lincoln", "Washington")
    assert texts("A) red", "blue", "C) green") == ("red", "blue", "green")
    assert texts("A cat", "B flat") == ("A cat", "B flat")
    moved = qa_rows.unlettered(["B) red", "A) blue"])
    assert moved.texts[moved.places["A"]] == "blue"


def test_data_check_says_what_is_wrong_question_by_question(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    source = jsonl(
        tmp_path / "qa.jsonl",
        published("x", "a.jpg", COLOUR, {**COLOUR, "answer": "E"}, {**COLOUR, "answer": None}),
        published("y", "a.jpg", {**COLOUR, "choices": ["A) red"]}),
        published("z", "gone.jpg", COLOUR),
    )
    (checked,) = check({"data": source})
    assert (checked.items, checked.usable, checked.questions) == (3, 1, 1)
    assert checked.kinds == {"question": 2, "no questions": 1, "broken": 1}
    arguments = ["data", "check", "kind=caption_qa", f"path={tmp_path / 'qa.jsonl'}"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 1
    assert "x: qa.jsonl: line 1: question 2: the answer 'E' is outside of the options A to C" in done.output
    assert "questions" in done.output
    plain = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).stdout)
    assert plain["sources"][0]["rejected_questions"] == 2
    assert len(plain["rejects"]) == 4


def test_training_names_questions_that_it_left_out(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    source = jsonl(tmp_path / "qa.jsonl", published("x", "a.jpg", COLOUR, {**COLOUR, "answer": "E"}))
    rejects = RejectLog(tmp_path / "rejects.jsonl")
    batches = Batches(source, 2, seed=0, rejects=rejects)
    batches.next()
    batches.close()
    (row,) = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert row["id"] == "x: rejected question 1"
    assert "qa.jsonl: line 1: question 2" in row["reason"]


def test_a_parquet_path_is_this_source(tmp_path):
    assert isinstance(named(str(tmp_path / "a.parquet")), Source)
