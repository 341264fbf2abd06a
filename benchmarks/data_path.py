"""Compare the speed of batches from images in memory with `with_transform`, image by image, at 32 x 32 and 224 x 224.

python benchmarks/data_path.py        # two minutes on two CPU cores
"""

from __future__ import annotations

import datasets
import numpy as np
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, image_by_image, make_parser, measure

from hfprobe.data.pixels.store import ImageBatches
from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory

BATCH_SIZE = 128


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=1280)
    arguments = parser.parse_args()
    keep_freed_memory()
    split = draw_split(arguments.images, seed=0)
    rows = datasets.Dataset.from_dict(
        {"image": list(split.images), "labels": split.labels},
        features=datasets.Features({"image": datasets.Image(), "labels": datasets.Value("int64")}),
    )
    processors = {
        32: build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())[1],
        224: build_model(
            "vit", labels=list("abcde"), options=find_family("vit").recipe_options(backbone_weights="random")
        )[1],
    }
    print(describe_machine())
    for side, processor in processors.items():
        resident = ImageBatches(split, processor=processor, augment={})
        per_image = rows.with_transform(image_by_image(processor, side))
        ways = {
            "with_transform": lambda loaded=per_image: read(loaded, torch.utils.data.default_collate),
            "resident": lambda loaded=resident: read(loaded, lambda batch: batch),
        }
        seconds = measure(ways, rounds=arguments.rounds)
        rates = {name: arguments.images / np.median(values) for name, values in seconds.items()}
        print(f"{side} x {side}: " + ", ".join(f"{name} {rate:,.0f} images/s" for name, rate in rates.items()))
        print(f"resident / with_transform: {describe_ratio(seconds['with_transform'], seconds['resident'])}")


def read(dataset, collate) -> None:
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collate)
    for _ in loader:
        pass


if __name__ == "__main__":
    main()
