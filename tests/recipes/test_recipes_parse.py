"""Every shipped recipe is read and checked whole, and says what it must in its header."""

import pytest

from limner import config, paths

RECIPES = sorted(paths.shipped_recipes())


def test_the_recipes_are_there():
    here = [name for name in RECIPES if not name.startswith(("video/", "caprl/", "pretrain/"))]
    tiny = ["caprl", "mixed", "video_scst", "video_xe", "vlrm", "vlrm_rs"]
    assert here == [*(f"tiny/{name}" for name in tiny), "vlrm", "vlrm_rs"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_parses(name):
    given = ["data.path=photos"] if not name.startswith("tiny/") else []
    if name.startswith(("video/", "pretrain/")):
        given.append("captioner.path=START")
    recipe = config.load(name, given)
    assert recipe.rewards or recipe.rollout.of == "references"
    assert recipe.name == name.rpartition("/")[2]


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_says_command_hardware_score_and_differences(name):
    header = [line for line in paths.recipe(name).read_text().splitlines() if line.startswith("#")]
    assert header[0].endswith("."), "the first line is what `limner list recipes` shows"
    for word in ("Command:", "Hardware:", "Published:", "Differs:"):
        assert any(line.startswith(f"# {word}") for line in header), f"{name}: the header has no {word}"
    assert any(f"limner train recipes/{name}.yaml" in line for line in header)


@pytest.mark.parametrize("name", ["vlrm", "vlrm_rs"])
def test_the_published_settings(name):
    """Table of hyper-parameters of arXiv 2404.01911."""
    recipe = config.load(name, ["data.path=photos"])
    assert (recipe.update.captions, recipe.update.lr, recipe.update.warmup_steps) == (4096, 1e-5, 20)
    assert (recipe.update.optimiser, recipe.update.weight_decay, recipe.update.clip_norm) == ("adam", 0, 1)
    assert (recipe.rollout.top_k, recipe.rollout.temperature, recipe.rollout.captions) == (6, 2, 1)
    assert (recipe.rollout.min_new_tokens, recipe.rollout.max_new_tokens) == (4, 60)
    assert recipe.update.schedule == "constant"
    assert recipe.advantage.value.head == (2, 4, 8)
    decoding = recipe.evaluate.decoding
    assert (decoding.num_beams, decoding.no_repeat_ngram_size, decoding.do_sample) == (5, 2, False)


def test_the_retrieval_variant_has_no_fluency():
    rewards = config.load("vlrm_rs", ["data.path=photos"]).rewards
    assert "fluency" not in rewards
    assert rewards["clip_contrast"].weight == 0.3


def test_photographs_replace_the_miniature_world():
    assert config.load("recipes/tiny/vlrm.yaml", ["data.path=photos"]).data.path == "photos"
