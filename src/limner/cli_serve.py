"""`limner serve`: an OpenAI-compatible service around a captioner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from limner.errors import UserError

if TYPE_CHECKING:
    from limner.page.settings import Page


def serve(
    model: Annotated[
        str,
        typer.Argument(help="A captioner: hub id, folder, world:captioner, a run, a run's checkpoint."),
    ] = "world:captioner",
    limits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[limit=value]...", help="What requests may cost: pixels=1000000 tokens=60 waiting=8"
        ),
    ] = None,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[
        str, typer.Option(help="The model's name in requests; the last part of MODEL if not given.")
    ] = "",
    max_batch: Annotated[int, typer.Option(min=1, help="Most captions written together.")] = 16,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a request waits at most for others that are on their way.")
    ] = 20.0,
    own_prompt: Annotated[
        bool | None,
        typer.Option(
            "--own-prompt/--request-prompt",
            help="The captioner's own prompt, or the text of requests; its own if BLIP-2 has none.",
        ),
    ] = None,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Fetch images from this host's http(s) addresses; repeatable."),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable that holds the key requests must bring; never the key."),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Also a page for people, at /page: captions to look at closely.")
    ] = False,
    compare: Annotated[
        str | None, typer.Option(metavar="BASE_MODEL", help="A second captioner beside it on the page.")
    ] = None,
    rewards: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Recipe or run whose rewards the page shows; none for none."),
    ] = None,
    gallery: Annotated[
        str | None, typer.Option(metavar="DATA", help="Pictures to choose from on the page: a folder, ...")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder of runs that the page follows.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Number format of the captioner's frozen parts."),
    ] = "float32",
) -> None:
    """Serve a captioner to OpenAI clients: POST /v1/chat/completions with images as data: URLs.

    Example: limner serve world:captioner --port 8000 --key-env LIMNER_KEY
    """
    from dataclasses import replace

    from limner.serve.settings import Service, limits_of, name_of

    shown = _page(page, compare=compare, rewards=rewards, gallery=gallery, runs=runs)
    chosen = limits_of(limits or ())
    try:
        service = Service(
            name or name_of(model),
            limits=replace(chosen, captions=min(chosen.captions, max_batch)),
            max_batch=max_batch,
            wait_seconds=max_wait_ms / 1000,
            default_tokens=min(Service.default_tokens, chosen.tokens),
            own_prompt=own_prompt,
            allow_urls=tuple(allow_urls or ()),
            key_env=key_env,
        )
        import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import prometheus_client  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import uvicorn  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ValueError as error:
        raise UserError(str(error)) from None
    except ImportError as error:
        raise UserError(f"serving needs {error.name}: pip install 'limner[serve]'") from None
    from limner.serve.run import serve as run

    run(model, service, host=host, port=port, device=device, dtype=dtype, page=shown)


def _page(
    wanted: bool, *, compare: str | None, rewards: str | None, gallery: str | None, runs: Path | None
) -> Page | None:
    """What is on the page, or None.

    Raises:
        UserError: something is said of a page that nobody asked for, or Gradio is missing.
    """
    from importlib.util import find_spec

    from limner.page.settings import Page

    given: dict[str, Any] = {"compare": compare, "rewards": rewards, "gallery": gallery, "runs": runs}
    given = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        if given:
            raise UserError(f"--{next(iter(given))} is of the page: give --page too")
        return None
    if find_spec("gradio") is None:
        raise UserError("the page needs gradio: pip install 'limner[page]'")
    return Page(**given)
