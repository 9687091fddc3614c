"""Speed and memory of answering questions about captions: one packed pass against generate, prompt by prompt.

Both ask the same questions of the same language model (random weights, float32) and read the answer from one
token: limner takes the next-token probabilities of the option letters and reads a caption once for its
questions; the other side is transformers' generate with one prompt a question, prompts of like length
together, in the batch size that was fastest. One new token is the least that it needs: the published way
writes up to 10, which costs it more. They take turns in one process with the same threads. The bound beside
the speed-up is the ratio of their operations: matrix products and attention. The ratio of the processor's
seconds stands there too: other work on the machine changes it less.

    python benchmarks/qa_reward.py             # captions of 300 tokens, 8 questions each
    python benchmarks/qa_reward.py --memory    # and the peak memory by questions and by captions a sample
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sides import Operations, resident_peak
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from limner.answering.packed import Packed

QUESTION, AROUND = 60, 20
"""Tokens of a question with its options, and of the words of the prompt before the caption."""
LETTERS = list(range(100, 105))
TARGET = 3.5
TRIED, BATCHES = 16, (1, 2, 4, 8, 16)
"""Prompts in which, and batch sizes of which, the fastest for generate is found."""
Groups = list[list[list[int]]]


def language_model(given: argparse.Namespace) -> Any:
    """A Llama of the given size with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=given.vocabulary,
        hidden_size=given.width,
        intermediate_size=given.width * 3,
        num_hidden_layers=given.layers,
        num_attention_heads=given.width // 64,
        num_key_value_heads=max(1, given.width // 256),
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def prompts(captions: int, questions: int, length: int, vocabulary: int) -> Groups:
    """Token ids: the prompt's beginning, a caption, a question; lengths vary by a tenth."""
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    around, made = ids(AROUND), []
    for _ in range(captions):
        caption = ids(round(length * rng.uniform(0.9, 1.1)))
        made.append([
            around + caption + ids(round(QUESTION * rng.uniform(0.9, 1.1))) for _ in range(questions)
        ])  # fmt: skip
    return made


def generated(model: Any, rows: Sequence[list[int]], batch: int) -> None:
    """One new token after every prompt, prompts of like length together."""
    settings = GenerationConfig(max_new_tokens=1, do_sample=False, pad_token_id=0)
    rows = sorted(rows, key=len)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(map(len, part))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in part])
        model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time, and the processor's."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations."""
    with torch.no_grad(), Operations() as counted:
        work()
    return float(counted.total)


def fastest(model: Any, rows: Sequence[list[int]]) -> int:
    """The batch size in which generate answers some prompts soonest."""
    some = sorted(rows, key=len)[:: max(1, len(rows) // TRIED)][:TRIED]
    generated(model, some[:4], 4)  # the first pass allocates
    tried = {size: seconds(lambda size=size: generated(model, some, size))[1] for size in BATCHES}
    return min(tried, key=lambda size: tried[size])


def compare(given: argparse.Namespace) -> dict[str, float]:
    """Both sides in turns; the speed-up is the median of the turns' ratios."""
    model = language_model(given)
    groups = prompts(given.captions, given.questions, given.length, given.vocabulary)
    rows = [ids for group in groups for ids in group]
    answerer = Packed(model, max_tokens=given.max_tokens)
    batch = fastest(model, rows)
    sides: dict[str, Callable[[], object]] = {
        "generate": lambda: generated(model, rows, batch),
        "packed": lambda: answerer.logprobs(groups, LETTERS),
    }
    flops = {name: operations(work) for name, work in sides.items()}  # the first turn, not timed
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(given.rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            times[name].append(seconds(sides[name]))
    pairs = list(zip(times["generate"], times["packed"], strict=True))
    return {
        "batch": batch,
        "questions": len(rows),
        **{f"{name}_seconds": statistics.median(wall for wall, _ in taken) for name, taken in times.items()},
        **{f"{name}_gflop": flops[name] / 1e9 for name in sides},
        "speedup": statistics.median(one[0] / other[0] for one, other in pairs),
        "cpu_speedup": statistics.median(one[1] / other[1] for one, other in pairs),
        "bound": flops["generate"] / flops["packed"],
    }


def peak(given: argparse.Namespace) -> float:
    """MiB beyond the loaded model that the packed pass took; in a process of its own."""
    model = language_model(given)
    answerer = Packed(model, max_tokens=given.max_tokens)
    answerer.logprobs(prompts(1, 2, 20, given.vocabulary), LETTERS)
    before = resident_peak()
    groups = prompts(given.captions, given.questions, given.length, given.vocabulary)
    answerer.logprobs(groups, LETTERS)
    return resident_peak() - before


def peaks(given: argparse.Namespace) -> dict[str, float]:
    """Peak memory by questions a caption, then by captions: what is held, without malloc's gaps."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
    out: dict[str, float] = {}
    for captions, questions in ((8, 1), (8, 8), (8, 32), (32, 8)):
        options = {"captions": captions, "questions": questions}
        names = ("layers", "width", "vocabulary", "length", "max_tokens")
        same = {name: getattr(given, name) for name in names}
        command = [sys.executable, __file__, "--peak"]
        for name, value in {**same, **options}.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        out[f"{captions} captions, {questions} questions"] = float(said.stdout.split()[-1])
    return out


def main() -> None:
    """Measure and print; the last line is the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=12)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--length", type=int, default=300, help="tokens of a caption")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--max-tokens", type=int, default=2048, help="tokens in a packed pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console(width=120)
    if given.peak:
        console.print(peak(given))
        return
    found = compare(given)
    result: dict[str, object] = dict(found)
    table = Table(title=f"{given.captions} captions of {given.length} tokens, {given.questions} questions")
    for head in ("side", "questions/s", "GFLOP", "speed-up", "in CPU time", "bound"):
        table.add_column(head, justify="left" if head == "side" else "right")
    for name in ("generate", "packed"):
        ratios = ["1"] * 3
        if name == "packed":
            ratios = [f"{found[ratio]:.2f}" for ratio in ("speedup", "cpu_speedup", "bound")]
        shown = f"generate, batches of {found['batch']:.0f}" if name == "generate" else name
        rate = found["questions"] / found[f"{name}_seconds"]
        table.add_row(shown, f"{rate:.1f}", f"{found[f'{name}_gflop']:.0f}", *ratios)
    console.print(table)
    console.print(f"  {'met   ' if found['speedup'] >= TARGET else 'MISSED'} at least {TARGET} times as fast")
    if given.memory:
        memory = peaks(given)
        result["peaks"] = memory
        for name, mib in memory.items():
            console.print(f"  {name}: {mib:.0f} MiB beyond the model")
    result["load"] = os.getloadavg()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
