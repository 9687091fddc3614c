"""The HTTP server around a house."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from limner.serve.app import app_of
from limner.serve.house import House


def settings(house: House, *, host: str, port: int, app: FastAPI | None = None) -> uvicorn.Config:
    """How uvicorn runs a house, or an application made of it: stopping takes no longer than a request may."""
    return uvicorn.Config(
        app or app_of(house), host=host, port=port, access_log=False, server_header=False, ws="none",
        proxy_headers=False, timeout_graceful_shutdown=max(1, round(house.service.limits.seconds)),
    )  # fmt: skip


class Server(uvicorn.Server):
    """uvicorn, which when it stops first ends what would not end by itself."""

    def __init__(self, config: uvicorn.Config, leaving: Callable[[], None] = lambda: None):
        """With what ends connections that stay open; called in the server's loop."""
        super().__init__(config)
        self._leaving = leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, waiting for what runs."""
        self._leaving()
        await super().shutdown(sockets)
