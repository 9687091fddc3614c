"""The routes of a service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from limner import __version__
from limner.serve import wire
from limner.serve.batching import Done, Job
from limner.serve.house import Gone, House, late, streamed, unless_gone
from limner.serve.metrics import CONTENT_TYPE, Metrics
from limner.serve.problems import Problem

Scope = MutableMapping[str, Any]
CHAT = "/v1/chat/completions"
PATHS = (CHAT, "/v1/models", "/health", "/metrics")
CLOSED_REQUEST = 499
"""Status, seen by nobody but the counters, of a request whose asker has left."""


def app_of(house: House) -> FastAPI:
    """The application around a captioner; closing it closes the house."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(house.close)

    app = _Documented(title="limner", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.house = house
    app.add_api_route(CHAT, chat, methods=["POST"], **_chat_documented())
    app.add_api_route("/v1/models", models, methods=["GET"], responses=_answers(200, 401))
    app.add_api_route("/v1/models/{name:path}", model, methods=["GET"], responses=_answers(200, 401, 404))
    app.add_api_route("/health", health, methods=["GET"], responses=_answers(200, 503))
    app.add_api_route("/metrics", metrics, methods=["GET"], responses=_answers(200, 401))
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)
    app.add_middleware(Counting, metrics=house.metrics)  # type: ignore[arg-type]
    return app


async def chat(request: Request) -> Response:
    """Describe images or a video."""
    house: House = request.app.state.house
    house.authorise(request)
    leave = house.enter()
    deadline = asyncio.get_running_loop().time() + house.service.limits.seconds
    kept = False
    try:
        async with asyncio.timeout_at(deadline):
            job, asked = await house.job(request)
            asked.messages.clear()  # as long as the body, and the pictures are open by now
            first = await unless_gone(request, house.first(job))
            if job.stream:
                kept = True
                events = streamed(house, job, asked, first, deadline=deadline)
                return _Stream(events, job, leave, deadline=deadline)
        assert isinstance(first, Done), "only streams have pieces"
        return JSONResponse(wire.completion(house.service.name, first.captions, first.prompt_tokens))
    except TimeoutError:
        raise late(house.service) from None
    except (Gone, ClientDisconnect):
        house.metrics.left.inc()
        return Response(status_code=CLOSED_REQUEST)
    finally:
        if not kept:
            leave()


class _Stream(StreamingResponse):
    """However the stream ends, its job does too, and the place in the house is given back."""

    def __init__(
        self, content: AsyncIterator[bytes], job: Job, leave: Callable[[], None], *, deadline: float
    ):
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._job, self._leave, self._deadline = job, leave, deadline

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As an ASGI application."""
        try:
            # Who asked and does not read must not stay for ever; one second is for the last event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._deadline + 1):
                    await super().__call__(scope, receive, send)
        finally:
            self._job.cancelled = True
            self._leave()


async def models(request: Request) -> Response:
    """The one model."""
    house: House = request.app.state.house
    house.authorise(request)
    return JSONResponse({"object": "list", "data": [_model(house.service.name)]})


async def model(request: Request, name: str) -> Response:
    """The model of this name."""
    house: House = request.app.state.house
    house.authorise(request)
    if name != house.service.name:
        raise wire.unknown_model(house.service.name)
    return JSONResponse(_model(name))


async def health(request: Request) -> Response:
    """Whether captions are written; wants no key."""
    house: House = request.app.state.house
    if not house.batcher.alive:
        raise Problem(503, "the captioner has stopped", code="stopped")
    return JSONResponse({"status": "ok", "model": house.service.name, "waiting": house.batcher.waiting})


async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    house: House = request.app.state.house
    house.authorise(request)
    return Response(house.metrics.text(), media_type=CONTENT_TYPE)


class Counting:
    """Counts every answer, and how long it took to its end."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics):
        """Around an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """As an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        began, status = time.perf_counter(), [500]

        async def sending(message: Scope) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.requests.labels(path, str(status[0])).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return JSONResponse(problem.body(), status_code=problem.status, headers=problem.headers)


async def _http(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    return await _problem(request, Problem(error.status_code, str(error.detail), headers=error.headers))


async def _defect(request: Request, error: Exception) -> Response:
    """A defect of limner: its traceback is logged by the server, and says nothing to whoever asked."""
    return await _problem(request, Problem(500, "the server failed on this request", code="defect"))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "limner"}


_SAID = {
    200: "The answer.",
    400: "The request cannot be answered as it is.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    413: "The body is too long.",
    429: "Too many requests are waiting.",
    503: "No answer in time, or the captioner has stopped.",
}


def _answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"description": _SAID[code]} for code in codes}


_NAMED = "#/components/schemas/{model}"


def _chat_documented() -> dict[str, Any]:
    schema = {"$ref": _NAMED.format(model=wire.ChatRequest.__name__)}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"responses": _answers(*_SAID), "openapi_extra": {"requestBody": body}}


class _Documented(FastAPI):
    """Its OpenAPI describes the body that `chat` reads by itself, to stop at its limit."""

    def openapi(self) -> dict[str, Any]:
        """The document."""
        page = super().openapi()
        schema = wire.ChatRequest.model_json_schema(ref_template=_NAMED)
        schemas = page.setdefault("components", {}).setdefault("schemas", {})
        schemas |= schema.pop("$defs")
        schemas[wire.ChatRequest.__name__] = schema
        return page
