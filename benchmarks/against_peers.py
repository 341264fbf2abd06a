"""Compare one epoch of SimpleCNN in hfprobe, in a plain HF Trainer and in a plain PyTorch loop.

    python benchmarks/against_peers.py        # ten minutes on two CPU cores

Network, images, batch size, optimizer and number of epochs are the same. The plain HF Trainer uses `with_transform`
with torchvision's transforms, image by image. The plain PyTorch loop uses a DataLoader with torchvision's transforms on
PIL images. Each of the two first tries 0 and 2 workers and keeps the faster setting. Both run with the default settings
of the memory allocator, as they would outside this benchmark.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial

import datasets
import numpy as np
import PIL.Image
import torch
import transformers
from side_by_side import (
    default_memory,
    describe_machine,
    describe_ratio,
    draw_split,
    image_by_image,
    make_parser,
    measure,
)
from train_step import LABELS, make_trainer

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core

BATCH_SIZE = 128
WORKERS = (0, 2)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=2560)
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    split = draw_split(arguments.images, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        ours = make_trainer(split, folder=folder)
        peers = {
            "plain Trainer": at_its_best(partial(plain_trainer, split, folder)),
            "plain loop": at_its_best(partial(plain_loop, split)),
        }

        def hfprobe() -> None:
            keep_freed_memory()
            ours.train()

        seconds = measure({"hfprobe": hfprobe, **peers}, rounds=arguments.rounds)
    print(f"\nSimpleCNN, {arguments.images} images, batches of {BATCH_SIZE}, one epoch; {describe_machine()}")
    for name in peers:
        print(f"hfprobe / {name}, speed: {describe_ratio(seconds[name], seconds['hfprobe'])}")
    for name, values in seconds.items():
        print(f"{name}: {arguments.images / np.median(values):.0f} images/s")


def at_its_best(make):
    """Return the baseline with the number of workers that is faster in one epoch."""
    default_memory()
    tried = {}
    for workers in WORKERS:
        way = make(workers)
        start = time.perf_counter()
        way()
        tried[time.perf_counter() - start] = (workers, way)
    workers, way = tried[min(tried)]
    print(f"{make.func.__name__}: best with {workers} workers")

    def run() -> None:
        default_memory()
        way()

    return run


def plain_trainer(split: ImageSplit, folder: str, workers: int):
    model, processor = build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options())
    rows = datasets.Dataset.from_dict(
        {"image": list(split.images), "labels": split.labels},
        features=datasets.Features({"image": datasets.Image(), "labels": datasets.Value("int64")}),
    )
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            dataloader_num_workers=workers,
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows.with_transform(image_by_image(processor, side=32)),
    )
    return trainer.train


def plain_loop(split: ImageSplit, workers: int):
    model, processor = build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    loader = torch.utils.data.DataLoader(
        ImageDataset(split, image_by_image(processor, side=32)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
    )

    def run() -> None:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for batch in loader:
            optimizer.zero_grad()
            model(**{name: value.to(device) for name, value in batch.items()}).loss.backward()
            optimizer.step()

    return run


class ImageDataset(torch.utils.data.Dataset):
    """PIL images in memory, transformed one by one, as in torchvision's CIFAR10 class."""

    def __init__(self, split: ImageSplit, transform):
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict:
        image = PIL.Image.fromarray(self.split.images[position])
        transformed = self.transform({"image": [image], "labels": [self.split.labels[position]]})
        return {"pixel_values": transformed["pixel_values"][0], "labels": transformed["labels"][0]}


if __name__ == "__main__":
    main()
