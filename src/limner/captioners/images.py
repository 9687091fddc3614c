"""The image encoder of a vision-language model, run once an image, whatever of it is trained.

Frozen, its features are kept. Where only what stands behind a frozen part is trained (a projector, a merger),
what the frozen part gave is kept, and the model's own code runs again over it with gradient.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from limner.captioners.prefix_inputs import Prefix, Row, Tensors
from limner.errors import UserError

READ = ("pooler_output", "deepstack_features")
"""What language models read of an encoder's output; everything else of it is dropped."""
JOINED = ("pixel_values", "image_grid_thw")
"""Tensors with a row a patch, tile or picture, which join into longer ones."""
BEHIND = ("merger", "deepstack_merger_list")
"""Parts of Qwen's vision tower that come after all of its blocks."""


class ImageEncoder:
    """The way from pixels to features of a `...ForConditionalGeneration` of transformers."""

    def __init__(self, model: Any):
        """Find the vision tower, and which part of the way is trained.

        Raises:
            UserError: the model's class takes no features that were computed before.
        """
        self.core = model.base_model
        takes = inspect.signature(self.core.forward).parameters
        if "mm_encoder_outputs" not in takes or not hasattr(self.core, "get_image_features"):
            raise UserError(
                f"{type(model).__name__} takes no image features that were computed before; "
                "such models cannot be trained here"
            )
        self.takes = set(inspect.signature(self.core.get_image_features).parameters)
        text = self.core.get_decoder()
        towers = [m for m in self.core.children() if isinstance(m, PreTrainedModel) and m is not text]
        self.tower: Any = towers[0] if len(towers) == 1 else None
        outside = {id(p) for p in (*text.parameters(), *model.get_output_embeddings().parameters())}
        self.trained = any(p.requires_grad and id(p) not in outside for p in model.parameters())
        self.frozen = self._frozen() if self.trained else ()
        self.layers: list[int] = []
        self.depth = 0
        self.listed: dict[str, bool] = {}
        """Whether features come as a list, by name; known after the first image."""

    @property
    def vision(self) -> PreTrainedModel | None:
        """The vision tower; None where a part of it is trained."""
        whole = self.tower is not None and not any(p.requires_grad for p in self.tower.parameters())
        return self.tower if whole else None

    def _frozen(self) -> tuple[nn.Module, ...]:
        """Modules whose output may be kept: the whole tower, or its blocks; none where pixels are needed."""
        if self.tower is None:
            return ()
        moving = [name for name, p in self.tower.named_parameters() if p.requires_grad]
        if not moving:
            return (self.tower,)
        if hasattr(self.tower, "blocks") and all(name.split(".")[0] in BEHIND for name in moving):
            return tuple(self.tower.blocks)
        return ()

    def _read(self) -> set[int]:
        """The numbers of the frozen modules whose output something else than the next one reads."""
        taps = getattr(self.tower, "deepstack_visual_indexes", ()) if len(self.frozen) > 1 else ()
        return {len(self.frozen) - 1, *taps} if self.frozen else set()

    @torch.no_grad()
    def encode(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with pixels -> rows with features, and with as little else as later passes need.

        Images whose tensors fit together go through the tower at once.
        """
        done: dict[int, Row] = {i: row for i, row in enumerate(rows) if not row.pixels}
        for group in groups(rows):
            chosen = [rows[i] for i in group]
            with self._recording() as kept:
                features = self._features(chosen)
            parts = [split(tensors, chosen) for tensors in kept]
            for place, i in enumerate(group):
                row = replace(chosen[place], features=features[place])
                if not self.trained:
                    row = replace(row, pixels={})
                else:
                    row = replace(row, kept={str(n): part[place] for n, part in enumerate(parts)})
                done[i] = row
        return [done[i] for i in range(len(rows))]

    def again(self, rows: Sequence[Row]) -> list[Tensors]:
        """Features with gradient to what is trained; those that `encode` made where nothing is."""
        if not self.trained:
            return [row.features for row in rows]
        out: dict[int, Tensors] = {i: row.features for i, row in enumerate(rows) if not row.pixels}
        for group in groups(rows):
            chosen = [rows[i] for i in group]
            with self._replaying(chosen):
                out |= dict(zip(group, self._features(chosen), strict=True))
        return [out[i] for i in range(len(rows))]

    def output(self, prefix: Prefix) -> dict[str, Any] | None:
        """The features of all rows in the form in which the model's forward takes them."""
        if not prefix.features:
            return None
        joined = {name: [torch.cat(level) for level in levels] for name, levels in prefix.features.items()}
        out = BaseModelOutputWithPooling()
        for name, levels in joined.items():
            if name == "deepstack_features":
                out.deepstack_features = [[level] for level in levels]  # type: ignore[attr-defined]
            else:
                out[name] = [levels[0]] if self.listed[name] else levels[0]
        return {"image": out}

    def _features(self, rows: Sequence[Row]) -> list[Tensors]:
        """What the language model reads of each row."""
        pixels = {name: torch.cat([row.pixels[name] for row in rows]) for name in rows[0].pixels}
        given = {name: tensor for name, tensor in pixels.items() if name in self.takes}
        out = self.core.get_image_features(**given, return_dict=True)
        parts: list[dict[str, tuple[torch.Tensor, ...]]] = [{} for _ in rows]
        for name in READ:
            value = getattr(out, name, None)
            if value is None:
                continue
            levels = value if name == "deepstack_features" else [value]
            self.listed[name] = not isinstance(value, torch.Tensor)
            for row, part in zip(parts, split([_flat(level) for level in levels], rows), strict=True):
                row[name] = part
        return list(parts)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[list[list[torch.Tensor]]]:
        """What the frozen modules give inside, those that are read: a list of tensors each."""
        kept: list[list[torch.Tensor]] = []
        handles = [
            self.frozen[number].register_forward_hook(lambda _, __, out: kept.append(self._tensors(out)))
            for number in sorted(self._read())
        ]
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()

    def _tensors(self, out: Any) -> list[torch.Tensor]:
        """The tensors of a block's or a tower's output; where they stood is remembered."""
        if isinstance(out, torch.Tensor):
            return [out]
        states = getattr(out, "hidden_states", None) or ()
        self.layers = [layer for layer, state in enumerate(states) if state is not None]
        self.depth = len(states)
        return [out.last_hidden_state, *(states[layer] for layer in self.layers)]

    def _given(self, held: Sequence[tuple[torch.Tensor, ...]]) -> Callable[..., Any]:
        """A forward that gives what was kept: a tensor, or a tower's output."""
        tensors = [torch.cat(level) for level in zip(*held, strict=True)]
        if self.frozen != (self.tower,):
            return lambda *args, **kwargs: tensors[0]
        states: list[torch.Tensor | None] = [None] * self.depth
        for layer, tensor in zip(self.layers, tensors[1:], strict=True):
            states[layer] = tensor

        def forward(*args: object, **kwargs: object) -> BaseModelOutputWithPooling:
            out = BaseModelOutputWithPooling(last_hidden_state=tensors[0])  # pyright: ignore
            if states:
                out.hidden_states = tuple(states)  # pyright: ignore[reportAttributeAccessIssue]
            return out

        return forward

    @contextlib.contextmanager
    def _replaying(self, rows: Sequence[Row]) -> Iterator[None]:
        """The frozen modules give inside what they gave before, without computing anything."""
        order = sorted(self._read())
        for number, module in enumerate(self.frozen):
            held = [row.kept[str(order.index(number))] for row in rows] if number in order else None
            # An attribute of the instance stands before the method of the class.
            module.forward = _passed_on if held is None else self._given(held)
        try:
            yield
        finally:
            for module in self.frozen:
                del module.forward


def _passed_on(hidden: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    """A block that only another block reads."""
    return hidden


def groups(rows: Sequence[Row]) -> list[list[int]]:
    """Row numbers that may go through the tower at once: joined tensors mean the same as single ones.

    Pixels and patches join along their first dimension; whatever else there is (sizes, masks) must be equal.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for number, row in enumerate(rows):
        if row.pixels:
            found.setdefault(_shape(row), []).append(number)
    return list(found.values())


def _shape(row: Row) -> tuple[object, ...]:
    def described(name: str, tensor: torch.Tensor) -> tuple[object, ...]:
        if name in JOINED:
            return name, *tensor.shape[1:]
        return name, *tensor.shape, *tensor.flatten().tolist()

    return tuple(part for name, tensor in row.pixels.items() for part in described(name, tensor))


def split(tensors: Sequence[torch.Tensor], rows: Sequence[Row]) -> list[tuple[torch.Tensor, ...]]:
    """For each row its share of every tensor: what comes out is in proportion to the pixels that went in."""
    weights = [len(row.pixels["pixel_values"]) for row in rows]
    total = sum(weights)
    parts = [
        tensor.split([len(tensor) * weight // total for weight in weights]) if len(rows) > 1 else (tensor,)
        for tensor in tensors
    ]
    return list(zip(*parts, strict=True))


def _flat(value: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.cat(list(value))
