"""Decode a folder of large photographs: images per second beside `Dataset.map` with as many processes, and memory.

python benchmarks/photographs.py                     # 5 rounds of 100 photographs of 4,000 x 3,000 pixels
python benchmarks/photographs.py --width 500 --image_size 224 --images 2000
python benchmarks/photographs.py --memory 5000       # the memory of the process while it decodes 5,000 of them
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
from side_by_side import describe_machine, describe_ratio, make_parser, measure

from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.system.machine import count_cores

DISTINCT = 20  # photographs; the others are links to the same files
CLASSES = ("cat", "dog")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=100, help="photographs per round; default: 100")
    parser.add_argument("--width", type=int, default=4000, help="in pixels, of which the height is 3/4; default: 4000")
    parser.add_argument("--image_size", type=int, default=64, help="of the model, in pixels; default: 64")
    parser.add_argument(
        "--memory", type=int, metavar="N", help="decode N photographs once and print the memory instead"
    )
    arguments = parser.parse_args()
    options = find_family("cnn").recipe_options(image_size=arguments.image_size)
    processor = build_model("cnn", labels=list(CLASSES), options=options)[1]
    with tempfile.TemporaryDirectory() as folder:
        cache.cache_folder = lambda: Path(folder) / "cache"
        count = arguments.memory or arguments.images
        photographs = write_photographs(Path(folder) / "photos", count=count, width=arguments.width)
        images = load_images(DataArguments(dataset=str(photographs)), seed=0, whole=True)
        if arguments.memory:
            watch_memory(lambda: images.decode("all", processor=processor))
            return
        rows = images.parts["all"].cast_column("image", datasets.Image())
        rounds = iter(range(10**6))

        def hfprobe() -> None:
            cache.cache_folder = lambda: Path(folder) / f"cache{next(rounds)}"
            images.decode("all", processor=processor)

        def by_map() -> None:
            datasets.disable_caching()
            datasets.disable_progress_bars()
            rows.map(
                lambda row: {"pixels": np.asarray(processor(row["image"], do_normalize=False).pixel_values[0])},
                remove_columns=rows.column_names,
                num_proc=count_cores(),
            )

        seconds = measure({"hfprobe": hfprobe, "Dataset.map": by_map}, rounds=arguments.rounds)
    size = f"{arguments.width:,} x {arguments.width * 3 // 4:,}"
    print(f"\n{arguments.images} photographs of {size} pixels, {count_cores()} processes; {describe_machine()}")
    for name, values in seconds.items():
        print(f"{name}: {arguments.images / np.median(values):.1f} images/s")
    print(f"hfprobe / Dataset.map, speed: {describe_ratio(seconds['Dataset.map'], seconds['hfprobe'])}")


def write_photographs(folder: Path, *, count: int, width: int = 4000) -> Path:
    """`count` JPEG files in one folder per class: smooth noise, about 3 MB at 4,000 x 3,000 pixels."""
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    originals = []
    for number in range(min(DISTINCT, count)):
        small = PIL.Image.fromarray(generator.integers(0, 255, (300, 400, 3), dtype=np.uint8))
        originals.append(folder / CLASSES[number % 2] / f"{number:05}.jpg")
        small.resize((width, width * 3 // 4), PIL.Image.Resampling.BICUBIC).save(originals[-1], quality=90)
    for number in range(len(originals), count):
        os.link(originals[number % DISTINCT], folder / CLASSES[number % 2] / f"{number:05}.jpg")
    return folder


def watch_memory(work) -> None:
    """Print the resident set of this process each ten seconds while `work` runs."""
    done = threading.Event()
    start, found = time.monotonic(), []

    def watch() -> None:
        while not done.wait(10):
            status = Path("/proc/self/status").read_text()
            found.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
            print(f"{time.monotonic() - start:4.0f} s: {found[-1]:,.0f} MB", flush=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    half = len(found) // 2
    print(f"first half at most {max(found[:half]):,.0f} MB, second half at most {max(found[half:]):,.0f} MB")


if __name__ == "__main__":
    main()
