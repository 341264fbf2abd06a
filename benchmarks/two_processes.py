"""Compare two processes with one thread each with one such process, on work that the processes of a run share.

    python benchmarks/two_processes.py extraction --backbone vit_tiny_patch16_224 --count 640   # random weights
    python benchmarks/two_processes.py head --count 20000 --features 1280       # solved for one penalty
    python benchmarks/two_processes.py decoding --count 80                      # photographs of 4,000 x 3,000 pixels
    python benchmarks/two_processes.py evaluation --count 2560                  # of SimpleCNN during training

The processes are started once; what is measured is the work alone, into an empty cache. A machine that does other work
at the same time has no two free cores: see its load average. The CPU time of the processes, which does not count what
they wait for, depends less on other work: its ratio is the speed that two free cores would allow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from photographs import write_photographs
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure
from train_step import ADAMW, make_trainer

from hfprobe.data import cache
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels import reading
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import FeatureSplit, extract_features
from hfprobe.models.linear_probe.head import refit_head
from hfprobe.system import ranks
from hfprobe.system.machine import keep_freed_memory

Work = Callable[[], np.ndarray]
LABELS = list("abcde")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--count", type=int, required=True, help="images, or rows of features")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224", help="default: vit_tiny_patch16_224")
    parser.add_argument("--features", type=int, default=1280, help="per row; default: 1280")
    parser.add_argument("--penalty", type=float, default=1e-3, help="of the head; default: 0.001")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    with tempfile.TemporaryDirectory() as folder:
        if arguments.work == "head":
            write_features(Path(folder, "features.npy"), arguments)  # here, so that a crew's memory is that of its work
        crews = {count: Crew(count, Path(folder, str(count)), arguments) for count in (1, 2)}
        seconds = measure({f"{count} of 1 thread": crew.work for count, crew in crews.items()}, rounds=arguments.rounds)
        for crew in crews.values():
            crew.end()
    one, two = seconds.values()
    size = f", {arguments.features} features" if arguments.work == "head" else ""
    print(f"\n{arguments.work}, {arguments.count}{size}; {describe_machine()}")
    print(f"speed of two processes relative to one: {describe_ratio(one, two)}")
    loads = [np.array(crew.cpu_seconds[1:]) for crew in crews.values()]  # without the one that is not measured
    print(f"CPU time of one process relative to the busier one of two: {describe_ratio(*loads)}")
    print(f"largest difference of the results: {np.abs(crews[1].answer.found - crews[2].answer.found).max():.3g}")
    memory = " and ".join(f"{crew.answer.megabytes:.0f} MB (of {count})" for count, crew in crews.items())
    print(f"growth of the peak memory of a process by the work: {memory}")


@dataclass(frozen=True, eq=False)
class Answer:
    """What one process has done.

    Attributes:
        found: the result; of the first process alone.
        cpu_seconds: CPU time of the work.
        megabytes: growth of the peak memory since before the first work.
    """

    found: np.ndarray
    cpu_seconds: float
    megabytes: float


class Crew:
    """Processes of one thread each, which do the same work together when they are asked to.

    Attributes:
        answer: of the first process to the last work.
        cpu_seconds: of the process that took the most, for each work.
    """

    answer: Answer

    def __init__(self, count: int, folder: Path, arguments: argparse.Namespace):
        folder.mkdir()
        self.cpu_seconds: list[float] = []
        spawn = multiprocessing.get_context("spawn")
        pairs = [spawn.Pipe() for _ in range(count)]
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self._pipes = [ours for ours, _ in pairs]
        for rank, (_, theirs) in enumerate(pairs):
            place: dict[str, object] = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": count,
                "LOCAL_WORLD_SIZE": count,
            }
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            spawn.Process(target=serve, args=(place, folder, arguments, theirs), daemon=True).start()
            theirs.close()  # so that a process that ends is noticed

    def work(self) -> None:
        for pipe in self._pipes:
            pipe.send(True)
        answers: list[Answer] = [pipe.recv() for pipe in self._pipes]
        self.answer = answers[0]
        self.cpu_seconds.append(max(answer.cpu_seconds for answer in answers))

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send(False)


def serve(place: dict[str, object], folder: Path, arguments: argparse.Namespace, pipe: Connection) -> None:
    """Do the work whenever asked to."""
    keep_freed_memory()
    torch.set_num_threads(1)
    count = int(str(place["WORLD_SIZE"]))
    if count > 1:
        os.environ.update({name: str(value) for name, value in place.items()})
        torch.distributed.init_process_group("gloo")
    reading.count_cores = lambda: count  # one thread in each process
    cache.cache_folder = lambda: folder / "cache"
    torch.manual_seed(0)
    work = WORKS[arguments.work](folder, arguments)
    before = peak_megabytes()
    while pipe.recv():
        ranks.from_first(lambda: shutil.rmtree(folder / "cache", ignore_errors=True))
        start = time.process_time()
        found = work()
        seconds = time.process_time() - start
        pipe.send(
            Answer(
                found if place["RANK"] == 0 else found[:0],
                seconds,
                peak_megabytes() - before,
            )
        )


def peak_megabytes() -> float:
    """The peak memory of this process; the one of getrusage is at least that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def extraction(folder: Path, arguments: argparse.Namespace) -> Work:
    options = find_family("probe").recipe_options(backbone=arguments.backbone, backbone_weights="random")
    model, processor = build_model("probe", labels=LABELS, options=options)
    model.to(memory_format=torch.channels_last)
    split = draw_split(arguments.count, seed=0)
    return lambda: np.array(extract_features(model=model, processor=processor, split=split).features)


def head(folder: Path, arguments: argparse.Namespace) -> Work:
    features, labels = folder.parent / "features.npy", LABELS
    answers = np.arange(arguments.count) % len(labels)
    train, validation = (
        FeatureSplit(np.load(features, mmap_mode="r")[None, rows], answers[rows])
        for rows in (slice(None, -len(labels)), slice(-len(labels), None))
    )
    return lambda: refit_head(train, validation, classes=len(labels), penalty=arguments.penalty)[0]


def write_features(path: Path, arguments: argparse.Namespace) -> None:
    """Correlated features of overlapping classes, as those of a backbone are."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(arguments.count, 200))
    hidden += 0.25 * generator.normal(size=(len(LABELS), 200))[np.arange(arguments.count) % len(LABELS)]
    values = hidden @ generator.normal(size=(200, arguments.features)) / 14
    np.save(path, (values + 0.3 * generator.normal(size=values.shape)).astype(np.float32))


def decoding(folder: Path, arguments: argparse.Namespace) -> Work:
    processor = build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options(image_size=64))[1]
    photographs = folder / "photographs"
    ranks.from_first(lambda: write_photographs(photographs, count=arguments.count))
    images = load_images(DataArguments(dataset=str(photographs)), seed=0, whole=True)
    return lambda: np.array(images.decode("all", processor=processor).part("all").images).astype(int)


def evaluation(folder: Path, arguments: argparse.Namespace) -> Work:
    trainer = make_trainer(draw_split(128, seed=1), folder=str(folder), **ADAMW, use_cpu=True)
    images = ImageBatches(draw_split(arguments.count, seed=0), processor=trainer.processing_class)
    return lambda: trainer.predict(images).predictions


WORKS: dict[str, Callable[[Path, argparse.Namespace], Work]] = {
    work.__name__: work for work in (extraction, head, decoding, evaluation)
}


if __name__ == "__main__":
    main()
