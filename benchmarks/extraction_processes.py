"""Compare two processes with one thread each with one such process: extraction of features, and the same features.

    python benchmarks/extraction_processes.py                                          # ViT-Tiny with random weights
    python benchmarks/extraction_processes.py --backbone tf_efficientnet_lite0

The processes are started once; what is measured is the extraction alone, into an empty cache. A machine that does other
work at the same time has no two free cores: see its load average.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure

from hfprobe.data import cache
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import extract_features
from hfprobe.system import ranks
from hfprobe.system.machine import keep_freed_memory


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224", help="default: vit_tiny_patch16_224")
    parser.add_argument("--images", type=int, default=640, help="default: 640")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    with tempfile.TemporaryDirectory() as folder:
        crews = {
            count: Crew(count, Path(folder, str(count)), backbone=arguments.backbone, images=arguments.images)
            for count in (1, 2)
        }
        seconds = measure(
            {f"{count} of 1 thread": crew.extract for count, crew in crews.items()}, rounds=arguments.rounds
        )
        for crew in crews.values():
            crew.end()
    one, two = seconds.values()
    are_equal = crews[1].features == crews[2].features
    print(f"\n{arguments.backbone}, {arguments.images} images; {describe_machine()}")
    print(f"speed of two processes relative to one: {describe_ratio(one, two)}")
    print(f"features: {'bit-equal' if are_equal else 'they differ'}")


class Crew:
    """Processes of one thread each, which extract the same features together when they are asked to.

    Attributes:
        features: SHA-256 of the features of the last extraction.
    """

    def __init__(self, count: int, folder: Path, *, backbone: str, images: int):
        folder.mkdir()
        spawn = multiprocessing.get_context("spawn")
        pairs = [spawn.Pipe() for _ in range(count)]
        self.features = ""
        self._pipes = [ours for ours, _ in pairs]
        for rank, (_, theirs) in enumerate(pairs):
            spawn.Process(target=work, args=(rank, count, folder, backbone, images, theirs), daemon=True).start()
            theirs.close()  # so that a process that ends is noticed

    def extract(self) -> None:
        for pipe in self._pipes:
            pipe.send(True)
        self.features, *_ = [pipe.recv() for pipe in self._pipes]

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send(False)


def work(rank: int, count: int, folder: Path, backbone: str, images: int, pipe: Connection) -> None:
    """Extract features whenever asked to, and answer with their SHA-256."""
    keep_freed_memory()
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=count)
    cache.cache_folder = lambda: folder / "cache"
    torch.manual_seed(0)
    options = find_family("probe").recipe_options(backbone=backbone, backbone_weights="random")
    model, processor = build_model("probe", labels=list("abcde"), options=options)
    model.to(memory_format=torch.channels_last)
    split = draw_split(images, seed=0)
    while pipe.recv():
        ranks.from_first(lambda: shutil.rmtree(folder / "cache", ignore_errors=True))
        found = extract_features(model=model, processor=processor, split=split)
        pipe.send(hashlib.sha256(found.features.tobytes()).hexdigest())


if __name__ == "__main__":
    main()
