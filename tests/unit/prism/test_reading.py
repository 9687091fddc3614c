"""Files of questions in the published shapes, and what is refused in them, with file and row."""

import base64
import io
import json

import pytest
from PIL import Image

from limner.errors import UserError
from limner.prism.captions import contents
from limner.prism.items import BOXED, LETTER, options_in, turns_of
from limner.prism.reading import read_set
from limner.prism.sets import KINDS, named

MARK = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
END = "<|im_end|>\n<|im_start|>assistant\n"


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    return tmp_path


def read(folder, name, content, kind="", **more):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    given = f"{path}:{kind}" if kind else str(path)
    return read_set(named([given])[0], pictures=folder / "pictures", **more)


def reasons(found):
    return {rejected.row: rejected.reason for rejected in found.rejected}


def test_the_twelve_sets_are_known_by_their_published_files():
    files = [
        *("chartqa", "infovqa", "MMStar", "mmmu", "CharXiv", "ChartQA_Pro", "MMMU_Pro", "seed2k"),
        *("MathVerse_MINIVInt", "MathVision", "WeMath", "Visu"),
    ]
    kinds = [named([f"lmm_eval_{name}.json"])[0].kind for name in files]
    assert kinds == [
        *("chartqa", "infovqa", "mmstar", "mmmu", "charxiv", "chartqapro", "mmmu_pro", "seed2k", "mathverse"),
        *("mathvision", "wemath", "visulogic"),
    ]
    scorers = {kind: KINDS[kind].scorer for kind in kinds}
    assert {kind for kind in scorers if scorers[kind] == "relaxed"} == {"chartqa", "chartqapro", "charxiv"}
    assert {kind for kind in scorers if scorers[kind] == "anls"} == {"infovqa"}
    assert {kind for kind in scorers if scorers[kind] == "choice"} == {
        "mmstar", "seed2k", "wemath", "visulogic"
    }  # fmt: skip


def test_names_of_sets():
    assert [one.name for one in named(["a.json:math", "b.json:math", "mmstar.tsv"])] == [
        *("math-a", "math-b", "mmstar"),
    ]
    assert named(["world:test"])[0].kind == "questions"
    for given, message in (
        ([], "give --set"),
        (["x.json"], "says no kind"),
        (["x.json:mmstra"], "did you mean 'mmstar'"),
        (["a.json:math", "a.json:math"], "given twice"),
    ):
        with pytest.raises(UserError, match=message):
            named(given)


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_published_rows(folder, form):
    rows = [
        {"image": "red.png", "prompt": f"{MARK}What colour?\nA. red\nB. blue{END}", "answer": "A"},
        {"image": ["red.png", "blue.png"], "prompt": f"{MARK}Which?\n(A) one\n(B) two{END}", "answer": "(B)"},
        {
            "image": [{"role": "user", "content": [{"type": "image", "image": "blue.png"}]}],
            "prompt": f"<|im_start|>system\nBe brief.<|im_end|>\n{MARK}Colour?\nA. red\nB. blue{END}",
            "answer": "blue",
        },
    ]
    text = json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)) + "\n"
    found = read(folder, f"lmm_eval_MMStar.{form}", text)
    assert [item.gold.answers for item in found.items] == [("A",), ("B",), ("B",)]
    assert [[path.name for path in item.images] for item in found.items] == [
        ["red.png"],
        ["red.png", "blue.png"],
        ["blue.png"],
    ]
    said = found.items[0].conversation("A red square")
    # as the published code puts it, to the letter
    assert said == [
        {
            "role": "user",
            "content": "Here is a detailed caption of an image: A red square. Please answer the question "
            "based on the caption.What colour?\nA. red\nB. blue",
        }
    ]
    assert [message["role"] for message in found.items[2].conversation("x")] == ["system", "user"]


def test_bad_rows_are_named_with_their_row(folder):
    (folder / "broken.png").write_bytes(png("red")[:40])
    good = {"image": "red.png", "prompt": "Which?\nA. one\nB. two", "answer": "A"}
    rows = [
        good,
        good | {"image": "no.png"},
        good | {"answer": "E"},
        good | {"answer": None},
        good | {"answer": " "},
        good | {"prompt": "Which?\nA. one"},
        good | {"prompt": "<|im_start|>user\n<|image_pad|><|im_end|>"},
        {key: value for key, value in good.items() if key != "image"},
        good | {"image": "broken.png"},
        "text",
        good | {"options": ["one"], "prompt": "Which?"},
    ]
    found = read(folder, "rows.json", rows, "mmstar")
    assert reasons(found) == {
        2: "image no.png: no such file",
        3: "the right answer 'E' is none of the 2 options",
        4: "no answer",
        5: "no answer: `answer` is empty",
        6: "1 options; a multiple-choice question needs two or more",
        7: "no question in `prompt`",
        8: "no image",
        10: "no JSON object",
        11: "1 options; a multiple-choice question needs two or more",
    }
    assert {rejected.file for rejected in found.rejected} == {str(folder / "rows.json")}
    assert [item.id for item in found.items] == ["mmstar/1", "mmstar/9"]  # that it does not open shows later


