"""Components are found by file or by module:Class, and only what is named is imported."""

import subprocess
import sys

import pytest

from limner import component, paths
from limner.errors import UserError

PLUGIN = """
from dataclasses import dataclass
import collections
@dataclass(frozen=True)
class Polite:
    weight: float = 1.0
class Plain: ...
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_class_of_the_current_folder_is_found(here):
    (here / "my_rewards_a.py").write_text(PLUGIN)
    found = component.find("rewards", "my_rewards_a:Polite")
    assert found.__name__ == "Polite"
    assert found().weight == 1.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("my_rewards_b:Polit", "there is no 'Polit', did you mean 'Polite'?"),
        ("my_rewards_b:Plain", "must be a frozen dataclass"),
        ("my_rewards_b:collections", "there is no 'collections'"),
        ("not_a_module:X", "there is no module not_a_module"),
        ("needs_missing:X", "needs not_installed_at_all, which is not installed"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said(here, kind, message):
    (here / "my_rewards_b.py").write_text(PLUGIN)
    (here / "needs_missing.py").write_text("import not_installed_at_all")
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        component.find("rewards", kind)


def test_every_listed_component_has_a_class_and_a_line():
    for group, name in component.CLASSES.items():
        for kind, line in component.available(group).items():
            assert component.find(group, kind).__name__ == name
            assert line.endswith("."), f"{group}/{kind}.py: the class's docstring has no first sentence"


def test_listing_imports_nothing():
    code = (
        "import sys; from limner import component; [component.available(g) for g in component.CLASSES];"
        "assert not [m for m in sys.modules if m.startswith('limner.') and m.count('.') > 1], sys.modules;"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gets_the_likeliest_and_the_list(monkeypatch):
    monkeypatch.setattr(component, "available", lambda group: {"repeats": "", "itm": ""})
    with pytest.raises(
        UserError, match=r"no 'repeat', did you mean 'repeats'\?; rewards on disk: repeats, itm"
    ):
        component.find("rewards", "repeat")


def test_an_unknown_group_is_named():
    with pytest.raises(UserError, match="did you mean 'rewards'"):
        component.available("reward")


def test_paths_outside_the_world_stay_as_they_are():
    assert paths.resolve("Salesforce/blip2-opt-2.7b") == "Salesforce/blip2-opt-2.7b"
    assert paths.resolve("/models/mine") == "/models/mine"


def test_an_unknown_model_of_the_world_is_refused():
    with pytest.raises(UserError, match="did you mean 'captioner'"):
        paths.resolve("world:captoner")


def test_an_unknown_recipe_is_refused_with_the_list():
    with pytest.raises(UserError, match="no such file"):
        paths.recipe("recipes/tiny/vlmr.yaml")
