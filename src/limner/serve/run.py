"""Load a captioner and serve it until a signal comes."""

from __future__ import annotations

import logging
from dataclasses import replace

from limner.captioners.base import Policy
from limner.errors import UserError
from limner.export import load_captioner
from limner.page.desk import Desk, gallery
from limner.page.mount import mount
from limner.page.rewards import Scorer
from limner.page.settings import Page
from limner.page.studio import Studio
from limner.serve import server
from limner.serve.app import app_of
from limner.serve.engine import Engine
from limner.serve.house import House
from limner.serve.metrics import Metrics
from limner.serve.settings import Service, name_of

log = logging.getLogger("limner.serve")


def serve(
    model: str,
    service: Service,
    *,
    host: str,
    port: int,
    device: str = "auto",
    dtype: str = "float32",
    page: Page | None = None,
) -> None:
    """Serve a captioner until SIGTERM or Ctrl-C; what runs then is finished.

    Args:
        model: hub id, folder, `world:captioner`, or a run's folder (its best checkpoint).
        service: how it is served.
        host: address to listen on.
        port: 0 takes a free one.
        device: "auto", "cpu", "cuda", ...
        dtype: of the captioner's frozen parts; a run has its own.
        page: what is on the page beside the interface for programs; None has no page.

    Raises:
        UserError: there is no such captioner, or no key where one is wanted.
    """
    try:
        key = service.key()
    except ValueError as error:
        raise UserError(str(error)) from None
    metrics = Metrics()
    policy = load_captioner(model, device=device, dtype=dtype)
    service = with_prompt(service, policy)
    if page is None:
        house = House(service, Engine(policy, metrics), metrics, key=key)
        server.Server(server.settings(house, host=host, port=port)).run()
        return
    other = None
    if page.compare is not None:
        other = name_of(page.compare), load_captioner(page.compare, device=device, dtype=dtype)
    scorer = Scorer.of(page.rewards, model, policy)
    studio = Studio((service.name, policy), metrics, other=other, scorer=scorer)
    subjects = gallery(page.gallery)
    house = House(service, studio, metrics, key=key)
    app = app_of(house)
    leaving = mount(app, Desk(house, subjects), studio, page.runs)
    server.Server(server.settings(house, host=host, port=port, app=app), leaving).run()


def with_prompt(service: Service, policy: Policy) -> Service:
    """The service, with whose prompt is used where nothing was said about it.

    BLIP-2 was trained on captions alone: "Describe this image." is a caption's beginning to it, after which
    it has little or nothing to say. What has a prompt of its own, and every other family, reads requests.
    """
    if service.own_prompt is not None:
        return service
    alone = policy.settings.family == "blip2" and not policy.settings.prompt
    if alone:
        log.warning(
            "this captioner was trained without a prompt: the text of requests is left out "
            "(--request-prompt puts it before the caption)"
        )
    return replace(service, own_prompt=alone)
