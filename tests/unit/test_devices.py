"""What the C library does with memory that is freed; benchmarks/grpo_vs_trl.py measures its worth."""

from __future__ import annotations

import platform

import pytest

from limner.devices import keep_freed_memory


def test_freed_memory_is_kept_where_glibc_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_what_a_user_has_told_the_library_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
