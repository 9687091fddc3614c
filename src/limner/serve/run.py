"""Load a captioner and serve it until a signal comes."""

from __future__ import annotations

from pathlib import Path

import uvicorn

from limner import captioners
from limner.captioners.base import Policy
from limner.errors import UserError
from limner.export import load_run
from limner.serve import server
from limner.serve.engine import Engine
from limner.serve.house import House
from limner.serve.metrics import Metrics
from limner.serve.settings import Service


def serve(
    model: str, service: Service, *, host: str, port: int, device: str = "auto", dtype: str = "float32"
) -> None:
    """Serve a captioner until SIGTERM or Ctrl-C; what runs then is finished.

    Args:
        model: hub id, folder, `world:captioner`, or a run's folder (its best checkpoint).
        service: how it is served.
        host: address to listen on.
        port: 0 takes a free one.
        device: "auto", "cpu", "cuda", ...
        dtype: of the captioner's frozen parts; a run has its own.

    Raises:
        UserError: there is no such captioner, or no key where one is wanted.
    """
    try:
        key = service.key()
    except ValueError as error:
        raise UserError(str(error)) from None
    metrics = Metrics()
    house = House(service, Engine(loaded(model, device=device, dtype=dtype), metrics), metrics, key=key)
    uvicorn.Server(server.settings(house, host=host, port=port)).run()


def loaded(model: str, *, device: str, dtype: str) -> Policy:
    """The captioner of a checkpoint or run.

    Raises:
        UserError: there is none.
    """
    if (Path(model) / "resolved.json").is_file():
        return load_run(Path(model), device=device)
    return captioners.load(model, device=device, dtype=dtype)
