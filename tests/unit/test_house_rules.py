"""The rules of CONTRIBUTING.md that a test can hold."""

import ast
import dataclasses
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import configuration_docs
import limner

ROOT = Path(__file__).parents[2]
PYTHON = sorted(
    path for folder in ("src", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
)
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_FIELDS = 350, 60, 15


def tracked() -> list[Path]:
    """Files that git knows; of an unpacked archive all files of the project's folders."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]
    return [
        path
        for name in ("src", "tests", "docs", "recipes")
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    ]


def test_no_file_is_long():
    long = {path: n for path in PYTHON if (n := len(path.read_text().splitlines())) > MAX_FILE_LINES}
    assert PYTHON
    assert not long


def first_line(node: ast.FunctionDef | ast.AsyncFunctionDef, *, command: bool) -> int:
    """Where a function's length is counted from; a command's options stand one or more lines each."""
    return node.body[0].lineno if command else node.lineno


def test_no_function_is_long():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - first_line(node, command=path.name.startswith("cli")) + 1
        > MAX_FUNCTION_LINES
    ]
    assert not long


def test_no_dataclass_has_many_fields():
    many: list[str] = []
    found = 0
    for module in pkgutil.walk_packages(limner.__path__, "limner."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(value, type)
                and dataclasses.is_dataclass(value)
                and value.__module__ == module.name
            ):
                found += 1
                many += (
                    [f"{module.name}.{value.__name__}"] if len(dataclasses.fields(value)) > MAX_FIELDS else []
                )
    assert found > 20
    assert not many


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in (ROOT / "src" / "limner").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_no_tracked_file_names_a_developer_s_machine_or_leaves_work_open():
    patterns = [
        r"/home/\w+/",
        r"/Users/\w+/",
        r"/root/",
        r"\bTODO\b",
        r"\bFIXME\b",
        r"\bXXX\b",
        re.escape(f"{ROOT}/"),
    ]
    if ROOT.parent not in (Path("/"), Path(tempfile.gettempdir())):
        patterns.append(rf"(?<![\w.]){re.escape(f'{ROOT.parent}/')}")
    wanted = re.compile("|".join(patterns))
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".json", ".html", ".js", ".css", ""}
        and path.name != Path(__file__).name
        for number, line in enumerate(path.read_text(encoding="utf8", errors="replace").splitlines(), 1)
        if wanted.search(line)
    ]
    assert not named


def imported(folder: str) -> set[str]:
    """Packages of others that the code of a folder imports."""
    nodes = [node for path in (ROOT / folder).rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    ours = {path.stem for own in (folder, "benchmarks") for path in (ROOT / own).glob("*.py")} | {"limner"}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - ours


def test_tests_measure_neither_time_nor_the_memory_of_a_process():
    """Both depend on what else the machine does; `tests/patience.py` is how they wait."""
    clock = re.compile(
        r"\b(monotonic|perf_counter|process_time|thread_time|getrusage|statm|VmHWM)\b|time\.time\("
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PYTHON
        if path.is_relative_to(ROOT / "tests") and path.name not in ("patience.py", Path(__file__).name)
        for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1)
        if clock.search(line)
    ]
    assert not found


def test_what_is_imported_is_declared_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bare = [re.match(r"[\w-]+", line) for line in project["dependencies"]]
    needed = {match.group().lower() for match in bare if match}
    groups = {
        name: {re.split(r"[\[><=]", line)[0].lower() for line in lines}
        for name, lines in project["optional-dependencies"].items()
    }
    dev = groups.pop("dev")
    needed |= set().union(*groups.values())  # an extra's package is imported where it is used
    owners = importlib.metadata.packages_distributions()
    for folder, declared in (("src", needed), ("tests", needed | dev), ("benchmarks", needed | dev)):
        for module in imported(folder):
            names = {name.lower().replace("_", "-") for name in owners.get(module, [module])}
            assert names & declared, f"{folder} imports {module}, which pyproject.toml does not name"
    pinned = {
        line.split("==")[0].replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    assert not (needed | dev) - pinned


def test_every_setting_is_documented_as_it_is():
    page = configuration_docs.PAGE.read_text(encoding="utf8")
    assert page == configuration_docs.page(), "run: python tests/configuration_docs.py"
