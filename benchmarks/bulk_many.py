"""Cost of an image as the number of images grows: time and memory of `limner caption` from 1,000 to 100,000.

`python benchmarks/bulk_many.py [--counts 1000 10000 100000]`. Small PNG files in folders of a thousand, the
miniature captioner, captions of two tokens, so that what grows with the job is most of what is measured:
listing, reading, batches, the journal and what is kept in memory. Each count runs in a process of its own,
which is then started again on the finished job: what it costs to find that nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

BATCH = 64


def write(folder: Path, start: int, stop: int) -> None:
    """Files START to STOP, each another colour."""
    for number in range(start, stop):
        inside = folder / f"{number // 1000:04d}"
        inside.mkdir(parents=True, exist_ok=True)
        colour = (number % 251, number // 251 % 251, number // 251**2)
        Image.new("RGB", (32, 32), colour).save(inside / f"{number:06d}.png", compress_level=1)


def measure(photos: Path, out: Path) -> dict[str, float]:
    """One job, from listing to the end; the model is loaded before."""
    import torch
    from sides import resident_peak

    from limner.bulk import inputs, job
    from limner.bulk.engines import Choice, Who, engine_of
    from limner.caption import output_of
    from limner.decoding import Decoding

    torch.set_num_threads(1)
    decoding = Decoding(do_sample=False, max_new_tokens=2)
    who = Who(model="world:captioner", decoding=decoding, device="cpu", batch=BATCH)
    engine = engine_of(who, Choice())({})
    held, start, cpu = resident_peak(), time.perf_counter(), time.process_time()
    source = inputs.source(str(photos))
    report = job.run(source, output_of(out, source, column=None, overwrite=False, shard=1), lambda _: engine)
    return {
        "written": report.written,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "mib": resident_peak() - held,
    }


def main() -> None:
    """Measure every count, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos, there = Path(scratch, "photos"), 0
        for count in sorted(given.counts):
            write(photos, there, count)
            there = count
            out = Path(scratch, f"{count}.jsonl")
            for way in ("captioned", "nothing left to do"):
                command = [sys.executable, __file__, "--job", str(photos), str(out)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{count:>7,} {way}: {1000 * row['seconds'] / count:.3f} ms an image, "
                    f"{1000 * row['cpu'] / count:.3f} of CPU; {row['mib']:.0f} MiB beyond the model, "
                    f"{row['mib'] * 2**20 / count:.0f} bytes an image",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
