"""Writes golden/ptb/tokens.json: what pycocoevalcap 1.2 and its Java tool make of golden/ptb/inputs.json.

    PYTHONPATH=tests .venv/bin/python tests/golden/make_ptb.py

inputs.json was written by hand. `lines` are captions, by what is nasty about them; each is tokenised with a
line behind it that changes nothing. Every piece of pieces.json makes two more, alone and within a caption.
`files` are lists of captions that pycocoevalcap tokenises together: there the next line counts. Of a
caption with a line end inside, the tool makes several lines; their tokens are taken together.
"""

import json

from ptb_reference import FOLDER, PIECES, reference, tool

BEHIND = "x"
"""A line that is no word after which the tool looks back."""


def main() -> None:
    """Write the file."""
    inputs = json.loads((FOLDER / "inputs.json").read_text())
    lines: dict[str, list[str]] = inputs["lines"]
    pieces = [*PIECES["pieces"], *PIECES["phrases"]]
    lines["pieces"] = pieces + [f"the dog {piece} jumped" for piece in pieces]
    inside = lines.pop("line ends inside")
    golden = {
        "lines": {kind: _tokens(kind_lines) for kind, kind_lines in lines.items()},
        "files": [[captions, reference(captions)] for captions in inputs["files"]],
    }
    golden["lines"]["line ends inside"] = {line: _together(line) for line in inside}
    (FOLDER / "tokens.json").write_text(json.dumps(golden, indent=1) + "\n")


def _tokens(lines: list[str]) -> dict[str, str]:
    return dict(zip(lines, reference([part for line in lines for part in (line, BEHIND)])[::2], strict=True))


def _together(line: str) -> str:
    """The tokens of all lines that the tool makes of one, punctuation dropped by pycocoevalcap's own list."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    tokens = " ".join(tool(f"{line}\n{BEHIND}")[:-1]).lower().split()
    return " ".join(token for token in tokens if token not in PUNCTUATIONS)


if __name__ == "__main__":
    main()
