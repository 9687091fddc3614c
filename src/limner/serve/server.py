"""The HTTP server around a house."""

from __future__ import annotations

import uvicorn

from limner.serve.app import app_of
from limner.serve.house import House


def settings(house: House, *, host: str, port: int) -> uvicorn.Config:
    """How uvicorn runs a house: shutting down takes no longer than a request may."""
    return uvicorn.Config(
        app_of(house), host=host, port=port, access_log=False, server_header=False, ws="none",
        proxy_headers=False, timeout_graceful_shutdown=max(1, round(house.service.limits.seconds)),
    )  # fmt: skip
