"""One side of GRPO on a small LLaVA, in its own process: TRL's GRPOTrainer, or limner's trainer.

`python benchmarks/grpo_sides.py trl|limner FOLDER ...` loads the model of FOLDER and says so; then every line
on standard input is one training step, answered by a line of JSON. `build` writes the model and the images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sides import NEVER, Memory
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from limner.rewards import base
from limner.types import Part, Rollouts

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "user:", "assistant:", "describe")
WORDS = 200
SIDE = 64
"""Pixels; patches of 8 give 64 image tokens."""
IMAGES = 512
CHAT = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{{ '<image> ' if c.type == 'image' else c.text + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} assistant:{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """How many different characters a caption has: costs nothing, so that the loop is what is measured."""

    examples = (base.Example("a dad", 3.0),)

    def __call__(self, rollouts: Rollouts) -> Part:
        """(N,) distinct characters a caption."""
        return Part(torch.tensor([float(len(set(text))) for text in rollouts.texts]))


class Watch:
    """Seconds by part of a step: methods of objects are timed, without what is timed inside them."""

    def __init__(self):
        """Nothing is timed yet."""
        self.seconds: dict[str, float] = {}
        self.inside = [0.0]

    def time(self, part: str, owner: Any, *methods: str) -> None:
        """Count what these methods take from now on as a part."""
        for method in methods:
            setattr(owner, method, self._timed(part, getattr(owner, method)))

    def parts(self, whole: float) -> dict[str, float]:
        """The parts of a step of so many seconds; begins anew."""
        out = {**self.seconds, "rest": whole - sum(self.seconds.values())}
        self.seconds = {}
        return out

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self.inside.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                taken = time.perf_counter() - start
                self.seconds[part] = self.seconds.get(part, 0.0) + taken - self.inside.pop()
                self.inside[-1] += taken

        return timed


def build(folder: Path) -> None:
    """Write a LLaVA of 4 + 4 layers, 128 wide, with random weights, and images of noise."""
    torch.manual_seed(0)
    words = {word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(WORDS))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, chat_template=CHAT,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        image_size=SIDE, patch_size=8, projection_dim=128,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=words["<image>"],
        vision_feature_select_strategy="default", vision_feature_layer=-1, image_seq_length=64,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder / "model")
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="<image>", chat_template=CHAT,
    ).save_pretrained(folder / "model")  # fmt: skip
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:03}.png")


def recipe(folder: Path, given: argparse.Namespace) -> str:
    """The recipe of what TRL does by default: DAPO's loss, spread of the group, no KL, all parameters."""
    return f"""
captioner: {{kind: auto, path: {folder / "model"}, prompt: describe, train: ["*"], packed: {given.packed}}}
data: {{kind: folder, path: {folder / "images"}}}
rollout: {{captions: {given.group}, do_sample: true, top_k: 0, top_p: 1.0, temperature: 1.0,
          min_new_tokens: 0, max_new_tokens: {given.tokens}, num_beams: 1, no_repeat_ngram_size: 0}}
rewards: {{distinct: {{kind: "grpo_sides:Reward"}}}}
advantage: {{kind: group_relative}}
objective: {{kind: clipped_ratio, normalise: token_mean}}
update: {{captions: {given.batch}, micro_batch: {given.batch}, optimiser: adamw, lr: 1.0e-6, steps: {NEVER}}}
evaluate: {{every: 0}}
run: {{sample_every: {NEVER}, checkpoint_every: {NEVER}, output: {folder / "runs"}, device: {given.device}}}
"""


def limner_side(folder: Path, given: argparse.Namespace) -> None:
    """All of a step of limner: reading, logging and watching too."""
    from limner import config
    from limner.devices import torch_device
    from limner.train import Trainer

    memory, watch = Memory(torch_device(given.device)), Watch()
    file = folder / f"recipe-{time.time_ns()}.yaml"
    file.write_text(recipe(folder, given), encoding="utf8")
    trainer = Trainer(config.load(file), folder / f"run-{time.time_ns()}")
    learner = trainer.updates.learner
    watch.time("images and prompts", trainer.policy, "encode")
    watch.time("generation", trainer.policy, "generate")
    watch.time("texts", trainer.policy, "rollouts")
    watch.time("reward", trainer, "judge")
    watch.time("gradient", learner, "backward")
    watch.time("optimiser", learner.optimiser, "clip", "step")
    say({"loaded": memory.peak()})
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        trainer.step()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        say(
            {
                "seconds": seconds, "cpu_seconds": cpu, "parts": watch.parts(seconds),
                "memory": memory.peak(),
            }
        )  # fmt: skip
    trainer.close()


class InTurns(TrainerCallback):
    """Holds TRL's trainer before each step until a line comes in."""

    def __init__(self, memory: Memory, watch: Watch):
        """Nothing has begun."""
        self.memory, self.watch = memory, watch
        self.start = self.cpu = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Everything is loaded."""
        self.watch.time("optimiser", kwargs["optimizer"], "step")
        say({"loaded": self.memory.peak()})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the next turn; the last one has passed when standard input ends."""
        if not sys.stdin.readline():
            raise SystemExit
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how long it took."""
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        say(
            {
                "seconds": seconds, "cpu_seconds": cpu, "parts": self.watch.parts(seconds),
                "memory": self.memory.peak(),
            }
        )  # fmt: skip


def trl_side(folder: Path, given: argparse.Namespace) -> None:
    """GRPOTrainer as it is."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    memory, watch = Memory(torch.device(given.device)), Watch()
    content = [{"type": "image"}, {"type": "text", "text": "describe"}]
    rows = [
        {"prompt": [{"role": "user", "content": content}], "image": Image.open(file).convert("RGB")}
        for file in sorted((folder / "images").glob("*.png"))
    ]
    settings = GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=given.batch, num_generations=given.group,
        max_completion_length=given.tokens, temperature=1.0, max_steps=NEVER, use_cpu=given.device == "cpu",
        report_to=[], save_strategy="no", beta=0.0, bf16=False, gradient_checkpointing=False,
        disable_tqdm=True, logging_steps=NEVER,
    )  # fmt: skip

    def reward(completions: list[Any], **_: Any) -> list[float | None]:
        return [float(len(set(completion[0]["content"]))) for completion in completions]

    trainer = GRPOTrainer(
        model=LlavaForConditionalGeneration.from_pretrained(folder / "model"),
        reward_funcs=reward, train_dataset=Dataset.from_list(rows), args=settings,
        processing_class=LlavaProcessor.from_pretrained(folder / "model", backend="pil"),
        callbacks=[InTurns(memory, watch)],
    )  # fmt: skip
    watch.time("gradient", trainer, "training_step")
    watch.time("images and prompts", trainer, "_tokenize_prompts", "_generate_and_score_completions")
    watch.time("generation", trainer, "_generate_single_turn")
    watch.time("texts", trainer, "_generate")
    watch.time("reward", trainer, "_calculate_rewards")
    watch.time("optimiser", trainer.accelerator, "clip_grad_norm_")
    trainer.train()


def say(answer: dict[str, Any]) -> None:
    """A line of JSON."""
    sys.__stdout__.write(json.dumps(answer) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def main() -> None:
    """Load, then take a step a line until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["build", "trl", "limner"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--packed", choices=["true", "false"], default="true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    if given.side == "build":
        build(given.folder)
        return
    sys.stdout = sys.stderr  # what libraries print is no answer
    {"trl": trl_side, "limner": limner_side}[given.side](given.folder, given)


if __name__ == "__main__":
    main()
