"""Pictures from addresses: only allowed hosts, only the public network, wherever a redirect leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

import nasty_files
from limner.serve.fetch import Fetcher, is_public
from limner.serve.media import Medium, Opener
from limner.serve.problems import Problem
from limner.serve.settings import Limits
from patience import SECONDS


class Handler(BaseHTTPRequestHandler):
    """A host with one picture and many ways to mislead."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.headers["Host"], self.path))
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest if "://" in rest else f"/{rest}")
            self.end_headers()
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif kind == "image":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(nasty_files.png(30, 20))
        else:
            self.send_response(200 if kind == "picture" else 404)
            self.end_headers()
            self.wfile.write(b"p" * int(rest or 10))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Handler.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def fetcher(port: int, *, names: dict[str, list[str]] | None = None, seconds: float = SECONDS) -> Fetcher:
    """Allows good.test and moved.test at a port; the machine of the test counts as public, others do not."""
    known = {"good.test": ["127.0.0.1"], "moved.test": ["127.0.0.1"], **(names or {})}
    return Fetcher(
        (f"good.test:{port}", f"moved.test:{port}"), 1000, seconds, lambda host, _: known[host],
        lambda address: address == "127.0.0.1",
    )  # fmt: skip


def said(fetcher: Fetcher, url: str) -> tuple[int, str | None]:
    with pytest.raises(Problem) as caught:
        fetcher.get(url)
    assert "127.0.0.1" not in caught.value.message
    return caught.value.status, caught.value.code


def test_the_picture_comes_from_the_address_that_was_checked(port: int) -> None:
    assert fetcher(port).get(f"http://good.test:{port}/picture/12") == b"p" * 12
    assert Handler.seen == [(f"good.test:{port}", "/picture/12")]


def test_what_is_fetched_is_opened_like_any_picture(port: int) -> None:
    opener = Opener(Limits(pixels=600), fetcher(port))
    (image,) = opener.open([Medium(f"http://good.test:{port}/image", False, "messages.0.content.0")])
    assert image.size == (30, 20)
    small = Opener(Limits(pixels=599), fetcher(port))
    for asked, path in ((opener, "picture"), (small, "image"), (opener, "nothing")):
        with pytest.raises(Problem) as caught:
            asked.open([Medium(f"http://good.test:{port}/{path}", False, "messages.0.content.0")])
        assert caught.value.param == "messages.0.content.0"
        assert caught.value.code == ("image_unavailable" if path == "nothing" else "invalid_image")


def test_a_redirect_is_followed_where_it_may_lead(port: int) -> None:
    assert fetcher(port).get(f"http://good.test:{port}/to/picture/3") == b"ppp"
    url = f"http://good.test:{port}/to/http://moved.test:{port}/picture/4"
    assert fetcher(port).get(url) == b"pppp"


@pytest.mark.parametrize(
    "url",
    [
        "http://good.test/picture",
        "http://other.test:PORT/picture",
        "http://127.0.0.1:PORT/picture",
        "http://good.test:PORT@other.test/picture",
        "http://user:word@good.test:PORT/picture",
        "file:///etc/passwd",
        "http:///picture",
        "http://good.test:PORT/to/http://127.0.0.1:PORT/picture",
        "http://good.test:PORT/to/http://other.test:PORT/picture",
        "http://good.test:PORT/to/file:///etc/passwd",
    ],
)
def test_other_hosts_are_not_asked(port: int, url: str) -> None:
    assert said(fetcher(port), url.replace("PORT", str(port))) == (400, "url_not_allowed")
    assert len(Handler.seen) == url.count("/to/")


@pytest.mark.parametrize(
    "names",
    [
        {"good.test": ["10.0.0.1"]},
        {"good.test": ["127.0.0.1", "192.168.0.1"]},
        {"good.test": []},
        {"moved.test": ["169.254.169.254"]},
    ],
)
def test_names_that_lead_to_private_machines_are_refused(port: int, names: dict[str, list[str]]) -> None:
    url = f"http://good.test:{port}/to/http://moved.test:{port}/picture"
    assert said(fetcher(port, names=names), url) == (400, "url_not_allowed")


def test_a_name_is_asked_for_once_a_request(port: int) -> None:
    """A name service that gives a harmless address first and a private one next gains nothing."""
    given = [["127.0.0.1"], ["10.0.0.1"]]
    rebinding = Fetcher(
        (f"good.test:{port}",), 1000, SECONDS, lambda *_: given.pop(0), lambda address: address == "127.0.0.1"
    )
    assert rebinding.get(f"http://good.test:{port}/picture/2") == b"pp"
    assert len(given) == 1


def test_what_is_too_much_too_slow_or_not_there(port: int) -> None:
    assert said(fetcher(port), f"http://good.test:{port}/picture/1001") == (413, "too_large")
    assert said(fetcher(port), f"http://good.test:{port}/nothing") == (400, "image_unavailable")
    assert said(fetcher(port), f"http://good.test:{port}/to/to/to/to/picture") == (400, "image_unavailable")
    assert said(fetcher(port, seconds=0.3), f"http://good.test:{port}/slow") == (400, "image_unavailable")
    assert said(fetcher(port), f"http://good.test:{port}/a b\r\nX: y") == (400, "image_unavailable")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("no address", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public
