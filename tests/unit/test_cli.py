"""The command line: light, helpful, and one message for a user's mistake."""

import json
import subprocess
import sys

import pytest

from limner import cli, component, paths

COMMANDS = [
    "assemble",
    "train",
    "show",
    "list",
    "inspect",
    "caption",
    "evaluate",
    "compare",
    "report",
    "export",
    "demo",
    "world",
]


@pytest.fixture
def limner(monkeypatch, capsys):
    """Runs the command in this process; gives (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["limner", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


LIGHT = """
import sys
from limner import cli
for words in sys.argv[1:]:
    sys.argv = ["limner", *words.split()]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
    heavy = {"torch", "transformers", "numpy", "PIL", "omegaconf"} & sys.modules.keys()
    assert not heavy, (words, heavy)
"""


def test_help_and_lists_import_no_torch():
    words = ["--help", *(f"{name} --help" for name in COMMANDS), "list rewards", "list recipes", "--version"]
    done = subprocess.run([sys.executable, "-c", LIGHT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: limner") == 1 + len(COMMANDS)


def test_every_command_says_what_it_does(limner):
    code, out, _ = limner("--help")
    assert code == 0
    for name in COMMANDS:
        assert f"│ {name} " in out
    for name in ("build", "show", "write"):
        assert name in limner("world", "--help")[1]


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "limner", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("limner 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give a recipe, or --resume RUN"),
        (["train", "recipes/no.yaml"], "recipes/no.yaml: no such file"),
        (["train", "tiny/vlrm", "--resume", "runs/x"], "give no recipe"),
        (["train", "--resume", "runs/never"], "runs/never/resolved.json: no such file"),
        (["train", "tiny/vlrm", "update.lr"], "update.lr: write overrides as section.setting=value"),
        (["train", "vlrm", "update.lrr=1"], "update.lrr: 1: there is no 'lrr', did you mean 'lr'?"),
        (["train", "vlrm"], "data.path: missing: give it on the command line: data.path=..."),
        (["show", "tiny/vlmr"], "did you mean 'tiny/vlrm'?"),
        (["list", "reward"], "did you mean 'rewards'?"),
        (["caption", "photos", "-o", "out.jsonl", "num_beam=3"], "did you mean 'num_beams'?"),
        (["caption", "no/such/folder", "-o", "out.jsonl"], "no/such/folder"),
        (["evaluate", "references", "--data", "world:tst"], "tst"),
        (["serve", "--runs", "runs"], "--runs is of the page: give --page too"),
        (["serve", "--gallery", "world:test"], "--gallery is of the page: give --page too"),
        (["compare", "a.json", "b.json"], "a.json: cannot be read"),
        (["report", "runs/never"], "runs/never"),
        (["export", "runs/never", "-o", "out"], "runs/never/resolved.json: no such file"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(limner, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = limner(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_wrong_option_is_exit_code_2(limner):
    assert limner("train", "--resme", "x")[0] == 2
    assert limner("nothing")[0] == 2


def test_ctrl_c_is_exit_code_130(limner, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(paths, "shipped_recipes", interrupted)
    assert limner("list", "recipes")[0] == 130


def test_a_defect_is_not_dressed_up_as_a_mistake(limner, monkeypatch):
    def broken(group):
        raise ZeroDivisionError

    monkeypatch.setattr(component, "available", broken)
    with pytest.raises(ZeroDivisionError):
        limner("list", "rewards")


@pytest.mark.parametrize("words", [["show", "vlrm"], ["show", "recipe", "recipes/vlrm.yaml"]])
def test_show_prints_every_value_with_its_origin(limner, words):
    code, out, _ = limner(*words, "update.lr=2e-5")
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert code == 0
    assert rows["update.lr"] == ["update.lr", "2e-05", "command", "line"]
    assert rows["data.path"][1] == '"???"'
    assert rows["update.captions"][1] == "4096"
    assert rows["update.captions"][2].startswith("recipes/vlrm.yaml:")
    assert rows["update.weight_decay"][1:] == ["0.0", "default"]


def test_show_as_json(limner):
    rows = json.loads(limner("show", "tiny/vlrm", "--json")[1])
    assert rows["data.kind"]["value"] == "world"
    assert rows["run.seed"] == {"value": 0, "origin": "default"}


def test_lists(limner):
    recipes = [line.split()[0] for line in limner("list", "recipes")[1].splitlines()]
    assert recipes == sorted(recipes)
    assert {"tiny/caprl", "tiny/mixed", "tiny/vlrm"} <= set(recipes)
    assert "policy_gradient" in limner("list", "objectives")[1]
    for group in component.CLASSES:
        assert limner("list", group)[0] == 0
