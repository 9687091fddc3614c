"""The Java tool behind pycocoevalcap's tokeniser, and made-up lines to compare it on."""

import json
import random
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden" / "ptb"
PIECES: dict[str, list[str]] = json.loads((FOLDER / "pieces.json").read_text())
"""`words` of captions; `pieces` and `phrases` (with spaces), each a trap; single `signs`."""
BREAKS = dict.fromkeys(map(ord, "\n\r\x0b\x0c\u2028\u2029"), " ")
"""What the tool takes for the end of a line, to be translated to spaces."""

needs_java = pytest.mark.skipif(
    find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="compares with the Java tool in pycocoevalcap: install limner[metrics-java] and a Java runtime",
)


def reference(captions: list[str]) -> list[str]:
    """What pycocoevalcap makes of captions in one file: for each its tokens, joined with spaces."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokens = PTBTokenizer().tokenize({number: [{"caption": line}] for number, line in enumerate(captions)})
    return [tokens[number][0] for number in range(len(captions))]


def tool(text: str) -> list[str]:
    """The lines that the Java tool itself gives for a text, case kept, punctuation in."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode().split("\n")


def lines(seed: int, count: int) -> list[str]:
    """`count` lines: words, pieces, pieces glued to words, strings of signs, characters from anywhere."""
    draw = random.Random(seed)
    return [_line(draw) for _ in range(count)]


def _line(draw: random.Random) -> str:
    nasty = draw.choice((0.02, 0.1, 0.3, 0.6, 1.0))
    gaps = (" ",) * 30 + ("", "", "", "", "  ", ", ", ". ", "-", "/", "'", ".", "\t", "\u00a0")
    line = ""
    for _ in range(draw.choice((0, 1, 2, 4, 8, 12, 20))):
        part = _nasty(draw) if draw.random() < nasty else draw.choice(PIECES["words"])
        case = draw.random()
        line += part.upper() if case < 0.03 else part.capitalize() if case < 0.08 else part
        line += draw.choice(gaps)
    return line.translate(BREAKS)


def _nasty(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.1:
        return draw.choice(PIECES["phrases"])
    if kind < 0.5:
        return draw.choice(PIECES["pieces"])
    if kind < 0.65:
        return draw.choice(PIECES["pieces"]) + draw.choice(PIECES["words"])
    if kind < 0.8:
        return draw.choice(PIECES["words"]) + draw.choice(PIECES["pieces"])
    if kind < 0.95:
        return "".join(draw.choices(PIECES["signs"], k=draw.randint(1, 8)))
    top = draw.choice((0x80, 0x250, 0x3000, 0xD800))
    return "".join(chr(draw.randrange(1, top)) for _ in range(draw.randint(1, 3)))
