"""What is wrong with a request, in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""The `type` of an error by its HTTP status; `invalid_request_error` where it is not here."""


class Problem(Exception):
    """A request that is not answered; becomes a response with this status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        """Keep them. The message is shown to whoever asked: it holds nothing about this machine."""
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param, self.headers = code, param, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """As it is sent."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refused(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """What is the asker's to mend."""
    return Problem(400, message, param=param, code=code)
