"""Ranks as forked processes: torch is loaded once, and a rank starts in a moment."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable

import peft  # noqa: F401  (loaded once, before processes are forked)
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from forks import forked
from limner.launch import STORE


def together(*works: Callable[[], object], count: int = 2) -> None:
    """Run each work in `count` ranks of its own, all at the same time; count 1 is a process without ranks."""
    with tempfile.TemporaryDirectory() as folder:
        children: list[int] = []
        for place, work in enumerate(works):
            store = os.path.join(folder, str(place))
            os.mkdir(store)
            shared = {"WORLD_SIZE": str(count), STORE: store}
            for rank in range(count):
                own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
                children.append(forked(functools.partial(_rank, work), environment=own))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), f"ranks ended with {codes}"


def _rank(work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    work()


def by_torchrun(work: Callable[[], object], count: int = 2) -> None:
    """The same by what torchrun and `accelerate launch` start ranks with."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method="fork", max_restarts=0,
    )  # fmt: skip
    together(lambda: elastic_launch(config, work)(), count=1)
