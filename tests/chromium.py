"""Pages in Chromium: it is waited for as anything else is, and what a page says and asks for is noted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from patience import SECONDS

PATH = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 1000 * SECONDS
"""Milliseconds for anything to happen."""
MARKS = [
    pytest.mark.page,
    pytest.mark.skipif(
        PATH is None and "CI" not in os.environ,
        reason="Chromium is not installed (apt-get install chromium); CI must have it",
    ),
]


@contextmanager
def running() -> Iterator[Browser]:
    """A browser."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


def opened(browser: Browser, **settings: Any) -> BrowserContext:
    """A browser of a user of its own."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    return context


def hear(page: Page, heard: list[str], *ours: str) -> None:
    """Note errors, dialogs, and requests for what does not begin with one of these addresses."""

    def dismiss(dialog: Dialog) -> None:
        heard.append(dialog.message)
        dialog.dismiss()

    def note(url: str) -> None:
        if not url.startswith((*ours, "data:", "blob:")):
            heard.append(f"asked for {url}")

    page.on("console", lambda said: heard.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", dismiss)
    page.on("request", lambda request: note(request.url))


def show_pictures(page: Page) -> None:
    """Return when every picture of a page is there and is one."""
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
