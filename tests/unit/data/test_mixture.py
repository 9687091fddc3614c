from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_sets
from limner import component
from limner.data.batches import Batches
from limner.data.mixture import Source
from limner.data.named import built
from limner.data.rejects import RejectLog
from limner.data.world import Source as World
from limner.errors import UserError


def mixture(sizes, ratios):
    names = [f"part{n}" for n in range(len(sizes))]
    parts = {name: World(split="train", count=size) for name, size in zip(names, sizes, strict=True)}
    return Source(parts=parts, ratio=dict(zip(names, ratios, strict=True)))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(0, 60),
)
def test_every_round_has_the_ratio_and_every_part_its_own_epochs(parts, seed, position):
    sizes, ratios = zip(*parts, strict=True)
    source = mixture(sizes, ratios)
    ids = source.ids()
    draws = list(islice(source.draws(seed=seed), 200))
    assert list(islice(source.draws(seed=seed, position=position), 140)) == draws[position : position + 140]
    names = [ids[draw.item].partition("/")[0] for draw in draws]
    whole = sum(ratios)
    for start in range(0, 200 - whole, whole):
        counted = Counter(names[start : start + whole])
        assert [counted[f"part{n}"] for n in range(len(sizes))] == list(ratios)
    for n, size in enumerate(sizes):
        own = [draw for draw, name in zip(draws, names, strict=True) if name == f"part{n}"]
        assert [draw.epoch for draw in own] == [k // size for k in range(len(own))]
        for start in range(0, len(own) - size, size):
            assert len({draw.item for draw in own[start : start + size]}) == size
    epoch = list(islice(source.draws(seed=seed), source.epoch_length()))
    assert {draw.item for draw in epoch} == set(range(len(source)))


def test_seven_to_one_is_spread_and_in_lowest_terms():
    for ratio in ((7, 1), (14, 2)):
        source = mixture((100, 3), ratio)
        names = [source.ids()[draw.item][4] for draw in islice(source.draws(seed=0), 16)]
        assert "".join(names) == "00001000" * 2
        assert source.epoch_length() == 8 * 15
    order = [draw.item for draw in islice(mixture((4, 2), (2, 1)).draws(seed=0, shuffle=False), 9)]
    assert order == [0, 4, 1, 2, 5, 3, 0, 4, 1]


def test_settings_nest_sources_and_name_them_by_kind():
    text = ["kind=mixture", "parts.world.split=train", "parts.more={kind: world, split: validation}"]
    source = built([*text, "ratio={world: 7, more: 1}"])
    assert isinstance(source, Source)
    assert source.ids()[0] == "world/train-000000"
    assert source.ids()[-1].startswith("more/validation-")
    assert source.read(len(source) - 1).id == source.ids()[-1]
    assert source.references(0) == source.read(0).references != ()
    for wrong, said in (
        ("ratio={world: 7}", "ratio: must name the parts, world, more; differs in more"),
        ("ratio={world: 0, more: 1}", "data.ratio.world: 0: must be greater than or equal to 1"),
        ("parts.more.splitt=train", "data.parts.more.splitt: .* did you mean 'split'"),
    ):
        with pytest.raises(UserError, match=said):
            built([*text, wrong])
    with pytest.raises(UserError, match="name at least one data source"):
        Source(parts={}, ratio={})


def test_what_cannot_be_used_in_a_part_is_recorded_by_its_name(tmp_path):
    parts = {
        name: component.find("data", name)(**getattr(data_sets, name)(tmp_path / name))
        for name in ("msrvtt", "lavis")
    }
    rejects = RejectLog(tmp_path / "rejects.jsonl")
    batches = Batches(Source(parts=parts, ratio={"msrvtt": 2, "lavis": 1}), 4, seed=3, rejects=rejects)
    seen = Counter(sample.id for _ in range(6) for sample in batches.next())
    batches.close()
    assert set(seen) == {"msrvtt/video0", "msrvtt/video1", "lavis/video0"}
    written = (tmp_path / "rejects.jsonl").read_text()
    assert written.count("\n") == 2
    assert '"msrvtt/video2"' in written
    assert '"lavis/video1"' in written
