"""Pictures from http(s) addresses, where a service was told which hosts it may ask.

A name is resolved once; all its addresses must be public; the connection goes to the address that was
checked, so that a second answer of the name service cannot lead elsewhere. A redirect is a new address: its
host must be allowed and its addresses public as well. No proxy of the environment is used, no credentials
and no cookies are sent.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from limner import __version__
from limner.serve.problems import Problem, refused

REDIRECTS = 3
"""Most redirects that are followed."""
SECONDS = 10.0
"""A fetch that takes longer is given up."""
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MOVED = (301, 302, 303, 307, 308)
_CHUNK = 65536

Resolve = Callable[[str, int], Sequence[str]]
"""Addresses of a host and port."""


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses that the name service gives.

    Raises:
        OSError: there is none.
    """
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether it is a machine of the public network: not this one, nor one of a network around it."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        # Addresses that carry one of IPv4, which is where the connection ends.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@dataclass(frozen=True)
class Fetcher:
    """Fetches what addresses hold. May be used by several threads."""

    hosts: tuple[str, ...]
    """Allowed hosts: `images.example.org`, or with a port where it is not the usual one."""
    max_bytes: int
    """More than this is refused."""
    max_seconds: float = SECONDS
    """In all, redirects included."""
    resolve: Resolve = resolve
    """The name service."""
    allowed_address: Callable[[str], bool] = is_public
    """Which addresses may be connected to."""

    def get(self, url: str) -> bytes:
        """The content behind an address.

        Raises:
            Problem: the address is not allowed, cannot be reached, or does not hold what it should.
        """
        deadline = time.monotonic() + self.max_seconds
        try:
            for _ in range(1 + REDIRECTS):
                found = self._ask(url, deadline)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
        except Problem:
            raise
        except TimeoutError:
            raise refused("the image's address did not answer in time", code="image_unavailable") from None
        except (OSError, http.client.HTTPException, ValueError):
            raise refused("the image's address cannot be read", code="image_unavailable") from None
        raise refused(f"the image's address redirects more than {REDIRECTS} times", code="image_unavailable")

    def _ask(self, url: str, deadline: float) -> bytes | str:
        """The content, or where it has moved to."""
        split = urlsplit(url)
        host, port = self._checked(split)
        address = self._address(host, port)
        connection = _Pinned(host, port, address, secure=split.scheme == "https", deadline=deadline)
        try:
            path = (split.path or "/") + (f"?{split.query}" if split.query else "")
            named = host if port == _PORTS[split.scheme] else f"{host}:{port}"
            headers = {"Host": named, "User-Agent": f"limner/{__version__}", "Accept": "image/*, video/*"}
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as response:
                return self._found(response, deadline)
        finally:
            connection.close()

    def _found(self, response: http.client.HTTPResponse, deadline: float) -> bytes | str:
        """The content of a response, or where it has moved to."""
        moved = response.getheader("Location")
        if response.status in _MOVED and moved:
            return moved
        if response.status != 200:
            raise refused(f"the image's address answers HTTP {response.status}", code="image_unavailable")
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            if len(content) > self.max_bytes:
                raise Problem(
                    413, f"the image's address holds more than {self.max_bytes:,} bytes", code="too_large"
                )
        if time.monotonic() >= deadline:  # the end may be that of the connection
            raise TimeoutError
        return bytes(content)

    def _checked(self, url: SplitResult) -> tuple[str, int]:
        """Host and port of an address whose host is allowed."""
        if url.scheme not in _PORTS:
            raise refused("an image's address begins with data:, http: or https:", code="url_not_allowed")
        if url.username is not None or url.password is not None:
            raise refused("an image's address holds no user or password", code="url_not_allowed")
        host = (url.hostname or "").rstrip(".")
        port = url.port or _PORTS[url.scheme]
        allowed = f"{host}:{port}" in self.hosts or (port == _PORTS[url.scheme] and host in self.hosts)
        if not allowed:
            raise refused(
                "images are not fetched from this host; send the image as a data: URL", code="url_not_allowed"
            )
        return host, port

    def _address(self, host: str, port: int) -> str:
        """One of its addresses; none where any of them is not allowed."""
        addresses = self.resolve(host, port)
        if not addresses or not all(map(self.allowed_address, addresses)):
            raise refused("the image's host is not on the public network", code="url_not_allowed")
        return addresses[0]


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever the name service says by now; its certificate is the host's."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool, deadline: float):
        super().__init__(host, port)
        self._address, self._secure, self._deadline = address, secure, deadline
        self._ending: threading.Timer | None = None
        self._other: socket.socket | None = None

    def connect(self) -> None:
        left = max(self._deadline - time.monotonic(), 0.001)
        self.sock = plain = socket.create_connection((self._address, self.port), timeout=left)
        # A time-out is that of one read: a host that sends a byte a second would never meet it.
        self._other = plain.dup()
        self._ending = threading.Timer(left, _end, [self._other])
        self._ending.daemon = True
        self._ending.start()
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def close(self) -> None:
        super().close()
        if self._ending is not None:
            self._ending.cancel()
        if self._other is not None:
            self._other.close()


def _end(connection: socket.socket) -> None:
    """End a connection under whoever reads it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
