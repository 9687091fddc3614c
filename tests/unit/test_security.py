"""What docs/security.md promises of all code, and the limits that it writes down."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from limner import captioners
from limner.client import Endpoint
from limner.data import base, video, video_pool
from limner.errors import UserError
from limner.paths import resolve
from limner.serve import fetch
from limner.serve.settings import Limits

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "limner").rglob("*.py"))


def calls(*beginnings: str) -> list[tuple[str, str]]:
    """(file, call as it is written) of all calls that begin so."""
    found = []
    for file in SOURCES:
        text = file.read_text(encoding="utf8")
        if not any(beginning.split("(")[0].split(".")[0] in text for beginning in beginnings):
            continue
        written = (ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        found += [(file.name, call) for call in written if call.startswith(beginnings)]
    return found


def test_no_checkpoint_runs_code() -> None:
    loads = [
        call
        for call in calls("Auto", "files.loaded(Auto")
        if "from_pretrained" in call[1] or "loaded" in call[1]
    ]
    assert len(loads) > 5
    assert [call for call in loads if "trust_remote_code=False" not in call[1]] == []
    torch_files = calls("torch.load(")
    assert torch_files
    assert [call for call in torch_files if "weights_only=True" not in call[1]] == []


def test_only_our_own_processes_are_unpickled() -> None:
    assert {file for file, _ in calls("pickle.load", "pickle.Unpickler")} <= {"video_worker.py"}


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    shutil.copytree(resolve("world:captioner"), folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="would run code that comes with it"):
        captioners.load(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()


def defaults(kind: type, *names: str) -> dict[str, object]:
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    return {name: fields[name] for name in names or fields}


def constants(module: object, *names: str) -> dict[str, object]:
    return {name: getattr(module, name) for name in names}


TABLES = {
    "of a request to `limner serve`": defaults(Limits),
    "of an address that is fetched for it": constants(fetch, "REDIRECTS", "SECONDS"),
    "of a data set's files": defaults(base.FileSource, "max_bytes", "max_pixels", "max_side"),
    "of a data set's videos": constants(video, "MAX_PIXELS", "MAX_SIDE", "MAX_DECODED")
    | constants(video_pool, "MAX_SECONDS")
    | {name.upper(): value for name, value in defaults(base.VideoSource, "max_pixels", "max_side").items()},
    "of an endpoint that is asked": defaults(
        Endpoint, "concurrency", "timeout_seconds", "patience_seconds", "tries"
    ),
}


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf8")
    for head, held in TABLES.items():
        rows = text.partition(f"| {head} |")[2].partition("\n\n")[0]
        written = dict(re.findall(r"^\| `(\w+)` \| ([\d,.]+) \|", rows, re.MULTILINE))
        assert {name: float(value.replace(",", "")) for name, value in written.items()} == held, head


def test_the_limits_of_the_service_s_page_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf8")
    rows = text.partition("| limit | what it bounds")[2].partition("\n\n")[0]
    written = re.findall(r"`(\w+)` ([\d,.]*\d)", rows)
    assert {name: float(value.replace(",", "")) for name, value in written} == defaults(Limits)
