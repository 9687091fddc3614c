"""Captions a second of `limner caption` in one process, against transformers' own pipeline, images on disk.

`python benchmarks/bulk_captions.py [--photos 640x480] [--images 64] [--turns 2]`. The same BLIP-2 (about 50M
parameters, random weights), the same JPEG files, the same greedy captions, of differing lengths because the
model ends them so. Each side runs in a process of its own with as many threads, one turn after the other: the
pipeline image by image (its default) and in batches of every size given, limner with its own default. Loading
is not counted; reading the files and writing the captions is. The captions of both sides are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import Blip2ForConditionalGeneration

LIMITS = {"do_sample": False, "min_new_tokens": 8, "max_new_tokens": 30}
"""How LAVIS limits BLIP-2's captions of COCO."""
WARM = 4
"""Photographs that both sides caption first, unmeasured."""
DEFAULT = 1
"""Images that the pipeline captions together unless it is told."""
Captions = dict[str, str]


def build(folder: Path) -> None:
    """The mid size of shapes.py, which ends its captions; written into FOLDER/captioner."""
    import shapes

    shapes.build("mid", folder)
    model = Blip2ForConditionalGeneration.from_pretrained(folder / "captioner")
    end_somewhere(model)
    model.save_pretrained(folder / "captioner")


def end_somewhere(model: Any) -> None:
    """Change random weights so that captions vary from image to image, and end where they end."""
    import shapes

    language, width = model.language_model, model.config.text_config.hidden_size
    decoder = language.get_decoder()
    for config in (model.config, model.config.text_config, language.config):
        config.tie_word_embeddings = False  # what was read last would be what is likeliest to come next
    torch.manual_seed(0)
    with torch.no_grad():
        head = torch.randn(decoder.embed_tokens.weight.shape) * width**-0.5
        head[[shapes.PAD, shapes.BOS, shapes.UNK, shapes.IMAGE]] = -0.5
        end = torch.randn(width)
        end = (end - end.mean()) / (end - end.mean()).norm()
        head[shapes.EOS] = 2.5 * end
        language.lm_head.weight = nn.Parameter(head)
        model.language_projection.weight.mul_(4)
        decoder.embed_tokens.weight.mul_(width**0.5)
        places = decoder.embed_positions.weight
        before = model.config.num_query_tokens + 1
        # the later in a caption, the likelier is its end
        later = torch.arange(len(places)) - decoder.embed_positions.offset - before - 4
        places.mul_(width**0.5).add_(0.4 * later.clamp(-10, 30)[:, None] * end)


