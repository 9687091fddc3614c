# ruff: noqa: E501 (outputs stand here as models write them)
"""What models write when they are asked for multiple-choice questions, and what must be read from it.

A case is (name, text, questions, reasons): a question is written "text | options / with / *the right one", and
reasons are those of the questions that must be rejected, in order.
"""

CAR = "What colour is the car? | red / *blue / green / white"
DOGS = "How many dogs are there? | one / two / *three / four"

CASES: list[tuple[str, str, list[str], list[str]]] = [
    (
        "as it is asked for",
        "Question: What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nAnswer: B\n\n"
        "Question: How many dogs are there?\nA) one\nB) two\nC) three\nD) four\nAnswer: C",
        [CAR, DOGS],
        [],
    ),
    (
        "bold Markdown with headings and an answer with its text",
        "#### 1. **What colour is the car?**\n   - A) red\n   - B) blue\n   - C) green\n   - D) white\n\n"
        "**Answer:** B) blue\n\n---\n\n#### 2. **How many dogs are there?**\n   - A) one\n   - B) two\n   - C) three\n"
        "   - D) four\n\n**Answer:** C) three",
        [CAR, DOGS],
        [],
    ),
    (
        "Q1 and letters with full stops",
        "Q1: What colour is the car?\nA. red\nB. blue\nC. green\nD. white\nCorrect answer: **B**\n"
        "Q2: How many dogs are there?\nA. one\nB. two\nC. three\nD. four\nCorrect answer: **C**",
        [CAR, DOGS],
        [],
    ),
    (
        "numbers and letters in parentheses",
        "1. What colour is the car?\n(A) red\n(B) blue\n(C) green\n(D) white\nAnswer: (B)\n"
        "2. How many dogs are there?\n(a) one\n(b) two\n(c) three\n(d) four\nAnswer: (c)",
        [CAR, DOGS],
        [],
    ),
    (
        "a preface, an end, and explanations",
        "Sure! Here are 2 multiple-choice questions about the image:\n\n**Question 1:** What colour is the car?\n\n"
        "A) red  \nB) blue  \nC) green  \nD) white  \n\n**Correct Answer:** B) blue\n*Explanation:* It is clearly blue.\n"
        "A) would be wrong.\n\n**Question 2:** How many dogs are there?\n\nA) one\nB) two\nC) three\nD) four\n\n"
        "**Correct Answer:** C) three\n\nLet me know if you need more questions!",
        [CAR, DOGS],
        [],
    ),
    (
        "the answer as text only",
        "1) What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nAnswer: Blue.\n",
        [CAR],
        [],
    ),
    ("the answer in quotation marks", "Q: What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nAns: \"blue\"", [CAR], []),
    (
        "the answer as a sentence",
        "What colour is the car?\nA: red\nB: blue\nC: green\nD: white\nThe correct answer is B) blue.",
        [CAR],
        [],
    ),
    (
        "the answer in the next line",
        "Question 1\nWhat colour is the car?\nOptions:\nA) red\nB) blue\nC) green\nD) white\n**Correct Answer**:\nB",
        [CAR],
        [],
    ),
    (
        "the answer as a line with nothing but a letter",
        "What colour is the car?\nA) red\nB) blue\nC) green\nD) white\n(B)\n",
        [CAR],
        [],
    ),
    ("everything in one line", "1. What colour is the car? A) red B) blue C) green D) white Answer: B", [CAR], []),
    (
        "options in one line",
        "What colour is the car?\nA) red, B) blue, C) green, D) white\nAnswer: B\n"
        "How many dogs are there?\n(A) one; (B) two; (C) three; (D) four\nAnswer: C",
        [CAR, DOGS],
        [],
    ),
    ("the answer in parentheses", "What colour is the car? A) red B) blue C) green D) white (Answer: B)", [CAR], []),
    (
        "the right option marked where it stands",
        "What colour is the car?\nA) red\nB) blue (correct)\nC) green\nD) white\n\n"
        "How many dogs are there?\nA) one\nB) two\nC) three \u2713\nD) four",
        [CAR, DOGS],
        [],
    ),
    (
        "a tick in front, an arrow behind",
        "1. What colour is the car?\nA) red\n\u2705 B) blue\nC) green\nD) white\n"
        "2. How many dogs are there?\nA) one\nB) two\nC) three <-- correct answer\nD) four",
        [CAR, DOGS],
        [],
    ),
    (
        "the right option in bold",
        "1. What colour is the car?\n\n- A) red\n- **B) blue**\n- C) green\n- D) white",
        [CAR],
        [],
    ),
    (
        "every option in bold says nothing",
        "1. What colour is the car?\n**A) red**\n**B) blue**\n**C) green**\n",
        [],
        ["cut off"],
    ),
    ("no letters but bullets", "What colour is the car?\n- red\n- blue\n- green\n- white\nAnswer: blue", [CAR], []),
    (
        "no letters at all",
        "What colour is the car?\nred\nblue\ngreen\nwhite\nAnswer: blue\n\n"
        "How many dogs are there?\none\ntwo\nthree\nfour\nAnswer: C",
        [CAR, DOGS],
        [],
    ),
    (
        "one letter left out",
        "What colour is the car?\nA) red\nblue\nC) green\nD) white\nAnswer: B\n\n"
        "How many dogs are there?\none\nB) two\nC) three\nD) four\nAnswer: C",
        [CAR, DOGS],
        [],
    ),
    ("the last letter left out", "How many?\nA) one\nB) two\nthree\nAnswer: C", ["How many? | one / two / *three"], []),
    (
        "numbered options",
        "Question 1: What colour is the car?\n1. red\n2. blue\n3. green\n4. white\nAnswer: 2\n"
        "Question 2: How many dogs are there?\n1) one\n2) two\n3) three\n4) four\nAnswer: 3) three",
        [CAR, DOGS],
        [],
    ),
    (
        "numbered questions with numbered options",
        "1. What colour is the car?\n   1) red\n   2) blue\n   3) green\n   4) white\n   Answer: 2\n"
        "2. How many dogs are there?\n   1) one\n   2) two\n   3) three\n   4) four\n   Answer: 3",
        [CAR, DOGS],
        [],
    ),
    (
        "a key of answers at the end",
        "1. What colour is the car?\nA) red\nB) blue\nC) green\nD) white\n\n"
        "2. How many dogs are there?\nA) one\nB) two\nC) three\nD) four\n\nAnswers:\n1. B\n2. C",
        [CAR, DOGS],
        [],
    ),
    (
        "a key in one line",
        "Q1. What colour is the car?\nA) red\nB) blue\nC) green\nD) white\n"
        "Q2. How many dogs are there?\nA) one\nB) two\nC) three\nD) four\n**Answer Key:** 1-B, 2-C",
        [CAR, DOGS],
        [],
    ),
    (
        "Q and A",
        "Q: What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nA: B\nQ: How many dogs are there?\n"
        "A) one\nB) two\nC) three\nD) four\nA: C) three",
        [CAR, DOGS],
        [],
    ),
    (
        "JSON in a fence",
        '```json\n[\n {"question": "What colour is the car?", "options": ["A) red", "B) blue", "C) green", "D) white"], '
        '"answer": "B"},\n {"question": "How many dogs are there?", "options": ["one", "two", "three", "four"], '
        '"answer": "three"}\n]\n```',
        [CAR, DOGS],
        [],
    ),
    (
        "JSON with options by letter, and prose around it",
        'Here you are:\n{"questions": [{"question": "What colour is the car?", "choices": {"A": "red", "B": "blue", '
        '"C": "green", "D": "white"}, "correct_answer": "B"}]}\nI hope this helps! {really}',
        [CAR],
        [],
    ),
    (
        "JSON with trailing commas",
        '[{"question": "What colour is the car?", "options": ["red", "blue", "green", "white",], "answer": "B",},]',
        [CAR],
        [],
    ),
    (
        "JSON as Python writes it",
        "[{'question': 'What colour is the car?', 'options': ['red', 'blue', 'green', 'white'], 'answer': 'B'}]",
        [CAR],
        [],
    ),
    (
        "JSON lines that are cut off",
        '{"question": "What colour is the car?", "A": "red", "B": "blue", "C": "green", "D": "white", "answer": "B"}\n'
        '{"question": "How many dogs are there?", "A": "one", "B": "tw',
        [CAR],
        ["cut off"],
    ),
    (
        "JSON with an index and with options that say whether they are right",
        '[{"question": "What colour is the car?", "options": ["red", "blue", "green", "white"], "answer_index": 1}, '
        '{"question": "How many dogs are there?", "options": [{"text": "one", "correct": false}, {"text": "two"}, '
        '{"text": "three", "correct": true}, {"text": "four"}]}]',
        [CAR, DOGS],
        [],
    ),
    (
        "JSON with a number for an answer",
        '[{"question": "How many?", "options": ["five", "six", "seven"], "answer": 2}, '
        '{"question": "How many cats?", "options": [1, 2, 3], "answer": 2}]',
        ["How many cats? | 1 / *2 / 3"],
        ["answer is no option"],
    ),
    (
        "a type and a difficulty",
        "Question 1 (Colour): What colour is the car?\nType: colour\nA) red\nB) blue\nC) green\nD) white\nAnswer: B\n"
        "Difficulty: easy",
        [CAR],
        [],
    ),
    (
        "thoughts in front",
        "<think>The car is blue. Question: what?\nA) x\nB) y\nAnswer: A</think>\nQuestion: What colour is the car?\n"
        "A) red\nB) blue\nC) green\nD) white\nAnswer: B",
        [CAR],
        [],
    ),
    (
        "Chinese",
        "\u95ee\u98981\uff1a\u8f66\u662f\u4ec0\u4e48\u989c\u8272\uff1f\nA. \u7ea2\u8272\nB. \u84dd\u8272\nC\uff0e\u7eff\u8272\n"
        "\u7b54\u6848\uff1aB\n\n2\u3001\u6709\u51e0\u53ea\u72d7\uff1f\nA\u3001\u4e00\u53ea\nB\u3001\u4e24\u53ea\n\u6b63\u786e\u7b54\u6848\uff1aA",
        [
            "\u8f66\u662f\u4ec0\u4e48\u989c\u8272\uff1f | \u7ea2\u8272 / *\u84dd\u8272 / \u7eff\u8272",
            "\u6709\u51e0\u53ea\u72d7\uff1f | *\u4e00\u53ea / \u4e24\u53ea",
        ],
        [],
    ),
    (
        "Russian with letters of its own",
        "\u0412\u043e\u043f\u0440\u043e\u0441 1: \u041a\u0430\u043a\u043e\u0433\u043e \u0446\u0432\u0435\u0442\u0430?\n\u0410) \u043a\u0440\u0430\u0441\u043d\u044b\u0439\n"
        "\u0411) \u0441\u0438\u043d\u0438\u0439\n\u0412) \u0431\u0435\u043b\u044b\u0439\n\u041f\u0440\u0430\u0432\u0438\u043b\u044c\u043d\u044b\u0439 \u043e\u0442\u0432\u0435\u0442: \u0412",
        ["\u041a\u0430\u043a\u043e\u0433\u043e \u0446\u0432\u0435\u0442\u0430? | \u043a\u0440\u0430\u0441\u043d\u044b\u0439 / \u0441\u0438\u043d\u0438\u0439 / *\u0431\u0435\u043b\u044b\u0439"],
        [],
    ),
    (
        "German, French and Spanish",
        "Frage 1: Welche Farbe?\nA) rot\nB) blau\nRichtige Antwort: B\n\nQuestion 2 : Quelle couleur ?\nA) rouge\nB) bleu\n"
        "Bonne r\u00e9ponse : A\n\nPregunta 3: \u00bfQu\u00e9 color?\na) rojo\nb) azul\nRespuesta correcta: b) azul",
        ["Welche Farbe? | rot / *blau", "Quelle couleur ? | *rouge / bleu", "\u00bfQu\u00e9 color? | rojo / *azul"],
        [],
    ),
    (
        "duplicated options",
        "What colour is the car?\nA) red\nB) blue\nC) Red.\nD) green\nAnswer: D\n\n"
        "What colour is the sky?\nA) grey\nB) blue\nC) Blue\nAnswer: C",
        ["What colour is the car? | red / blue / *green", "What colour is the sky? | grey / *blue"],
        [],
    ),
    ("options that all say the same", "What?\nA) red\nB) Red\nAnswer: A", [], ["one option"]),
    (
        "no answer, an answer outside, two answers",
        "1. What colour?\nA) red\nB) blue\n\n2. How many?\nA) one\nB) two\nAnswer: E\n\n"
        "3. Which?\nA) this\nB) that\nAnswer: A and B\n\n4. Where?\nA) here\nB) there\nAnswer: A) there\n\n"
        "5. Who?\nA) he\nB) she\nAnswer: they\n",
        [],
        ["no answer", "answer outside the options", "several answers", "answer contradicts itself", "answer is no option"],
    ),
    ("two answers that differ", "Who?\nA) he\nB) she\nAnswer: A\nCorrect answer: B", [], ["several answers"]),
    ("the same answer twice", "Who?\nA) he\nB) she\nAnswer: A\nCorrect answer: he", ["Who? | *he / she"], []),
    ("one option", "Who?\nA) he\nAnswer: A\n\nWhere?\nAnswer: here.", [], ["one option", "no options"]),
    ("an empty option", "Who?\nA)\nB) she\nC) it\nAnswer: B", [], ["empty option"]),
    (
        "the same question twice",
        "1. Who is it?\nA) he\nB) she\nAnswer: A\n2. Who is it?\nA) he\nB) she\nAnswer: A",
        ["Who is it? | *he / she"],
        ["repeated"],
    ),
    (
        "cut off by the length limit",
        "1. What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nAnswer: B\n2. How many dogs are th",
        [CAR],
        ["cut off"],
    ),
    ("cut off in the options", "1. Who?\nA) he\nB) she\nAnswer: A\n2. Where?\nA) here\nB) the", ["Who? | *he / she"], ["cut off"]),
    ("a refusal", "I'm sorry, but I can't help with identifying people in images.", [], ["nothing found"]),
    ("nothing", "", [], ["nothing found"]),
    ("a description", "The image shows a red car. A dog stands beside it. It is sunny.", [], ["nothing found"]),
    (
        "texts that look like letters",
        "What letter is on the sign?\nA) B\nB) A\nC) C\nAnswer: B\n\nWhich vitamin?\nA) Vitamin A\nB) Vitamin B\nAnswer: Vitamin A",
        ["What letter is on the sign? | B / *A / C", "Which vitamin? | *Vitamin A / Vitamin B"],
        [],
    ),
    (
        "a sentence to complete",
        "1. The man in the picture is holding ____.\nA) a phone\nB) a book\nAnswer: A\n"
        "Question 2. The sign reads:\nA) STOP\nB) GO\nAnswer: B. GO",
        ["The man in the picture is holding ____. | *a phone / a book", "The sign reads: | STOP / *GO"],
        [],
    ),
    (
        "options over two lines",
        "1. What does the sign say?\nA) Keep\n   off\nB) Come\n   in\nAnswer: A",
        ["What does the sign say? | *Keep off / Come in"],
        [],
    ),
    (
        "numbers, times and signs in options",
        "What time is it?\nA) 10:30\nB) 3.15\nC) $5 * 2\nD) 1/2\nAnswer: A) 10:30",
        ["What time is it? | *10:30 / 3.15 / $5 * 2 / 1/2"],
        [],
    ),
    ("Windows line ends and blanks", "Q1 :  What colour is the car ?\r\n\r\nA )red\r\nB )blue\r\n\r\nAnswer : B\r\n", ["What colour is the car ? | red / *blue"], []),
    (
        "digits in circles",
        "Q. How many dogs are there?\n\u2460 one\n\u2461 two\n\u2462 three\n\u2463 four\nAnswer: \u2462",
        [DOGS],
        [],
    ),
    (
        "quoted, in a list",
        "> 1. **What colour is the car?**\n>    * **A)** red\n>    * **B)** blue\n>    * **C)** green\n>    * **D)** white\n"
        ">    * **Answer: B**",
        [CAR],
        [],
    ),
    (
        "the reason behind the answer",
        "What colour is the car?\nA) red\nB) blue\nC) green\nD) white\nAnswer: B, because it looks blue",
        [CAR],
        [],
    ),
]  # fmt: skip
