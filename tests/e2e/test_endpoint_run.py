"""A run whose rewards ask a server that wants a key, and that is killed and started again on the way."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from limner import config
from limner.errors import UserError
from limner.train import train
from patience import SECONDS, until
from server import ChatServer

KEY = "SECRETXK7Q9F2VN3"
GRADE = {"answer": '{{"reason": "so", "score": {number}}}'}
RULES = [
    {"when": "grade a caption", "steps": [GRADE]},
    {"when": "How many shapes", "steps": [{"answer": "I would rather not say"}]},
    {"when": "", "steps": [{"answer": "{letter}"}]},
]
HANGS_IN_THE_SECOND_STEP = [{"when": "grade a caption", "steps": [*[GRADE] * 9, {"hang": True}]}, *RULES[1:]]
"""A step has 8 captions to grade; there are three."""
RECIPE = """
# A short run with an answerer and a judge behind an endpoint.
captioner: {kind: blip2, path: "world:captioner", train: [language_projection]}
data: {path: "world:train"}
rollout: {captions: 2, max_new_tokens: 12, temperature: 1.0}
rewards:
  qa_accuracy: {questions: 3, endpoint: ENDPOINT}
  judge: {endpoint: ENDPOINT}
  self_praise: {}
  format: {}
advantage: {kind: leave_one_out}
objective: {kind: policy_gradient, of: log_probability}
update: {captions: 8, lr: 1.0e-4, steps: 3}
evaluate: {every: 0}
run: {output: OUTPUT, name: run}
"""


def recipe(folder: Path, server: ChatServer) -> Path:
    endpoint = {
        "base_url": server.base_url, "model": "m", "key_env": "SECRET_KEY", "cache": str(folder / "cache"),
        "patience_seconds": SECONDS, "concurrency": 8,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    text = RECIPE.replace("ENDPOINT", json.dumps(endpoint)).replace(
        "OUTPUT", json.dumps(str(folder / "runs"))
    )
    path.write_text(text)
    return path


def test_an_outage_costs_time_and_the_key_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    outage: list[threading.Timer] = []
    with ChatServer(tmp_path / "server", HANGS_IN_THE_SECOND_STEP, key=KEY) as server:

        def kill_in_the_second_step() -> None:
            until(lambda: sum("grade a caption" in json.dumps(row) for row in server.requests()) >= 10)
            outage.append(server.away_for(1.5, then=RULES))

        watcher = threading.Thread(target=kill_in_the_second_step)
        watcher.start()
        loaded = config.load(recipe(tmp_path, server))
        folder = train(loaded)
        watcher.join()
        outage[0].join()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["unscored"] == 0
        assert 0 < row["reward/judge"] < 1
        assert row["reward/judge/answered"] == 1
        assert 0 < row["reward/qa_accuracy/answered"] <= 1
    assert min(row["reward/qa_accuracy/answered"] for row in rows) < 1, "refusals are left out and counted"
    assert any(row["time/rewards"] > 1.5 for row in rows)
    held = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "server"]
    assert {path.name for path in held} >= {"answers.sqlite", "resolved.json", "report.html", "recipe.yaml"}
    assert not [path for path in held if KEY.encode() in path.read_bytes()]
    resolved = json.loads((folder / "resolved.json").read_text())
    assert resolved["rewards.judge.endpoint.key_env"]["value"] == "SECRET_KEY"
    assert KEY not in repr(loaded)
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (None, "the environment variable SECRET_KEY, which key_env names, is not set"),
        ("WRONGXK7Q9F2VN3", r"refuses the key in the environment variable SECRET_KEY \(HTTP 401\)"),
        ("WRONG \u00e9XK7Q9F2VN3", "holds spaces or letters that are in no key"),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_one_message_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, said: str
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    if variable is not None:
        monkeypatch.setenv("SECRET_KEY", variable)
    with ChatServer(tmp_path / "server", RULES, key=KEY) as server:
        with pytest.raises(UserError, match=said) as caught:
            train(config.load(recipe(tmp_path, server)))
        assert len(server.requests()) <= 8, "told at once, not after every question"
    error: BaseException | None = caught.value
    while error is not None:
        assert "XK7Q9F2VN3" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    held = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "server"]
    assert not [path for path in held if b"XK7Q9F2VN3" in path.read_bytes()]


def test_an_endpoint_that_wants_a_key_says_which_setting_names_it(tmp_path: Path) -> None:
    from limner.client import Client, Endpoint

    with ChatServer(tmp_path / "server", key=KEY) as server:
        client = Client(Endpoint(base_url=server.base_url, model="m"))
        with pytest.raises(UserError, match=r"wants a key \(HTTP 401\).*key_env") as caught:
            client.ask([[{"role": "user", "content": "q"}]], max_new_tokens=1, temperature=0, seed=0)
    assert "Incorrect API key" not in str(caught.value)
