"""Every command that the documentation writes out is one: its names, options, settings and recipes exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from limner import cli, config
from limner.curate import settings as curation
from limner.prism.writers import DECODING

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md",
         *sorted((ROOT / "docs").rglob("*.md")))  # fmt: skip
MINE = ("recipe.yaml", "recipes/mine.yaml")
"""Recipes of the reader: what is in them is not known."""


def blocks(text: str) -> Iterator[str]:
    """Commands of code blocks, indented or fenced, each as one line."""
    fenced = False
    for line in text.replace("\\\n", " ").split("\n"):
        fenced ^= line.startswith("```")
        found = re.match(r"\s*(limner .*)" if fenced else r"(?: {4}|\t)\s*(limner .*)", line)
        if found:
            yield found[1]


def of_pages() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        yield from ((name, command) for command in blocks(page.read_text(encoding="utf8")))


def of_recipes() -> Iterator[tuple[str, str]]:
    for recipe in sorted((ROOT / "recipes").rglob("*.yaml")):
        header = re.sub(r"^# Command:", "#         ", recipe.read_text(encoding="utf8"), flags=re.MULTILINE)
        for line in re.findall(r"^# {5,}(limner .*)", header, flags=re.MULTILINE):
            yield recipe.relative_to(ROOT).as_posix(), line


def of_help() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "src" / "limner").glob("cli*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            text = ast.get_docstring(node) or "" if isinstance(node, ast.FunctionDef) else ""
            yield from (
                (file.name, line) for line in re.findall(r"^Example: (limner .*)", text, re.MULTILINE)
            )


WRITTEN = sorted({command: where for where, command in (*of_pages(), *of_recipes(), *of_help())}.items())
MENTIONED = sorted({
    (page.relative_to(ROOT).as_posix(), " ".join(code.split()))
    for page in PAGES
    for code in re.findall(r"`(limner [^`]+)`", page.read_text(encoding="utf8"))
})  # fmt: skip


class Line:
    """The command line, whose commands do nothing but say what they were given."""

    def __init__(self) -> None:
        self.root: Any = typer.main.get_command(cli.app)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._silence(self.root, "")

    def _silence(self, command: Any, name: str) -> None:
        for word, child in getattr(command, "commands", {}).items():
            self._silence(child, f"{name} {word}".strip())
        if not getattr(command, "commands", None):
            command.callback = lambda **given: self.said.append((name, given))

    def given(self, written: str) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the command as it would be called."""
        self.root.main(shlex.split(written, comments=True)[1:], prog_name="limner", standalone_mode=False)
        return self.said[-1]

    def named(self, words: list[str]) -> Any:
        """The command that words name."""
        command = self.root
        for word in words:
            if word not in getattr(command, "commands", {}):
                break
            command = command.commands[word]
        # `limner evaluate` is a command and a group
        return getattr(command, "commands", {}).get("captions", command)


@pytest.fixture(scope="module")
def line() -> Line:
    return Line()


def check_settings(name: str, given: dict[str, Any]) -> None:
    """The settings behind a command are settings of what it runs."""
    if name in ("train", "show") and given["recipe"] and given["recipe"] not in MINE:
        config.load(given["recipe"], given["overrides"] or (), complete=name == "train")
    elif name == "inspect":
        config.load(given["recipe"], complete=False)
    elif name in ("caption", "evaluate captions"):
        config.decoding(given["decoding"] or ())
    elif name == "evaluate prism":
        config.decoding(given["decoding"] or (), base=DECODING)
    elif name == "data questions":
        curation.read(given["settings"] or ())


@pytest.mark.parametrize(("written", "where"), WRITTEN)
def test_a_command_of_the_docs_is_one(written: str, where: str, line: Line) -> None:
    name, given = line.given(written)
    check_settings(name, given)


@pytest.mark.parametrize(("where", "written"), MENTIONED)
def test_a_command_that_is_mentioned_is_there_with_its_options(where: str, written: str, line: Line) -> None:
    words = [word for word in shlex.split(written, comments=True)[1:] if word != "..."]
    command = line.named(words)
    assert command is not line.root or words[0].startswith("-"), written
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    for word in words:
        assert not word.startswith("--") or word.partition("=")[0] in known, f"{where}: {written}"


def test_commands_are_found() -> None:
    found = list(blocks("limner reads\n    limner a \\\n        --b\n```\nlimner c\n```\nlimner d\n"))
    assert [" ".join(command.split()) for command in found] == ["limner a --b", "limner c"]
    assert len(WRITTEN) > 60
    assert {where.partition("/")[0] for _, where in WRITTEN} >= {"docs", "recipes", "cli_data.py"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_tests_that_a_page_names_are_there(page: Path) -> None:
    """Recipes, tests and pages by their path, test functions by `file.py::name` or `name` behind the file."""
    text = page.read_text(encoding="utf8")
    paths = re.findall(r"\b((?:recipes|tests|benchmarks|docs)/[\w./]+\.(?:py|yaml|md))\b", text)
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if link]
    missing = {path for path in paths if path not in MINE and not (ROOT / path).exists()}
    missing |= {link for link in links if not (page.parent / link).exists()}
    for file, names in re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)+)`", text):
        code = (ROOT / file).read_text(encoding="utf8")
        missing |= {f"{file}::{name}" for name in names.split("::")[1:] if f"def {name}(" not in code}
    assert not missing
