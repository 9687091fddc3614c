"""What a service counts about itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text that `text` gives."""
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self):
        """All at zero."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "limner_requests", "Requests answered, by path and HTTP status.", ["path", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "limner_request_seconds", "From a request's head to the end of its answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch = Histogram(
            "limner_batch_captions", "Captions that were written together.", buckets=_ROWS, registry=registry
        )
        self.captions = Counter("limner_captions", "Captions written.", registry=registry)
        self.tokens = Counter("limner_tokens", "Tokens of captions written.", registry=registry)
        self.left = Counter(
            "limner_disconnected", "Requests whose asker went away before the answer.", registry=registry
        )
        self._inside = Gauge("limner_requests_inside", "Requests in the house.", registry=registry)
        self._waiting = Gauge("limner_requests_waiting", "Requests before the model.", registry=registry)

    def watch(self, *, inside: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Where the numbers of the moment come from."""
        self._inside.set_function(inside)
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self._registry)
