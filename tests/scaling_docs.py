"""Writes what `limner plan` prints into docs/scaling.md: `python tests/scaling_docs.py [COMMAND]...`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BLOCK = re.compile(
    r"(?P<head>```console\n\$ limner (?P<command>plan [^\n]*)\n)(?P<text>.*?)(?P<tail>```\n)", re.DOTALL
)


def blocks() -> dict[str, str]:
    """What the page shows of each command."""
    return {found["command"]: found["text"] for found in BLOCK.finditer(PAGE.read_text(encoding="utf8"))}


def printed(command: str) -> str:
    """What a command prints now."""
    run = [sys.executable, "-m", "limner", *command.split()]
    return subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout


def write(command: str) -> None:
    """Put what a command prints now into the page."""
    new, text = printed(command), PAGE.read_text(encoding="utf8")

    def block(found: re.Match[str]) -> str:
        return found["head"] + (new if found["command"] == command else found["text"]) + found["tail"]

    PAGE.write_text(BLOCK.sub(block, text), encoding="utf8")


if __name__ == "__main__":
    for each in sys.argv[1:] or blocks():
        write(each)
