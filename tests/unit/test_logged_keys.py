"""What a run logs and what docs/metrics.md explains are the same keys."""

import re
from pathlib import Path

import pytest

import tiny
from limner import config
from limner.run import read_metrics
from limner.train import train

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
RECIPE = """
captioner: {{kind: blip2, path: "{captioner}"}}
data: {{path: "world:train"}}
rollout: {{captions: 2, max_new_tokens: 8}}
rewards: {{no_eos: {{}}, repeats: {{}}, fluency: {{}}}}
advantage: {{kind: token_returns, value: {{lora_rank: 1, head: [1]}}}}
objective: {{kind: policy_gradient, of: log_probability}}
update: {{captions: 8, lr: 1.0e-4, steps: 2}}
evaluate:
  every: 1
  data: {{path: "world:validation"}}
  samples: 4
  decoding: {{num_beams: 1, max_new_tokens: 8}}
run: {{name: keys, device: cpu, sample_every: 1}}
"""
OTHERS = [
    "run.name=others", "update.passes=2", "advantage.kind=group_relative", "objective.kind=clipped_ratio",
    "objective.kl=0.1", "watch={window: 1, alarms: {watch/words: {min: 99}}}",
]  # fmt: skip
"""Settings that bring what the recipe alone does not log."""


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys.yaml").write_text(RECIPE.format(captioner=tiny.blip2(folder / "captioner")))
    keys = set()
    for overrides in ([], OTHERS):
        run = train(config.load(folder / "keys.yaml", [f"run.output={folder}", *overrides]))
        keys |= {key for row in read_metrics(run) for key in row}
    return keys


def test_every_logged_key_is_documented_and_every_documented_key_is_logged(logged):
    table = PAGE.read_text(encoding="utf8").partition("## Logged keys")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = set(re.findall(r"`([^`]+)`", " ".join(cells)))
    families = {
        r"^reward/(?!total).*": "reward/NAME", r"^evaluate/.*": "evaluate/MEASURE", r"^alarm/.*": "alarm/KEY"
    }  # fmt: skip
    named = set()
    for key in logged:
        for pattern, family in families.items():
            key = re.sub(pattern, family, key)
        named.add(key)
    assert named == documented
