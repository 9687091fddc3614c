"""METEOR as its Java program gives it; what is said where Java, the package or CoreNLP is missing."""

import gc
import importlib
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from limner.errors import UserError
from limner.metrics import java
from limner.metrics.java import meteor, spice

CANDIDATES = [["a", "man", "on", "a", "horse"], ["dogs", "running"], [], ["a", "b"]]
REFERENCES = [
    [["a", "man", "riding", "a", "horse"], ["a", "person", "on", "a", "horse"]],
    [["two", "dogs", "run"]],
    [["a", "b"]],
    [[], ["a", "b"]],
]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")


@pytest.mark.slow
@needs_java
def test_meteor():
    scores = meteor(CANDIDATES, REFERENCES)
    # What pycocoevalcap 1.2's Meteor said of the first two; they need METEOR's stems and paraphrases.
    assert scores.images[:2].tolist() == pytest.approx([0.8666666666666667, 0.3347174274025055], abs=1e-12)
    assert scores.images[2:].tolist() == [0.0, 1.0]
    assert 0 < scores.corpus < 1


def fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program named java that does what the script says."""
    (folder / "java").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Could not reserve enough space' >&2; exit 1", "Could not reserve"),
        ("read x; echo no", "ended early"),
    ],
)
def test_a_program_that_fails_is_reported_and_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
):
    fake_java(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match=said):
        meteor([["a"]], [[["a"]]])
    gc.collect()  # pycocoevalcap's destructor must neither wait for ever nor warn


def test_java_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, metric in (("METEOR", meteor), ("SPICE", spice)):
        with pytest.raises(UserError, match=f"{name} is a Java program and there is no `java` here"):
            metric([["a"]], [[["a"]]])


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(java, "find_spec", lambda name: find_spec("no_such_package_at_all"))
    with pytest.raises(UserError, match=r"pip install 'limner\[metrics-java\]'"):
        meteor([["a"]], [[["a"]]])


def test_spice_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = find_spec("pycocoevalcap")
    assert spec is not None
    lib = Path(next(iter(spec.submodule_search_locations or ()))) / "spice" / "lib"
    if all((lib / name).is_file() for name in java._CORENLP):
        pytest.skip("Stanford CoreNLP is here")
    fake_java(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(UserError, match=r"SPICE needs stanford-corenlp-3\.6\.0\.jar and .*-models\.jar in "):
        spice([["a"]], [[["a"]]])


def test_spice_is_read_by_image_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Everything but the program itself, whose models cannot be had here: a stand-in writes as it does."""
    pytest.importorskip("pycocoevalcap")
    stand_in = """
import json, pathlib, sys
rows = json.loads(pathlib.Path(sys.argv[4]).read_text())
said = {"a horse": 0.25, "dogs": float("nan"), "a b": 1.0}
scores = [{"All": {"f": said[row["test"]], "pr": 0, "re": 0}} for row in rows]
out = [{"image_id": row["image_id"], "scores": score} for row, score in zip(rows, scores)]
pathlib.Path(sys.argv[sys.argv.index("-out") + 1]).write_text(json.dumps(out[::-1]))
"""
    (tmp_path / "program.py").write_text(stand_in)
    fake_java(tmp_path, monkeypatch, f'exec {sys.executable} {tmp_path}/program.py "$@"')
    monkeypatch.setattr(java, "_CORENLP", ())
    program = importlib.import_module("pycocoevalcap.spice.spice")
    monkeypatch.setattr(program, "get_stanford_models", lambda: None)  # it would download them
    candidates = [["a", "horse"], ["dogs"], ["a", "b"]]
    scores = spice(candidates, [[["a"]], [["a"], ["b"]], [["a", "b"]]])
    assert scores.tolist() == pytest.approx([0.25, float("nan"), 1.0], nan_ok=True)
    fake_java(tmp_path, monkeypatch, "exit 3")
    with pytest.raises(UserError, match="SPICE's Java program failed"):
        spice(candidates, [[["a"]], [["a"]], [["a"]]])


def test_the_separator_of_meteor_is_refused():
    with pytest.raises(UserError, match=r"image 0 holds \|\|\|"):
        meteor([["a"]], [[["a", "|||", "b"]]])


def test_empty_captions_are_refused_where_asked():
    for metric in (meteor, spice):
        with pytest.raises(UserError, match="no words in candidate 0"):
            metric([[]], [[["a"]]], empty="refuse")