def photographs(folder: Path, count: int, *, width: int, height: int) -> None:
    """JPEG files of colours and clouds at many scales, each its own, as many bytes as photographs have."""
    folder.mkdir(parents=True)
    scales = (4, 16, 64, 256)
    for number in range(count):
        draw = np.random.default_rng(number)
        pixels = np.full((height, width, 3), draw.uniform(30, 220, 3), np.float32)
        for scale in scales:
            clouds = draw.normal(0, 6 * scale**0.5, (height // scale + 2, width // scale + 2, 3))
            for band in range(3):
                small = Image.fromarray(clouds[..., band].astype(np.float32))
                pixels[..., band] += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:05d}.jpg", quality=90)


def pipeline_side(model: Path, photos: Path) -> Callable[[int, int], Captions]:
    """The image-text-to-text pipeline of transformers, fed with the names of the files."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, Blip2Processor, logging, pipeline

    logging.set_verbosity_error()
    images = AutoImageProcessor.from_pretrained(model, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(model)
    queries = AutoConfig.from_pretrained(model).num_query_tokens
    processor = Blip2Processor(images, tokenizer, num_query_tokens=queries)
    pipe: Any = pipeline("image-text-to-text", str(model), processor=processor, device="cpu", dtype="float32")
    everything = sorted(path.name for path in photos.iterdir())

    def run(batch: int, count: int) -> Captions:
        names = everything[:count]
        given = ({"images": str(photos / name), "text": ""} for name in names)
        made = pipe(given, batch_size=batch, generate_kwargs=LIMITS, return_full_text=False)
        texts = (row[0]["generated_text"].strip() for row in made)
        return dict(zip(names, texts, strict=True))

    return run


def limner_side(model: Path, photos: Path) -> Callable[[int, int], Captions]:
    """A job of `limner caption`, its journal included."""
    from limner.bulk import inputs, job
    from limner.bulk.engines import Choice, Who, engine_of
    from limner.caption import output_of
    from limner.decoding import Decoding

    def run(batch: int, count: int) -> Captions:
        who = Who(model=str(model), decoding=Decoding(**LIMITS), device="cpu", batch=batch)
        if batch not in engines:
            engines[batch] = engine_of(who, Choice())({})
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "captions.jsonl")
            # fewer are asked for only to warm up: the first four by their names
            source = inputs.source(f"{photos}/0000[0-3].jpg" if count == WARM else str(photos))
            output = output_of(out, source, column=None, overwrite=False, shard=1)
            job.run(source, output, lambda _: engines[batch])
            rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        return {row["id"]: row["caption"] for row in rows}

    engines = {}
    return run


SIDES = {"pipeline": pipeline_side, "limner": limner_side}


def obey(side: str, model: Path, photos: Path, threads: int) -> None:
    """Load, then caption so many photographs in batches of the size that is read from standard input."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    run = SIDES[side](model, photos)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        captions = run(*map(int, line.split()))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps({"seconds": seconds, "cpu": cpu, "captions": captions}), flush=True)


def measured(model: Path, photos: Path, given: argparse.Namespace) -> dict[tuple[str, int], list[dict]]:
    """What each side answered in each turn, by its name and its batch."""
    from vlrm_step import Side

    from limner.bulk.engines import Who

    sides: dict[str, Side] = {}
    ways = [*(("pipeline", batch) for batch in given.batches), ("limner", Who.batch)]
    found: dict[tuple[str, int], list[dict]] = {way: [] for way in ways}
    try:
        for name in SIDES:
            command = [sys.executable, __file__, "obey", name, str(model), str(photos), str(given.threads)]
            sides[name] = Side(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        for side, batch in ways:
            sides[side].ask(f"{batch} {WARM}")
        for turn in range(given.turns):
            for side, batch in ways[:: -1 if turn % 2 else 1]:
                found[side, batch].append(sides[side].ask(f"{batch} {given.images}"))
    finally:
        for side in sides.values():
            side.end()
    return found


def show(found: dict[tuple[str, int], list[dict]], count: int) -> None:
    """A line a way; ratios are taken within a turn, so that a busy machine matters less."""
    (*_, last) = found
    ours = found[last]
    right = ours[0]["captions"]
    lengths = [len(text.split()) + 1 for text in right.values()]
    print(
        f"{count} captions of {statistics.mean(lengths):.1f} tokens, {min(lengths)} to {max(lengths)}, "
        f"standard deviation {statistics.stdev(lengths):.1f}; {len(set(right.values()))} differ"
    )
    for (side, batch), rows in found.items():
        ratios = [row["seconds"] / our["seconds"] for row, our in zip(rows, ours, strict=True)]
        cpu = statistics.median(row["cpu"] / our["cpu"] for row, our in zip(rows, ours, strict=True))
        same = sum(rows[0]["captions"][name] == text for name, text in right.items())
        rate = statistics.median(count / row["seconds"] for row in rows)
        used = statistics.median(row["cpu"] / row["seconds"] for row in rows)
        print(
            f"{side:>8}, batch {batch:>2}: {rate:6.2f} captions/s, {used:.2f} cores; "
            f"limner {statistics.median(ratios):.2f} times as fast "
            f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}), "
            f"{cpu:.2f} in CPU seconds; {same} captions are the same"
        )


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--photos", default="640x480", help="width x height of the files")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument("--batches", type=int, nargs="+", default=[DEFAULT, 4, 8, 16, 32, 64])
    parser.add_argument("--model", type=Path, help="a captioner instead of the one that is built")
    parser.add_argument("--keep", type=Path, help="folder that keeps model and files for the next time")
    given = parser.parse_args()
    width, height = map(int, given.photos.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        model, photos = given.model or folder / "mid" / "captioner", folder / f"{given.photos}-{given.images}"
        if not model.exists():
            build(folder / "mid")
        if not photos.exists():
            photographs(photos, given.images, width=width, height=height)
        show(measured(model, photos, given), given.images)


if __name__ == "__main__":
    if sys.argv[1:2] == ["obey"]:
        obey(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
