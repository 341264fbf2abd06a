"""Measure how time and memory grow with the number of images: reading a dataset, decoding it, and batches of training.

    python benchmarks/many_images.py                          # 10,000, 100,000 and 1,000,000 images of 32 x 32 pixels
    python benchmarks/many_images.py --side 224 --counts 2500 10000 40000

The images are generated: PNG files in parquet shards of 50,000, with ten classes. Each number of images has a process
of its own, which is measured twice: with an empty cache, and again. Memory is the peak of the process (Linux),
of which the libraries take the part that the first line of a process says; pages of memory-mapped files count too,
although the system can take them back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from side_by_side import describe_machine
from transformers import BaseImageProcessor

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family

Result = TypeVar("Result")
SHARD, BATCH, CLASSES = 50_000, 128, 10
STAGES = ("reading", "decoding", "an epoch of batches", "reading again", "decoding again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--side", type=int, default=32, help="of the images, in pixels; default: 32")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_stages(Path(arguments.case), side=arguments.side)))
        return
    found = {}
    print(f"| images | {' | '.join(STAGES)} | on disk |\n|{'---|' * (len(STAGES) + 2)}")
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder, "data"), count=count, side=arguments.side)
            command = [sys.executable, __file__, "--case", folder, "--side", str(arguments.side)]
            place = os.environ | {"HF_DATASETS_CACHE": f"{folder}/cache"}
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=place)
            found[count] = json.loads(ran.stdout.splitlines()[-1])
            sizes = [sum(file.stat().st_size for file in Path(folder, place).rglob("*")) for place in ("data", "cache")]
        cells = [f"{count / seconds:,.0f}/s, {peak:,.0f} MB" for seconds, peak in found[count]]
        disk = " and ".join(f"{size / 1e6:,.0f} MB" for size in sizes)
        print(f"| {count:,} | {' | '.join(cells)} | {disk} |", flush=True)
    if len(found) > 1:
        print("Seconds grow as the number of images to the power of:")
        for name, each in zip(STAGES, np.transpose([np.array(stages)[:, 0] for stages in found.values()]), strict=True):
            slope = np.polyfit(np.log(list(found)), np.log(each), 1)[0]
            print(f"  {name}: {slope:.2f}")
    print(describe_machine())


def write_images(folder: Path, *, count: int, side: int) -> None:
    """Parquet shards of images that are blocks of random colours, so that all differ and a PNG file is small."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, SHARD)):
        size = min(SHARD, count - start)
        files = []
        for colours in generator.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8):
            image = PIL.Image.fromarray(colours).resize((side, side), PIL.Image.Resampling.NEAREST)
            image.save(buffer := BytesIO(), format="PNG")
            files.append(buffer.getvalue())
        labels = [f"class {label}" for label in generator.integers(0, CLASSES, size)]
        table = pa.table({"image": pa.array(files, pa.binary()), "label": labels})
        pq.write_table(table, folder / f"train-{number:05}.parquet")


def run_stages(folder: Path, *, side: int) -> list[tuple[float, float]]:
    """Seconds, and megabytes of the peak of the process so far, of each stage."""
    labels = [f"class {label}" for label in range(CLASSES)]
    options = find_family("cnn").recipe_options(image_size=side)
    _, processor = build_model("cnn", labels=labels, options=options)
    found = []

    def measure(work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = work()
        found.append((time.perf_counter() - start, peak_megabytes()))
        return result

    print(f"before: {peak_megabytes():,.0f} MB", file=sys.stderr)
    for again in (False, True):
        images = measure(lambda: load_images(DataArguments(dataset=str(folder / "data")), seed=0))
        splits = measure(lambda: images.decode("train", "validation", "test", processor=processor))  # noqa: B023
        if not again:
            measure(lambda: run_epoch(splits, processor))  # noqa: B023
    return found


def run_epoch(splits: Splits, processor: BaseImageProcessor) -> None:
    """Every training image once, in an order of its own, cropped and mirrored as for SimpleCNN."""
    batches = ImageBatches(splits.part("train"), processor=processor, augment={})
    order = np.random.default_rng(0).permutation(len(batches))
    for start in range(0, len(order), BATCH):
        batches.__getitems__(order[start : start + BATCH].tolist())


def peak_megabytes() -> float:
    """The peak of the resident set of this process."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
