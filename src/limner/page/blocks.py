"""The page's controls, in Gradio. Nothing in it asks for anything outside of the server."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes
from gradio.components import Component
from markupsafe import Markup, escape

from limner.live import page as runs_page
from limner.page.desk import GALLERY, MOST_BEAMS, Desk, Wanted
from limner.page.show import Trouble, html

ASSETS = Path(__file__).parent / "assets"
HEATS = {"Log-probability": "logprob", "Return": "return", "No tokens": "none"}
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


def blocks(desk: Desk, names: Sequence[str], *, rewards: bool, runs: Path | None) -> gr.Blocks:
    """The page.

    Args:
        desk: who looks at pictures.
        names: the captioners, the served one last.
        rewards: whether captions are scored.
        runs: the folder of runs that a tab follows; None has no such tab.
    """
    with gr.Blocks(title="limner", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_heading(names), elem_id="limner-heading")
        if runs is None:
            _captions(desk, rewards=rewards)
        else:
            with gr.Tab("Captions"):
                _captions(desk, rewards=rewards)
            with gr.Tab("Runs"):
                runs_page.build(runs)
    page.queue(default_concurrency_limit=desk.house.service.limits.waiting, api_open=False)
    return page


def theme() -> themes.Base:
    """Fonts of the system, and calm colours."""
    return themes.Base(
        primary_hue=themes.colors.blue,
        neutral_hue=themes.colors.stone,
        radius_size=themes.sizes.radius_sm,
        font=["Inter", "system-ui", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace"],
    ).set(
        body_text_color_subdued="#5f5b54",
        body_text_color_subdued_dark="#aba599",
        body_background_fill="#fbfaf7",
        body_background_fill_dark="#161614",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1e1e1b",
        button_primary_background_fill="#2450a4",
        button_primary_background_fill_hover="#1b3f85",
        button_primary_background_fill_dark="#2450a4",
        button_primary_background_fill_hover_dark="#3060bd",
        button_primary_text_color="white",
        slider_color="#2450a4",
        slider_color_dark="#8fb1f5",
        color_accent="#2450a4",
        block_shadow="none",
        block_border_width="0px",
    )


def _captions(desk: Desk, *, rewards: bool) -> None:
    """What is looked at on the left, what was found on the right."""
    chosen = gr.State(None)
    with gr.Row(elem_id="limner-desk"):
        with gr.Column(scale=4, min_width=300, elem_id="limner-inputs"):
            files = gr.File(
                label="Pictures or short videos", file_count="multiple", height=130, elem_id="limner-files"
            )
            gallery = gr.Gallery(
                [(subject.images[0], subject.name) for subject in desk.gallery],
                label="Or one of these", columns=GALLERY // 2, allow_preview=False, format="png",
                object_fit="cover", height="auto", buttons=[], interactive=False, elem_id="limner-gallery",
            )  # fmt: skip
            run = gr.Button("Caption", variant="primary", elem_id="limner-run")
            with gr.Accordion("Decoding", open=False, elem_id="limner-decoding"):
                settings = _settings(desk)
        with gr.Column(scale=9, min_width=320, elem_id="limner-found"):
            choices = [name for name, which in HEATS.items() if rewards or which != "return"]
            heat = gr.Radio(
                choices, value=choices[0], label="Under each token", elem_id="limner-heat", container=False
            )
            results = gr.HTML(_empty(), elem_id="limner-results", js_on_load=None)

    inputs = [files, chosen, *settings]
    caption = functools.partial(_caption, desk)
    shown: dict[str, Any] = {"fn": None, "js": "() => limnerShow()", **_QUIET}
    asked: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}
    gallery.select(_picked, None, [chosen, files], **_QUIET).then(caption, inputs, results, **asked).then(
        **shown
    )
    files.upload(lambda: (None, gr.Gallery(selected_index=None)), None, [chosen, gallery], **_QUIET).then(
        caption, inputs, results, **asked
    ).then(**shown)
    run.click(caption, inputs, results, **asked).then(**shown)
    which = [f"{name!r}: {key!r}" for name, key in HEATS.items()]
    heat.change(None, heat, None, js=f"(name) => limnerHeat({{{', '.join(which)}}}[name])", **_QUIET)


def _settings(desk: Desk) -> list[Component]:
    """Controls of the fields of `Wanted`, in their order."""
    service = desk.house.service
    limits, usual = service.limits, Wanted(max_tokens=service.default_tokens)
    return [
        gr.Slider(
            0, 2, usual.temperature, step=0.05, label="Temperature",
            info="0 takes the likeliest token at every step", buttons=[],
        ),
        gr.Slider(
            0.05, 1, usual.top_p, step=0.05, label="top_p",
            info="Draws among the tokens that hold this much probability", buttons=[],
        ),
        gr.Slider(1, limits.tokens, usual.max_tokens, step=1, label="Most tokens", buttons=[]),
        gr.Slider(
            1, MOST_BEAMS, usual.beams, step=1, label="Beams", buttons=[],
            info="Above 1 it is a search: temperature and top_p do nothing",
        ),
        gr.Slider(1, limits.captions, usual.captions, step=1, label="Captions", buttons=[]),
        gr.Number(usual.seed, label="Seed", precision=0, minimum=0, maximum=2**53 - 1),
        gr.Textbox(
            usual.prompt, label="Prompt", placeholder="the captioner's own",
            max_length=limits.prompt_characters, visible=not service.own_prompt,
        ),
    ]  # fmt: skip


async def _caption(desk: Desk, files: Sequence[str] | None, chosen: int | None, *settings: Any) -> str:
    """The results as HTML, troubles among them."""
    # A control that was emptied gives None: its usual value then.
    usual = asdict(Wanted(max_tokens=desk.house.service.default_tokens))
    given = {name: value for name, value in zip(usual, settings, strict=True) if value is not None}
    wanted = Wanted(**{name: type(value)(given.get(name, value)) for name, value in usual.items()})
    if files:
        return html(*await desk.files([str(path) for path in files], wanted))
    if chosen is None or not 0 <= chosen < len(desk.gallery):
        return html([], [Trouble("", "Drop a picture or a short video, or choose one of the gallery.")])
    return html(*await desk.looks([desk.gallery[chosen]], wanted))


def _picked(event: gr.SelectData) -> tuple[int, None]:
    """The number of the picture in the gallery; uploaded files are put away."""
    return int(event.index), None


def _heading(names: Sequence[str]) -> str:
    marked = [Markup("<strong>{}</strong>").format(name) for name in reversed(names)]
    said = Markup(" beside ").join(marked)
    return Markup("<h1><span>limner</span></h1><p>Captions of {}</p>").format(said)


def _empty() -> str:
    words = "Drop a picture or a short video, or choose one of the gallery: what is said of it stands here."
    return f'<p class="lm-empty">{escape(words)}</p>'
