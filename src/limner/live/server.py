"""A page with the tab of runs alone, for `limner watch --page`: no captioner, no key."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from limner.serve.server import Server

# Read when Gradio is imported: no statistics, no question for newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def serve(folder: Path, *, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        folder: of a run or of runs.
        host: address to listen on.
        port: 0 takes a free one.

    Raises:
        UserError: there is no such folder.
    """
    import gradio as gr
    from gradio import themes

    from limner.live import page

    with gr.Blocks(title="limner: runs", analytics_enabled=False) as built:
        page.build(folder)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    fonts = ["Inter", "system-ui", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"]
    theme = themes.Base(font=fonts, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"])
    gr.mount_gradio_app(
        app, built, "/", css=page.CSS, theme=theme, footer_links=[], run_history=False, show_error=False,
        ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False,
    )  # fmt: skip
    settings = uvicorn.Config(
        app, host=host, port=port, access_log=False, server_header=False, ws="none", proxy_headers=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    Server(settings, built.app.stop_event.set).run()
