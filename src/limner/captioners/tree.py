"""Decoding and scoring behind a visual prefix that the model itself prefills, once for all captions of it.

In the pass that scores captions, several captions of an image stand in one row behind the one shared prefix:
every token sees the prefix and the earlier tokens of its own caption, so that what it sees, and with it every
gradient, is what a row of its own would give. Keys and values of the prefix carry the gradient back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

from limner.captioners import lean
from limner.captioners.base import Generated
from limner.captioners.lean_steps import LeanSteps, bare
from limner.captioners.packing import Slots, added, sharing
from limner.captioners.prefix_inputs import Prefix
from limner.captioners.search import BehindPrompt, beam_settings, chosen_logprobs, cut_at_end, sample
from limner.captioners.steps import CachedSteps, SharedSteps, less_read
from limner.decoding import Decoding
from limner.errors import UserError

PROBE = 1e-3
"""Relative error at which two ways to score count as one; sums in another order give less."""
PROBE_HALF = 5e-2
"""The same in half precision; 7e-3 is usual, a mask that shows too much gives 3e-1."""


@dataclass(frozen=True)
class Filled:
    """A prefix that went through the model. B rows, L positions, H hidden size."""

    cache: Cache
    """Keys and values, with gradient where it is on."""
    last: torch.Tensor
    """(B, H) the hidden state that predicts the first token."""


@dataclass(frozen=True)
class PrefixedLM:
    """A vision-language model seen as a language model behind a prefix, with its special tokens."""

    model: Any
    """A `...ForConditionalGeneration` of transformers."""
    encoded: Callable[[Prefix], dict[str, Any] | None]
    """Gives the image features of a prefix in the form that the model's forward takes."""
    eos_ids: tuple[int, ...]
    pad_id: int
    never: tuple[int, ...] = ()
    """Tokens that no caption holds: the model would look for a picture at them."""
    packed: bool = True
    """Whether captions of one image may share a row."""
    found: dict[str, bool] = field(default_factory=dict[str, bool])
    """What `packs` has found out about the model."""
    together: bool = False
    """Whether ranks share the weights, so that each must run the blocks as often as the others."""

    @property
    def core(self) -> Any:
        """The model without its output layer."""
        return self.model.base_model

    @property
    def text(self) -> Any:
        """The language model without its output layer."""
        return self.core.get_decoder()

    @property
    def text_config(self) -> Any:
        """The settings of the language model."""
        return self.model.config.get_text_config()

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., V) float32 logits."""
        logits = self.model.get_output_embeddings()(hidden).float()
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def prefill(self, prefix: Prefix, cache: Cache | None = None) -> Filled:
        """Send a prefix through the model's own forward: its masks, its positions, its image tokens."""
        cache = self.new_cache() if cache is None else cache
        out = self.core(**self.prompt(prefix), past_key_values=cache, use_cache=True)
        return Filled(cache, out.last_hidden_state[:, -1])

    def new_cache(self) -> DynamicCache:
        """An empty cache that keeps every position, also those beyond a sliding window: masks hide them."""
        return DynamicCache() if self.kinds() is not None else DynamicCache(config=self.model.config)

    def kinds(self) -> tuple[str, ...] | None:
        """The kinds of attention of the layers, "full_attention" or "sliding_attention"; None: others."""
        config = self.text_config
        sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        kinds = getattr(config, "layer_types", None) or ["sliding_attention" if sliding else "full_attention"]
        found = tuple(sorted(set(kinds)))
        return found if set(found) <= {"full_attention", "sliding_attention"} else None

    def step(
        self,
        filled: Filled,
        tokens: torch.Tensor,
        *,
        positions: torch.Tensor,
        mask: torch.Tensor | dict[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """(rows, T, H) hidden states of tokens behind what the cache holds, which grows by them.

        Args:
            filled: `rows` rows.
            tokens: (rows, T) int64.
            positions: (rows, T) int64.
            mask: what each token sees; None: everything before it.
        """
        out = self.core(
            input_ids=tokens, position_ids=self._axes(positions), attention_mask=mask,
            past_key_values=filled.cache, use_cache=True,
        )  # fmt: skip
        return out.last_hidden_state

    def states(self, prefix: Prefix, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """(N, T, H) hidden states that predict each of the (N, T) tokens; 0 where the mask is False.

        Args:
            prefix: B rows, shared by N / B captions each.
            tokens: (N, T).
            caption_mask: (N, T) bool.
        """
        if not self.packs():
            return self._alone(prefix, tokens, caption_mask)
        if self.leans() and lean.few_scores(self.text, prefix.ids.shape[1] + tokens.shape[1]):
            return lean.states(self, prefix, tokens, caption_mask)
        return self._shared(prefix, tokens, caption_mask)

    def logprobs(
        self, prefix: Prefix, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """(N, T) float32 log-probabilities of the tokens after the prefix; 0 where the mask is False.

        Only caption positions reach the output layer.
        """
        states = self.states(prefix, tokens, caption_mask)
        return chosen_logprobs(self.head(states[caption_mask]), tokens, caption_mask, smoothing)

    @torch.no_grad()
    def generate(
        self, prefix: Prefix, decoding: Decoding, *, captions: int, generator: torch.Generator | None
    ) -> Generated:
        """Captions after B prefixes: sampled or greedy here, beams by transformers.

        A caption is cut where the language model has no more positions, also before `max_new_tokens`.

        Raises:
            UserError: the prefix leaves no position for a caption.
        """
        limit = getattr(self.text_config, "max_position_embeddings", None)
        longest = decoding.max_new_tokens
        if limit is not None:
            room = int(limit) - prefix.ids.shape[1]
            if room < 1:
                raise UserError(
                    f"the prompt is too long with its pictures: {1 - room} tokens more than the language "
                    "model has positions; give fewer or smaller pictures, or a shorter prompt"
                )
            longest = min(longest, room)
        decoding = replace(
            decoding, max_new_tokens=longest, min_new_tokens=min(decoding.min_new_tokens, longest)
        )
        if decoding.num_beams > 1:
            return self._beams(prefix, decoding, captions)
        steps = self._steps(captions, prefix.ids.shape[1], longest)(self, prefix, captions)
        rows = len(prefix.ids) * captions
        return sample(steps, rows, decoding, self.eos_ids, self.pad_id, generator, self.never)

    def _steps(self, captions: int, length: int, tokens: int) -> type[CachedSteps | SharedSteps]:
        """The way to generate `captions` of so many tokens, behind a prefix of `length`."""
        if captions == 1 or not self.packs():
            return CachedSteps
        if self.leans() and bare(self.text):
            return LeanSteps
        shared = less_read(self.text_config, captions, length=length, tokens=tokens)
        return SharedSteps if shared else CachedSteps

    def packs(self) -> bool:
        """Whether captions that share a row score as they do when they are generated; tried out once.

        Raises:
            UserError: neither captions that share a row nor captions with a row each do.
        """
        if "packs" not in self.found:
            self.found["packs"] = self._try_out()
        return self.found["packs"]

    def leans(self) -> bool:
        """Whether its layers can be computed with fewer calls, as nothing has been put around them since."""
        return self.packs() and self.found.get("lean", False) and lean.fits(self.text)

    @torch.no_grad()
    def _try_out(self) -> bool:
        """Score three made-up captions after made-up words token by token, packed, and a row each."""
        some = torch.arange(15, device=self.model.device)
        words = (some * 7 + 5) % min(self.text_config.vocab_size, 1000)
        positions = some[:6].expand(self.axes, 1, -1)
        prefix = Prefix(words[None, :6], None, positions, {}, {})
        tokens = words[6:].view(3, 3)
        mask = torch.ones_like(tokens, dtype=torch.bool)

        def stepped(steps: CachedSteps | SharedSteps) -> torch.Tensor:
            fed = (None, tokens[:, 0], tokens[:, 1])
            return torch.stack([steps.logits(chosen) for chosen in fed], 1)

        wanted = stepped(CachedSteps(self, prefix, 3))
        half = torch.is_autocast_enabled(wanted.device.type) or self.model.dtype.itemsize < 4
        allowed = PROBE_HALF if half else PROBE

        def equal(found: torch.Tensor) -> bool:
            return float((found - wanted).norm() / (wanted - wanted.mean()).norm()) < allowed

        whole = self.model(input_ids=torch.cat([prefix.ids.expand(3, -1), tokens], 1)).logits[:, 5:-1]
        if float((whole - wanted).norm() / wanted.norm()) > allowed:
            raise UserError(
                f"{type(self.model).__name__}: its logits are not what its output layer gives here; "
                "this class cannot be trained"
            )
        attention = self.text_config._attn_implementation
        masked = self.kinds() is not None and attention in ("sdpa", "eager")  # takes a mask of ours
        leans = self.packed and masked and self.kinds() == ("full_attention",) and lean.fits(self.text)
        leans = leans and equal(self.head(lean.states(self, prefix, tokens, mask)))
        self.found["lean"] = leans and (not bare(self.text) or equal(stepped(LeanSteps(self, prefix, 3))))
        if self.packed and masked and equal(self.head(self._shared(prefix, tokens, mask))):
            return equal(stepped(SharedSteps(self, prefix, 3)))
        if not equal(self.head(self._alone(prefix, tokens, mask))):
            raise UserError(
                f"{type(self.model).__name__}: captions cannot be scored as they are generated; "
                "this class cannot be trained"
            )
        return False

    @property
    def axes(self) -> int:
        """How many numbers a position has: 3 where time, height and width have their own."""
        return 3 if hasattr(self.core, "get_rope_index") else 1

    def _axes(self, positions: torch.Tensor) -> torch.Tensor:
        """(rows, T) positions of text as the model takes them."""
        return positions.expand(3, -1, -1) if self.axes == 3 else positions

    def prompt(self, prefix: Prefix) -> dict[str, Any]:
        """The arguments of the model's forward for a prefix."""
        given: dict[str, Any] = {
            "input_ids": prefix.ids,
            "attention_mask": None if prefix.there is None else prefix.there.long(),
            "position_ids": prefix.positions if self.axes == 3 else prefix.positions[0],
        }
        takes = inspect.signature(self.core.forward).parameters
        given |= {name: mark for name, mark in prefix.marks.items() if name in takes}
        if "is_first_iteration" in takes:  # PaliGemma's prompt sees all of itself
            given["is_first_iteration"] = True
        features = self.encoded(prefix)
        return given if features is None else {**given, "mm_encoder_outputs": features}

    def _shared(self, prefix: Prefix, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """`states` with several captions a row, all of them behind one prefill of their prefix."""
        filled = self.prefill(prefix)
        captions = len(tokens) // len(prefix.ids)
        out = filled.last.new_zeros(*tokens.shape, filled.last.shape[-1])
        out[:, 0] = filled.last.repeat_interleave(captions, 0)
        fed = caption_mask[:, 1:]  # a token is fed where one after it is to be predicted
        if not fed.any() and not self.together:
            return out
        if not fed.any():  # something is fed, and not looked at
            tokens = torch.nn.functional.pad(tokens, (0, 1))
            fed = torch.zeros_like(tokens[:, 1:], dtype=torch.bool)
            fed[0, 0] = True
        slots = Slots.of(fed, sharing(captions, tokens=fed.shape[1], prefix=prefix.ids.shape[1]))
        rows = len(slots.caption)
        per_prefix = rows // len(prefix.ids)
        if per_prefix > 1:
            filled.cache.batch_repeat_interleave(per_prefix)
        chosen = tokens[slots.caption, slots.time].masked_fill(~slots.used, self.pad_id)
        positions = prefix.after.repeat_interleave(per_prefix)[:, None] + slots.time
        mask = self._tree(prefix, slots, per_prefix)
        hidden = self.step(filled, chosen, positions=positions, mask=mask)
        if not caption_mask[:, 1:].any():
            return out + 0 * hidden.sum()
        where = slots.caption[slots.used], slots.time[slots.used] + 1
        return out.index_put(where, hidden[slots.used].to(out.dtype))

    def _tree(self, prefix: Prefix, slots: Slots, per_prefix: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """(rows, 1, W, L + W) what each slot sees; by kind of attention where layers differ in it."""
        there = torch.ones_like(prefix.ids, dtype=torch.bool) if prefix.there is None else prefix.there
        there = there.repeat_interleave(per_prefix, 0)
        return self.by_kind(lambda window: slots.sees(there, window))

    def by_kind(self, sees: Callable[[int | None], torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:
        """Masks (rows, 1, Q, K) as the model takes them; by kind of attention where layers differ in it.

        Args:
            sees: (rows, Q, K) bool of what is seen where that many positions back are, or all (None).
        """
        kinds = self.kinds() or ()
        windows = {
            "full_attention": None,
            "sliding_attention": getattr(self.text_config, "sliding_window", None),
        }
        masks = {kind: sees(windows[kind])[:, None] for kind in kinds}
        if self.text_config._attn_implementation == "eager":
            masks = {kind: added(mask, self.model.dtype) for kind, mask in masks.items()}
        return masks[kinds[0]] if len(kinds) == 1 else masks

    def _alone(self, prefix: Prefix, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """`states` with a row a caption, the prefix before each of them, and no cache."""
        captions = len(tokens) // len(prefix.ids)
        rows = prefix.repeat(captions)
        given = self.prompt(rows)
        width = tokens.shape[1] - 1
        later = torch.arange(width, device=tokens.device)
        positions = self._axes(rows.after[:, None] + later)
        given["input_ids"] = torch.cat([rows.ids, tokens[:, :-1]], 1)
        given["position_ids"] = torch.cat([given["position_ids"], positions], -1)
        given |= {n: torch.nn.functional.pad(m, (0, width)) for n, m in rows.marks.items() if n in given}
        if given["attention_mask"] is not None:
            given["attention_mask"] = torch.nn.functional.pad(given["attention_mask"], (0, width), value=1)
        hidden = self.core(**given, use_cache=False).last_hidden_state[:, rows.ids.shape[1] - 1 :]
        return hidden * caption_mask[..., None]

    def _beams(self, prefix: Prefix, decoding: Decoding, captions: int) -> Generated:
        """Beams by transformers' own search, behind the prefix that is prefilled here."""
        filled = self.prefill(prefix)
        filled.cache.crop(-1)
        filled.cache.batch_repeat_interleave(decoding.num_beams)
        there = torch.ones_like(prefix.ids) if prefix.there is None else prefix.there.long()
        if self.axes == 3:
            self.core.rope_deltas = (prefix.after - there.sum(1))[:, None]
        length = prefix.ids.shape[1]
        settings = beam_settings(decoding, captions, self.eos_ids, self.pad_id)
        size = decoding.no_repeat_ngram_size
        del settings["no_repeat_ngram_size"]  # of the caption only, not of the prompt
        tokens = self.model.generate(
            input_ids=prefix.ids, attention_mask=there, past_key_values=filled.cache,
            suppress_tokens=list(self.never) or None,
            logits_processor=[BehindPrompt(NoRepeatNGramLogitsProcessor(size), length)] if size else None,
            **settings,
        )[:, length:]  # fmt: skip
        tokens, caption_mask, ended = cut_at_end(tokens, self.eos_ids, self.pad_id)
        return Generated(tokens, caption_mask, self.logprobs(prefix, tokens, caption_mask), ended)
