"""The page on the service's application."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from limner.page.desk import Desk
from limner.page.settings import PATH
from limner.page.studio import Studio

# Read when Gradio is imported: no statistics, no question for newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
TEMPORARY = "GRADIO_TEMP_DIR"
"""The variable that says where Gradio keeps what was uploaded."""


def mount(app: FastAPI, desk: Desk, studio: Studio, runs: Path | None) -> Callable[[], None]:
    """Put the page at `PATH`, behind the service's key where it has one.

    Args:
        app: the service's application.
        desk: who looks at pictures.
        studio: the captioners.
        runs: a folder of runs, for a tab of their own.

    Returns:
        What ends the page's open connections, which the server would otherwise wait for when it stops.

    Raises:
        UserError: there are no runs.
    """
    import gradio as gr

    from limner.page import blocks

    uploads = tempfile.TemporaryDirectory(prefix="limner-page-")
    os.environ[TEMPORARY] = uploads.name
    house = desk.house
    names = [name for name, _ in studio.sides]
    built = blocks.blocks(desk, names, rewards=bool(studio.scorer.rewards), runs=runs)
    style = (blocks.ASSETS / "style.css").read_text("utf8")
    if runs is not None:
        style += blocks.runs_page.CSS
    head = (blocks.ASSETS / "head.html").read_text("utf8")
    locked: dict[str, Any] = {
        "auth": lambda _, password: house.knows(password),
        "auth_message": "The password is the server's key; the name may be anything.",
    }
    gr.mount_gradio_app(
        app, built, PATH, css=style, head=head, theme=blocks.theme(),
        footer_links=[], run_history=False, show_error=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, max_file_size=house.service.limits.body_bytes,
        **(locked if house.locked else {}),
    )  # fmt: skip
    within = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        with uploads:
            async with within(app) as state:
                yield state

    app.router.lifespan_context = lifespan
    icon = (blocks.ASSETS / "icon.svg").read_text("utf8")
    app.add_api_route(
        "/favicon.ico", lambda: Response(icon, media_type="image/svg+xml"), include_in_schema=False
    )
    app.add_api_route("/", lambda: RedirectResponse(f"{PATH}/"), include_in_schema=False)
    return built.app.stop_event.set