def test_an_image_that_is_gone_takes_its_question_along(folder):
    row = {"image": "red.png", "prompt": "Which?\nA. one\nB. two", "answer": "A"}
    found = read(folder, "rows.json", [row, row | {"image": "blue.png"}], "mmstar")
    (folder / "blue.png").unlink()
    assert len(contents([found])) == 1
    assert reasons(found) == {2: "image blue.png: cannot be read: no such file or directory"}


def test_a_broken_line_is_one_row(folder):
    row = json.dumps({"image": "red.png", "prompt": "How many?", "answer": 3})
    found = read(folder, "chart.jsonl", f"{row}\n{{broken\n\n{row}\n", "chart")
    assert [item.id for item in found.items] == ["chart/1", "chart/4"]
    assert reasons(found)[2].startswith("no valid JSON")


def test_an_unreadable_gold_answer_is_refused(folder):
    row = {"image": "red.png", "prompt": "How many?", "answer": "12"}
    found = read(folder, "m.json", [row, row | {"answer": r"\text{}\\"}], "math")
    assert "cannot be read as mathematics" in reasons(found)[2]


def test_files_that_cannot_be_used(folder):
    for content, message in (("[1,", "is not JSON"), ("[]", "holds no question"), ("[7]", "row 1: no JSON")):
        with pytest.raises(UserError, match=message):
            read(folder, "m.json", content, "math")
    with pytest.raises(UserError, match="cannot be read"):
        read_set(named([f"{folder}/never.json:math"])[0], pictures=folder)


def tsv(folder, rows, kind, columns="index image question A B C D answer hint category"):
    names = columns.split()
    lines = ["\t".join(names)]
    lines += ["\t".join(str(row.get(name, "")) for name in names) for row in rows]
    return read(folder, "set.tsv", "\n".join(lines) + "\n", kind)


def test_tables_of_vlmevalkit(folder):
    image = base64.b64encode(png("red")).decode()
    row = {"index": 7, "image": image, "question": "What colour?", "A": "red", "B": "blue", "answer": "A"}
    found = tsv(
        folder,
        [
            row,
            row | {"index": 8, "image": "7", "hint": "Look."},  # the image of row 7
            row | {"index": 9, "answer": "C"},
            row | {"index": 10, "B": ""},
            row | {"index": 11, "image": "99"},
            row | {"index": 12, "image": "!" * 80},
            row | {"index": 13, "image": ""},
            row | {"index": 14, "question": ""},
        ],
        "mmstar",
    )
    first, second = found.items
    assert first.images == second.images
    assert first.images[0].read_bytes() == png("red")
    assert second.turns == (("user", "\nHint: Look.\nWhat colour?\nA) red\nB) blue"),)
    assert first.conversation("a square")[0]["content"] == (
        "Here is a detailed caption of an image: a square. Please answer the question based on the caption.\n"
        f"What colour?\nA) red\nB) blue\n{LETTER}"
    )
    assert reasons(found) == {
        3: "the right answer 'C' is none of the 2 options",
        4: "1 options; a multiple-choice question needs two or more",
        5: "its image is that of row '99', which has none or comes later",
        6: "its image is no base64",
        7: "no image",
        8: "no question",
    }


def test_tables_with_paths_and_several_gold_answers(folder):
    rows = [{"image_path": "red.png", "question": "Which word?", "answer": "['cat', 'dog']"}]
    found = tsv(folder, rows, "infovqa", columns="index image_path question answer")
    assert found.items[0].gold.answers == ("cat", "dog")
    assert found.items[0].instruction == BOXED
    with pytest.raises(UserError, match="no column answer"):
        tsv(folder, rows, "infovqa", columns="index image_path question")


def test_options_in_a_prompt():
    assert options_in("Q?\nA. one\nB. two\nC. three") == ("one", "two", "three")
    assert options_in("Q?\n(A) one\n(B) two") == ("one", "two")
    assert options_in("Example:\nA. x\nB. y\nQ?\nA. one\nB. two") == ("one", "two")
    assert options_in("A red car. B is blue.") == ()


def test_a_template_of_ones_own(folder):
    found = read(folder, "m.json", [{"image": "red.png", "prompt": "How many?", "answer": 3}], "math")
    said = found.items[0].conversation("{question}", "{caption}\n{question}\nAnswer:")
    assert said[0]["content"] == "{question}\nHow many?\nAnswer:"
    assert turns_of("x <image> y") == (("user", "\nx  y"),)


def test_only_the_first_rows(folder):
    rows = [{"image": "red.png", "prompt": "How many?", "answer": 3}] * 5
    assert len(read(folder, "m.json", rows, "math", limit=2).items) == 2
